"""Stages of a fit of trajectories: windows of one length, with an estimate of the noise from their residual."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float, Int

from metabolismgraph.system.kinetics import Structure
from metabolismgraph.system.observations import Observations
from metabolismgraph.trajectories.gauss_newton import Fitted, Goal, fit_windows
from metabolismgraph.trajectories.integrators import CutEulerSteps, EulerSteps, Integrator
from metabolismgraph.trajectories.misfit import ROBUST, Measurements
from metabolismgraph.trajectories.noise import NoiseModel, noise_of_differences, smooth
from metabolismgraph.trajectories.problem import Problem
from metabolismgraph.trajectories.rates import FLOOR, RateEquation
from metabolismgraph.trajectories.substrate_spline import SubstrateSpline
from metabolismgraph.trajectories.tied_windows import fit_tied
from metabolismgraph.trajectories.windows import Windows

Prior = tuple[Float[np.ndarray, " unknowns"], Float[np.ndarray, " unknowns"]]

FOLLOWED = 1.4  # chi squared per value below which the residual is noise: the model follows the trajectories
# Chi squared per value below which the assumed noise is so much too large that a stage is repeated with less.
_TOO_LARGE, REPEATS = 0.5, 8
_CORRELATED = 0.2  # correlation of neighbouring residuals above which they are a misfit
_MOST_PARTS = 32  # equal parts of the time between two frames
# Accuracy of the integration over a window, in standard deviations of the noise; best accuracy of an interval, relative
# to the largest concentration.
_ACCURACY, _FINEST = 0.05, 1e-9
# Least noise, relative to the largest concentration and to the spread of a species; below the third, it is rounding.
_ROUNDING, _LEAST_NOISE, _EXACT = 3e-8, 1e-7, 1e-5
_MOST = 0.9  # share of the species with so little: a few may differ, as where a simulator kept them from below zero
# Standard deviations of the weak prior: decades of k, bends of log f; slope and offset of homeostasis relative to the
# turnover of a species and to its dc/dt.
_DECADES, _BENDS, _TURNOVERS, _WEAK = 1.0, 0.3, 1.0, 1e-4


@dataclasses.dataclass(frozen=True)
class Start:
    """What a stage starts from.

    Attributes:
        integrator: from frame to frame.
        theta: the unknowns.
        path: concentrations at every frame.
        noise: of the measurements.
        prior: weak Gaussian prior on the unknowns: mean and standard deviation.
        parts: see `Problem.parts`.
    """

    integrator: Integrator
    theta: Float[np.ndarray, " unknowns"]
    path: Float[np.ndarray, "frames species"]
    noise: NoiseModel
    prior: Prior
    parts: Int[np.ndarray, " frames"]


@dataclasses.dataclass(frozen=True, eq=False)
class Stage:
    """A fitted stage with the noise that belongs to it; equal to itself alone."""

    fitted: Fitted
    noise: NoiseModel

    @property
    def start(self) -> Start:
        """The start of another stage on the same frames."""
        problem, path = self.fitted.problem, np.maximum(self.fitted.path, 0.0)
        return Start(problem.integrator, self.fitted.theta, path, self.noise, problem.prior, problem.parts)

    def cut_off(self) -> Stage | None:
        """The same with Euler steps that are cut off at zero, to start from; None if it has no others, or no zeros."""
        problem = self.fitted.problem
        if type(problem.integrator) is not EulerSteps or not problem.measurements.censored.any():
            return None
        problem = dataclasses.replace(problem, integrator=CutEulerSteps(problem.integrator.substeps))
        return Stage(dataclasses.replace(self.fitted, problem=problem), self.noise)

    @property
    def length(self) -> int:
        """Largest number of frames of a window."""
        return self.fitted.problem.windows.wanted

    @property
    def continuous(self) -> bool:
        """Whether the integrator is one of a continuous process, not that of a simulator."""
        return self.fitted.problem.integrator.continuous

    @property
    def follows(self) -> bool:
        """Whether the residual is noise: of the size of the noise, or uncorrelated in time."""
        moving = self.fitted.problem.equation.moving
        white = float(np.median(self.fitted.autocorrelation[moving])) < _CORRELATED
        return self.fitted.chi2 < FOLLOWED or white


class Stages:
    """The data and the model of a fit of trajectories.

    Attributes:
        observations: in internal units.
        equation: the rate equation.
        differences: noise of every species, from differences in time alone.
        path: smoothed concentrations.
        dt: median time between frames.
    """

    def __init__(self, observations: Observations, structure: Structure, weak: Bool[np.ndarray, " species"]):
        self.observations, self._weak = observations, weak
        c = observations.concentration
        self.differences = noise_of_differences(observations)
        smoothed = smooth(observations, self.differences)
        self.path = np.maximum(smoothed, np.maximum(0.3 * self.differences, FLOOR * c.max()))
        learned = np.asarray(structure.pair_species)[~np.asarray(structure.pair_known)]
        log_c = np.log(self.path[:, learned]).ravel() if learned.size else np.zeros(1)
        spline = SubstrateSpline.over(log_c, math.log(2 * float(np.median(self.differences))))
        self.equation = RateEquation.of(structure, spline, FLOOR * float(c.max()))
        self._spread = np.maximum(c.std(axis=0), 1e-300)
        self._least = np.maximum(_LEAST_NOISE * c.std(axis=0), _ROUNDING * c.max())
        transitions = observations.transitions()
        self.dt = float(np.median(transitions.dt))
        change = (smoothed[transitions.frame + 1] - smoothed[transitions.frame]) / transitions.dt[:, None]
        self._rate = np.sqrt(np.mean(change**2, axis=0)) + 1e-300
        self._size = np.sqrt(np.mean(c**2, axis=0)) + 1e-300
        self._turnover = float(np.median((self._rate / self._size)[self.equation.moving]))
        # Rate constants and exponents, but neither homeostasis nor the bends of log f.
        unknowns = self.equation.unknowns
        self._recentred = np.zeros(unknowns.total, dtype=bool)
        self._recentred[unknowns.log_k] = True
        self._recentred[unknowns.law.start + np.arange(unknowns.laws) * unknowns.size] = True

    def fit(self, start: Start, length: int, *, goal: Goal, known: bool = False, robust: float = np.inf) -> Stage:
        """Fit windows of one length.

        Args:
            start: from where.
            length: largest number of frames of a window.
            goal: what the fit is for, see `Goal`.
            known: whether the noise stays as it is. Otherwise the fit is repeated with less where it is too large.
            robust: see `Measurements.robust`.
        """
        x = np.maximum(start.path, 0.0)[Windows.cut(self.observations, length).starts]
        for _ in range(REPEATS):
            problem = self.problem(start, length, robust)
            fitted = fit_windows(problem, start.theta, x, goal=goal)
            if known:
                return Stage(fitted, start.noise)
            found = self.residual_noise(fitted)
            if not fitted.chi2 < _TOO_LARGE or (found.scale > 0.9 * start.noise.scale).all():
                break
            x = fitted.x
            start = dataclasses.replace(start, theta=fitted.theta, path=np.maximum(fitted.path, 0.0), noise=found)
        return Stage(fitted, found if Stage(fitted, found).follows else start.noise)

    def fit_pieces(self, start: Start, length: int, gap: float) -> Stage:
        """Fit windows in pieces of two frames that are tied to one another, as a start.

        Args:
            start: from where.
            length: largest number of frames of a window.
            gap: standard deviation of the gap between two pieces, relative to the noise.
        """
        windows = Windows.cut(self.observations, length)
        pieces = windows.split(np.ones(len(windows.frame), dtype=bool), windows.length)
        return self.fit_tied(start, pieces, gap, "start")

    def fit_tied(self, start: Start, windows: Windows, gap: float, goal: Goal) -> Stage:
        """Fit windows that are tied to one another; the noise stays as it is.

        Args:
            start: from where.
            windows: the tied windows.
            gap: standard deviation of the gap between two windows, relative to the noise.
            goal: what the fit is for, see `Goal`.
        """
        problem = dataclasses.replace(self.problem(start, windows.wanted, ROBUST), windows=windows)
        x = np.maximum(start.path, 0.0)[windows.starts]
        return Stage(fit_tied(problem, start.theta, x, gap * start.noise.scale, goal), start.noise)

    def problem(self, start: Start, length: int, robust: float = np.inf) -> Problem:
        """The misfit of windows of one length, with everything else from a start."""
        # Around the latest estimate, so that the prior of a start that was far off does not pull.
        mean = np.where(self._recentred, start.theta, start.prior[0])
        windows = Windows.cut(self.observations, length)
        measured = Measurements.of(self.observations, start.noise.sigma(start.path), self.equation.moving, robust)
        return Problem(self.equation, start.integrator, windows, measured, (mean, start.prior[1]), start.parts)

    def residual_noise(self, fitted: Fitted) -> NoiseModel:
        """The noise from the residual of a fit."""
        usual = max(ROBUST, 2 * ROBUST * math.sqrt(fitted.chi2)) * fitted.problem.measurements.sigma
        used = fitted.used & (np.abs(fitted.residual) < usual)
        measured = fitted.problem.measurements
        censored = measured.censored & (measured.weight > 0)
        # Unknowns per species: an initial state of every window, and its share of the others.
        free = len(fitted.x) + self.equation.unknowns.total / max(int(self.equation.moving.sum()), 1)
        path = np.maximum(fitted.path, 0.0)
        return NoiseModel.of_residuals(fitted.residual, path, used, censored, free, self._least)

    def loss(self, fitted: Fitted) -> float:
        """Minus the log likelihood of a fit, with the noise of each species at its best value.

        The noise keeps the shape with which the fit was weighted: under proportional noise, the plain sum of squares is
        that of the largest concentrations alone, and not what a fit has minimised.
        """
        used, sigma = fitted.used, fitted.problem.measurements.sigma
        count = used.sum(axis=0)
        square = np.where(used, (fitted.residual**2 + self._least**2) / sigma**2, 0.0).sum(axis=0)
        scale = np.sum(count / 2 * np.log(np.where(count, square, 1.0) / np.maximum(count, 1)))
        return float(scale + np.log(sigma[used]).sum())

    def is_exact(self, stage: Stage) -> bool:
        """Whether no more than rounding is left, so that longer windows would add nothing."""
        left = (stage.noise.scale / self._spread)[self.equation.moving]
        return stage.fitted.chi2 < FOLLOWED and float(np.quantile(left, _MOST)) < _EXACT

    def prior(self, theta: Float[np.ndarray, " unknowns"]) -> Prior:
        """Mean and standard deviation of the weak prior, around a start."""
        u = self.equation.unknowns
        mean, deviation = np.where(self._recentred, theta, 0.0), np.ones(u.total)
        deviation[u.log_k] = _DECADES
        likely = np.where(self._weak, _WEAK, _TURNOVERS)
        deviation[u.slope] = likely * self._turnover
        # The offset is -slope times the baseline, which is large where a species hardly changes.
        deviation[u.offset] = likely * np.hypot(self._rate, self._turnover * self._size)
        deviation[u.law] = _BENDS
        return mean, deviation

    def parts(self, start: Start, length: int) -> Int[np.ndarray, " frames"]:
        """The parts of the time after every frame that an accuracy far below the noise needs; see `Problem.parts`.

        Args:
            start: the integrator, the unknowns and the noise.
            length: frames of a window, over which the errors add up.
        """
        steps = self.observations.transitions()
        parts = np.ones(self.observations.n_frames, dtype=np.int64)
        if not start.integrator.continuous:
            return parts
        c, left, number = start.path, np.arange(len(steps.frame)), 1
        allowed = np.maximum(_ACCURACY / length * start.noise.sigma(c), _FINEST * c.max())
        rate = self.equation.bind(start.theta)
        while number < _MOST_PARTS and len(left):
            frame = steps.frame[left]
            one, two = (
                start.integrator.divided(n).advance(rate, c[frame], steps.dt[left]) for n in (number, 2 * number)
            )
            left = left[~(np.abs(one - two) < allowed[frame]).all(axis=1)]
            number *= 2
            parts[steps.frame[left]] = number
        return parts
