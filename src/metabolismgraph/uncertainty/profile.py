"""Profile likelihood: how far one parameter can move if all others are fitted again (Raue et al. 2009).

A standard error describes the misfit by a parabola around the estimate. The profile is the misfit itself: the
parameter is fixed at one value after another, and everything else is fitted again. Values at which twice the increase
of the misfit stays below 3.84 form the 95 % interval, since that increase has a chi-squared distribution with one
degree of freedom (Wilks 1938).

The fit has weak priors. A prior on the profiled parameter would bound it where the data do not, so it has none here.
Of the others, rate constants may move over hundreds of decades, and where a reaction cannot be told from homeostasis,
its profile lets the slopes of its species go, so that no prior makes up for data along a combination. All other
homeostasis and the bends of the rate laws keep the priors of the fit: that they are small is part of the model. The
noise stays as it was estimated.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from metabolismgraph.fitting.result import FitResult
from metabolismgraph.overview import Overview, Rows
from metabolismgraph.reactions.equations import written_unit
from metabolismgraph.reactions.verdict import NOT_APART, TWO_SIDED
from metabolismgraph.system.progress import Progress, silent
from metabolismgraph.system.threads import single_thread
from metabolismgraph.trajectories.gauss_newton import Fitted, fit_windows
from metabolismgraph.trajectories.problem import Problem
from metabolismgraph.trajectories.rates import LOG_10
from metabolismgraph.trajectories.shooting import linearise
from metabolismgraph.uncertainty.fitted_model import FittedModel

THRESHOLD = 3.84  # 95 % quantile of chi squared with one degree of freedom

Kind = Literal["k", "slope", "offset"]

_STEPS = 4  # equal increases of the misfit up to the threshold that are aimed at
_MOST_FITS = 14  # on one side
_ENOUGH = 1.6  # a point beyond the threshold, but below this multiple of it, is close enough to interpolate to
_NARROW = 0.03  # the same for the distance of the points around it, relative to the distance from the estimate
_LARGEST_GROWTH = 3.0  # of a step, relative to the one before
_DECADES, _SPREADS = 3.0, 10.0  # farthest distance: of log10 k, and of a line in standard deviations of its prior
_BEYOND, _RISING = 2.0, 0.1  # multiple of that distance if twice the increase of the misfit exceeds the second
_WIDE = 100.0  # decades of the prior of the other rate constants
_FREE = 1e4  # standard deviations of the prior that a confounded line may move
_NO_PRIOR, _FIXED = 1e6, 1e-6  # standard deviations of the prior, of a free and of a fixed parameter
_SAME, _MOST_REPEATS = 0.05, 5  # decrease of the misfit that counts as none, and fits from one start
_JUMP = 10.0  # multiple of the threshold beyond which a fit may have failed
_RANK = 1e-13  # relative size below which a curvature is rounding
_SHRINKS = 0.1  # share to which a step reduces a rate constant at most
_AGREES = 0.2  # half-widths by which the ends of profile and of standard error may differ
_BETTER = 0.5  # twice the decrease of the misfit that is no rounding
_FAR, _LOWER = 0.5, 1.0  # the same, and standard errors, by which a converged fit moves at most
_ROUGH = 1.0  # decades of an interval of k that says little


@dataclasses.dataclass(frozen=True, repr=False)
class Profile(Overview):
    """The profile of one parameter.

    Values are in the units of the data: log10 of k, slope in 1/time, offset in concentration/time.

    Attributes:
        name: such as k:R012.
        unit: of k itself, of the slope or of the offset.
        estimate: of the fit.
        standard_error: of the fit; NaN where the data do not determine the parameter.
        value: of the points, in ascending order.
        increase: twice the increase of the misfit at these values; 3.84 is the end of the 95 % interval.
        lower, upper: 95 % interval; NaN for an end that was not found.
        combination: determined combinations that contain this k, with their values; empty without any.
        reason: why the fit does not determine this k; empty if it does.
        better: a value with a lower misfit than the estimate; NaN if the fit had converged.
    """

    name: str
    unit: str
    estimate: float
    standard_error: float
    value: Float[np.ndarray, " points"]
    increase: Float[np.ndarray, " points"]
    lower: float
    upper: float
    combination: str = ""
    reason: str = ""
    better: float = np.nan

    def _overview(self) -> tuple[str, Rows]:
        return f"profile of {self.name}", [("result", self.sentence), ("points", len(self.value))]

    @property
    def kind(self) -> str:
        """What kind of parameter: k, slope or offset."""
        return self.name.partition(":")[0]

    @property
    def by_error(self) -> tuple[float, float]:
        """The 95 % interval of the standard error."""
        half = TWO_SIDED * self.standard_error
        return self.estimate - half, self.estimate + half

    @property
    def sentence(self) -> str:
        """What the profile says of the parameter."""
        if np.isfinite(self.better):
            return f"better value found: the fit had not converged; {self._written(self.better)} has a lower misfit"
        low, high = np.isfinite(self.lower), np.isfinite(self.upper)
        span = f"any value from {self._written(self.value[0])} to {self._written(self.value[-1])} fits"
        if self.combination and not (low and high):
            limits = [f"alone at most {self._written(self.upper)}"] if high else []
            limits += [f"alone at least {self._written(self.lower)}"] if low else []
            return "; ".join([f"only in combination: {self.combination}", *(limits or [f"alone {span}"])])
        if not (low or high):
            return "; ".join([f"flat: {span}", *([self.reason] if self.reason else [])])
        if not (low and high):
            limit = f"at most {self._written(self.upper)}" if high else f"at least {self._written(self.lower)}"
            return f"bounded on one side: {limit}"
        return self._of_interval()

    def _of_interval(self) -> str:
        """The sentence for an interval with two ends."""
        rough = self.kind == "k" and self.upper - self.lower > _ROUGH
        interval = f"{self._written(self.lower)} to {self._written(self.upper)}"
        if not np.isfinite(self.standard_error):
            best = self._written(self.value[np.argmin(np.abs(self.increase))])
            return f"{'known roughly' if rough else 'without its prior'}: {best} ({interval})"
        text = f"{'known roughly' if rough else 'determined'}: {self._written(self.estimate)} ({interval})"
        ends = self.by_error
        most = _AGREES * TWO_SIDED * self.standard_error
        if abs(ends[0] - self.lower) < most and abs(ends[1] - self.upper) < most:
            return f"{text}; the profile agrees with the standard error"
        return f"{text}; the standard error alone would say {self._written(ends[0])} to {self._written(ends[1])}"

    def _written(self, value: float) -> str:
        return f"{10.0**value if self.kind == 'k' else value:#.3g}".rstrip(".")


def profile(
    result: FitResult, names: str | Sequence[str], *, anyway: bool = False, progress: Progress = silent
) -> tuple[Profile, ...]:
    """Profile likelihood of some parameters of a fit of trajectories (Raue et al. 2009, Bioinformatics 25, 1923-1929).

    Args:
        result: of a fit with training.phase1_method=shooting, or where `auto` chose it.
        names: k:REACTION, slope:SPECIES or offset:SPECIES, one or several; the id of a reaction alone stands for its k.
        anyway: whether a fit that is not to be trusted is taken as well.
        progress: see `system.progress`.

    Returns:
        A profile per name. `sentence` says in words what it means; values are in the units of the data.

    Raises:
        InputError: there is no such parameter, or the fit is not one of trajectories, or not to be trusted.

    Example:
        >>> import metabolismgraph as mg
        >>> settings = ["simulation.n_frames=120", "training.phase1_method=shooting"]
        >>> config = mg.load_config("small", [*settings, "training.homeostasis_training=false"])
        >>> result = mg.fit(mg.simulate(config).observations, config)
        >>> (found,) = mg.profile(result, ["k:R000"])
        >>> found.lower < found.estimate < found.upper
        True
    """
    model = FittedModel.trusted(result, anyway=anyway)
    wanted = [names] if isinstance(names, str) else names
    return profiles_of(model, [model.index_of(name) for name in wanted], progress)


def profiles_of(model: FittedModel, indices: Sequence[int], progress: Progress = silent) -> tuple[Profile, ...]:
    """Profiles of some unknowns, by their places."""
    found = []
    with single_thread(), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for number, index in enumerate(indices):
            progress("profiles", number / len(indices), model.names[index])
            found.append(_profile(model, index))
    progress("profiles", 1.0, "")
    return tuple(found)


def profile_table(profiles: Sequence[Profile]) -> pd.DataFrame:
    """The points of some profiles, and what they say of each parameter, one row per point.

    Columns: parameter, unit, estimate, standard_error, lower, upper, value, increase, sentence; values as in `Profile`.
    """
    rows = [
        (p.name, p.unit, p.estimate, p.standard_error, p.lower, p.upper, value, increase, p.sentence)
        for p in profiles
        for value, increase in zip(p.value, p.increase, strict=True)
    ]
    columns = ["parameter", "unit", "estimate", "standard_error", "lower", "upper", "value", "increase", "sentence"]
    return pd.DataFrame(rows, columns=columns)


@dataclasses.dataclass(frozen=True)
class _Point:
    """A fit with the parameter fixed.

    Attributes:
        away: distance of the parameter from the best value, in the direction of the side.
        increase: twice the increase of the misfit.
        theta, x: the fit.
    """

    away: float
    increase: float
    theta: Float[np.ndarray, " unknowns"]
    x: Float[np.ndarray, "windows species"]

    @property
    def root(self) -> float:
        """Signed root of the increase, which is linear in the distance for a parabola."""
        return float(np.sign(self.increase) * np.sqrt(abs(self.increase)))


def _profile(model: FittedModel, index: int) -> Profile:
    free = _without_priors(model, index)
    fitted, least = _fitted(free, model.theta, model.x)
    best = _Point(0.0, 0.0, fitted.theta, fitted.x)
    u = model.stages.equation.unknowns
    reach = _DECADES if index < u.reactions else _SPREADS * float(model.usual[index])
    direction, error = _tangent(free, fitted, index)
    error, center = min(error, reach), float(fitted.theta[index])
    sides = [_Side(free, index, s, center, least, error, reach, direction).points(best) for s in (-1.0, 1.0)]
    below, above = sides
    away = np.array([*(-p.away for p in reversed(below[1:])), *(p.away for p in above)])
    increase = np.array([*(p.increase for p in reversed(below[1:])), *(p.increase for p in above)])
    lower, upper = center - _crossing(below), center + _crossing(above)
    value = model.in_units(index, center + away)
    drop = 2 * (_misfit(free, model.theta, model.x) - least)
    known = bool(model.determined[index])
    moved = known and abs(center - model.theta[index]) > _FAR * error
    better = center if moved and drop > _LOWER else np.nan
    if increase.min() < -_BETTER:
        better = center + away[np.argmin(increase)]
    estimate, lower, upper, better = model.in_units(index, np.array([model.theta[index], lower, upper, better]))
    is_k = index < u.reactions
    return Profile(
        name=model.names[index],
        unit=_unit(model, index),
        estimate=float(estimate),
        standard_error=float(model.error[index] * model.scale[index]) if known else np.nan,
        value=value,
        increase=increase,
        lower=float(lower),
        upper=float(upper),
        combination=_combinations(model, index) if is_k else "",
        reason=model.found.reasons[index] if is_k else "",
        better=float(better),
    )


def _tangent(problem: Problem, fitted: Fitted, index: int) -> tuple[Float[np.ndarray, " unknowns"], float]:
    """The change of all unknowns with one of them to first order, and the standard error of that one.

    The covariance of a fit does not contain directions along which nothing changes.
    """
    matrix = linearise(problem, fitted.theta, fitted.x).matrix + np.diag(1.0 / problem.prior[1] ** 2)
    scale = 1.0 / np.sqrt(np.diag(matrix))
    others = np.arange(len(scale)) != index
    scaled = matrix * scale[:, None] * scale
    change = -np.linalg.lstsq(scaled[np.ix_(others, others)], scaled[others, index], rcond=_RANK)[0]
    direction = np.ones(len(scale))
    direction[others] = change * scale[others] / scale[index]
    left = 1.0 + float(scaled[index, others] @ change)
    return direction, float(scale[index] / np.sqrt(max(left, _RANK)))


def _without_priors(model: FittedModel, index: int) -> Problem:
    """The problem of the fit with the priors of a profile."""
    u = model.stages.equation.unknowns
    mean, deviation = model.problem.prior
    deviation = deviation.copy()
    deviation[u.log_k] = _WIDE
    if model.homeostasis and index < u.reactions and model.found.reasons[index] == NOT_APART:
        own = np.flatnonzero(model.network.stoichiometry[:, index])
        deviation[u.slope.start + own] = _FREE * model.usual[u.slope.start + own]
    deviation[index] = _NO_PRIOR * model.usual[index]
    # Where nothing depends on a rate constant, its prior alone decides, and it is to stay.
    mean = np.where(np.arange(u.total) < u.reactions, model.theta, mean)
    return dataclasses.replace(model.problem, prior=(mean, deviation))


def _fitted(
    problem: Problem, theta: Float[np.ndarray, " unknowns"], x: Float[np.ndarray, "windows species"]
) -> tuple[Fitted, float]:
    """A fit from a start, and its misfit.

    A fit ends at the first small decrease, which may be one of many along a narrow valley. So it is repeated until it
    changes nothing.
    """
    before = _misfit(problem, theta, x)
    for _ in range(_MOST_REPEATS):
        fitted = fit_windows(problem, theta, x, goal="end")
        theta, x, after = fitted.theta, fitted.x, _misfit(problem, fitted.theta, fitted.x)
        if not before - after > _SAME:
            break
        before = after
    return fitted, after


def _misfit(problem: Problem, theta: Float[np.ndarray, " unknowns"], x: Float[np.ndarray, "windows species"]) -> float:
    return float(problem.path(theta, x)[1].sum()) + problem.penalty(theta)


@dataclasses.dataclass(frozen=True)
class _Side:
    """One side of a profile.

    Attributes:
        problem: with the priors of a profile.
        index: of the parameter.
        sign: -1 for lower values, 1 for higher ones.
        center: the best value.
        least: the misfit of the best value.
        error: standard error, for the first step.
        reach: farthest distance.
        direction: change of all unknowns with the parameter, at the best value.
    """

    problem: Problem
    index: int
    sign: float
    center: float
    least: float
    error: float
    reach: float
    direction: Float[np.ndarray, " unknowns"]

    def points(self, best: _Point) -> list[_Point]:
        """Fits from the best value to beyond the threshold or as far as the parameter may move, in order."""
        found, again = [best], 0.0
        for _ in range(_MOST_FITS):
            inside, outside = _around(found)
            # A fit from afar can fail; it is repeated from nearby before it is taken for a limit.
            doubtful = outside is not None and not outside.increase < _JUMP * THRESHOLD
            if outside is not None and doubtful and inside.away > again and 2 * inside.away > outside.away:
                again = inside.away
                repeated = self.fit(found, outside.away)
                if repeated.increase < outside.increase:
                    found[found.index(outside)] = repeated
                continue
            away = self.following(found, inside, outside)
            if away is None:
                break
            found.append(self.fit(found, away))
            found.sort(key=lambda p: p.away)
        return [p for p in found if np.isfinite(p.increase)]

    def following(self, found: list[_Point], inside: _Point, outside: _Point | None) -> float | None:
        """The next distance; None if the end is found, or if there is none within reach."""
        if outside is None:
            # Where the misfit has begun to rise, an end is not far.
            reach = self.reach * (_BEYOND if inside.increase > _RISING else 1.0)
            if inside.away >= reach * (1 - 1e-9):
                return None
            slope = self.slope(found, inside)
            wanted = np.sqrt(max(inside.increase, 0.0) + THRESHOLD / _STEPS)
            step = (wanted - inside.root) / slope if slope > 0 else np.inf
            before = inside.away - max((p.away for p in found if p.away < inside.away), default=0.0)
            step = min(step, _LARGEST_GROWTH * before if before > 0 else self.reach / 4)
            return float(min(inside.away + step, reach))
        width = outside.away - inside.away
        if outside.increase < _ENOUGH * THRESHOLD or width < _NARROW * outside.away:
            return None
        if not outside.increase < _JUMP * THRESHOLD:
            return float(inside.away + width / 2)
        # A little beyond the threshold, so that it is between two points.
        share = (np.sqrt(1.1 * THRESHOLD) - inside.root) / (outside.root - inside.root)
        return float(inside.away + width * np.clip(share, 0.1, 0.9))

    def slope(self, found: list[_Point], inside: _Point) -> float:
        """Of the root of the increase by the distance."""
        before = [p for p in found if p.away < inside.away]
        if not before:
            return 1 / max(self.error, 1e-300)
        return (inside.root - before[-1].root) / (inside.away - before[-1].away)

    def fit(self, found: list[_Point], away: float) -> _Point:
        """Fit everything else, from the best of several guesses."""
        fixed = self.fixed(away)
        guesses = list(self.guesses(found, away))
        misfits = [_misfit(fixed, theta, x) for theta, x in guesses]
        theta, x = guesses[int(np.argmin(np.nan_to_num(misfits, nan=np.inf)))]
        fitted, misfit = _fitted(fixed, theta, x)
        increase = 2 * (misfit - self.least)
        return _Point(away, increase if np.isfinite(increase) else np.inf, fitted.theta, fitted.x)

    def fixed(self, away: float) -> Problem:
        """The problem with the parameter fixed: by a prior that is far narrower than anything the data could do."""
        mean, deviation = (one.copy() for one in self.problem.prior)
        mean[self.index] = self.center + self.sign * away
        deviation[self.index] = _FIXED * min(self.error, away)
        return dataclasses.replace(self.problem, prior=(mean, deviation))

    def guesses(self, found: list[_Point], away: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Unknowns and initial states at a distance from the best value, from those at smaller distances.

        Along a combination of rate constants and slopes the misfit does not change, and combinations are linear in k,
        not in log k. So changes are extrapolated in both.
        """
        known = [p for p in found if p.away < away and np.isfinite(p.increase)]
        near, value = known[-1], self.center + self.sign * away
        before = known[-2] if len(known) > 1 else None
        for linear in (False, True):
            at, now = self.as_linear(near.theta) if linear else near.theta, near.theta[self.index]
            change = self.direction.copy()
            if linear:
                change[self.log_k] *= at[self.log_k] * LOG_10
            own, target = (10.0**now, 10.0**value) if linear and self.index < self.log_k.stop else (now, value)
            x = near.x
            if before is None:
                share = (target - own) / change[self.index]
            else:
                then = self.as_linear(before.theta) if linear else before.theta
                change, share = at - then, (target - own) / (at - then)[self.index]
                x = np.maximum(near.x + share * (near.x - before.x), 0.0)
            theta = at + share * change
            if linear:
                theta[self.log_k] = np.log10(np.maximum(theta[self.log_k], _SHRINKS * at[self.log_k]))
            theta[self.index] = value
            yield theta, x
        alone = near.theta.copy()
        alone[self.index] = value
        yield alone, near.x

    @property
    def log_k(self) -> slice:
        return self.problem.equation.unknowns.log_k

    def as_linear(self, theta: Float[np.ndarray, " unknowns"]) -> Float[np.ndarray, " unknowns"]:
        """The unknowns with k in place of log10 k."""
        changed = theta.copy()
        changed[self.log_k] = 10.0 ** theta[self.log_k]
        return changed


