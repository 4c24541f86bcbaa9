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

Model = TypeVar("Model")
# From parameters and constants of a model to a log loss and its gradient by the parameters.
ValueAndGradient = Callable[[Any, Any], tuple[Float[Array, ""], Any]]


@dataclasses.dataclass(frozen=True)
class Minimum(Generic[Model]):
    """The result of a minimisation.

    Attributes:
        parameters: the model at the end.
        losses: at the start and after every iteration; the last is the loss of `parameters`, the least of all.
        converged: False if the largest number of iterations was reached.
    """

    parameters: Model
    losses: list[float]
    converged: bool


def minimise(
    evaluate: ValueAndGradient,
    start: Model,
    trainable: Model,
    *,
    max_iterations: int,
    tolerance: float,
    after_iteration: Callable[[int, float], None],
) -> Minimum[Model]:
    """Minimise a log loss over the parameters of a model by L-BFGS (Liu & Nocedal 1989).

    Args:
        evaluate: logarithm of a loss, so that differences are relative changes, and its gradient; see `compiled`.
        start: initial model, a pytree of float64 arrays.
        trainable: True for the parameters of the model, False for its constants.
        max_iterations: largest number of iterations.
        tolerance: converged if the log loss decreases by less than this over ten iterations.
        after_iteration: called with the number of iterations so far and the log loss.
    """
    parameters, constants = eqx.partition(start, trainable)
    leaves, tree = jax.tree_util.tree_flatten(parameters)
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]

    def flattened(model: Model) -> Float[np.ndarray, " parameters"]:
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(model)])

    def of_vector(x: Float[np.ndarray, " parameters"]) -> Model:
        parts = zip(np.split(x, ends), leaves, strict=True)
        model: Model = jax.tree_util.tree_unflatten(tree, [on_device(part.reshape(leaf.shape)) for part, leaf in parts])
        return model

    first = flattened(parameters)
    best = (np.inf, first)

    def function(x: Float[np.ndarray, " parameters"]) -> tuple[float, np.ndarray]:
        nonlocal best
        value, gradient = evaluate(of_vector(x), constants)
        if value < best[0]:
            best = (float(value), x.copy())
        return float(value), flattened(gradient)

    losses = [function(first)[0]]

    def callback(intermediate_result: scipy.optimize.OptimizeResult) -> None:
        losses.append(float(intermediate_result.fun))
        after_iteration(len(losses) - 1, losses[-1])
        if len(losses) > _WINDOW + 1 and losses[-1 - _WINDOW] - losses[-1] < tolerance:
            raise StopIteration

    # SciPy's L-BFGS is L-BFGS-B without bounds. Its own test (ftol) considers a single iteration, whose decrease can be
    # far below the average of ten, and is switched off.
    scipy.optimize.minimize(
        function,
        first,
        jac=True,
        method="L-BFGS-B",
        callback=callback,
        options={"maxiter": max_iterations, "maxfun": 4 * max_iterations, "maxcor": _MEMORY, "ftol": 0, "gtol": 1e-10},
    )
    # Its last point can be far above the best one: where rounding prevents progress, its line search accepts any point.
    losses[-1], x = best
    model: Model = eqx.combine(of_vector(x), constants)
    return Minimum(model, losses, len(losses) <= max_iterations)


def compiled(log_loss: Callable[..., Float[Array, ""]], *arguments: Any) -> ValueAndGradient:
    """A log loss of a model and further arguments, as a compiled program for `minimise`."""
    return lambda parameters, constants: value_and_gradient(log_loss, parameters, constants, arguments)


@eqx.filter_jit
def value_and_gradient(
    loss: Callable[..., Float[Array, ""]], parameters: Model, constants: Model, arguments: tuple[Any, ...]
) -> tuple[Float[Array, ""], Model]:
    """A loss of a model and its gradient by the parameters; the other arguments are constants."""
    return jax.value_and_grad(lambda p: loss(eqx.combine(p, constants), *arguments))(parameters)
