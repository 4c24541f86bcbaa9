"""Fit of a stiff network of mass action: Gauss-Newton on windows of two frames, the short ones first."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy
from jaxtyping import Float, Int

from metabolismgraph.system.observations import Observations
from metabolismgraph.system.progress import Progress
from metabolismgraph.trajectories.implicit_start import integral_start
from metabolismgraph.trajectories.implicit_windows import LOG_10, Misfit, WindowData, evaluate, triangular

_FIRST_NOISE = 1e-4  # relative, of the measurements, before there are residuals
_LEAST_NOISE, _LEAST_AT_END = 1e-7, 1e-8  # on the way, and with all windows
_MOST_AT_START = 0.1  # of that which follows the residual of the start
# Longest windows of each stage, as decades of the longest one, and windows that a further stage adds at least.
_STAGES, _FURTHER = (-3.0, -1.5, 0.0), 5
_PRIOR = 3.0  # decades, of the prior on log10 k around its start
_FACTOR = 10.0  # by which a step may change a k
_ITERATIONS = 30  # per stage
_SETTLED, _NEARLY = 0.02, 0.1  # decades of a step of well determined rate constants that end the iterations
_GAIN, _GAIN_PER_VALUE = 1.0, 1e-4  # of the log likelihood, below which they end
_WELL = 0.1  # standard error of log10 k of a well determined rate constant
_MOST_DAMPING = 1e8
_DIGITS = 9  # to which coefficients are compared
_ELSEWHERE = (0.7, 1.0)  # decades above the first result from which the second fit starts


@dataclasses.dataclass(frozen=True)
class ImplicitFit:
    """Rate constants of a stiff network.

    Attributes:
        k: in concentration^(1-order)/time.
        misfit: there.
        last_step: decades of the last step that was proposed.
        converged: whether the iterations ended by themselves.
        losses: minus twice the log likelihood per value of each accepted step.
    """

    k: Float[np.ndarray, " reactions"]
    misfit: Misfit
    last_step: Float[np.ndarray, " reactions"]
    converged: bool
    losses: tuple[float, ...]

    @property
    def left(self) -> float:
        """Rms residual, relative to the concentrations."""
        return self.misfit.left


def fit_implicitly(observations: Observations, progress: Progress) -> ImplicitFit:
    """Estimate all rate constants, from the start of the integral form on."""
    data = WindowData.of(observations)
    progress("phase 1", 0.0, "first rate constants from integrals")
    return _fit_growing(data, integral_start(observations, data, _FIRST_NOISE), progress, 0.0)


def fit_from_elsewhere(observations: Observations, found: ImplicitFit, seed: int, progress: Progress) -> ImplicitFit:
    """The same fit from another start: every rate constant of a result times a random factor of five to ten.

    Rate constants that are too small for the intervals have local minima with small standard errors, while data say
    nothing on those that are too large. So the factors are above one, and so large that noise does not lead back.
    Opposite reactions have the same factor, which keeps their equilibrium.
    """
    data = WindowData.of(observations)
    factor = 10.0 ** np.random.default_rng(seed).uniform(*_ELSEWHERE, len(found.k))
    return _fit_growing(data, found.k * factor[_partners(data.equation.stoichiometry)], progress, 0.5)


def _partners(stoichiometry: Float[np.ndarray, "moving reactions"]) -> Int[np.ndarray, " reactions"]:
    """For every reaction, the first one whose net stoichiometry is proportional."""
    first: dict[bytes, int] = {}
    found = np.arange(stoichiometry.shape[1])
    for j, column in enumerate(stoichiometry.T):
        lead = column[np.argmax(column != 0)] or 1.0
        found[j] = first.setdefault((np.round(column / lead, _DIGITS) + 0.0).tobytes(), j)
    return found


def _fit_growing(data: WindowData, k: Float[np.ndarray, " reactions"], progress: Progress, begin: float) -> ImplicitFit:
    """Fits of ever longer windows: with long ones from the beginning, the iterations end in local minima."""
    stages = _stages(data)
    center, noise, found = k, _FIRST_NOISE, None
    for place, part in enumerate(stages):
        last = place == len(stages) - 1
        share = begin + 0.5 * place / len(stages)
        progress("phase 1", share, f"{len(part.duration)} windows of up to {part.duration.max():.2g}")
        found = _descend(part, k, center, noise, _LEAST_AT_END if last else _LEAST_NOISE)
        k, noise = found.k, max(found.misfit.noise, _LEAST_NOISE)
    assert found is not None
    return found


def _stages(data: WindowData) -> list[WindowData]:
    """Windows of each stage; those with few windows, or few more than the one before, are left out."""
    stages, sizes = [data], len(data.duration)
    for decades in reversed(_STAGES):
        part = data.up_to(float(data.duration.max()) * 10.0**decades)
        if _FURTHER <= len(part.duration) <= sizes - _FURTHER:
            stages.insert(0, part)
            sizes = len(part.duration)
    return stages


def _descend(
    data: WindowData,
    k: Float[np.ndarray, " reactions"],
    center: Float[np.ndarray, " reactions"],
    noise: float,
    least: float,
) -> ImplicitFit:
    """Levenberg-Marquardt steps that are linear in k, which a wide prior on log10 k keeps from drifting.

    The noise follows the residual, so far away from the data weights do not pretend a precision that is not there.

    Args:
        data: the windows.
        k: start.
        center: of the prior.
        noise: relative, of the measurements, at the start.
        least: bound of the noise.
    """
    damping, converged, losses = 1e-3, False, []
    now = evaluate(data, k, noise)
    now = now.with_noise(float(np.clip(now.left, noise, _MOST_AT_START)))
    change = np.zeros(len(k))
    for _ in range(_ITERATIONS):
        factor = _factor(now, k, center, damping)
        change = np.abs(np.log10(factor))
        well = now.errors(now.noise, _PRIOR) < _WELL
        moved = float(change[well].max(initial=0.0))
        there = evaluate(data, k * factor, now.noise)
        gain = now.deviance + _penalty(k, center) - there.deviance - _penalty(k * factor, center)
        little = _GAIN + _GAIN_PER_VALUE * now.values
        if there.failed <= now.failed and gain > 0:
            k, now, damping = k * factor, there, max(damping / 10, 1e-10)
            losses.append(now.deviance / max(now.values, 1))
            follows = max(now.left, least)
            if gain < little and follows > 0.5 * now.noise and moved < _SETTLED:
                converged = True
                break
            if not 0.8 * now.noise < follows < 1.5 * now.noise:
                now = now.with_noise(max(follows, now.noise / 30))
        else:
            if abs(gain) < 2 * little and moved < _NEARLY:
                converged = True
                break
            damping = max(damping * 30, 1e-6)
            if damping > _MOST_DAMPING:
                break
    return ImplicitFit(k, now, change, converged, tuple(losses))


def _factor(
    now: Misfit, k: Float[np.ndarray, " reactions"], center: Float[np.ndarray, " reactions"], damping: float
) -> Float[np.ndarray, " reactions"]:
    """Factors of k that minimise the damped linear misfit, within bounds (Stark & Parker 1995)."""
    m = len(k)
    matrix = np.concatenate([now.root[:m, :m] / LOG_10, np.sqrt(damping) * np.eye(m), np.eye(m) / _PRIOR / LOG_10])
    target = np.concatenate([now.root[:m, m], np.zeros(m), np.log10(center / k) / _PRIOR])
    root = triangular(np.column_stack([matrix, target]))
    bounds = (1 / _FACTOR - 1, _FACTOR - 1)
    found = scipy.optimize.lsq_linear(root[:m, :m], root[:m, m], bounds, method="bvls", max_iter=2000, tol=1e-14)
    return np.asarray(1 + found.x)


def _penalty(k: Float[np.ndarray, " reactions"], center: Float[np.ndarray, " reactions"]) -> float:
    return float(np.sum((np.log10(k / center) / _PRIOR) ** 2))