def _around(found: list[_Point]) -> tuple[_Point, _Point | None]:
    """The last point before the threshold is crossed for the first time, and the point after it."""
    for number, point in enumerate(found):
        if not point.increase <= THRESHOLD:
            return found[number - 1], point
    return found[-1], None


def _crossing(found: list[_Point]) -> float:
    """The distance at which the threshold is crossed; NaN if it is not."""
    inside, outside = _around(found)
    if outside is None:
        return np.nan
    share = (np.sqrt(THRESHOLD) - inside.root) / (outside.root - inside.root)
    return float(inside.away + share * (outside.away - inside.away))


def _unit(model: FittedModel, index: int) -> str:
    """The unit of k itself, of a slope or of an offset."""
    u = model.stages.equation.unknowns
    if index >= u.slope.start:
        return "1/time" if index < u.offset.start else "concentration/time"
    own = model.network.edge_reaction == index
    return written_unit(float(model.network.edge_order[own].sum()))


def _combinations(model: FittedModel, reaction: int) -> str:
    """Determined combinations with a rate constant that is not determined alone, with their values."""
    k = 10.0**model.found.log_k
    return "; ".join(
        f"{one.written(model.network.reactions)} = {float(np.dot(one.coefficients, k[list(one.reactions)])):.3g}"
        for group in model.allowed.combinations
        for one in group
        if reaction in one.reactions
    )
