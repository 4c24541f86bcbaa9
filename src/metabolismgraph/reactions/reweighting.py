"""Iterative reweighting: f, the weights of species and the set of outliers are updated in turn, at most four times."""

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

_ROUNDS = 4  # largest number of updates
# Least growth of the residual of the forward rule, with every second frame left out, if the data come from Euler steps.
_GROWTH = 2.5
# The trapezoid rule replaces the cubic one, of higher order, if its residual is smaller by at least this factor.
_LESS = 1.05
# If the cubic rule has a relative residual below this, a continuous process explains the data.
_EXPLAINED = 1e-4
# A residual below this share of the rms dc/dt of its species is rounding or curvature of f, not an outlier.
_SMALL_RESIDUAL = 1e-3

F = TypeVar("F", bound=LogFunction)


@dataclasses.dataclass(frozen=True)
class ReweightedFit(Generic[F]):
    """The result of the reweighting.

    Attributes:
        rows: the data under the chosen rule for dc/dt.
        f: the substrate function.
        keep: entries in use; False for outliers.
        weight: 1 / variance of dc/dt of each species.
        residual: of every entry, in concentration/time.
        losses: projected loss per iteration, over all rounds.
        converged: whether the minimisation of the last round converged.
    """

    rows: Phase1Data
    f: F
    keep: Bool[np.ndarray, "transitions species"]
    weight: Float[np.ndarray, " species"]
    residual: Float[np.ndarray, "transitions species"]
    losses: list[float]
    converged: bool


def fit_reweighted(
    observations: Observations,
    graph_model: GraphModel,
    training: Training,
    start: Callable[[Phase1Data, Problem], F],
    learn: Callable[[F, Problem], Minimum[F]],
    *,
    compare: Callable[[F, Problem, float], Minimum[F]] | None = None,
) -> ReweightedFit[F]:
    """Learn f, then update weights and outliers from the residual, until the set of outliers is constant.

    Args:
        observations: the data.
        graph_model, training: sections of the configuration.
        start: returns the initial f for a problem.
        learn: minimises the projected loss of a problem, from a given f.
        compare: the same, but may give up where the loss will not fall below a given one; for the choice of the rule.
            None: `learn` does that too.
    """
    # Variances and outliers can be estimated only from a residual, and the residual depends on both. The alternation
    # is iteratively reweighted least squares with weights 1/variance per species and 0 for outliers.
    data, found = _first_round(observations, graph_model, training, start, learn, compare)
    keep = data.usable
    weight: Float[np.ndarray, " species"] | None = None
    losses = list(found.losses)
    for number in range(_ROUNDS):
        if number:
            problem = data.problem(keep, weight, stride=data.stride)
            found = _learned(found.parameters, data, problem, learn)
            losses += found.losses
        f = found.parameters
        # f was learned on every stride-th transition; residuals are those of all transitions.
        first = weight is None
        residual = data.unexplained(f).residual if first else data.linear_model(f, keep, weight).solve().residual
        # Outliers are never readmitted, so the iteration cannot cycle.
        regular = keep & ~_outliers(residual, keep, data.transitions, training.outlier_threshold)
        # The first round has default weights, so that one more round is needed in any case.
        unchanged = not first and bool((regular == keep).all())
        keep, weight = regular, 1.0 / noise_variance(residual, regular, data.signal)
        _log.debug("round %d: %d outliers, loss %.4g", number + 1, int((data.usable & ~keep).sum()), losses[-1])
        if unchanged:
            break
    assert weight is not None  # set in the first round, which never ends early
    return ReweightedFit(data, f, keep, weight, residual, losses, found.converged)


