"""Weak form with Fourier test functions on windows."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray
from pydantic import Field

from metabolismgraph.errors import InputError
from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.rollouts import NodeTable
from metabolismgraph.homeostasis.strategies.base import Part, Strategy
from metabolismgraph.homeostasis.training_plan import Loss, Objective, Plan, Schedule, Starts
from metabolismgraph.system.model import MetabolismModel


def test_functions(length: int, modes: int, taper: str) -> np.ndarray:
    """Cosines of the first modes on a window, multiplied by a taper; rows have unit norm."""
    t = (np.arange(length) + 0.5) / length
    window = np.hanning(length + 2)[1:-1] if taper == "hann" else np.ones(length)
    rows = [window]
    for k in range(1, modes):
        rows.append(window * np.cos(np.pi * k * t))
    table = np.array(rows)
    return table / np.linalg.norm(table, axis=1, keepdims=True)


class FourierWindows(Objective):
    """Projections of MLP_node and of the residual on test functions, compared on random windows."""

    c: Float[Array, "frames species"]
    residual: Float[Array, "frames species"]
    valid: Float[Array, "frames species"]
    highest: Float[Array, " species"]
    tests: Float[Array, "modes window"]
    starts: Starts
    offsets: Int[Array, " window"]
    scale: Float[Array, ""]
    batch: int = eqx.field(static=True)

    @property
    def unit(self) -> str:
        return "(concentration/time)²"

    def __call__(self, model: MetabolismModel, key: PRNGKeyArray, share: Float[Array, ""]) -> Loss:
        del share
        frames = self.starts.draw(key, self.batch)[:, None] + self.offsets
        node = NodeTable.of(model, self.highest)
        valid = jnp.min(self.valid[frames], axis=1)
        error = node(self.c[frames]) - self.residual[frames]
        coefficients = jnp.einsum("mw,bws->bms", self.tests, error) * valid[:, None, :]
        count = jnp.maximum(jnp.sum(valid) * len(self.tests), 1.0)
        misfit = jnp.sum(coefficients**2) / count
        return Loss(misfit / self.scale, misfit, {})


class Fourier(Strategy):
    """Compare low Fourier coefficients of response and residual over windows, which averages noise."""

    number: ClassVar = 19
    summary: ClassVar = "match low Fourier coefficients of the residual on windows"
    reference: ClassVar = "Messenger & Bortz 2021 (weak SINDy); Shinbrot 1957 (modulating functions)"
    sets: ClassVar[frozenset[Part]] = frozenset({"objective"})
    adjusts: ClassVar[frozenset[Part]] = frozenset({"schedule", "embeddings_wait"})
    draws_minibatches: ClassVar[bool] = True

    modes: int = Field(3, ge=1, le=8, description="number of test functions")
    window: int = Field(16, ge=4, le=64, description="frames of a window")
    taper: Literal["hann", "none"] = Field("hann", description="taper of the windows")

    def apply(self, plan: Plan, data: Phase2Data) -> Plan:
        longest = int(np.bincount(data.observations.run).max()) - 1
        length = min(self.window, longest)
        if length < self.modes:
            raise InputError(f"fourier: windows of {length} frames are too short for {self.modes} modes")
        r, frame = plan.residuals, data.transitions.frame
        full = {}
        for name, values in (("c", r.at), ("residual", r.residual), ("valid", r.keep)):
            column = np.zeros(data.observations.concentration.shape)
            column[frame] = values
            full[name] = jnp.asarray(column)
        tests = test_functions(length, self.modes, self.taper)
        projected = np.einsum("mw,ws->ms", tests, r.residual[:length] * r.keep[:length])
        scale = max(float(np.mean(projected**2)), r.unit**2)
        objective = FourierWindows(
            c=full["c"],
            residual=full["residual"],
            valid=full["valid"],
            highest=jnp.asarray(data.highest),
            tests=jnp.asarray(tests),
            starts=Starts.of(data.observations, length),
            offsets=jnp.arange(length),
            scale=jnp.asarray(scale),
            batch=data.training.batch_size,
        )
        return dataclasses.replace(plan, objective=objective, schedule=Schedule("onecycle", embeddings_wait=0.4))
