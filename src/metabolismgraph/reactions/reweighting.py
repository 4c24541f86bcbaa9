"""Learn f, weigh species and leave out outliers in turn, until the outliers stay the same or four rounds are done."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Bool, Float

from metabolismgraph.config import GraphModel, Training
from metabolismgraph.reactions.data import Phase1Data
from metabolismgraph.reactions.projection import Problem
from metabolismgraph.reactions.uncertainty import noise_variance
from metabolismgraph.system.derivative_rules import Rule
from metabolismgraph.system.kinetics import LogFunction
from metabolismgraph.system.minimise import Minimum
from metabolismgraph.system.observations import Observations, Transitions

_log = logging.getLogger(__name__)

# Learn f, look at the residuals, weigh species and drop outliers, learn again: at most so often.
_ROUNDS = 4
_GROWTH = 2.5  # of what the forward rule leaves of dc/dt when Euler steps are taken two at a time, at least
_LESS = 1.05  # of two rules for continuous processes the one of higher order, unless the other leaves so much less
# Where a continuous process leaves less than this of dc/dt, it has explained the data; nothing speaks for Euler steps.
_EXPLAINED = 1e-4
# A misfit below this share of a species' rms dc/dt is rounding or curvature of f, not an outlier.
_SMALL_MISFIT = 1e-3

F = TypeVar("F", bound=LogFunction)


@dataclasses.dataclass(frozen=True)
class ReweightedFit(Generic[F]):
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


def fit_reweighted(
    observations: Observations,
    graph_model: GraphModel,
    training: Training,
    start: Callable[[Phase1Data, Problem], F],
    learn: Callable[[F, Problem], Minimum[F]],
) -> ReweightedFit[F]:
    """Learn f, then weigh species and drop outliers by the residual, until the outliers stay the same.

    Args:
        start: makes the f to start from.
        learn: improves f on a problem.
    """
    data, found = _first_round(observations, graph_model, training, start, learn)
    keep = data.usable
    weight: Float[np.ndarray, " species"] | None = None
    losses = list(found.losses)
    for number in range(_ROUNDS):
        if number:
            problem = data.problem(keep, weight, stride=data.stride)
            found = _learned(found.parameters, data, problem, learn)
            losses += found.losses
        f = found.parameters
        left = data.linear_model(f, keep, weight).solve().left
        still = keep & ~_outliers(left, keep, data.transitions, training.outlier_threshold)
        unchanged = weight is not None and bool((still == keep).all())
        keep, weight = still, 1.0 / noise_variance(left, still, data.signal)
        _log.debug("round %d: %d outliers, loss %.4g", number + 1, int((data.usable & ~keep).sum()), losses[-1])
        if unchanged:
            break
    assert weight is not None  # set in the first round, which never ends early
    return ReweightedFit(data, f, keep, weight, left, losses, found.converged)


def _first_round(
    observations: Observations,
    graph_model: GraphModel,
    training: Training,
    start: Callable[[Phase1Data, Problem], F],
    learn: Callable[[F, Problem], Minimum[F]],
) -> tuple[Phase1Data, Minimum[F]]:
    """The data under the rule for dc/dt that leaves least unexplained, each rule with an f of its own, and that f.

    All rules explain the same differences of frames, so what they leave can be compared.
    """

    def fitted(rule: Rule, f: F | None = None) -> tuple[Phase1Data, Minimum[F]]:
        data = Phase1Data(observations, graph_model, training, rule=rule)
        problem = data.problem(data.usable, None, stride=data.stride)
        return data, _learned(start(data, problem) if f is None else f, data, problem, learn)

    if training.derivative != "auto":
        return fitted(training.derivative)
    discrete = fitted("forward")
    smooth = fitted("cubic", discrete[1].parameters)
    if _tells_euler_steps(discrete, smooth, training.outlier_threshold):
        return discrete
    # Samples that are too coarse for four frames to be on a cubic, or too noisy, may suit the trapezoid rule better.
    f, trapezoid = smooth[1].parameters, Phase1Data(observations, graph_model, training, rule="trapezoid")
    if _log_share(trapezoid, f) >= _log_share(smooth[0], f):
        return smooth
    rough = fitted("trapezoid", f)
    return rough if rough[1].losses[-1] < smooth[1].losses[-1] - 2 * np.log(_LESS) else smooth


def _tells_euler_steps(
    discrete: tuple[Phase1Data, Minimum[F]], smooth: tuple[Phase1Data, Minimum[F]], threshold: float
) -> bool:
    """Whether the data come from Euler steps: the forward rule leaves less, and far less than for steps twice as long.

    A continuous process that is linear follows the forward rule as well, with other rate constants, whatever the step;
    of any other process it leaves twice as much for steps twice as long, and of noise, which it explains in part
    since the start of a step is in both sides of its equation, less. Entries that are outliers under either rule are
    not compared: a few spikes would drown the rest.
    """
    keep = _regular(*discrete, threshold) & _regular(*smooth, threshold)
    forward, cubic = (_log_share(data, found.parameters, keep) for data, found in (discrete, smooth))
    if forward >= cubic or np.exp(cubic / 2) <= _EXPLAINED:
        return False
    thinned = discrete[0].thinned()
    if not len(thinned.transitions.dt):
        return False
    regular = _regular(thinned, discrete[1], threshold)
    return bool(_log_share(thinned, discrete[1].parameters, regular) > forward + 2 * np.log(_GROWTH))


def _regular(data: Phase1Data, found: Minimum[F], threshold: float) -> Bool[np.ndarray, "transitions species"]:
    """Entries that can be used and are no outliers."""
    left = data.linear_model(found.parameters, data.usable).solve().left
    return np.asarray(data.usable & ~_outliers(left, data.usable, data.transitions, threshold))


def _learned(f: F, data: Phase1Data, problem: Problem, learn: Callable[[F, Problem], Minimum[F]]) -> Minimum[F]:
    """f, learned where there is anything to learn."""
    if data.has_unknown_law:
        return learn(f, problem)
    return Minimum(f, [_log_share(data, f)], converged=True)


def _log_share(data: Phase1Data, f: LogFunction, keep: Bool[np.ndarray, "transitions species"] | None = None) -> float:
    """log of the share of the sum of squares of dc/dt that the best rate constants leave, of all that can be used."""
    return data.linear_model(f, data.usable if keep is None else keep).solve().log_share


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