def _first_round(
    observations: Observations,
    graph_model: GraphModel,
    training: Training,
    start: Callable[[Phase1Data, Problem], F],
    learn: Callable[[F, Problem], Minimum[F]],
    compare: Callable[[F, Problem, float], Minimum[F]] | None,
) -> tuple[Phase1Data, Minimum[F]]:
    """The data under the rule for dc/dt with the smallest residual, and the f that was learned with it.

    The left-hand side, (c_next - c)/dt, is the same for all rules, so their residuals are comparable. Each rule has
    its own f, since an f that was learned with one rule absorbs part of the error of that rule.
    """

    def fitted(rule: Rule, f: F | None = None, target: float | None = None) -> tuple[Phase1Data, Minimum[F]]:
        data = Phase1Data(observations, graph_model, training, rule=rule)
        problem = data.problem(data.usable, None, stride=data.stride)
        by = learn if target is None or compare is None else lambda f, problem: compare(f, problem, target)
        return data, _learned(start(data, problem) if f is None else f, data, problem, by)

    if training.derivative != "auto":
        return fitted(training.derivative)
    discrete = fitted("forward")
    # For Euler steps, the cubic rule is learned only until that is clear, which saves most of its iterations.
    enough = max(discrete[1].losses[-1], float(2 * np.log(_EXPLAINED)))
    smooth = fitted("cubic", discrete[1].parameters, enough)
    if _tells_euler_steps(discrete, smooth, training.outlier_threshold):
        return discrete
    if smooth[1].given_up:
        smooth = fitted("cubic", smooth[1].parameters)
    # For samples that are coarse or noisy, a cubic through four frames can be worse than a line through two. The
    # trapezoid rule is learned only if it is better with the f of the cubic rule already.
    f, trapezoid = smooth[1].parameters, Phase1Data(observations, graph_model, training, rule="trapezoid")
    if _log_share(trapezoid, f) >= _log_share(smooth[0], f):
        return smooth
    coarse = fitted("trapezoid", f)
    # Losses are logarithms of sums of squares: a factor of the residual is twice its logarithm.
    return coarse if coarse[1].losses[-1] < smooth[1].losses[-1] - 2 * np.log(_LESS) else smooth


def _tells_euler_steps(
    discrete: tuple[Phase1Data, Minimum[F]], smooth: tuple[Phase1Data, Minimum[F]], threshold: float
) -> bool:
    """Whether the data come from Euler steps.

    Two conditions must hold: the residual of the forward rule is smaller than that of the cubic one, and it grows by
    more than a factor of 2.5 if every second frame is left out. For Euler steps it grows from rounding to a
    discretisation error. For a nonlinear continuous process it doubles with the step (first order). For a linear one,
    the forward rule holds for any step, with other rate constants. For noise, the growth is smaller: the noise at
    the start of a step is in both sides of the forward rule, which explains it in part. Outliers under either rule are
    left out, since a few of them would dominate the sums of squares.
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
    """Entries that are usable and not outliers."""
    residual = data.unexplained(found.parameters).residual
    return np.asarray(data.usable & ~_outliers(residual, data.usable, data.transitions, threshold))


def _learned(f: F, data: Phase1Data, problem: Problem, learn: Callable[[F, Problem], Minimum[F]]) -> Minimum[F]:
    """The minimisation of the projected loss over f; f itself where all rate laws are known."""
    if data.has_unknown_law:
        return learn(f, problem)
    return Minimum(f, [_log_share(data, f)], converged=True)


def _log_share(data: Phase1Data, f: LogFunction, keep: Bool[np.ndarray, "transitions species"] | None = None) -> float:
    """Log of the unexplained share of the sum of squares of dc/dt, over entries to `keep` (None: all usable ones)."""
    if keep is None or bool((keep == data.usable).all()):
        return data.unexplained(f).log_share
    return data.linear_model(f, keep).solve().log_share


def _outliers(
    residual: Float[np.ndarray, "rows species"],
    keep: Bool[np.ndarray, "rows species"],
    transitions: Transitions,
    threshold: float,
) -> Bool[np.ndarray, "rows species"]:
    """Entries with a residual beyond `threshold` robust standard deviations of their species, and above rounding."""
    used = keep | ~keep.any(axis=0)  # a species without an entry in use: all entries, to avoid the median of nothing
    # 1.4826 times the median absolute deviation is a consistent estimate of the standard deviation of a normal
    # distribution, and insensitive to outliers.
    median = np.median if used.all() else np.nanmedian  # which takes a multiple of the time
    spread = 1.4826 * median(np.where(used, np.abs(residual), np.nan), axis=0)
    size = np.sqrt(np.mean(transitions.derivative**2, axis=0, where=used))
    return np.asarray(keep & (np.abs(residual) > np.maximum(threshold * spread, _SMALL_RESIDUAL * size)))
