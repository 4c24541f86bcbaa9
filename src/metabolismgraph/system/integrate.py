"""Rollouts: the rate equation of a model, integrated by explicit steps, one per frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float

from metabolismgraph.system.derivative_rules import Rule
from metabolismgraph.system.kinetics import AnyArray, array_library

RateEquation = Callable[[AnyArray], AnyArray]
Step = Callable[[RateEquation[Any], Any, Any], Any]  # of arrays of JAX or of NumPy


def euler_step(
    rate: RateEquation[AnyArray], c: Float[AnyArray, "*batch species"], dt: Float[AnyArray, "*batch"]
) -> Float[AnyArray, "*batch species"]:
    """One explicit Euler step (first order), clamped at zero."""
    return _clamped(c + dt[..., None] * rate(c))


def heun_step(
    rate: RateEquation[AnyArray], c: Float[AnyArray, "*batch species"], dt: Float[AnyArray, "*batch"]
) -> Float[AnyArray, "*batch species"]:
    """One step of Heun's method (explicit trapezoid rule, second order)."""
    first = rate(c)
    ahead = _clamped(c + dt[..., None] * first)
    return _clamped(c + dt[..., None] * (first + rate(ahead)) / 2)


def runge_kutta_step(
    rate: RateEquation[AnyArray], c: Float[AnyArray, "*batch species"], dt: Float[AnyArray, "*batch"]
) -> Float[AnyArray, "*batch species"]:
    """One step of the classical Runge-Kutta method (Kutta 1901, fourth order)."""
    step = dt[..., None]

    def ahead(by: float, slope: Float[AnyArray, "*batch species"]) -> Float[AnyArray, "*batch species"]:
        return _clamped(c + by * step * slope)

    first = rate(c)
    second = rate(ahead(0.5, first))
    third = rate(ahead(0.5, second))
    fourth = rate(ahead(1.0, third))
    return ahead(1.0, (first + 2 * second + 2 * third + fourth) / 6)


def _clamped(c: Float[AnyArray, "*batch species"]) -> Float[AnyArray, "*batch species"]:
    clamped: AnyArray = array_library(c).maximum(c, 0.0)
    return clamped


# For each rule for dc/dt, the explicit method of the same order.
STEPS: Mapping[Rule, Step] = {"forward": euler_step, "trapezoid": heun_step, "cubic": runge_kutta_step}


def integrate(
    rate: RateEquation[Array],
    c: Float[Array, "*batch species"],
    dt: Float[Array, " steps *batch"],
    rule: Rule = "forward",
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
    rate: RateEquation[Array], c: Float[Array, "*batch species"], dt: Float[Array, " steps *batch"]
) -> Float[Array, "steps *batch species"]:
    """`integrate` by explicit Euler steps."""
    return integrate(rate, c, dt, "forward")


def rollout(
    rate: RateEquation[np.ndarray],
    c: Float[np.ndarray, "*batch species"],
    dt: Float[np.ndarray, " steps *batch"],
    rule: Rule = "forward",
    known: Float[np.ndarray, "steps *batch species"] | None = None,
) -> Float[np.ndarray, "steps *batch species"]:
    """`integrate` in NumPy, without compilation, for rollouts that are done once.

    Args:
        known: concentrations that replace the computed ones after every step, as those of species that something
            outside the network determines; NaN where there are none.
    """
    states = np.zeros((len(dt), *c.shape))
    # Where a model diverges, the states are not finite.
    with np.errstate(all="ignore"):
        for number in range(len(dt)):
            c = STEPS[rule](rate, c, dt[number, ...])
            if known is not None:
                c = np.where(np.isnan(known[number]), c, known[number])
            states[number] = c
    return states


@eqx.filter_jit
def evaluate_rate(rate: RateEquation[Array], c: Float[Array, "*batch species"]) -> Float[Array, "*batch species"]:
    """dc/dt at given concentrations, in concentration/time; compiled.

    Args:
        rate: a function, or an `eqx.Partial` of a model and its structure. With the latter, one compilation
            is valid for all models of the same shapes.
    """
    return rate(c)
