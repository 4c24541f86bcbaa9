"""Strategy 9: orthogonalised residual."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from metabolismgraph.integrate import evaluate_rate
from metabolismgraph.train.evidence import Evidence, Setting
from metabolismgraph.train.gauss_newton import Spline, learn_spline
from metabolismgraph.train.plan import Plan
from metabolismgraph.train.progress import silent
from metabolismgraph.train.rollout import FrozenReactions
from metabolismgraph.train.settle import settle
from metabolismgraph.train.solution import noise_variance
from metabolismgraph.train.strategies.base import Part, Strategy
from metabolismgraph.train.strategies.residual import Residual


class Orthogonalised(Strategy):
    """Residual supervision, after what the frozen parameters could explain has been projected out.

    Copies of rate constants and rate law, started at the checkpoint's, are corrected by Gauss-Newton
    together with a line of homeostasis per species; the residual is taken from the copies.
    """

    number: ClassVar = 9
    summary: ClassVar = "residual supervision, free of what errors of the checkpoint could explain"
    reference: ClassVar = "Frisch & Waugh 1933; Chernozhukov et al. 2018 (orthogonal estimation)"
    sets: ClassVar[frozenset[Part]] = frozenset({"evidence"})

    iterations: int = Field(100, ge=1, description="Gauss-Newton steps at most; it stops when converged")
    tolerance: float = Field(1e-3, gt=0, lt=1, description="converged when a step lowers the loss by a smaller share")

    def apply(self, plan: Plan, setting: Setting) -> Plan:
        mended = mend(setting, iterations=self.iterations, tolerance=self.tolerance)
        return Residual().apply(dataclasses.replace(plan, evidence=mended.evidence), setting)


class Mended(NamedTuple):
    """A checkpoint's reactions, corrected on copies, and what they leave of dc/dt."""

    reactions: FrozenReactions
    evidence: Evidence


def mend(setting: Setting, *, iterations: int = 100, tolerance: float = 1e-3) -> Mended:
    """Correct copies of a checkpoint's rate constants and rate law, beside a line of homeostasis per species.

    Args:
        iterations: Gauss-Newton steps at most.
        tolerance: it stops when a step lowers the loss by a smaller share.

    Raises:
        InputError: the observations are too few for the network.
    """
    training = setting.training
    settled = settle(
        setting.observations,
        setting.graph_model,
        training,
        start=lambda _, problem: Spline.through(setting.phase1.mlp_sub, problem),
        learn=lambda f, problem: learn_spline(
            f, problem, max_iterations=iterations, tolerance=tolerance, progress=silent
        ),
    )
    data, keep = settled.data, settled.keep
    fitted = data.linear_model(settled.f, keep, settled.weight).solve()
    line = data.homeostatic_lines(fitted.theta)
    errors = np.sqrt(np.maximum(np.einsum("ipp->ip", data.line_covariance(fitted.theta_covariance)), 0.0))
    copies = FrozenReactions.of(
        settled.f,
        fitted.k,
        setting.structure,
        setting.graph_model.aggr_type,
        setting.observations.concentration,
    )
    rates = np.asarray(evaluate_rate(eqx.Partial(copies), jnp.asarray(setting.observations.concentration)))
    evidence = Evidence(
        at=data.quadrature.mean(setting.observations.concentration),
        residual=data.transitions.derivative - data.quadrature.mean(rates),
        keep=keep & setting.moving,
        noise=np.sqrt(noise_variance(settled.left, keep, data.signal)),
        slope=line[:, 1],
        offset=line[:, 0],
        slope_error=errors[:, 1],
        offset_error=errors[:, 0],
    )
    return Mended(copies, evidence)
