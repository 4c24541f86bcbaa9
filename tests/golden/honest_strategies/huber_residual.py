"""Robust regression of MLP_node on the residual with a Huber loss."""

from __future__ import annotations

import dataclasses
import functools
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import Field

from metabolismgraph.homeostasis.binned_regression import Points, condense, start_from_line
from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.strategies.base import Part, Strategy
from metabolismgraph.homeostasis.training_plan import Loss, Objective, Plan, Schedule
from metabolismgraph.system.model import MetabolismModel


class HuberRegression(Objective):
    """Huber loss between MLP_node and the binned residual.

    Attributes:
        points: binned residual of every species.
        delta: width of the quadratic zone per species, in units of points.unit.
    """

    points: Points
    delta: Float[Array, "species 1"]

    @property
    def unit(self) -> str:
        return "(concentration/time)²"

    def __call__(self, model: MetabolismModel, key: PRNGKeyArray, share: Float[Array, ""]) -> Loss:
        del key, share
        predicted = model.homeostasis(self.points.c.T).T / self.points.unit
        error = predicted - self.points.residual
        weight = self.points.weight / jnp.sum(self.points.weight)
        huber = optax.huber_loss(error / self.delta) * self.delta**2
        misfit = jnp.sum(weight * error**2)
        return Loss(2.0 * jnp.sum(weight * huber), misfit * self.points.unit**2, {"huber": jnp.sum(weight * huber)})


def _robust_scale(points: Points, factor: float) -> np.ndarray:
    """1.4826 times the median absolute deviation from the median of neighbouring bins, per species."""
    residual = np.asarray(points.residual)
    jumps = np.diff(residual, axis=1)
    mad = np.median(np.abs(jumps - np.median(jumps, axis=1, keepdims=True)), axis=1)
    scale = 1.4826 * mad / np.sqrt(2.0)
    return factor * np.maximum(scale, 1e-2)


class HuberResidual(Strategy):
    """Residual regression whose loss grows only linearly for outlying bins, so that bad frames weigh less."""

    number: ClassVar = 12
    summary: ClassVar = "regress MLP_node on the residual with a Huber loss"
    reference: ClassVar = "Huber 1964 (robust estimation of a location parameter)"
    sets: ClassVar[frozenset[Part]] = frozenset({"objective"})
    adjusts: ClassVar[frozenset[Part]] = frozenset({"steps", "schedule", "embeddings_wait", "start"})

    factor: float = Field(1.345, gt=0, le=10, description="width of the quadratic zone in robust standard deviations")
    wait: float = Field(0.4, ge=0, lt=1, description="share of the training during which embeddings are constant")

    def apply(self, plan: Plan, data: Phase2Data) -> Plan:
        points = condense(plan.residuals)
        delta = jnp.asarray(_robust_scale(points, self.factor))[:, None]
        return dataclasses.replace(
            plan,
            objective=HuberRegression(points=points, delta=delta),
            steps=max(plan.steps, data.training.phase2_steps),
            schedule=Schedule(kind="onecycle", embeddings_wait=self.wait),
            start=functools.partial(start_from_line, points=points),
        )
