"""The first stage of a fit of trajectories: short windows from the weak form, with the most likely integrators."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import logging
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from metabolismgraph.errors import InputError
from metabolismgraph.system.derivative_rules import Rule
from metabolismgraph.system.progress import Progress
from metabolismgraph.trajectories.gauss_newton import Goal
from metabolismgraph.trajectories.integrators import Collocation, EulerSteps, Integrator, RungeKutta
from metabolismgraph.trajectories.noise import NoiseModel
from metabolismgraph.trajectories.stages import FOLLOWED, REPEATS, Stage, Stages, Start
from metabolismgraph.trajectories.weak_form import weak_form
from metabolismgraph.trajectories.windows import Windows

_log = logging.getLogger(__name__)
_ENOUGH = 30  # values per unknown that suffice to choose the integrator
_EXCESS = 2.0  # residual relative to the noise in differences above which a start is far off
_HOPELESS = 100.0  # chi squared per value, under the noise below, above which a start is given up
# Noise relative to the spread of a species, assumed where the start is far off: with pieces of windows, without.
_HIDING, _DOUBTFUL = 0.01, 0.05
_MOST_STEPS = 32  # Euler steps per frame
_SMALL = 10  # species
_STABLE = 2.0  # largest step of an explicit method, in units of 1 / rate of the fastest decay
_STIFF = 8  # number of such steps between two frames above which an implicit method is faster
_SMOOTH: tuple[Rule, ...] = ("cubic", "trapezoid")  # rules for dc/dt of a continuous process, for the start
# Noise has another shape if the ratio of standard deviations varies by more over the frames of a species. Fits are
# repeated at most so many times, since a new fit has another residual, whose shape may be another one again.
_ALIKE, _ROUNDS = 1.5, 4
_TIGHT = 0.01  # share of the usual prior of homeostasis, for a start that is far off
_CLEARLY = 3.0  # difference of the log likelihood by which Euler steps must be better than a continuous process
_UNDECIDED = 10.0  # such a difference up to which an integrator remains possible
# Standard deviations of the gaps between pieces of windows, relative to the noise.
_LOOSE, _TIGHTER = 1.0, (0.2, 0.04)


def possible_integrators(
    stages: Stages, lengths: list[int], rule: Rule | None, progress: Progress
) -> tuple[Stage, ...]:
    """Fits over short windows with the integrators that may have made the data.

    Where there are many data, a part of them may suffice to decide.

    Args:
        lengths: frames of windows, in ascending order, no longer than the windows of a usual start.
        rule: "forward" for data made by Euler steps, another rule for continuous processes; None: found by likelihood.

    Raises:
        InputError: the trajectories of the model cannot be integrated.
    """
    part = _part(stages, lengths[-1])
    choice = _Choice(part, stages, lengths, progress)
    found = choice.choose(rule)
    if part is stages:
        return found
    goal: Goal = "comparison" if len(found) > 1 else "start"
    whole = [choice.with_all_data(stage, goal, found[0].noise) for stage in found]
    return most_likely(stages, _or_cut_off(stages, whole))


def most_likely(stages: Stages, fits: Sequence[Stage]) -> tuple[Stage, ...]:
    """Those of several fits over the same windows whose likelihood is close to the highest one, that one first.

    Euler steps must be clearly better than a continuous process.
    """
    ordered = sorted(fits, key=functools.partial(_loss, stages))
    return tuple(stage for stage in ordered if not _loss(stages, stage) > _loss(stages, ordered[0]) + _UNDECIDED)


def probabilities(stages: Stages, fits: Sequence[Stage]) -> Float[np.ndarray, " fits"]:
    """Posterior probability of the integrator of each of several fits over the same windows, if one of them is right.

    By the Schwarz criterion (Kass & Raftery 1995), in which fits with the same unknowns differ in their likelihoods
    alone. Different numbers of Euler steps share the probability that they have before the data are seen.
    """
    euler = [not stage.continuous for stage in fits]
    loss = np.array([_loss(stages, stage) for stage in fits]) + np.where(euler, math.log(max(sum(euler), 1)), 0.0)
    share = np.exp(loss.min() - loss)
    return np.asarray(share / share.sum())


def _loss(stages: Stages, stage: Stage) -> float:
    """Minus the log likelihood of a fit and of its integrator."""
    return stages.loss(stage.fitted) - stage.continuous * _CLEARLY


def _or_cut_off(stages: Stages, fits: list[Stage]) -> list[Stage]:
    """The fits and, if the best one does not follow the data, likely ones with Euler steps that are cut off at zero."""
    likely = most_likely(stages, fits)
    if likely[0].fitted.chi2 < FOLLOWED:
        return fits
    starts = [start for stage in likely if (start := stage.cut_off()) is not None]
    return [*fits, *(stages.fit(start.start, start.length, goal="comparison") for start in starts)]


def _part(stages: Stages, length: int) -> Stages:
    """The same with a part of the data, evenly spread, that suffices to choose the integrator."""
    measured = stages.observations.measured[:, stages.equation.moving]
    moving, unknowns = float(measured.sum(axis=1).mean()), stages.equation.unknowns.total
    windows = Windows.cut(stages.observations, length)
    enough = math.ceil(_ENOUGH * unknowns / max(moving * (windows.length - 1), 1))
    if 2 * enough > len(windows.frame):
        return stages
    chosen = np.linspace(0, len(windows.frame) - 1, enough).round().astype(np.int64)
    run = np.full(stages.observations.n_frames, -1)
    for number, window in enumerate(chosen):
        run[windows.frame[window]] = number
    used = run >= 0
    part = copy.copy(stages)
    part.observations = dataclasses.replace(stages.observations.select(used), run=run[used])
    part.path = stages.path[used]
    return part


def _has_shape(stage: Stage, noise: NoiseModel) -> bool:
    """Whether a fit was weighted with noise of the same shape over the frames of every species."""
    ratio = stage.fitted.problem.measurements.sigma / noise.sigma(np.maximum(stage.fitted.path, 0.0))
    return bool((ratio.max(axis=0) < _ALIKE * ratio.min(axis=0)).all())


class _Choice:
    """Fits over short windows of a part of the data."""

    def __init__(self, stages: Stages, whole: Stages, lengths: list[int], progress: Progress):
        self.stages, self.whole, self.lengths, self.progress = stages, whole, lengths, progress
        self.starts: dict[Rule, Float[np.ndarray, " unknowns"]] = {}
        # Direct fits with what they began from: the weak form, or another fit.
        self.begun: dict[Stage, Float[np.ndarray, " unknowns"] | Stage] = {}
        self.wholes: dict[Stage, Stage] = {}  # fits of all data from which others begin
        self.of_pieces: set[Stage] = set()  # fits that began with pieces of windows
        self.coarse = False  # whether the weak form did not lead to windows of the usual length

    def choose(self, rule: Rule | None) -> tuple[Stage, ...]:
        """The best of direct starts or, where these are far off, of careful ones."""
        candidates = most_likely(self.stages, _or_cut_off(self.stages, self.under_one_noise(self.direct_starts(rule))))
        found = candidates[0]
        moving = self.stages.equation.moving
        noise = self.stages.residual_noise(found.fitted).scale
        near = not self.coarse and float(np.max((noise / self.stages.differences)[moving])) < _EXCESS
        # Many Euler steps can be close to a continuous process that was not found.
        exact = found.continuous and self.stages.is_exact(found)
        if exact or (near and found.follows):
            return candidates
        # Only for a continuous process: Euler steps are those of a simulator, whose frames are rarely far apart. And
        # only for a small system: for a large one that the model does not describe, it would take many minutes.
        possible = rule != "forward" and len(moving) < _SMALL
        for smooth_rule in _SMOOTH if possible else ():
            with contextlib.suppress(InputError):
                found = min(found, self.careful(smooth_rule), key=self.loss)
            if self.stages.is_exact(found):
                break
        if found is candidates[0]:
            return candidates
        steps = [stage for stage in candidates if not stage.continuous]
        return most_likely(self.stages, self.under_one_noise([found, *steps]))

    def under_one_noise(self, fits: list[Stage]) -> list[Stage]:
        """The fits with noise of the shape that the residual of the best one has.

        Otherwise the shape of the noise would decide between them, not the integrator.
        """
        for _ in range(_ROUNDS):
            noise = min(fits, key=self.loss).noise
            others = [stage for stage in fits if not _has_shape(stage, noise)]
            if not others:
                break
            found = [stage for stage in fits if stage not in others]
            for stage in others:
                with contextlib.suppress(InputError):
                    start = dataclasses.replace(stage.start, noise=noise)
                    again = self.refined(self.stages.fit(start, self.lengths[-1], goal="comparison"))
                    found.append(again)
                    self.take_over(stage, again)
            fits = found or fits
        return fits

    def take_over(self, stage: Stage, again: Stage) -> None:
        """Record that a repeated fit began where the first one did."""
        if stage in self.begun:
            self.begun[again] = self.begun[stage]
        if stage in self.of_pieces:
            self.of_pieces.add(again)

    def loss(self, stage: Stage) -> float:
        return self.stages.loss(stage.fitted)

    def direct_starts(self, rule: Rule | None) -> list[Stage]:
        """Fits with the integrators that may have made the data."""
        if rule == "forward":
            found = self.direct(EulerSteps(), rule)
            return [found if found.fitted.chi2 < FOLLOWED else self.tightened(self.pieces(EulerSteps(), rule))]
        dt = self.stages.observations.transitions().dt
        # Euler steps and a continuous process of a linear system give the same data, with other rate constants.
        steps = rule is None and np.ptp(dt) < 1e-6 * self.stages.dt and not self.stages.equation.linear
        continuous = self.direct(None, _SMOOTH[0])
        euler = {1: self.direct(EulerSteps(), "forward")} if steps else {}
        if not any(stage.fitted.chi2 < FOLLOWED for stage in (continuous, *euler.values())):
            self.coarse = True
            return self.from_pieces([continuous, *euler.values()], steps=steps)
        if not euler:
            return [continuous]
        # If the data were made by q steps per frame, the error of one step is proportional to 1 - 1/q, and that of the
        # continuous process to 1/q, so that their ratio is q - 1.
        one, other = self.loss(euler[1]), self.loss(continuous)
        number = 1 + math.exp(min((one - other) / int(continuous.fitted.used.sum()), 50.0))
        if number > 2 * _MOST_STEPS:  # it is an estimate
            return [euler[1], continuous]
        if number < 2:
            euler[2] = self.two_steps(continuous)
            if self.loss(euler[1]) < self.loss(euler[2]):
                return [*euler.values(), continuous]
        direct = [*euler.values(), continuous]
        return [*self.from_pieces(direct, steps=True), *direct]

    def from_pieces(self, direct: list[Stage], *, steps: bool) -> list[Stage]:
        """Fits for coarse samples, where windows of the usual length have local minima.

        Their pieces, tied loosely, hardly have any, and already tell integrators apart.

        Args:
            direct: fits of windows from the weak form.
            steps: whether Euler steps may have made the data.
        """
        begin = self.pieces(None, _SMOOTH[0])
        found = [begin]
        if not begin.fitted.chi2 < _HOPELESS:
            # The integration of a continuous process can diverge where a few Euler steps do not.
            begin = min(direct, key=self.loss)
            found = [self.pieces(None, _SMOOTH[0], begin)]
        euler: dict[int, Stage] = {}
        wanted = {1, 2} if steps else set()
        while wanted:
            euler |= {number: self.pieces(EulerSteps(number), "trapezoid", begin) for number in sorted(wanted)}
            best = min(euler, key=lambda number: euler[number].fitted.loss)
            wanted = {number for number in (best // 2, 2 * best) if 1 <= number <= _MOST_STEPS} - set(euler)
        found += euler.values()
        least = min(stage.fitted.loss for stage in found)
        fits = [self.tightened(stage) for stage in found if not stage.fitted.loss > least + _UNDECIDED]
        self.of_pieces.update(fits)
        return fits

    def pieces(self, integrator: Integrator | None, rule: Rule, begin: Stage | None = None) -> Stage:
        """A fit of windows in pieces that are tied loosely.

        Args:
            integrator, rule: as for `direct`.
            begin: a fit with another integrator from which to begin; None: from the weak form.
        """
        start = self.start(integrator, rule, self.noise(_HIDING))
        if begin is not None:
            start = dataclasses.replace(start, theta=begin.fitted.theta, path=begin.start.path)
        self.progress("phase 1", 0.0, f"{start.integrator.name}, pieces of windows of {self.lengths[-1]} frames")
        found = self.stages.fit_pieces(start, self.lengths[-1], _LOOSE)
        _log.info("%s, pieces: misfit %.6g", start.integrator.name, found.fitted.loss)
        return found

    def tightened(self, stage: Stage) -> Stage:
        """A fit over windows of the usual length, from pieces of them that are tied loosely."""
        return self.refined(self.short_windows(self.stages, stage, "comparison"))

    def short_windows(self, stages: Stages, stage: Stage, goal: Goal) -> Stage:
        """The same for any of the data."""
        for gap in _TIGHTER:
            stage = stages.fit_pieces(stage.start, self.lengths[-1], gap)
        return stages.fit(stage.start, self.lengths[-1], goal=goal)

    def two_steps(self, continuous: Stage) -> Stage:
        """A fit with two Euler steps per frame, from a continuous process if that follows the data."""
        if not continuous.fitted.chi2 < FOLLOWED:
            return self.direct(EulerSteps(2), "trapezoid")
        parts = np.ones_like(continuous.start.parts)
        start = dataclasses.replace(continuous.start, integrator=EulerSteps(2), parts=parts)
        stage = self.stages.fit(start, self.lengths[-1], goal="comparison")
        self.begun[stage] = continuous
        return stage

    def with_all_data(self, stage: Stage, goal: Goal, noise: NoiseModel) -> Stage:
        """The same fit of all data.

        Args:
            stage: of a part of the data.
            goal: what the fit is for, see `Goal`.
            noise: from which it begins.
        """
        stages = self.whole
        start = dataclasses.replace(stage.start, path=stages.path, noise=noise)
        origin = self.begun.get(stage)
        if isinstance(origin, Stage):
            if origin not in self.wholes:
                self.wholes[origin] = self.with_all_data(origin, "start", noise)
            origin = self.wholes[origin].fitted.theta
        if origin is not None:
            # A part of the data leaves more freedom, in which a fit can go astray: begin again from all data.
            start = dataclasses.replace(start, theta=origin, prior=stages.prior(origin))
        # A fit that is far off says nothing about the accuracy that the right one needs.
        same = np.full(stages.observations.n_frames, stage.start.parts.max())
        parts = stages.parts(start, stage.length) if stage.follows else same
        start, length = dataclasses.replace(start, parts=parts), self.lengths[-1]
        fits, exact = [], self.stages.is_exact(stage)
        if exact or stage not in self.of_pieces:
            fits = [stages.fit(start, length, goal=goal)]
            if stages.is_exact(fits[0]) if exact else fits[0].fitted.chi2 < FOLLOWED:
                return fits[0]
        fits.append(self.short_windows(stages, stages.fit_pieces(start, length, _LOOSE), goal))
        return min(fits, key=lambda stage: stages.loss(stage.fitted))

    def direct(self, integrator: Integrator | None, rule: Rule) -> Stage:
        """A fit over short windows from the weak form.

        Args:
            integrator: None: one for a continuous process.
            rule: for dc/dt in the weak form.
        """
        start = self.start(integrator, rule, NoiseModel(self.stages.differences))
        self.progress("phase 1", 0.0, f"{start.integrator.name}, windows of {self.lengths[-1]} frames")
        stage = self.refined(self.stages.fit(start, self.lengths[-1], goal="comparison"))
        self.begun[stage] = start.theta
        return stage

    def careful(self, rule: Rule) -> Stage:
        """The same for a start that is far off: from windows of two frames on, under noise that hides small errors.

        Homeostasis is kept small at first, since it can take the place of a reaction.
        """
        start = self.start(None, rule, self.noise(_DOUBTFUL))
        u, prior = self.stages.equation.unknowns, start.prior
        start.theta[u.slope] = start.theta[u.offset] = 0.0
        tight = prior[1].copy()
        tight[u.slope] *= _TIGHT
        tight[u.offset] *= _TIGHT
        start = dataclasses.replace(start, prior=(prior[0], tight))
        for length in self.lengths:
            stage = self.stages.fit(start, length, goal="start", known=length < self.lengths[-1])
            if not stage.fitted.chi2 < _HOPELESS:
                return self.refined(stage)
            start = stage.start
            start = dataclasses.replace(start, parts=self.stages.parts(start, length))
        stage = self.stages.fit(dataclasses.replace(start, prior=prior), self.lengths[-1], goal="comparison")
        return self.refined(stage)

    def refined(self, stage: Stage) -> Stage:
        """The stage with as many steps of the integrator as it needs.

        Raises:
            InputError: its trajectories are not finite.
        """
        for _ in range(REPEATS):
            # A fit that is far off says nothing about the accuracy that the right one needs.
            if not stage.fitted.chi2 < FOLLOWED:
                break
            start = stage.start
            parts = self.stages.parts(start, stage.length)
            if (parts <= start.parts).all():
                break
            stage = self.stages.fit(dataclasses.replace(start, parts=parts), stage.length, goal="comparison")
        _log.info("%s: chi squared per value %.4g", stage.start.integrator.name, stage.fitted.chi2)
        if not np.isfinite(self.loss(stage)):
            raise InputError("the trajectories of the model cannot be integrated from these data")
        return stage

    def noise(self, share: float) -> NoiseModel:
        """Noise for a start that is far off: at least a share of the spread of every species."""
        return NoiseModel(
            np.maximum(self.stages.differences, share * self.stages.observations.concentration.std(axis=0))
        )

    def start(self, integrator: Integrator | None, rule: Rule, noise: NoiseModel) -> Start:
        """The unknowns by the weak form, from all data."""
        whole = self.whole
        if rule not in self.starts:
            self.starts[rule] = weak_form(whole.observations, whole.equation, whole.path, whole.differences, rule)
        theta = self.starts[rule].copy()
        used, number = (integrator, 1) if integrator else self.solver(theta)
        parts = np.full(self.stages.observations.n_frames, number)
        return Start(used, theta, self.stages.path, noise, self.stages.prior(theta), parts)

    def solver(self, theta: Float[np.ndarray, " unknowns"]) -> tuple[Integrator, int]:
        """An integrator for a continuous process, implicit if the rate equation is stiff between two frames.

        Returns:
            The integrator, and the parts of the time between two frames in which it is stable.
        """
        equation, path = self.stages.equation, self.stages.path
        frames = np.linspace(0, len(path) - 1, 16).astype(int)
        rate = equation.bind(theta)
        fastest = np.abs(np.linalg.eigvals(rate.by_state(rate(path[frames])))).max()
        small = len(equation.moving) < _SMALL  # where the implicit method costs little
        parts = fastest * self.stages.dt / _STABLE
        if small or not parts < _STIFF:
            return Collocation(), 1
        return RungeKutta(), 2 ** max(math.ceil(math.log2(parts)), 0)
