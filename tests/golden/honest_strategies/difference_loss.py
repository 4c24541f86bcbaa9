"""Regression of MLP_node on differences of the residual between frames."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import Field

from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.rollouts import NodeTable
from metabolismgraph.homeostasis.strategies.base import Part, Strategy
from metabolismgraph.homeostasis.training_plan import Loss, Objective, Plan, Schedule
from metabolismgraph.system.model import MetabolismModel


class Frames(NamedTuple):
    """Entries of the residual by transition.

    Attributes:
        c: concentrations.
        residual: dc/dt minus reactions.
        keep: 1 for entries in use.
    """

    c: Float[Array, "transitions species"]
    residual: Float[Array, "transitions species"]
    keep: Float[Array, "transitions species"]


class Differences(Objective):
    """Squared error of levels and of differences between two random frames.

    A difference is free of errors of the checkpoint that are constant in time.
    """

    frames: Frames
    highest: Float[Array, " species"]
    scale: Float[Array, ""]
    mix: Float[Array, ""]
    batch: int = eqx.field(static=True)

    @property
    def unit(self) -> str:
        return "(concentration/time)²"

    def __call__(self, model: MetabolismModel, key: PRNGKeyArray, share: Float[Array, ""]) -> Loss:
        del share
        n = len(self.frames.c)
        i, j = jax.random.randint(key, (2, self.batch), 0, n)
        node = NodeTable.of(model, self.highest)

        def error(index: Array) -> Array:
            return node(self.frames.c[index]) - self.frames.residual[index]

        both = self.frames.keep[i] * self.frames.keep[j]
        left, right = error(i), error(j)
        difference = jnp.sum(both * (left - right) ** 2) / jnp.maximum(jnp.sum(both), 1.0) / 2.0
        level = jnp.sum(both * left**2) / jnp.maximum(jnp.sum(both), 1.0)
        value = self.mix * difference + (1.0 - self.mix) * level
        return Loss(value / self.scale, level, {"difference": difference, "level": level})


class DifferenceLoss(Strategy):
    """Mostly compare differences of the response between frames, which hide constant errors of the reactions."""

    number: ClassVar = 18
    summary: ClassVar = "match differences of the residual between random frames"
    reference: ClassVar = "Wooldridge 2010 (first-difference estimators)"
    sets: ClassVar[frozenset[Part]] = frozenset({"objective"})
    adjusts: ClassVar[frozenset[Part]] = frozenset({"schedule", "embeddings_wait"})
    draws_minibatches: ClassVar[bool] = True

    mix: float = Field(0.8, ge=0, le=1, description="share of the differences in the loss; the rest are levels")
    pairs: int = Field(64, ge=1, description="pairs of frames per batch_size")

    def apply(self, plan: Plan, data: Phase2Data) -> Plan:
        r = plan.residuals
        objective = Differences(
            frames=Frames(*(jnp.asarray(x, dtype=float) for x in (r.at, r.residual, r.keep))),
            highest=jnp.asarray(data.highest),
            scale=jnp.asarray(r.unit**2),
            mix=jnp.asarray(self.mix),
            batch=int(np.clip(self.pairs * data.training.batch_size, 16, 4096)),
        )
        schedule = dataclasses.replace(Schedule("onecycle"), embeddings_wait=0.3)
        return dataclasses.replace(plan, objective=objective, schedule=schedule)
