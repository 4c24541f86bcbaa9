"""Fits of windows that are tied to one another: from short windows to the whole series.

States of short windows are nearly linear in their unknowns; those of long windows are not, and their misfit has many
local minima. So the windows stay short. The gaps between them are made smaller step by step, until the windows are one
trajectory (multiple shooting, Bock 1983; with weak constraints, Trémolet 2006).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from metabolismgraph.trajectories.gauss_newton import Fitted, Goal, inverse
from metabolismgraph.trajectories.problem import Problem
from metabolismgraph.trajectories.ties import RELAXATIONS, eliminate, followed, step, tied_equations, unit_diagonal

_MOST_STEPS = 20
# Decrease of the misfit that ends the steps: absolute and, for a start, relative.
_SMALL, _SMALL_SHARE = 0.5, 1e-4


def fit_tied(
    problem: Problem,
    theta: Float[np.ndarray, " unknowns"],
    x: Float[np.ndarray, "windows species"],
    gap: Float[np.ndarray, " species"],
    goal: Goal,
) -> Fitted:
    """Levenberg-Marquardt for the unknowns and the initial states of tied windows.

    Args:
        problem: with windows that end in the first frame of the next one, see `Windows.cut`.
        theta, x: the start.
        gap: standard deviation of the gap between two windows.
        goal: what the fit is for.
    """
    problem, precision, now = followed(problem, theta, x, gap)
    damping, converged = 0.0, False
    normal = tied_equations(problem, now, precision)
    for _ in range(_MOST_STEPS):
        then, damping = step(problem, now, normal, precision, damping, RELAXATIONS)
        if then is None:
            break
        converged = now.loss - then.loss < max(_SMALL, _SMALL_SHARE * then.loss * (goal == "start"))
        now = then
        normal = tied_equations(problem, now, precision)
        if converged:
            break
    try:
        matrix, scale = unit_diagonal(eliminate(normal, 0.0).matrix)
        covariance = scale[:, None] * inverse(matrix) * scale
    except (np.linalg.LinAlgError, ValueError):  # the states have diverged
        covariance = np.diag(problem.prior[1]) ** 2
    path = problem.windows.spread(now.states, len(problem.measurements.value))
    fitted = Fitted(now.theta, now.x, covariance, path, now.loss, np.nan, problem, converged)
    return fitted.with_chi2()
