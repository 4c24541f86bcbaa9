"""Rollouts compared by the negative log likelihood of Student's t."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import Field

from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.rollouts import NodeTable, rolled
from metabolismgraph.homeostasis.strategies.base import Part, Strategy
from metabolismgraph.homeostasis.training_plan import Loss, Objective, Plan, Rollouts
from metabolismgraph.system.model import MetabolismModel


class StudentRollouts(Objective):
    """-log t_nu of the errors along rollouts; heavy tails keep single diverging rollouts from dominating."""

    rollouts: Rollouts
    nu: Float[Array, ""]
    width: Float[Array, " species"]

    @property
    def unit(self) -> str:
        return "concentration²"

    def __call__(self, model: MetabolismModel, key: PRNGKeyArray, share: Float[Array, ""]) -> Loss:
        base = self.rollouts
        pick, lengths_key = jax.random.split(key)
        start = base.starts.draw(pick, base.batch)
        lengths = base.lengths(lengths_key, share, base.batch)
        number = jnp.arange(1, base.capacity + 1)[:, None]
        frame = jnp.minimum(start + number - 1, len(base.c) - 2)
        inside = (number <= lengths)[..., None] * jnp.cumprod(base.valid[frame], axis=0)
        elapsed = jnp.cumsum(base.dt[frame], axis=0)[..., None]
        node = NodeTable.of(model, base.highest).only(base.moving)
        states = rolled(node, base.reactions, base.c[start], base.dt[frame], jnp.max(lengths), base.scheme)
        error = states - base.c[frame + 1]
        z = error / (self.width * elapsed)
        nll = 0.5 * (self.nu + 1.0) * jnp.log1p(z**2 / self.nu)
        total = jnp.maximum(jnp.sum(inside), 1.0)
        misfit = jnp.sum(inside * error**2) / total
        return Loss(jnp.sum(inside * nll) / total, misfit, {"squared": misfit})


class StudentT(Strategy):
    """Replace the squared error of rollouts by the likelihood of Student's t distribution."""

    number: ClassVar = 13
    summary: ClassVar = "rollouts with the heavy-tailed likelihood of Student's t"
    reference: ClassVar = "Lange, Little & Taylor 1989 (robust modelling with the t distribution)"
    sets: ClassVar[frozenset[Part]] = frozenset({"objective"})
    draws_minibatches: ClassVar[bool] = True

    nu: float = Field(4.0, gt=0, le=100, description="degrees of freedom of Student's t")

    def apply(self, plan: Plan, data: Phase2Data) -> Plan:
        base = Rollouts.of(data)
        residual, keep = plan.residuals.residual, plan.residuals.keep
        count = jnp.maximum(jnp.asarray(keep).sum(axis=0), 1)
        rms = jnp.sqrt(jnp.sum(jnp.asarray(residual * keep) ** 2, axis=0) / count)
        width = jnp.maximum(rms, 0.1 * plan.residuals.unit)
        return dataclasses.replace(plan, objective=StudentRollouts(rollouts=base, nu=jnp.asarray(self.nu), width=width))
