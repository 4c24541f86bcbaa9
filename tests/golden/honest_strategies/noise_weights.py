"""Weights of species from the noise of their residuals, by iteratively reweighted regression."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from pydantic import Field

from metabolismgraph.homeostasis.binned_regression import Points, Regress, condense, polish, start_from_line
from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.strategies.base import Part, Strategy
from metabolismgraph.homeostasis.training_plan import Plan, Schedule

Matrix = Float[np.ndarray, "transitions species"]


def unexplained(at: Matrix, residual: Matrix, keep: Bool[np.ndarray, "transitions species"]) -> np.ndarray:
    """Standard deviation of the residual around its own least-squares line, per species."""
    found = np.zeros(at.shape[1])
    for i in range(at.shape[1]):
        x, y = at[keep[:, i], i], residual[keep[:, i], i]
        if x.size < 3:
            continue
        slope, offset = np.polyfit(x, y, 1)
        found[i] = np.std(y - slope * x - offset)
    return found


def reweighted(points: Points, sigma: np.ndarray, floor: float) -> Points:
    typical = np.median(sigma[sigma > 0]) if (sigma > 0).any() else 1.0
    weight = 1.0 / (sigma / typical + floor) ** 2
    weight = weight / weight.mean()
    return points._replace(weight=points.weight * jnp.asarray(weight)[:, None])


class NoiseWeights(Strategy):
    """Species whose residual is well described by a line get larger weights in the regression."""

    number: ClassVar = 16
    summary: ClassVar = "residual regression with weights from the noise of every species"
    reference: ClassVar = "Carroll & Ruppert 1988 (transformation and weighting in regression)"
    sets: ClassVar[frozenset[Part]] = frozenset({"objective"})
    adjusts: ClassVar[frozenset[Part]] = frozenset({"steps", "schedule", "embeddings_wait", "start", "finish"})

    floor: float = Field(0.3, gt=0, le=10, description="least relative noise, which bounds the weights")

    def apply(self, plan: Plan, data: Phase2Data) -> Plan:
        res = plan.residuals
        sigma = unexplained(res.at, res.residual, res.keep)
        points = reweighted(condense(res), sigma, self.floor)
        note = f"noise_weights: weights of species between {sigma.min():.3g} and {sigma.max():.3g} of noise"
        return dataclasses.replace(
            plan,
            objective=Regress(points),
            steps=data.training.phase2_steps,
            schedule=Schedule("onecycle", embeddings_wait=0.4),
            start=partial(start_from_line, points=points),
            finish=partial(polish, points=points),
            notes=(*plan.notes, note),
        )
