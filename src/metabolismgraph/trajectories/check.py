"""Whether a model follows measured trajectories over short windows, whatever method found it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Float

from metabolismgraph.system.kinetics import Structure
from metabolismgraph.system.observations import Observations
from metabolismgraph.system.threads import single_thread
from metabolismgraph.trajectories.integrators import Integrator
from metabolismgraph.trajectories.misfit import Measurements
from metabolismgraph.trajectories.noise import NoiseModel, smooth
from metabolismgraph.trajectories.problem import Problem
from metabolismgraph.trajectories.rates import FLOOR, RateEquation
from metabolismgraph.trajectories.shooting import linearise, positive, relax
from metabolismgraph.trajectories.substrate_spline import SubstrateSpline
from metabolismgraph.trajectories.ties import relax_pieces
from metabolismgraph.trajectories.windows import Windows

_RELAXATIONS = 12
_STEPS, _SHARES, _SMALL = 5, (1.0, 0.5, 0.25, 0.1), 0.5  # Gauss-Newton steps; decrease of the misfit that ends them


class Check(NamedTuple):
    """Residuals of trajectories, per species.

    Attributes:
        chi2: mean square of the residual in units of the noise, corrected for the free initial states; about 1 where
            the model follows the data.
        rms: of the residual, in concentration.
        values: number of measured values that were compared.
        fitted: the trajectories, in concentration; infinite where they diverge.
    """

    chi2: Float[np.ndarray, " species"]
    rms: Float[np.ndarray, " species"]
    values: Float[np.ndarray, " species"]
    fitted: Float[np.ndarray, "frames species"]


class Errors(NamedTuple):
    """Errors of estimates, from a fit of other data.

    Attributes:
        covariance: of log10 k, slopes, offsets and the coefficients of the learned laws, one law after the other.
        log_c: log concentrations at which the basis of log f is given.
        basis: its functions there.
    """

    covariance: Float[np.ndarray, "unknowns unknowns"]
    log_c: Float[np.ndarray, " points"]
    basis: Float[np.ndarray, "points functions"]

    def in_basis_of(self, equation: RateEquation) -> Float[np.ndarray, "unknowns unknowns"]:
        """The covariance for the coefficients of the laws of a rate equation."""
        others = np.eye(equation.unknowns.law.start)
        law = np.linalg.lstsq(equation.spline(self.log_c), self.basis, rcond=None)[0]
        transform = scipy.linalg.block_diag(others, *[law] * equation.unknowns.laws)
        return np.asarray(transform @ self.covariance @ transform.T)


def check_trajectories(
    observations: Observations,
    structure: Structure,
    log_f: Callable[[np.ndarray, float], np.ndarray],
    log_k: Float[np.ndarray, " reactions"],
    line: tuple[Float[np.ndarray, " species"], Float[np.ndarray, " species"]],
    integrator: Integrator,
    noise: NoiseModel,
    length: int,
    errors: Errors | None = None,
) -> Check:
    """Fit the initial states of windows to the data, with everything else as given, or as far as its errors allow.

    Args:
        observations: in internal units.
        log_f: learned log f at log concentrations, for a substrate order.
        line: slope and offset of homeostasis.
        length: frames of a window.
        errors: of all estimates, within which they may move; None: they are exact. Over long windows, small errors of
            the estimates have effects far above the noise.
    """
    c = observations.concentration
    seen = np.log(c[c > 0]) if (c > 0).any() else np.zeros(1)
    spline = SubstrateSpline.over(seen)
    equation = RateEquation.of(structure, spline, FLOOR * float(c.max()))
    laws = structure.rate_laws
    theta = np.concatenate([log_k, *line, spline.coefficients_of_laws(log_f, laws.order[~laws.known])])
    path = np.maximum(smooth(observations, noise.scale), 0.0)
    measured = Measurements.of(observations, noise.sigma(path), equation.moving)
    undivided = np.ones(len(c), dtype=np.int64)
    windows = Windows.cut(observations, length)
    problem = Problem(equation, integrator, windows, measured, (theta, np.ones(len(theta))), undivided)
    with single_thread(), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        other = relax_pieces(problem, theta, path)
        x, _ = relax(problem, theta, path[windows.starts], _RELAXATIONS, other=other)
        states = problem.path(theta, x)[0] if errors is None else _within(errors, problem, theta, x)
        fitted = windows.spread(states, len(c))
    fitted = np.nan_to_num(fitted, nan=np.inf)
    used = (measured.weight > 0) & ~measured.censored
    residual = np.where(used, c - fitted, 0.0)
    count = used.sum(axis=0)
    left = np.maximum(count - len(windows.frame), 1)
    z = residual / measured.sigma
    return Check(
        chi2=np.sum(z**2, axis=0) / left,
        rms=np.sqrt(np.sum(residual**2, axis=0) / left),
        values=count.astype(np.float64),
        fitted=fitted,
    )


def _within(
    errors: Errors, problem: Problem, theta: Float[np.ndarray, " unknowns"], x: Float[np.ndarray, "windows species"]
) -> Float[np.ndarray, "windows length species"]:
    """States with the most likely estimates, for a Gaussian prior around the given ones, by Gauss-Newton steps."""
    covariance = errors.in_basis_of(problem.equation)
    # The change of the estimates is the covariance times a vector, so that its inverse is not needed.
    vector = np.zeros(len(theta))
    loss = float(problem.path(theta, x)[1].sum())
    for _ in range(_STEPS):
        now = covariance @ vector
        normal = linearise(problem, theta + now, x)
        information = np.eye(len(theta)) + normal.matrix @ covariance
        try:
            step = np.linalg.solve(information, normal.gradient + normal.matrix @ now) - vector
        except np.linalg.LinAlgError:  # singular
            break
        if not np.isfinite(step).all():  # the states have diverged
            break
        before = loss
        for share in _SHARES:
            trial = vector + share * step
            change = covariance @ trial
            other = positive(x, normal.initial_states(change - now))
            moved, misfit = relax(problem, theta + change, x, _RELAXATIONS, other=other)
            misfit += 0.5 * float(trial @ change)
            if misfit < loss:
                vector, x, loss = trial, moved, misfit
                break
        if not loss < before - _SMALL:
            break
    return problem.path(theta + covariance @ vector, x)[0]
