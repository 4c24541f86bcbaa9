"""Levenberg-Marquardt for the unknowns and the initial states of one set of windows."""

from __future__ import annotations

import dataclasses
import logging
import math
from typing import Literal, NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool, Float

from metabolismgraph.trajectories.damping import Trial, damped_step
from metabolismgraph.trajectories.problem import Problem
from metabolismgraph.trajectories.shooting import Linearised, change_of_unknowns, limited, linearise, positive, relax
from metabolismgraph.trajectories.ties import misfit_per_value, relax_pieces

_log = logging.getLogger(__name__)
_MOST_STEPS = 20  # Gauss-Newton steps of one stage
_RELAXATIONS, _FIRST_RELAXATIONS = 3, 6
_RIDGE = 1e-13  # relative
_SMALLEST_EIGENVALUE = 1e-14  # relative, of the scaled normal matrix
# What a fit is for: the start of a stage with longer windows, a comparison of likelihoods, or final estimates.
Goal = Literal["start", "comparison", "end"]
# A stage ends if a step lowers the misfit by less than this share. That for a start ends too if the misfit is close to
# what noise explains and a step lowers it by less than the second share.
_SMALL, _SMALL_EARLY = 1e-7, 1e-2
# Decreases by one step, and by two steps together, that are too small for another one; the last number is that of two
# steps as a share of the misfit, for few data. Steps stay small where the data do not determine some directions.
_SMALLEST, _SMALL_TWICE, _SHARE_TWICE = 5e-3, {"start": 1.0, "comparison": 1.0, "end": 0.05}, 1e-3
_FAR, _SMALL_FAR = 2.0, 1e-3  # chi squared per value of a local minimum, and such a share there
_NEARLY_NOISE = 1.1  # chi squared per value
_LOST_AFTER, _LOST = 5, 1e6  # steps, and chi squared per value above which they have led nowhere
# A window has gone astray if its misfit is above the first number times the usual one, and so many sampling errors. At
# most such a share of the windows is looked after, so often, if the misfit falls by so much, absolute and relative.
_ASTRAY, _ERRORS, _FEW, _RESCUES, _WORTH, _WORTH_SHARE = 1.2, 4.0, 0.05, 2, 1.0, 1e-3
_NEGLIGIBLE = 1e-3  # decrease of the misfit that is not worth a step: about 0.05 standard errors


@dataclasses.dataclass(frozen=True)
class Fitted:
    """The result of one stage.

    Attributes:
        theta: the unknowns.
        x: initial states of the windows.
        covariance: of the unknowns.
        path: fitted concentrations at every frame.
        loss: minus the log likelihood, with gaps between windows that are tied and with the prior, up to a constant.
        chi2: sum of squared standardised residuals per value in use.
        problem: windows, noise and integrator of the stage.
        converged: whether the last step was small.
    """

    theta: Float[np.ndarray, " unknowns"]
    x: Float[np.ndarray, "windows species"]
    covariance: Float[np.ndarray, "unknowns unknowns"]
    path: Float[np.ndarray, "frames species"]
    loss: float
    chi2: float
    problem: Problem
    converged: bool

    @property
    def used(self) -> Bool[np.ndarray, "frames species"]:
        """Values in use that were not cut at zero."""
        measured = self.problem.measurements
        return np.asarray((measured.weight > 0) & ~measured.censored)

    @property
    def residual(self) -> Float[np.ndarray, "frames species"]:
        """Measured minus fitted concentrations."""
        return np.asarray(self.problem.measurements.value - self.path)

    def with_chi2(self) -> Fitted:
        """The same with chi2 of its residual."""
        z = (self.residual / self.problem.measurements.sigma)[self.used]
        return dataclasses.replace(self, chi2=float(np.mean(z**2)))

    @property
    def autocorrelation(self) -> Float[np.ndarray, " species"]:
        """Correlation of standardised residuals of neighbouring frames of a window."""
        windows = self.problem.windows
        z = np.where(self.shows_noise, self.residual / self.problem.measurements.sigma, 0.0)
        inside = windows.valid[:, 1:] > 0
        first, second = z[windows.frame[:, :-1][inside]], z[windows.frame[:, 1:][inside]]
        size = np.sqrt(np.sum(first**2, axis=0) * np.sum(second**2, axis=0))
        return np.asarray(np.sum(first * second, axis=0) / np.maximum(size, 1e-300))

    @property
    def shows_noise(self) -> Bool[np.ndarray, "frames species"]:
        """Values in use with noise to either side: of a species that is cut at zero, low ones have one half only."""
        measured = self.problem.measurements
        return np.asarray(self.used & (~measured.censored.any(axis=0) | (self.path > 2 * measured.sigma)))


class _Step(NamedTuple):
    theta: Float[np.ndarray, " unknowns"]
    x: Float[np.ndarray, "windows species"]
    loss: float


class _End(NamedTuple):
    """Where the steps of a fit end, with the normal equations there."""

    now: _Step
    normal: Linearised
    converged: bool


def fit_windows(
    problem: Problem,
    theta: Float[np.ndarray, " unknowns"],
    x: Float[np.ndarray, "windows species"],
    *,
    goal: Goal,
    steps: int = _MOST_STEPS,
) -> Fitted:
    """Levenberg-Marquardt for the unknowns and the initial states of one set of windows.

    Args:
        theta, x: the start.
        goal: what the fit is for.
    """
    x, loss = relax(problem, theta, x, _FIRST_RELAXATIONS)
    now = _Step(theta, x, loss + problem.penalty(theta))
    end = _descend(problem, _rescued(problem, now), goal, steps)
    for _ in range(_RESCUES):
        now = _rescued(problem, end.now)
        if not end.now.loss - now.loss > max(_WORTH, _WORTH_SHARE * now.loss):
            break
        end = _descend(problem, now, goal, steps)
    theta, x, loss = end.now
    states, _ = problem.path(theta, x)
    path = problem.windows.spread(states, len(problem.measurements.value))
    scaled, scale = _with_prior(problem, end.normal)
    inverted = inverse(scaled) if np.isfinite(scaled).all() else np.diag(problem.prior[1] / scale) ** 2
    covariance = scale[:, None] * inverted * scale
    return Fitted(theta, x, covariance, path, loss, np.nan, problem, end.converged).with_chi2()


