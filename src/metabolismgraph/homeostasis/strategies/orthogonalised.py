"""Strategy 9: orthogonalised residual."""

from __future__ import annotations

import functools
from typing import ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from metabolismgraph.homeostasis.residuals import Phase2Data, Residuals
from metabolismgraph.homeostasis.strategies.base import Part, Strategy
from metabolismgraph.homeostasis.strategies.residual import Residual
from metabolismgraph.homeostasis.training_plan import Plan
from metabolismgraph.reactions.gauss_newton import Spline, learn_spline
from metabolismgraph.reactions.reweighting import fit_reweighted
from metabolismgraph.reactions.uncertainty import noise_variance
from metabolismgraph.system.progress import Progress, silent
from metabolismgraph.system.tabulated_reactions import TabulatedReactions


class Orthogonalised(Strategy):
    """Residual supervision, after projection of everything that errors of the frozen parameters could explain.

    Copies of rate constants and rate law are corrected by Gauss-Newton steps from the checkpoint, together
    with a line of homeostasis per species. The residual is that of the corrected copies.
    """

    number: ClassVar = 9
    summary: ClassVar = "residual supervision, after projection of errors of the checkpoint"
    reference: ClassVar = "Frisch & Waugh 1933; Chernozhukov et al. 2018 (orthogonal estimation)"
    sets: ClassVar[frozenset[Part]] = frozenset({"residuals"})
    adjusts: ClassVar[frozenset[Part]] = Residual.adjusts | Residual.sets

    iterations: int = Field(100, ge=1, description="largest number of Gauss-Newton steps")
    tolerance: float = Field(1e-3, gt=0, lt=1, description="converged if a step reduces the loss by a smaller share")

    def apply(self, plan: Plan, data: Phase2Data) -> Plan:
        return Residual().apply(plan, data)

    def find_residuals(self, data: Phase2Data, progress: Progress) -> Residuals:
        """The residuals of the corrected copies."""
        return refine_reactions(data, progress, iterations=self.iterations, tolerance=self.tolerance).residuals


class RefinedReactions(NamedTuple):
    """Corrected copies of the reactions of a checkpoint, and their residual of dc/dt."""

    reactions: TabulatedReactions
    residuals: Residuals


def refine_reactions(
    data: Phase2Data, progress: Progress = silent, *, iterations: int = 100, tolerance: float = 1e-3
) -> RefinedReactions:
    """Correct copies of rate constants and rate law of a checkpoint, with a line of homeostasis per species.

    Args:
        data: observations and checkpoint.
        progress: see `system.progress`.
        iterations: largest number of Gauss-Newton steps.
        tolerance: a step with a smaller relative decrease of the loss is the last.

    Raises:
        InputError: too few observations for the network.
    """
    reweighted = fit_reweighted(
        data.observations,
        *data.settings_of_copies(),
        start=lambda _, problem: Spline.through(data.phase1.mlp_sub, problem),
        learn=functools.partial(learn_spline, max_iterations=iterations, tolerance=tolerance, progress=progress),
    )
    rows, keep = reweighted.rows, reweighted.keep
    fitted = rows.linear_model(reweighted.f, keep, reweighted.weight).solve()
    lines = rows.lines_with_errors(fitted.theta, fitted.theta_covariance)
    c = data.observations.concentration
    copies = TabulatedReactions.of(reweighted.f, fitted.k, data.structure, data.graph_model.aggr_type, c)
    rates = copies(c)
    residuals = Residuals(
        at=rows.quadrature.mean(c),
        # Without the line: it contains homeostasis, which MLP_node is to learn.
        residual=rows.transitions.derivative - rows.quadrature.mean(rates),
        keep=keep & data.moving,
        noise=np.sqrt(noise_variance(reweighted.residual, keep, rows.signal)),
        slope=lines["slope"],
        offset=lines["offset"],
        slope_error=lines["slope_error"],
        offset_error=lines["offset_error"],
        slope_offset_covariance=lines["slope_offset_covariance"],
    )
    return RefinedReactions(copies, residuals)
