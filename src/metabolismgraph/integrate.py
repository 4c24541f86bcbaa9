"""Rollouts: the model's equation integrated over time by explicit Euler steps."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metabolismgraph.kinetics import Structure
from metabolismgraph.model import MetabolismModel

RateEquation = Callable[[Float[Array, "*batch species"]], Float[Array, "*batch species"]]


def euler(
    rate: RateEquation, c: Float[Array, "*batch species"], dt: Float[Array, " steps *batch"]
) -> Float[Array, "steps *batch species"]:
    """States after each explicit Euler step from `c`, clamped at zero as concentrations are.

    Args:
        rate: dc/dt, in concentration per time.
        c: initial states.
        dt: length of every step, in time units; may differ between steps and batch members.
    """

    def step(c: Float[Array, "*batch species"], dt: Float[Array, "*batch"]) -> tuple[Array, Array]:
        c = jnp.maximum(c + dt[..., None] * rate(c), 0.0)
        return c, c

    return jax.lax.scan(step, c, dt)[1]


def heun(
    rate: RateEquation, c: Float[Array, "*batch species"], dt: Float[Array, " steps *batch"]
) -> Float[Array, "steps *batch species"]:
    """As `euler`, by Heun's method (explicit trapezoid rule, second order)."""

    def step(c: Float[Array, "*batch species"], dt: Float[Array, "*batch"]) -> tuple[Array, Array]:
        first = rate(c)
        ahead = jnp.maximum(c + dt[..., None] * first, 0.0)
        c = jnp.maximum(c + dt[..., None] * (first + rate(ahead)) / 2, 0.0)
        return c, c

    return jax.lax.scan(step, c, dt)[1]


@eqx.filter_jit
def rollout(
    model: MetabolismModel,
    structure: Structure,
    c: Float[Array, "*batch species"],
    dt: Float[Array, " steps *batch"],
    *,
    trapezoid: bool = False,
) -> Float[Array, "steps *batch species"]:
    """Trajectories of a model; see `euler` and `heun`. Fixed species keep their concentration."""
    return (heun if trapezoid else euler)(lambda x: model(x, structure), c, dt)


@eqx.filter_jit
def mean_rate(
    rate: RateEquation,
    start: Float[Array, "*batch species"],
    end: Float[Array, "*batch species"],
    *,
    trapezoid: bool,
) -> Float[Array, "*batch species"]:
    """dc/dt over a step: at its start (forward rule), or the mean of both ends (trapezoid rule).

    Args:
        rate: a function or, so that one compilation serves all models of a shape, an `eqx.Partial` of
            a model and its structure.
    """
    return (rate(start) + rate(end)) / 2 if trapezoid else rate(start)