def _descend(problem: Problem, now: _Step, goal: Goal, steps: int) -> _End:
    """At most so many steps that lower the misfit."""
    values = float(np.sum(problem.measurements.weight))
    damping, before = 0.0, np.inf
    normal = linearise(problem, now.theta, now.x)
    for number in range(steps):
        then, damping = _step(problem, normal, now, damping)
        if then is None:
            return _End(now, normal, converged=True)
        decrease = now.loss - then.loss
        now, per_value = then, 2 * then.loss / values
        _log.debug("W %d step %d: chi2/N %.5g, damping %.0e", problem.windows.length, number, per_value, damping)
        normal = linearise(problem, now.theta, now.x)
        small = decrease < max(_SMALLEST, (_SMALL_FAR if per_value > _FAR else _SMALL) * now.loss)
        small |= decrease + before < min(_SMALL_TWICE[goal], _SHARE_TWICE * now.loss)
        before = decrease
        early = goal == "start" and per_value < _NEARLY_NOISE and decrease < _SMALL_EARLY * now.loss
        if small or early:
            return _End(now, normal, converged=True)
        if number >= _LOST_AFTER and per_value > _LOST:
            break
    return _End(now, normal, converged=False)


def _rescued(problem: Problem, now: _Step) -> _Step:
    """The same unknowns, with initial states in another minimum where windows stand out by their misfit."""
    misfit, sampling = misfit_per_value(problem, now.theta, now.x)
    if np.median(misfit) > _FAR:
        return now
    astray = misfit > (_ASTRAY + _ERRORS * sampling) * np.median(misfit)
    # Where many stand out, the unknowns are wrong too, and not all are worth the time.
    worst = np.argsort(-misfit, kind="stable")[: math.ceil(_FEW * len(misfit))]
    astray = worst[astray[worst]]
    # A rescue lowers the misfit of such windows to the usual one, at best.
    if np.sum(((misfit - np.median(misfit)) / sampling**2)[astray]) <= _WORTH:
        return now
    some = dataclasses.replace(problem, windows=problem.windows.select(astray))
    before, x = now.x[astray], now.x.copy()
    other = relax_pieces(some, now.theta, np.maximum(problem.measurements.value, 0.0))
    x[astray], after = relax(some, now.theta, before, _FIRST_RELAXATIONS, other=other)
    _log.debug("W %d: %d windows had gone astray", problem.windows.length, len(astray))
    return _Step(now.theta, x, now.loss - float(some.path(now.theta, before)[1].sum()) + after)


def _with_prior(
    problem: Problem, normal: Linearised
) -> tuple[Float[np.ndarray, "unknowns unknowns"], Float[np.ndarray, " unknowns"]]:
    """The normal matrix with the prior, scaled to unit diagonal, and the scale."""
    matrix = normal.matrix + np.diag(1.0 / problem.prior[1] ** 2)
    scale = 1.0 / np.sqrt(np.diag(matrix))
    return matrix * scale[:, None] * scale, scale


def inverse(matrix: Float[np.ndarray, "unknowns unknowns"]) -> Float[np.ndarray, "unknowns unknowns"]:
    """The inverse of a positive definite matrix; eigenvalues that are rounding count as very small."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors / np.maximum(values, _SMALLEST_EIGENVALUE * values[-1])) @ vectors.T)


def _possible_decrease(
    matrix: Float[np.ndarray, "unknowns unknowns"], gradient: Float[np.ndarray, " unknowns"]
) -> float:
    """The decrease of the misfit by an undamped step, as far as the misfit is quadratic."""
    try:
        factor = scipy.linalg.cho_factor(matrix + _RIDGE * np.eye(len(gradient)))
    except (np.linalg.LinAlgError, ValueError):  # not positive, or not finite
        return np.inf
    return 0.5 * float(gradient @ scipy.linalg.cho_solve(factor, gradient))


def _step(problem: Problem, normal: Linearised, now: _Step, damping: float) -> tuple[_Step | None, float]:
    """One damped Gauss-Newton step that lowers the misfit, or None; and the damping for the next one."""
    mean, deviation = problem.prior
    scaled, scale = _with_prior(problem, normal)
    gradient = scale * (normal.gradient - (now.theta - mean) / deviation**2)
    if _possible_decrease(scaled, gradient) < _NEGLIGIBLE:
        return None, damping

    def solve(damping: float) -> Trial:
        factor = scipy.linalg.cho_factor(scaled + (damping + _RIDGE) * np.eye(len(scale)))
        change = scipy.linalg.cho_solve(factor, gradient)
        predicted = 0.5 * float(gradient @ change + damping * change @ change)
        return Trial((limited(problem, scale * change),), predicted)

    def move(trial: Trial) -> _Step:
        (change,) = trial.change
        theta = now.theta + change_of_unknowns(problem, change)
        other = positive(now.x, normal.initial_states(change))
        x, loss = relax(problem, theta, now.x, _RELAXATIONS, other=other)
        return _Step(theta, x, loss + problem.penalty(theta))

    return damped_step(now, solve, move, damping)
