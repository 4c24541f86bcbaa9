"""A fit of trajectories: start by the weak form, choice of the integrator, and shooting over growing windows."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float

from metabolismgraph.errors import InputError
from metabolismgraph.system.derivative_rules import Rule
from metabolismgraph.system.kinetics import Structure
from metabolismgraph.system.observations import Observations
from metabolismgraph.system.progress import Progress, silent
from metabolismgraph.trajectories.gauss_newton import Fitted, fit_windows
from metabolismgraph.trajectories.integrators import Collocation, EulerSteps, Integrator, RungeKutta
from metabolismgraph.trajectories.misfit import ROBUST, Measurements
from metabolismgraph.trajectories.noise import NoiseModel, noise_of_differences, smooth
from metabolismgraph.trajectories.rates import FLOOR, RateEquation
from metabolismgraph.trajectories.shooting import Problem
from metabolismgraph.trajectories.substrate_spline import SubstrateSpline
from metabolismgraph.trajectories.threads import single_thread
from metabolismgraph.trajectories.weak_form import weak_form
from metabolismgraph.trajectories.windows import Windows

_log = logging.getLogger(__name__)
# Frames of the windows of successive stages. The first ones are for coarse samples, where eight frames are long.
_LENGTHS, _FINE = (2, 4, 8, 32, 128, 480), 8
_WORSE = 1.1  # longer windows are accepted if chi squared per value grows by less than this factor
FOLLOWED = 1.4  # chi squared per value below which the residual is noise: the model follows the trajectories
# Chi squared per value below which the assumed noise is so much too large that a stage is repeated with less.
_TOO_LARGE, _REPEATS = 0.5, 8
_CORRELATED = 0.2  # correlation of neighbouring residuals above which they are a misfit
_ENOUGH = 30  # values per unknown that suffice to choose the integrator
_EXCESS = 2.0  # residual relative to the noise in differences above which a start is far off
_HOPELESS = 100.0  # chi squared per value, under the noise below, above which a start is given up
_DOUBTFUL = 0.05  # noise relative to the spread of a species, assumed where the start is far off
_MOST_DOUBLINGS, _MOST_SUBSTEPS = 5, 32
_ACCURACY = 0.05  # of the integration, in standard deviations of the noise
_ROUNDING = 1e-8  # the same, and least noise, relative to the largest concentration
_LEAST_NOISE, _EXACT = 1e-7, 1e-5  # least noise, and rounding, relative to the spread of a species
_SMALL = 10  # species
_STIFF = 2.0  # largest step of an explicit method, in units of 1 / rate of the fastest decay
_SMOOTH: tuple[Rule, ...] = ("cubic", "trapezoid")  # rules for dc/dt of a continuous process, for the start
_TIGHT = 0.01  # share of the usual prior of homeostasis, for a start that is far off
_CLEARLY = 3.0  # difference of the log likelihood by which Euler steps must be better than a continuous process
# Standard deviations of the weak prior: decades of k, bends of log f; slope and offset of homeostasis relative to the
# turnover of a species and to its dc/dt.
_DECADES, _BENDS, _TURNOVERS, _WEAK = 1.0, 0.3, 1.0, 1e-4


@dataclasses.dataclass(frozen=True)
class TrajectoryFit:
    """The result of a fit of trajectories.

    Attributes:
        equation: the rate equation.
        stages: the accepted stage of every horizon, shortest windows first.
        noise: of the measured concentrations, from the residual.
        noise_of_differences: of every species, from differences in time alone.
        refused: window length and chi squared per value of the horizon that was not accepted; None if all were.
    """

    equation: RateEquation
    stages: tuple[Fitted, ...]
    noise: NoiseModel
    noise_of_differences: Float[np.ndarray, " species"]
    refused: tuple[int, float] | None

    @property
    def best(self) -> Fitted:
        """The stage with the longest windows."""
        return self.stages[-1]

    @property
    def integrator(self) -> Integrator:
        return self.best.problem.integrator


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
        return _Fit(observations, structure, progress, weak).run(rule)


@dataclasses.dataclass(frozen=True)
class _Stage:
    """A fitted stage with the noise that belongs to it."""

    fitted: Fitted
    noise: NoiseModel

    @property
    def integrator(self) -> Integrator:
        return self.fitted.problem.integrator


class _Fit:
    """The data of a fit, and the steps of the fit."""

    def __init__(
        self, observations: Observations, structure: Structure, progress: Progress, weak: Bool[np.ndarray, " species"]
    ):
        self.observations, self.progress, self.weak = observations, progress, weak
        self.whole = self
        c = observations.concentration
        self.differences = noise_of_differences(observations)
        smoothed = smooth(observations, self.differences)
        self.path = np.maximum(smoothed, np.maximum(0.3 * self.differences, FLOOR * c.max()))
        learned = np.asarray(structure.pair_species)[~np.asarray(structure.pair_known)]
        log_c = np.log(self.path[:, learned]).ravel() if learned.size else np.zeros(1)
        spline = SubstrateSpline.over(log_c, math.log(2 * float(np.median(self.differences))))
        self.equation = RateEquation.of(structure, spline, FLOOR * float(c.max()))
        self.least = np.maximum(_LEAST_NOISE * c.std(axis=0), _ROUNDING * c.max())
        transitions = observations.transitions()
        self.dt = float(np.median(transitions.dt))
        change = (smoothed[transitions.frame + 1] - smoothed[transitions.frame]) / transitions.dt[:, None]
        self.rate = np.sqrt(np.mean(change**2, axis=0)) + 1e-300
        size = np.sqrt(np.mean(c**2, axis=0)) + 1e-300
        self.turnover = float(np.median((self.rate / size)[self.equation.moving]))
        longest = int(np.bincount(observations.run).max())
        # Rate constants and exponents, but neither homeostasis nor the bends of log f.
        unknowns = self.equation.unknowns
        self.recentred = np.zeros(unknowns.total, dtype=bool)
        self.recentred[unknowns.log_k] = True
        self.recentred[unknowns.law.start + np.arange(unknowns.laws) * unknowns.size] = True
        self.starts: dict[Rule, Float[np.ndarray, " unknowns"]] = {}
        self.lengths = sorted({min(w, longest) for w in _LENGTHS})

    def run(self, rule: Rule | None) -> TrajectoryFit:
        """Choose the integrator over short windows, then let the windows grow."""
        part = self.part()
        now = part.choose(rule)
        if part is not self:
            fitted, length = now.fitted, now.fitted.problem.windows.wanted
            now = self.stage(
                now.integrator, fitted.theta, self.path, now.noise, length, fitted.problem.prior, last=False
            )
        stages, refused = [now], None
        longer = [w for w in self.lengths if w > now.fitted.problem.windows.wanted]
        for number, length in enumerate(longer, 1):
            if self.is_exact(stages[-1]):
                break
            self.progress("phase 1", number / (len(longer) + 1), f"windows of {length} frames")
            then = self.next_stage(stages[-1], length, last=length == longer[-1])
            before, after = (self.chi2(stage.fitted, stages[-1].noise) for stage in (stages[-1], then))
            _log.info("windows of %d frames: chi squared per value %.4g, %.4g before", length, after, before)
            # Shorter windows have more free initial states, and so a smaller residual.
            free = 1 - 1 / stages[-1].fitted.problem.windows.length
            if not after < _WORSE * max(before / free, 1.0):
                refused = (length, after)
                break
            stages.append(then)
        if refused is not None:
            stages[-1] = self.next_stage(stages[-1], stages[-1].fitted.problem.windows.wanted, last=True)
        best = stages[-1]
        return TrajectoryFit(
            self.equation, tuple(stage.fitted for stage in stages), best.noise, self.differences, refused
        )

    def is_exact(self, stage: _Stage) -> bool:
        """Whether no more than rounding is left, so that longer windows would add nothing."""
        spread = np.maximum(self.whole.observations.concentration.std(axis=0), 1e-300)
        left = (stage.noise.scale / spread)[self.equation.moving]
        return stage.fitted.chi2 < FOLLOWED and bool((left < _EXACT).all())

    def part(self) -> _Fit:
        """The same with a part of the data, evenly spread, that suffices to choose the integrator."""
        moving, unknowns = int(self.equation.moving.sum()), self.equation.unknowns.total
        windows = Windows.cut(self.observations, min(_FINE, self.lengths[-1]))
        enough = math.ceil(_ENOUGH * unknowns / max(moving * (windows.length - 1), 1))
        if 2 * enough > len(windows.frame):
            return self
        chosen = np.linspace(0, len(windows.frame) - 1, enough).round().astype(np.int64)
        run = np.full(self.observations.n_frames, -1)
        for number, window in enumerate(chosen):
            run[windows.frame[window]] = number
        used = run >= 0
        part = copy.copy(self)
        part.observations = dataclasses.replace(self.observations.select(used), run=run[used])
        part.path = self.path[used]
        part.whole = self
        part.lengths = [w for w in self.lengths if w <= _FINE]
        return part

    def next_stage(self, now: _Stage, length: int, *, last: bool) -> _Stage:
        """Fit windows of another length from a fitted stage."""
        known = now.fitted.chi2 < FOLLOWED
        integrator = self.accurate(now)
        return self.stage(
            integrator, now.fitted.theta, now.fitted.path, now.noise, length, now.fitted.problem.prior, last=last,
            robust=ROBUST if known else np.inf,
        )  # fmt: skip

    def choose(self, rule: Rule | None) -> _Stage:
        """A fit over short windows with the integrator of the highest likelihood."""
        found = self.candidates(rule, self.direct)
        moving = self.equation.moving
        excess = float(np.max((self.residual_noise(found.fitted).scale / self.differences)[moving]))
        if excess < _EXCESS and (found.fitted.chi2 < FOLLOWED or _is_white(found.fitted)):
            return found
        # Only for a continuous process: Euler steps are those of a simulator, whose frames are rarely far apart.
        for smooth_rule in () if rule == "forward" else _SMOOTH:
            with contextlib.suppress(InputError):
                found = min(found, self.careful(None, smooth_rule), key=lambda stage: self.loss(stage.fitted))
            if self.is_exact(found):
                break
        return found

    def candidates(self, rule: Rule | None, first: Callable[[Integrator | None, Rule], _Stage]) -> _Stage:
        """The best of the integrators that may have made the data."""
        if rule == "forward":
            return first(EulerSteps(), "forward")
        # Euler steps and a continuous process of a linear system give the same data, with other rate constants.
        continuous = min((first(None, r) for r in _SMOOTH), key=lambda stage: self.loss(stage.fitted))
        dt = self.observations.transitions().dt
        if rule is not None or np.ptp(dt) > 1e-6 * self.dt or self.equation.linear:
            return continuous
        euler = [first(EulerSteps(), "forward")]
        # If the data were made by q steps per frame, the error of one step is proportional to 1 - 1/q, and that of the
        # continuous process to 1/q, so that their ratio is q - 1.
        one, other = (self.loss(stage.fitted) for stage in (euler[0], continuous))
        power = math.log2(1 + math.exp(min((one - other) / int(continuous.fitted.used.sum()), 50.0)))
        if power < _MOST_DOUBLINGS:
            numbers = {2 ** max(math.floor(power), 1), 2 ** max(math.ceil(power), 1)}
            euler += [first(EulerSteps(number), "trapezoid") for number in sorted(numbers)]
        best = min(euler, key=lambda stage: self.loss(stage.fitted))
        return best if self.loss(best.fitted) < other - _CLEARLY else continuous

    def direct(self, integrator: Integrator | None, rule: Rule) -> _Stage:
        """A fit over short windows from the weak form.

        Args:
            integrator: None: one for a continuous process.
            rule: for dc/dt in the weak form.
        """
        theta = self.start(rule)
        used = integrator or self.solver(theta)
        self.progress("phase 1", 0.0, f"{used.name}, windows of {_FINE} frames")
        length = min(_FINE, self.lengths[-1])
        stage = self.stage(used, theta, self.path, NoiseModel(self.differences), length, self.prior(theta), last=False)
        return self.checked(self.refined(stage))

    def refined(self, stage: _Stage) -> _Stage:
        """The stage with as many steps of the integrator as it needs."""
        for _ in range(_REPEATS):
            finer = self.accurate(stage)
            if finer == stage.integrator:
                break
            fitted = stage.fitted
            path, length, prior = np.maximum(fitted.path, 0.0), fitted.problem.windows.wanted, fitted.problem.prior
            stage = self.stage(finer, fitted.theta, path, stage.noise, length, prior, last=True)
        return stage

    def careful(self, integrator: Integrator | None, rule: Rule) -> _Stage:
        """The same for a start that is far off: from windows of two frames on, under noise that hides small errors.

        Homeostasis is kept small at first, since it can take the place of a reaction.
        """
        theta = self.start(rule)
        used = integrator or self.solver(theta)
        u, prior = self.equation.unknowns, self.prior(theta)
        theta[u.slope] = theta[u.offset] = 0.0
        tight = prior[1].copy()
        tight[u.slope] *= _TIGHT
        tight[u.offset] *= _TIGHT
        path = self.path
        noise = NoiseModel(np.maximum(self.differences, _DOUBTFUL * self.observations.concentration.std(axis=0)))
        short = [w for w in self.lengths if w <= _FINE]
        for length, own in [*((w, (prior[0], tight)) for w in short), (short[-1], prior)]:
            stage = self.stage(used, theta, path, noise, length, own, last=own is prior)
            theta, path, noise = stage.fitted.theta, np.maximum(stage.fitted.path, 0.0), stage.noise
            if not stage.fitted.chi2 < _HOPELESS:
                break
            used = self.accurate(stage)
        return self.checked(self.refined(stage))

    def checked(self, stage: _Stage) -> _Stage:
        """The stage, if its trajectories are finite."""
        loss = self.loss(stage.fitted)
        _log.info("%s: chi squared per value %.4g", stage.integrator.name, stage.fitted.chi2)
        if not np.isfinite(loss):
            raise InputError("the trajectories of the model cannot be integrated from these data")
        return stage

    def start(self, rule: Rule) -> Float[np.ndarray, " unknowns"]:
        """The unknowns by the weak form."""
        if rule not in self.starts:
            whole = self.whole
            self.starts[rule] = weak_form(whole.observations, self.equation, whole.path, self.differences, rule)
        return self.starts[rule].copy()

    def stage(
        self,
        integrator: Integrator,
        theta: Float[np.ndarray, " unknowns"],
        path: Float[np.ndarray, "frames species"],
        noise: NoiseModel,
        length: int,
        prior: tuple[Float[np.ndarray, " unknowns"], Float[np.ndarray, " unknowns"]],
        *,
        last: bool,
        robust: float = np.inf,
    ) -> _Stage:
        """Fit windows of one length, again with less noise where the assumed noise turns out to be far too large."""
        windows = Windows.cut(self.observations, length)
        x = np.maximum(path, 0.0)[windows.starts]
        for _ in range(_REPEATS):
            # Around the latest estimate, so that the prior of a start that was far off does not pull.
            mean = np.where(self.recentred, theta, prior[0])
            measured = Measurements.of(self.observations, noise.sigma(path), self.equation.moving, robust)
            problem = Problem(self.equation, integrator, windows, measured, (mean, prior[1]))
            fitted = fit_windows(problem, theta, x, last=last)
            found = self.residual_noise(fitted)
            theta, x, path = fitted.theta, fitted.x, np.maximum(fitted.path, 0.0)
            if not fitted.chi2 < _TOO_LARGE or (found.scale > 0.9 * noise.scale).all():
                break
            noise = found
        return _Stage(fitted, found if fitted.chi2 < FOLLOWED or _is_white(fitted) else noise)

    def residual_noise(self, fitted: Fitted) -> NoiseModel:
        """The noise from the residual of a fit, where cutting at zero plays no part."""
        usual = max(ROBUST, 2 * ROBUST * math.sqrt(fitted.chi2)) * fitted.problem.measurements.sigma
        used = fitted.shows_noise & (np.abs(fitted.residual) < usual)
        # Unknowns per species: an initial state of every window, and its share of the others.
        free = len(fitted.x) + self.equation.unknowns.total / max(int(self.equation.moving.sum()), 1)
        return NoiseModel.of_residuals(fitted.residual, np.maximum(fitted.path, 0.0), used, free, self.least)

    def chi2(self, fitted: Fitted, noise: NoiseModel) -> float:
        """Chi squared per value of a fit, for the given noise."""
        sigma = noise.sigma(np.maximum(fitted.path, 0.0))
        return float(np.mean((fitted.residual / sigma)[fitted.used] ** 2))

    def loss(self, fitted: Fitted) -> float:
        """Minus the log likelihood of a fit, with the noise of each species at its best value."""
        count = fitted.used.sum(axis=0)
        square = np.where(fitted.used, fitted.residual**2, 0.0).sum(axis=0)
        return float(np.sum(count / 2 * np.log(square / np.maximum(count, 1) + self.least**2)))

    def prior(
        self, theta: Float[np.ndarray, " unknowns"]
    ) -> tuple[Float[np.ndarray, " unknowns"], Float[np.ndarray, " unknowns"]]:
        """Mean and standard deviation of the weak prior, around a start."""
        u = self.equation.unknowns
        mean, deviation = np.where(self.recentred, theta, 0.0), np.ones(u.total)
        deviation[u.log_k] = _DECADES
        likely = np.where(self.weak, _WEAK, _TURNOVERS)
        deviation[u.slope] = likely * self.turnover
        deviation[u.offset] = likely * self.rate
        deviation[u.law] = _BENDS
        return mean, deviation

    def solver(self, theta: Float[np.ndarray, " unknowns"]) -> Integrator:
        """An integrator for a continuous process: implicit if the rate equation is stiff between two frames."""
        frames = np.linspace(0, self.observations.n_frames - 1, 16).astype(int)
        at = self.equation.rates(theta, self.path[frames])
        fastest = np.abs(np.linalg.eigvals(self.equation.by_state(theta, at))).max()
        small = len(self.equation.moving) < _SMALL  # where the implicit method costs little
        return Collocation() if small or fastest * self.dt > _STIFF else RungeKutta()

    def accurate(self, now: _Stage) -> Integrator:
        """The integrator of a stage, with as many steps as an accuracy far below the noise needs."""
        integrator, steps = now.integrator, self.observations.transitions()
        # A fit that is far off says nothing about the accuracy that the right one needs.
        if isinstance(integrator, EulerSteps) or not now.fitted.chi2 < FOLLOWED:
            return integrator
        c = np.maximum(now.fitted.path, 0.0)
        allowed = np.maximum(_ACCURACY * now.noise.sigma(c), _ROUNDING * c.max())[steps.frame]
        while integrator.substeps < _MOST_SUBSTEPS:
            finer = dataclasses.replace(integrator, substeps=2 * integrator.substeps)
            one, two = (
                i.advance(self.equation, now.fitted.theta, c[steps.frame], steps.dt) for i in (integrator, finer)
            )
            if (np.abs(one - two) < allowed).all():
                return integrator
            integrator = finer
        return integrator


def _is_white(fitted: Fitted) -> bool:
    """Whether neighbouring residuals of a fit are uncorrelated, so that they are noise and not a misfit."""
    moving = fitted.problem.equation.moving
    return bool(np.median(fitted.autocorrelation[moving]) < _CORRELATED)
