"""L-BFGS over the arrays of a module, until the loss no longer decreases."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Generic, TypeVar

import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

_MEMORY = 20  # curvature pairs of L-BFGS
_WINDOW = 10  # iterations over which the decrease of the loss is compared with the tolerance

Parameters = TypeVar("Parameters")


@dataclasses.dataclass(frozen=True)
class Minimum(Generic[Parameters]):
    """The result of a minimisation.

    Attributes:
        parameters: at the end.
        losses: at the start and after every iteration.
        converged: False if the largest number of iterations was reached.
    """

    parameters: Parameters
    losses: list[float]
    converged: bool


def minimise(
    value_and_gradient: Callable[[Parameters], tuple[Float[Array, ""], Parameters]],
    start: Parameters,
    *,
    max_iterations: int,
    tolerance: float,
    after_iteration: Callable[[int, float], None],
) -> Minimum[Parameters]:
    """Minimise a log loss by L-BFGS (Liu & Nocedal 1989).

    Args:
        value_and_gradient: value and gradient of the logarithm of a loss: differences are relative changes.
        start: initial parameters, a pytree of float64 arrays.
        max_iterations: largest number of iterations.
        tolerance: converged if the log loss decreases by less than this over ten iterations.
        after_iteration: called with the number of iterations so far and the log loss.
    """
    flat, unravel = ravel_pytree(start)
    losses: list[float] = [float(value_and_gradient(start)[0])]

    def function(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = value_and_gradient(unravel(jnp.asarray(x)))
        return float(value), np.asarray(ravel_pytree(gradient)[0])

    def callback(intermediate_result: scipy.optimize.OptimizeResult) -> None:
        losses.append(float(intermediate_result.fun))
        after_iteration(len(losses) - 1, losses[-1])
        if len(losses) > _WINDOW + 1 and losses[-1 - _WINDOW] - losses[-1] < tolerance:
            raise StopIteration

    # SciPy's L-BFGS is L-BFGS-B without bounds. Its own test (ftol) considers a single iteration, whose decrease can be
    # far below the average of ten, and is switched off.
    result = scipy.optimize.minimize(
        function,
        np.asarray(flat),
        jac=True,
        method="L-BFGS-B",
        callback=callback,
        options={"maxiter": max_iterations, "maxfun": 4 * max_iterations, "maxcor": _MEMORY, "ftol": 0, "gtol": 1e-10},
    )
    return Minimum(unravel(jnp.asarray(result.x)), losses, len(losses) <= max_iterations)
