"""Penalties on the curvature of MLP_node and on response curves that are not monotone."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from pydantic import Field

from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.strategies.base import Part, Strategy
from metabolismgraph.homeostasis.training_plan import Penalty, Plan
from metabolismgraph.system.model import MetabolismModel

N_GRID = 12


class Shape(Penalty):
    """Second differences of every response curve, and the part of its slope that would not restore a level."""

    grid: Float[Array, "grid species"]
    unit: Float[Array, ""]
    curvature: Float[Array, ""]
    monotone: Float[Array, ""]

    @property
    def name(self) -> str:
        return "shape"

    def __call__(self, model: MetabolismModel) -> Float[Array, ""]:
        curves = model.homeostasis(self.grid) / self.unit
        first = jnp.diff(curves, axis=0)
        second = jnp.diff(curves, n=2, axis=0)
        bent = jnp.mean(second**2)
        rising = jnp.mean(jax.nn.relu(first) ** 2)
        return self.curvature * bent + self.monotone * rising


class Monotone(Strategy):
    """Homeostasis restores a level, so its response falls with concentration and is nearly straight."""

    number: ClassVar = 15
    summary: ClassVar = "penalise curvature and rising parts of the response curves"
    reference: ClassVar = "Green & Silverman 1994 (roughness penalties); Sill 1998 (monotonic networks)"
    adjusts: ClassVar[frozenset[Part]] = frozenset({"penalties"})

    curvature: float = Field(0.1, ge=0, description="weight of squared second differences")
    monotone: float = Field(0.1, ge=0, description="weight of squared positive first differences")

    def apply(self, plan: Plan, data: Phase2Data) -> Plan:
        at, keep = plan.residuals.at, plan.residuals.keep
        levels = np.linspace(0.02, 0.98, N_GRID)
        columns = []
        for i in range(at.shape[1]):
            values = at[keep[:, i], i]
            columns.append(np.quantile(values if values.size else at[:, i], levels))
        term = Shape(
            grid=jnp.asarray(np.stack(columns, axis=1)),
            unit=jnp.asarray(plan.residuals.unit),
            curvature=jnp.asarray(self.curvature),
            monotone=jnp.asarray(self.monotone),
        )
        return dataclasses.replace(plan, penalties=(*plan.penalties, term))
