"""The way of one start to an optimum."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable
from typing import NamedTuple

import fides
import numpy as np
from jaxtyping import Float

from metabolismgraph.formats.petab import PetabProblem
from metabolismgraph.kinetic_models.fit_result import OUT_OF_TIME
from metabolismgraph.kinetic_models.objective import Objective, Part
from metabolismgraph.kinetic_models.sensitivities import SimulationFailedError
from metabolismgraph.system.threads import single_thread
from metabolismgraph.text import one_line

MOST_STEPS = 500  # of each of two searches
_COARSE, _FINE = 1e-3, 1e-8  # change of the objective at which the first and the second one end
_ROUNDING = 1e-9  # distance from the bounds, in ranges between them, at which a search goes on after an error
_ON_THE_WAY, _FEW_STEPS = 1e-2, 80  # the same, and most steps, for each part of the series


_Way = Callable[[Objective, np.ndarray, float], np.ndarray | None]


class _OutOfTimeError(Exception):
    """A start has reached its limit of CPU time."""


class Start(NamedTuple):
    """What came of one start.

    Attributes:
        objective: see `PetabFit`; infinite if there is none.
        point: parameters on the scales of the table.
        evaluations: of the likelihood.
        seconds: of computing.
        ending: see `PetabFit.starts`.
    """

    objective: float
    point: Float[np.ndarray, " parameters"]
    evaluations: int
    seconds: float
    ending: str


OBJECTIVES: dict[str, Objective] = {}  # that of the present fit in this process, which has many starts


def run_start(
    problem: PetabProblem,
    fit: str,
    number: int,
    points: Float[np.ndarray, "tries parameters"],
    seconds: float = math.inf,
) -> tuple[int, Start]:
    """Number and result of a start, which begins at the likeliest of some points.

    Args:
        fit: name of the call of `fit_petab`.
        seconds: of CPU time, after which the best point so far is the result.
    """
    if fit not in OBJECTIVES:
        OBJECTIVES.clear()
        OBJECTIVES[fit] = Objective(problem)
    # Threads of linear algebra with small matrices wait for one another longer than they work.
    with single_thread():
        return number, _run(OBJECTIVES[fit], number, points, seconds)


def _run(objective: Objective, number: int, points: Float[np.ndarray, "tries parameters"], seconds: float) -> Start:
    before = time.process_time()
    objective.evaluations, objective.precise = 0, True
    # No way is the best one for all problems.
    deadline, way = before + seconds, None
    if len(points) > 1:
        way = {1: _followed, 3: _led}.get(number % 4)
    point = _first_point(objective, way, points, deadline)
    value, ending = math.inf, "no finite likelihood"
    if point is not None:
        # The Fisher information leaves out the curvature of the residuals, without which the last steps are small.
        try:
            with contextlib.suppress(RuntimeError):  # where sensitivities fail with rough tolerances alone
                objective.precise = False
                _, point, _ = search(objective, point, _COARSE, None, deadline)
            objective.precise = True
            curved = fides.HybridFixed(fides.BFGS(), switch_iteration=1)
            value, point, ending = search(objective, point, _FINE, curved, deadline)
        except (RuntimeError, ValueError, np.linalg.LinAlgError) as error:
            ending = f"the optimiser failed: {one_line(error)}"
    return Start(
        value, points[0] if point is None else point, objective.evaluations, time.process_time() - before, ending
    )


def _first_point(
    objective: Objective, way: _Way | None, points: Float[np.ndarray, "tries parameters"], deadline: float
) -> Float[np.ndarray, " parameters"] | None:
    """Where a way leads; otherwise the likeliest of some points. None if none has a likelihood."""
    led = None if way is None else way(objective, points, deadline)
    for some in ([] if led is None else [led], points):
        tried = list[tuple[float, np.ndarray]]()
        for point in some:
            if tried and time.process_time() > deadline:
                break
            with contextlib.suppress(SimulationFailedError):
                tried.append(objective.refined(point))
        # The likeliest point may have no sensitivities, whose integration is harder.
        for value, point in sorted(tried, key=lambda one: one[0]):
            if math.isfinite(value) and math.isfinite(objective(point)[0]):
                return point
    return None


def _led(
    objective: Objective, points: Float[np.ndarray, "tries parameters"], deadline: float
) -> Float[np.ndarray, " parameters"] | None:
    """Where the way through the parts of a series ends, from the likeliest of some points; None without parts.

    From far away, a fit of a whole oscillation misses its phase, and ends in a flat line.
    """
    tried, parts = [], objective.parts
    for candidate in points if parts else ():
        with contextlib.suppress(SimulationFailedError):
            parts[0].begin(candidate)
            tried.append((parts[0](candidate[parts[0].free])[0], candidate))
    tried = [one for one in tried if math.isfinite(one[0])]
    if not tried:
        return None
    point: np.ndarray = min(tried, key=lambda one: one[0])[1]
    for part in parts:
        try:
            part.begin(point)
            _, free, _ = search(part, point[part.free], _ON_THE_WAY, None, deadline, _FEW_STEPS)
        except (SimulationFailedError, RuntimeError, ValueError, np.linalg.LinAlgError):
            break  # the point so far may still be better than a random one
        point = part.whole_point(free)
    return point


def _followed(
    objective: Objective, points: Float[np.ndarray, "tries parameters"], deadline: float
) -> Float[np.ndarray, " parameters"] | None:
    """Where collocation leads from the first point; None where it is not possible."""
    return None if objective.collocation is None else objective.collocation.lead(points[0], deadline)


def search(
    objective: Objective | Part,
    point: Float[np.ndarray, " parameters"],
    least_change: float,
    update: fides.hessian_approximation.HessianApproximation | None,
    deadline: float = math.inf,
    most_steps: int = MOST_STEPS,
) -> tuple[float, Float[np.ndarray, " parameters"], str]:
    """Value, point and reason of the end of a search.

    Args:
        deadline: CPU time of the process at which the search ends with the best point so far.
    """
    best = (math.inf, point)

    def watched(at: Float[np.ndarray, " parameters"]) -> tuple[float, np.ndarray, np.ndarray]:
        nonlocal best
        found = objective(at)
        best = min(best, (found[0], at.copy()), key=lambda one: one[0])
        if time.process_time() > deadline:
            raise _OutOfTimeError
        return found

    options = {
        fides.Options.MAXITER: most_steps,
        fides.Options.FATOL: least_change,
        fides.Options.FRTOL: 0.0,
        fides.Options.SUBSPACE_DIM: fides.SubSpaceDim.FULL,
    }
    margin, before = _ROUNDING * (objective.upper - objective.lower), math.inf
    with np.errstate(all="ignore"):
        while True:
            search = fides.Optimizer(watched, objective.upper, objective.lower, logging.CRITICAL, options, None, update)
            try:
                value, found, *_ = search.minimize(point)
            except _OutOfTimeError:
                return *best, OUT_OF_TIME
            except RuntimeError:
                # Rounding may take a step beyond a bound, which fides refuses; the search goes on from the best point.
                if not best[0] < before:
                    raise
                before, point = best[0], np.clip(best[1], objective.lower + margin, objective.upper - margin)
                continue
            return float(value), found, search.exitflag.name
