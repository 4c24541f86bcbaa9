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
from metabolismgraph.trajectories.choice import most_likely, possible_integrators
from metabolismgraph.trajectories.gauss_newton import Fitted
from metabolismgraph.trajectories.integrators import Integrator
from metabolismgraph.trajectories.misfit import ROBUST
from metabolismgraph.trajectories.noise import NoiseModel
from metabolismgraph.trajectories.rates import RateEquation
from metabolismgraph.trajectories.shooting import growth
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
        refused: window length of the horizon that was not accepted, and by how much an error of an initial state grows
            over it; None if all were accepted.
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
        possible = possible_integrators(stages, [w for w in lengths if w <= _FINE], rule, progress)
        accepted = _decide(stages, possible, lengths, progress)
        return _grow(stages, accepted, lengths, progress)


def _decide(stages: Stages, possible: tuple[Stage, ...], lengths: list[int], progress: Progress) -> list[Stage]:
    """Longer windows decide between integrators that short ones do not tell apart.

    Returns:
        The accepted stages with the most likely integrator.
    """
    candidates = [[stage] for stage in possible]
    for length in [w for w in lengths if w > possible[0].length]:
        if len(candidates) == 1:
            break
        progress("phase 1", 0.0, f"windows of {length} frames, {len(candidates)} integrators")
        longer = [[*accepted, _next(stages, accepted[-1], length, last=True)] for accepted in candidates]
        followed = [accepted for accepted in longer if _accepted(*accepted[-2:])]
        if not followed:
            break
        best = most_likely(stages, [accepted[-1] for accepted in followed])
        candidates = [accepted for stage in best for accepted in followed if accepted[-1] is stage]
    return candidates[0]


def _accepted(now: Stage, then: Stage) -> bool:
    """Whether longer windows leave no larger residual than shorter ones."""
    before, after = (_chi2(stage.fitted, now.noise) for stage in (now, then))
    _log.info("windows of %d frames: chi squared per value %.4g, %.4g before", then.length, after, before)
    # Shorter windows have more free initial states, and so a smaller residual.
    free = 1 - 1 / now.fitted.problem.windows.length
    return after < _WORSE * max(before / free, 1.0)


def _grow(stages: Stages, accepted: list[Stage], lengths: list[int], progress: Progress) -> TrajectoryFit:
    """Fit longer and longer windows, as long as the trajectories are followed."""
    first, refused, refusals = accepted[0], None, 0
    longer = [w for w in lengths if w > accepted[-1].length]
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
        if _accepted(now, then):
            accepted.append(then)
            longer = longer[1:]
            continue
        # The step was too large for the start to be near the same minimum: try a smaller one.
        between, refusals = int(np.sqrt(now.length * length)), refusals + 1
        if refusals > _REFUSALS or between < _LEAST_GROWTH * now.length:
            fit = now.fitted
            grown = growth(fit.problem, fit.theta, fit.x) ** (length / fit.problem.windows.length)
            refused = (length, grown)
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
