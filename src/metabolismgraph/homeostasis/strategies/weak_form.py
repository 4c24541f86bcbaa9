"""Strategy 10: weak-form residual."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import Field

from metabolismgraph.errors import InputError
from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.rollouts import NodeTable
from metabolismgraph.homeostasis.strategies.base import Part, Strategy
from metabolismgraph.homeostasis.training_plan import CAPACITY, Loss, Objective, Plan, Schedule, Starts
from metabolismgraph.system.model import MetabolismModel

_SHORTEST = 3  # frames; with fewer, there is no weighted average


class Windows(Objective):
    """Weighted averages of MLP_node and of the residual, compared on random windows.

    Attributes:
        c, residual, valid: by frame: concentration, dc/dt minus reactions, 1 for an entry in use.
        starts: frames at which windows may begin.
        bump: weights of the frames of a window, padded with zeros.
        highest: see `NodeTable`.
        unit_rate: rms of the windowed residual, in concentration/time.
        batch: windows per gradient step.
    """

    c: Float[Array, "frames species"]
    residual: Float[Array, "frames species"]
    valid: Float[Array, "frames species"]
    starts: Starts
    bump: Float[Array, " window"]
    highest: Float[Array, " species"]
    unit_rate: Float[Array, ""]
    batch: int = eqx.field(static=True)

    @property
    def unit(self) -> str:
        return "(concentration/time)²"

    def __call__(self, model: MetabolismModel, key: PRNGKeyArray, share: Float[Array, ""]) -> Loss:
        del share
        start = self.starts.draw(key, self.batch)
        frames = jnp.minimum(start[:, None] + jnp.arange(len(self.bump)), len(self.c) - 1)
        node = NodeTable.of(model, self.highest)
        weight = self.bump[:, None] * self.valid[frames]
        error = jnp.sum(weight * (node(self.c[frames]) - self.residual[frames]), axis=1)
        total = jnp.sum(weight, axis=1)
        # The variance of a weighted sum grows with the total weight, by which each window is divided.
        misfit = jnp.sum((error**2) / jnp.maximum(total, 1e-12)) / jnp.maximum(jnp.sum(total), 1e-12)
        return Loss(misfit / self.unit_rate**2, misfit, {})


class WeakForm(Strategy):
    """Match averages over windows of homeostasis_time_step frames, weighted by bumps (1 - u^2)^p.

    By summation by parts, the average of dc/dt depends on concentrations times differences of the bump. Noise of
    the concentrations is therefore averaged, not amplified by differences in time.
    """

    number: ClassVar = 10
    summary: ClassVar = "match bump-weighted averages of the residual over windows of T frames"
    reference: ClassVar = "Messenger & Bortz 2021 (weak SINDy); Bortz et al. 2023 (WENDy)"
    sets: ClassVar[frozenset[Part]] = frozenset({"objective"})
    adjusts: ClassVar[frozenset[Part]] = frozenset({"schedule", "embeddings_wait"})
    draws_minibatches: ClassVar = True

    power: int = Field(4, ge=1, le=16, description="p of the bump (1 - u^2)^p")
    rate: float = Field(1.0, gt=0, description="factor on both learning rates")

    def apply(self, plan: Plan, data: Phase2Data) -> Plan:
        length = data.training.homeostasis_time_step
        if length < _SHORTEST:
            raise InputError(
                f"training.strategies: weak_form averages over homeostasis_time_step = {length} frames; "
                f"set it to {_SHORTEST} or more"
            )
        residuals, frame = plan.residuals, data.transitions.frame
        shape = data.observations.concentration.shape
        c, residual, valid = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        c[frame], residual[frame], valid[frame] = residuals.at, residuals.residual, residuals.keep
        # Interior points of [-1, 1]: the bump vanishes just outside the window.
        u = (2 * np.arange(1, length + 1) - length - 1) / (length + 1)
        objective = Windows(
            c=jnp.asarray(c),
            residual=jnp.asarray(residual),
            valid=jnp.asarray(valid),
            starts=Starts.of(data.observations, length),
            bump=jnp.asarray(np.pad((1 - u**2) ** self.power, (0, max(CAPACITY - length, 0)))),
            highest=jnp.asarray(data.highest),
            unit_rate=jnp.asarray(residuals.unit),
            batch=data.training.batch_size,
        )
        return dataclasses.replace(
            plan, objective=objective, schedule=Schedule("onecycle", peak=self.rate, embeddings_wait=0.4)
        )
