"""Learning f, weighing species and leaving out outliers by turns, until all have come to rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Bool, Float

from metabolismgraph.config import GraphModel, Training
from metabolismgraph.observations import Observations, Transitions
from metabolismgraph.tabulate import LogFunction
from metabolismgraph.train.minimise import Minimum
from metabolismgraph.train.projection import Problem, fit_linear
from metabolismgraph.train.solution import Phase1Data, noise_variance

# Learn f, look at the residuals, weigh species and drop outliers, learn again: at most so often.
_ROUNDS = 4
# A misfit below this share of a species' rms dc/dt is rounding or curvature of f, not an outlier.
_SMALL_MISFIT = 1e-3

F = TypeVar("F", bound=LogFunction)


@dataclasses.dataclass(frozen=True)
class Settled(Generic[F]):
    """Where it has come to rest.

    Attributes:
        data: with the rule for dc/dt that was chosen.
        f: the substrate function.
        keep: rows in use.
        weight: 1 / variance of each species.
        left: residual of every row.
        losses: of learning f, over all rounds.
        converged: whether the last round's learning ended by itself.
    """

    data: Phase1Data
    f: F
    keep: Bool[np.ndarray, "transitions species"]
    weight: Float[np.ndarray, " species"]
    left: Float[np.ndarray, "transitions species"]
    losses: list[float]
    converged: bool


def settle(
    observations: Observations,
    graph_model: GraphModel,
    training: Training,
    start: Callable[[Phase1Data, Problem], F],
    learn: Callable[[F, Problem], Minimum[F]],
) -> Settled[F]:
    """Learn f, look at what is left, weigh species and drop outliers by it, until nothing changes.

    Args:
        start: makes the f to start from.
        learn: improves f on a problem.
    """
    data = Phase1Data(observations, graph_model, training, trapezoid=training.derivative == "trapezoid")
    keep = data.usable
    weight: Float[np.ndarray, " species"] | None = None
    f = start(data, data.problem(keep, weight, stride=data.stride)[0])
    losses: list[float] = []
    undecided = training.derivative == "auto"
    for _ in range(_ROUNDS):
        found = learn(f, data.problem(keep, weight, stride=data.stride)[0])
        f = found.parameters
        losses += found.losses
        if undecided:
            undecided = False
            if data.is_better_by_trapezoid(f, keep):
                data = Phase1Data(observations, graph_model, training, trapezoid=True)
                continue
        left = np.asarray(fit_linear(f, data.problem(keep, weight)[0]).left)
        still = keep & ~_outliers(left, keep, data.transitions, training.outlier_threshold)
        unchanged = weight is not None and bool((still == keep).all())
        keep, weight = still, 1.0 / noise_variance(left, still)
        if unchanged:
            break
    assert weight is not None  # only the first round may end early
    return Settled(data, f, keep, weight, left, losses, found.converged)


def _outliers(
    left: Float[np.ndarray, "rows species"],
    keep: Bool[np.ndarray, "rows species"],
    transitions: Transitions,
    threshold: float,
) -> Bool[np.ndarray, "rows species"]:
    """Rows whose residual lies beyond `threshold` robust standard deviations and is no mere rounding."""
    used = keep | ~keep.any(axis=0)  # a species without a row in use has no spread, and no outlier either
    spread = 1.4826 * np.nanmedian(np.where(used, np.abs(left), np.nan), axis=0)
    size = np.sqrt(np.mean(transitions.derivative**2, axis=0, where=used))
    return np.asarray(keep & (np.abs(left) > np.maximum(threshold * spread, _SMALL_MISFIT * size)))
