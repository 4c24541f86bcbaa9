"""Rollouts: the rate equation of a model, integrated by explicit steps, one per frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metabolismgraph.system.derivative_rules import Rule

RateEquation = Callable[[Float[Array, "*batch species"]], Float[Array, "*batch species"]]
Step = Callable[[RateEquation, Float[Array, "*batch species"], Float[Array, "*batch"]], Float[Array, "*batch species"]]


def euler_step(
    rate: RateEquation, c: Float[Array, "*batch species"], dt: Float[Array, "*batch"]
) -> Float[Array, "*batch species"]:
    """One explicit Euler step (first order), clamped at zero."""
    return jnp.maximum(c + dt[..., None] * rate(c), 0.0)


def heun_step(
    rate: RateEquation, c: Float[Array, "*batch species"], dt: Float[Array, "*batch"]
) -> Float[Array, "*batch species"]:
    """One step of Heun's method (explicit trapezoid rule, second order)."""
    first = rate(c)
    ahead = jnp.maximum(c + dt[..., None] * first, 0.0)
    return jnp.maximum(c + dt[..., None] * (first + rate(ahead)) / 2, 0.0)


def runge_kutta_step(
    rate: RateEquation, c: Float[Array, "*batch species"], dt: Float[Array, "*batch"]
) -> Float[Array, "*batch species"]:
    """One step of the classical Runge-Kutta method (Kutta 1901, fourth order)."""
    step = dt[..., None]

    def ahead(by: float, slope: Float[Array, "*batch species"]) -> Float[Array, "*batch species"]:
        return jnp.maximum(c + by * step * slope, 0.0)

    first = rate(c)
    second = rate(ahead(0.5, first))
    third = rate(ahead(0.5, second))
    fourth = rate(ahead(1.0, third))
    return ahead(1.0, (first + 2 * second + 2 * third + fourth) / 6)


# For each rule for dc/dt, the explicit method of the same order.
STEPS: Mapping[Rule, Step] = {"forward": euler_step, "trapezoid": heun_step, "cubic": runge_kutta_step}


def integrate(
    rate: RateEquation, c: Float[Array, "*batch species"], dt: Float[Array, " steps *batch"], rule: Rule = "forward"
) -> Float[Array, "steps *batch species"]:
    """States after each explicit step from `c`, clamped at zero.

    Args:
        rate: dc/dt as a function of the concentrations, in concentration/time.
        c: initial concentrations.
        dt: length of every step, in the unit of time; may differ between steps and batch members.
        rule: rule for dc/dt, which selects the method (see `STEPS`).

    Returns:
        Concentrations, without the initial ones.
    """
    step = STEPS[rule]

    def advance(c: Float[Array, "*batch species"], dt: Float[Array, "*batch"]) -> tuple[Array, Array]:
        c = step(rate, c, dt)
        return c, c

    return jax.lax.scan(advance, c, dt)[1]


def euler(
    rate: RateEquation, c: Float[Array, "*batch species"], dt: Float[Array, " steps *batch"]
) -> Float[Array, "steps *batch species"]:
    """`integrate` by explicit Euler steps."""
    return integrate(rate, c, dt, "forward")


rollout = eqx.filter_jit(integrate)  # for `rate`, see `evaluate_rate`


@eqx.filter_jit
def evaluate_rate(rate: RateEquation, c: Float[Array, "*batch species"]) -> Float[Array, "*batch species"]:
    """dc/dt at given concentrations, in concentration/time; compiled.

    Args:
        rate: a function, or an `eqx.Partial` of a model and its structure. With the latter, one compilation
            is valid for all models of the same shapes.
    """
    return rate(c)
