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
    rate: RateEquation, c: Float[Array, "*batch species"], dt: Float[Array, "steps *batch"]
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


@eqx.filter_jit
def rollout(
    model: MetabolismModel,
    structure: Structure,
    c: Float[Array, "*batch species"],
    dt: Float[Array, "steps *batch"],
) -> Float[Array, "steps *batch species"]:
    """Trajectories of a model; see `euler`. Fixed species keep their concentration."""
    moves = jnp.any(structure.stoichiometry != 0, axis=1) | True
    return euler(lambda x: jnp.where(moves, model(x, structure), 0.0), c, dt)
