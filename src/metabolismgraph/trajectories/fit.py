"""A fit of trajectories by multiple shooting over growing windows."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from metabolismgraph.system.derivative_rules import Rule
from metabolismgraph.system.kinetics import Structure
from metabolismgraph.system.observations import Observations
from metabolismgraph.system.progress import Progress, silent
from metabolismgraph.system.threads import single_thread
from metabolismgraph.trajectories.choice import most_likely, possible_integrators, probabilities
from metabolismgraph.trajectories.gauss_newton import Fitted, Goal
from metabolismgraph.trajectories.integrators import Integrator
from metabolismgraph.trajectories.misfit import ROBUST
from metabolismgraph.trajectories.noise import NoiseModel
from metabolismgraph.trajectories.rates import RateEquation
from metabolismgraph.trajectories.sensitivities import growth
from metabolismgraph.trajectories.stages import FOLLOWED, Stage, Stages
from metabolismgraph.trajectories.ties import GAPS
from metabolismgraph.trajectories.windows import Windows

__all__ = ["FOLLOWED", "TrajectoryFit", "fit_trajectories"]

_log = logging.getLogger(__name__)
# Frames of the windows of successive stages. The first ones are for coarse samples, where eight frames are long.
_LENGTHS, _FINE = (2, 4, 8, 32, 128, 480, 1440), 8
# Windows longer than the first number of frames are worth their time where an error of an initial state grows by less
# than the second one over them: slow processes as homeostasis show in the long run, and chaos hides them.
_USUAL, _MOST_GROWTH = 480, 1e4
# Frames of windows that are tied to one another, shorter ones where the first ones lead nowhere.
_TIED = (32, 8)
_WORSE = 1.1  # longer windows are accepted if chi squared per value grows by less than this factor
_REFUSALS, _LEAST_GROWTH = 3, 1.3  # lengths that may be refused, and growth of a window that is worth a stage


class Alternative(NamedTuple):
    """A fit with another integrator that may have made the data as well.

    Attributes:
        fitted: the fit.
        probability: of its integrator, see `choice.probabilities`.
        moved: its unknowns minus those of the best fit over the same windows.
    """

    fitted: Fitted
    probability: float
    moved: Float[np.ndarray, " unknowns"]

    @property
    def integrator(self) -> Integrator:
        return _integrator(self.fitted)


class Refused(NamedTuple):
    """Windows that a model does not follow.

    Attributes:
        length: frames.
        growth: by how much an error of an initial state grows over them.
    """

    length: int
    growth: float


@dataclasses.dataclass(frozen=True)
class TrajectoryFit:
    """The result of a fit of trajectories.

    Attributes:
        equation: the rate equation.
        stages: the accepted stage of every horizon, shortest windows first.
        noise: of the measured concentrations, from the residual.
        noise_of_differences: of every species, from differences in time alone.
        refused: the windows that were not accepted; None if all were.
        alternatives: fits with other integrators that the data do not exclude.
    """

    equation: RateEquation
    stages: tuple[Fitted, ...]
    noise: NoiseModel
    noise_of_differences: Float[np.ndarray, " species"]
    refused: Refused | None
    alternatives: tuple[Alternative, ...] = ()

    @property
    def best(self) -> Fitted:
        """The stage with the longest windows."""
        return self.stages[-1]

    @property
    def integrator(self) -> Integrator:
        """That of the best fit."""
        return _integrator(self.best)

    @property
    def covariance(self) -> Float[np.ndarray, "unknowns unknowns"]:
        """Covariance of the unknowns around the best fit, with what the choice of the integrator contributes.

        That of an average over the integrators (Hoeting et al. 1999), around the best fit, whose unknowns are reported.
        Within each integrator, the covariance is that of the best fit: alternatives may have been fitted over shorter
        windows.
        """
        found = self.best.covariance.copy()
        for other in self.alternatives:
            found += other.probability * np.outer(other.moved, other.moved)
        return found


def fit_trajectories(
    observations: Observations,
    structure: Structure,
    rule: Rule | None = None,
    progress: Progress = silent,
    *,
    weak_homeostasis: Bool[np.ndarray, " species"] | None = None,
) -> TrajectoryFit:
    """Fit rate constants, rate laws and homeostasis to time series.

    Args:
        observations: in internal units.
        structure: the network.
        rule: "forward" for data made by Euler steps, another rule for continuous processes; None: found by likelihood.
        progress: see `system.progress`.
        weak_homeostasis: True for a species whose homeostasis cannot be told from a reaction; it is kept small.

    Raises:
        InputError: the trajectories of the model cannot be integrated.
    """
    # Many small matrices: threads of BLAS would wait for one another longer than they work.
    with single_thread(), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        weak = np.zeros(observations.network.n_species, dtype=bool) if weak_homeostasis is None else weak_homeostasis
        stages = Stages(observations, structure, weak)
        longest = int(np.bincount(observations.run).max())
        lengths = sorted({min(w, longest) for w in _LENGTHS})
        possible = possible_integrators(stages, [w for w in lengths if w <= _FINE], rule, progress)
        for length in (tied for tied in _TIED if tied < longest):
            cut_off = (stage.cut_off() for stage in possible)
            for candidates in (possible, tuple(stage for stage in cut_off if stage)):
                tied, alternatives = _tie(stages, candidates, length, progress)
                found = _cut(stages, tied, lengths, progress) if tied else None
                if found is not None:
                    return dataclasses.replace(found, alternatives=alternatives)
        return _grow(stages, possible, lengths, progress)


def _integrator(fitted: Fitted) -> Integrator:
    """The integrator of a fit, with the largest number of steps between two frames."""
    problem = fitted.problem
    return problem.integrator.divided(int(problem.parts.max()))


def _alternatives(stages: Stages, fits: Sequence[Stage]) -> tuple[Alternative, ...]:
    """Of several fits over the same windows, the likeliest ones first: those with other integrators than the first."""
    of_integrator: dict[Integrator, Stage] = {}
    for stage in fits:
        if np.isfinite(stages.loss(stage.fitted)):
            of_integrator.setdefault(stage.fitted.problem.integrator, stage)
    different = list(of_integrator.values())
    return tuple(
        Alternative(stage.fitted, float(probability), stage.fitted.theta - different[0].fitted.theta)
        for stage, probability in zip(different, probabilities(stages, different), strict=True)
    )[1:]


def _tie(
    stages: Stages, possible: tuple[Stage, ...], length: int, progress: Progress
) -> tuple[list[Stage], tuple[Alternative, ...]]:
    """Windows that are tied into one trajectory, with the most likely integrator.

    Returns:
        The fit of short windows and that of tied ones; empty if the trajectory is not followed, or if the data are
        exact. Fits of tied windows with other integrators.
    """
    tied = {first: first for first in possible if first.follows and not stages.is_exact(first)}
    for number, gap in enumerate(GAPS):
        then = {}
        goal: Goal = "comparison" if len(tied) > 1 or gap == GAPS[-1] else "start"
        for now, first in tied.items():
            progress("phase 1", 0.5 * number / len(GAPS), f"{now.start.integrator.name}, gaps of {gap:g} of the noise")
            # All with the noise of the best one, as in `choice`: its shape must not decide.
            start = dataclasses.replace(now.start, parts=stages.parts(now.start, length), noise=next(iter(tied)).noise)
            # Windows that were split stay so.
            windows = now.fitted.problem.windows if number else Windows.cut(stages.observations, length, tied=True)
            found = stages.fit_tied(start, windows, gap, goal)
            if _accepted(now, found):
                then[found] = first
        tied = {found: then[found] for found in most_likely(stages, list(then))}
    fits = list(tied)
    return [tied[fits[0]], fits[0]] if fits else [], _alternatives(stages, fits) if fits else ()


def _cut(stages: Stages, tied: list[Stage], lengths: list[int], progress: Progress) -> TrajectoryFit | None:
    """The fit of free windows from tied ones, as long as errors do not grow too much; None if none is accepted.

    The windows are free because further computing, of profiles for example, treats each on its own.
    """
    now, refused = tied[-1], None
    for length in reversed([w for w in lengths if w > tied[0].length]):
        if length > _USUAL and _growth(stages, now, length) > _MOST_GROWTH:
            continue
        progress("phase 1", 0.5, f"windows of {length} frames")
        then = _next(stages, now, length, "comparison")
        if _accepted(now, then):
            # Once more to the end, so that covariance and noise belong together.
            then = _next(stages, then, length, "end", known=True) if then.follows else then
            fitted = tuple(stage.fitted for stage in (*tied, then))
            return TrajectoryFit(stages.equation, fitted, then.noise, stages.differences, refused)
        refused = refused or Refused(length, _growth(stages, now, length))
    return None


def _accepted(now: Stage, then: Stage) -> bool:
    """Whether longer windows leave no larger residual than shorter ones."""
    before, after = (_chi2(stage.fitted, now.noise) for stage in (now, then))
    _log.info("windows of %d frames: chi squared per value %.4g, %.4g before", then.length, after, before)
    # Shorter windows have more free initial states, and so a smaller residual.
    free = 1 - 1 / now.fitted.problem.windows.length
    return after < _WORSE * max(before / free, 1.0)


def _grow(stages: Stages, possible: tuple[Stage, ...], lengths: list[int], progress: Progress) -> TrajectoryFit:
    """Fit longer and longer windows, as long as the trajectories are followed.

    Longer windows decide between integrators that short ones do not tell apart.
    """
    candidates, refused, refusals = [[stage] for stage in possible], None, 0
    alternatives = _alternatives(stages, possible)
    shortest = possible[0].length
    longer = [w for w in lengths if w > shortest]
    while longer:
        now, length, undecided = candidates[0][-1], longer[0], len(candidates) > 1
        # Shorter windows are easier to follow; where they are not followed, longer ones are not either.
        if not undecided and (stages.is_exact(now) or not now.follows):
            break
        if length > _USUAL and _growth(stages, now, length) > _MOST_GROWTH:
            break
        progress(
            "phase 1",
            np.log(length / shortest) / np.log(2 * lengths[-1] / shortest),
            f"windows of {length} frames" + (f", {len(candidates)} integrators" if undecided else ""),
        )
        goal: Goal = "comparison" if undecided or length == longer[-1] else "start"
        # All with the noise of the best one, as in `choice`: its shape must not decide.
        begin = [dataclasses.replace(accepted[-1], noise=now.noise) for accepted in candidates]
        found = [
            [*accepted, _next(stages, stage, length, goal)] for accepted, stage in zip(candidates, begin, strict=True)
        ]
        followed = [accepted for accepted in found if _accepted(*accepted[-2:])]
        if followed:
            best = most_likely(stages, [accepted[-1] for accepted in followed]) if undecided else [followed[0][-1]]
            candidates = [accepted for stage in best for accepted in followed if accepted[-1] is stage]
            alternatives = _alternatives(stages, best) if undecided else alternatives
            longer = longer[1:]
            continue
        # The step was too large for the start to be near the same minimum: try a smaller one.
        between, refusals = int(np.sqrt(now.length * length)), refusals + 1
        if refusals > _REFUSALS or between < _LEAST_GROWTH * now.length:
            grown = _growth(stages, now, now.length) ** (length / now.fitted.problem.windows.length)
            refused = Refused(length, grown)
            break
        candidates, longer = candidates[:1], [between, *longer]
    accepted = candidates[0]
    if accepted[-1].follows and not stages.is_exact(accepted[-1]):
        # Once more to the end, so that covariance and noise belong together.
        accepted[-1] = _next(stages, accepted[-1], accepted[-1].length, "end", known=True)
    fitted = tuple(stage.fitted for stage in accepted)
    return TrajectoryFit(stages.equation, fitted, accepted[-1].noise, stages.differences, refused, alternatives)


def _growth(stages: Stages, now: Stage, length: int) -> float:
    """By how much an error of an initial state grows over windows of a length."""
    start = now.start
    problem = stages.problem(start, length)
    return growth(problem, start.theta, start.path[problem.windows.starts])


def _next(stages: Stages, now: Stage, length: int, goal: Goal, *, known: bool = False) -> Stage:
    """Fit windows of a length from a fitted stage; see `Stages.fit`."""
    start, noisy = now.start, now.fitted.chi2 < FOLLOWED
    if noisy:
        start = dataclasses.replace(start, parts=stages.parts(start, length))
    return stages.fit(start, length, goal=goal, known=known, robust=ROBUST if noisy else np.inf)


def _chi2(fitted: Fitted, noise: NoiseModel) -> float:
    """Chi squared per value of a fit, for the given noise."""
    sigma = noise.sigma(np.maximum(fitted.path, 0.0))
    return float(np.mean((fitted.residual / sigma)[fitted.used] ** 2))
