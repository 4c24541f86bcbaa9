"""A fit of trajectories by multiple shooting over growing windows."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
from jaxtyping import Bool, Float

from metabolismgraph.system.derivative_rules import Rule
from metabolismgraph.system.kinetics import Structure
from metabolismgraph.system.observations import Observations
from metabolismgraph.system.progress import Progress, silent
from metabolismgraph.trajectories.choice import choose_integrator
from metabolismgraph.trajectories.gauss_newton import Fitted
from metabolismgraph.trajectories.integrators import Integrator
from metabolismgraph.trajectories.misfit import ROBUST
from metabolismgraph.trajectories.noise import NoiseModel
from metabolismgraph.trajectories.rates import RateEquation
from metabolismgraph.trajectories.stages import FOLLOWED, Stage, Stages
from metabolismgraph.trajectories.threads import single_thread

__all__ = ["FOLLOWED", "TrajectoryFit", "fit_trajectories"]

_log = logging.getLogger(__name__)
# Frames of the windows of successive stages. The first ones are for coarse samples, where eight frames are long.
_LENGTHS, _FINE = (2, 4, 8, 32, 128, 480), 8
_WORSE = 1.1  # longer windows are accepted if chi squared per value grows by less than this factor
_REFUSALS, _LEAST_GROWTH = 3, 1.3  # lengths that may be refused, and growth of a window that is worth a stage


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
        """With the largest number of steps between two frames."""
        problem = self.best.problem
        return problem.integrator.divided(int(problem.parts.max()))


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
        first = choose_integrator(stages, [w for w in lengths if w <= _FINE], rule, progress)
        return _grow(stages, first, lengths, progress)


def _grow(stages: Stages, first: Stage, lengths: list[int], progress: Progress) -> TrajectoryFit:
    """Fit longer and longer windows, as long as the trajectories are followed."""
    accepted, refused, refusals = [first], None, 0
    longer = [w for w in lengths if w > first.length]
    while longer:
        now, length = accepted[-1], longer[0]
        # Shorter windows are easier to follow; where they are not followed, longer ones are not either.
        if stages.is_exact(now) or not now.follows:
            break
        progress(
            "phase 1",
            np.log(length / first.length) / np.log(2 * lengths[-1] / first.length),
            f"windows of {length} frames",
        )
        then = _next(stages, now, length, last=length == longer[-1])
        before, after = (_chi2(stage.fitted, now.noise) for stage in (now, then))
        _log.info("windows of %d frames: chi squared per value %.4g, %.4g before", length, after, before)
        # Shorter windows have more free initial states, and so a smaller residual.
        free = 1 - 1 / now.fitted.problem.windows.length
        if after < _WORSE * max(before / free, 1.0):
            accepted.append(then)
            longer = longer[1:]
            continue
        # The step was too large for the start to be near the same minimum: try a smaller one.
        between, refusals = int(np.sqrt(now.length * length)), refusals + 1
        if refusals > _REFUSALS or between < _LEAST_GROWTH * now.length:
            refused = (length, after)
            break
        longer = [between, *longer]
    if accepted[-1].follows and not stages.is_exact(accepted[-1]):
        # Once more to the end, so that covariance and noise belong together.
        accepted[-1] = _next(stages, accepted[-1], accepted[-1].length, last=True, known=True)
    best = accepted[-1]
    fitted = tuple(stage.fitted for stage in accepted)
    return TrajectoryFit(stages.equation, fitted, best.noise, stages.differences, refused)


def _next(stages: Stages, now: Stage, length: int, *, last: bool, known: bool = False) -> Stage:
    """Fit windows of a length from a fitted stage; see `Stages.fit`."""
    start, noisy = now.start, now.fitted.chi2 < FOLLOWED
    if noisy:
        start = dataclasses.replace(start, parts=stages.parts(start, length))
    return stages.fit(start, length, last=last, known=known, robust=ROBUST if noisy else np.inf)


def _chi2(fitted: Fitted, noise: NoiseModel) -> float:
    """Chi squared per value of a fit, for the given noise."""
    sigma = noise.sigma(np.maximum(fitted.path, 0.0))
    return float(np.mean((fitted.residual / sigma)[fitted.used] ** 2))
