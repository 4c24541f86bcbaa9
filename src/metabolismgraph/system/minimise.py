"""L-BFGS over the arrays of a module, until the loss no longer decreases."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import equinox as eqx
import jax
import numpy as np
import scipy
from jaxtyping import Array, Float

from metabolismgraph.system.arrays import on_device

_MEMORY = 20  # curvature pairs of L-BFGS
_WINDOW = 10  # iterations over which the decrease of the loss is compared with the tolerance
# The search also ends where so many iterations together decreased the loss by less than this share of the tolerance.
_STILL_ITERATIONS, _STILL = 3, 2e-3
_FASTER = 10  # a target is out of reach if this multiple of the present rate would not reach it; a search can speed up

Model = TypeVar("Model")
Vector = Float[np.ndarray, " parameters"]
# From parameters and constants of a model to a log loss and its gradient by the parameters.
ValueAndGradient = Callable[[Any, Any], tuple[float | Float[Array, ""], Any]]


@dataclasses.dataclass(frozen=True)
class Minimum(Generic[Model]):
    """The result of a minimisation.

    Attributes:
        parameters: the model at the end.
        losses: at the start and after every iteration; the last is the loss of `parameters`, the least of all.
        converged: False if the largest number of iterations was reached, or the search given up.
        given_up: whether the search ended because `target` was out of reach.
    """

    parameters: Model
    losses: list[float]
    converged: bool
    given_up: bool = False


def minimise(
    evaluate: ValueAndGradient,
    start: Model,
    trainable: Model,
    *,
    max_iterations: int,
    tolerance: float,
    after_iteration: Callable[[int, float], None],
    target: float | None = None,
) -> Minimum[Model]:
    """Minimise a log loss over the parameters of a model by L-BFGS (Liu & Nocedal 1989).

    Args:
        evaluate: logarithm of a loss, so that differences are relative changes, and its gradient; see `compiled`.
        start: initial model, a pytree of float64 arrays.
        trainable: True for the parameters of the model, False for its constants.
        max_iterations: largest number of iterations.
        tolerance: converged if the log loss decreases by less than this over ten iterations.
        after_iteration: called with the number of iterations so far and the log loss.
        target: for a caller who asks only whether the log loss falls below this value: the search is given up where
            it would not, even if it were ten times as fast as in the last ten iterations.
    """
    parameters, constants = eqx.partition(start, trainable)
    flatten, unflatten = _flattening(parameters)

    def at(x: Vector) -> tuple[float, Vector]:
        value, gradient = evaluate(unflatten(x), constants)
        return float(value), flatten(gradient)

    first = flatten(parameters)
    start_loss, start_gradient = at(first)
    # The first step of L-BFGS-B has length one. If the loss is quadratic and not negative, its minimum is within
    # 2 / |gradient of its logarithm|, which may be far less.
    unit = 1.0 / max(1.0, float(np.linalg.norm(start_gradient)))
    best = (start_loss if np.isfinite(start_loss) else np.inf, first)
    losses, given_up = [start_loss], False

    def function(z: Vector) -> tuple[float, Vector]:
        nonlocal best
        x = first + unit * z
        value, gradient = at(x) if z.any() else (start_loss, start_gradient)
        if value < best[0]:
            best = (value, x)
        return value, unit * gradient

    def callback(intermediate_result: scipy.optimize.OptimizeResult) -> None:
        nonlocal given_up
        losses.append(float(intermediate_result.fun))
        after_iteration(len(losses) - 1, losses[-1])
        if _at_the_minimum(losses, tolerance):
            raise StopIteration
        if target is not None and _out_of_reach(losses, target, max_iterations):
            given_up = True
            raise StopIteration

    # SciPy's L-BFGS is L-BFGS-B without bounds. Its own test (ftol) considers a single iteration, whose decrease can be
    # far below the average of ten, and is switched off.
    scipy.optimize.minimize(
        function,
        np.zeros_like(first),
        jac=True,
        method="L-BFGS-B",
        callback=callback,
        options={"maxiter": max_iterations, "maxfun": 4 * max_iterations, "maxcor": _MEMORY, "ftol": 0, "gtol": 1e-10},
    )
    # Its last point can be far above the best one: where rounding prevents progress, its line search accepts any point.
    losses[-1], x = best
    model: Model = eqx.combine(jax.tree.map(on_device, unflatten(x)), constants)
    return Minimum(model, losses, len(losses) <= max_iterations and not given_up, given_up)


def _flattening(parameters: Model) -> tuple[Callable[[Model], Vector], Callable[[Vector], Model]]:
    """From parameters to a vector, and back; in NumPy, without compilation."""
    leaves, tree = jax.tree_util.tree_flatten(parameters)
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]

    def flatten(model: Model) -> Vector:
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(model)])

    def unflatten(x: Vector) -> Model:
        parts = zip(np.split(x, ends), leaves, strict=True)
        model: Model = jax.tree_util.tree_unflatten(tree, [part.reshape(leaf.shape) for part, leaf in parts])
        return model

    return flatten, unflatten


def _at_the_minimum(losses: list[float], tolerance: float) -> bool:
    """Whether the last iterations decreased the log loss by less than the tolerance."""
    little = len(losses) > _WINDOW + 1 and losses[-1 - _WINDOW] - losses[-1] < tolerance
    still = len(losses) > _STILL_ITERATIONS and losses[-1 - _STILL_ITERATIONS] - losses[-1] < _STILL * tolerance
    return little or still


def _out_of_reach(losses: list[float], target: float, max_iterations: int) -> bool:
    """Whether a much faster search, too, would end above the target."""
    if len(losses) <= _WINDOW + 1:
        return False
    rate, left = (losses[-1 - _WINDOW] - losses[-1]) / _WINDOW, max_iterations - (len(losses) - 1)
    return losses[-1] - _FASTER * rate * left > target


def compiled(log_loss: Callable[..., Float[Array, ""]], *arguments: Any) -> ValueAndGradient:
    """A log loss of a model and further arguments, as a compiled program for `minimise`."""
    return lambda parameters, constants: _value_and_gradient(log_loss, parameters, constants, arguments)


@eqx.filter_jit
def _value_and_gradient(
    loss: Callable[..., Float[Array, ""]], parameters: Model, constants: Model, arguments: tuple[Any, ...]
) -> tuple[Float[Array, ""], Model]:
    """A loss of a model and its gradient by the parameters; the other arguments are constants."""
    return jax.value_and_grad(lambda p: loss(eqx.combine(p, constants), *arguments))(parameters)
