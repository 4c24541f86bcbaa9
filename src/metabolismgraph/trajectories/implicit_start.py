"""First rate constants of a stiff network, from the integral form of its rate equation."""

from __future__ import annotations

import numpy as np
import scipy
from jaxtyping import Float

from metabolismgraph.system.observations import Observations
from metabolismgraph.trajectories.implicit_step import MassAction
from metabolismgraph.trajectories.implicit_windows import WindowData, triangular

_OF_QUADRATURE, _OF_NOISE = 0.1, 3.0  # error of an integral: share of spline - trapezoid; multiple of the noise
_LEAST_SHARE = 0.5  # an integral below this share of the smaller end of its interval is that of the trapezoid
_ROUNDS, _LAST_ROUNDS = 2, 6  # of generalised least squares, on the way and with all frames
_AT_ONCE = 20  # intervals per QR factorisation
_JITTER, _RIDGE = 1e-12, 1e-9
_LITTLE = 0.1  # standard errors of the integrals that a k at its bound may amount to


def integral_start(observations: Observations, data: WindowData, noise: float) -> Float[np.ndarray, " reactions"]:
    """Rate constants > 0 from x_next - x = S diag(integral of u over the interval) k.

    The error of an integral is proportional to k, so the covariance is that of the last k. The times grow by decades
    from the first one on: fast reactions are seen first.

    Args:
        observations: complete, without gaps.
        data: the windows of the same observations.
        noise: relative, of the measurements.

    Returns:
        k; where the bound k >= 0 is active, a value with little effect on the integrals, and no larger than the median.

    Source:
        Non-negative least squares of Lawson & Hanson 1974; the integral form as in Himmelblau, Jones & Bischoff 1967.
    """
    equation = data.equation
    integral, error, change, variance, since = _rows(observations, data, noise)
    k = length = np.zeros(equation.n_reactions)
    last = since.max()
    for limit in 10.0 ** np.unique(np.ceil(np.log10(since))):
        used = np.flatnonzero(since <= limit * 1.0001)
        for _ in range(_ROUNDS if limit < last else _LAST_ROUNDS):
            k, length = _solve(equation, integral[used], k * error[used], change[used], variance[used])
    usual = float(np.median(k[k > 0])) if (k > 0).any() else 1.0 / float(since.max())
    return np.asarray(np.maximum(k, np.minimum(_LITTLE / np.maximum(length, 1e-300), usual)))


def _rows(
    observations: Observations, data: WindowData, noise: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Integrals of u with their errors, changes of x with their variances, and times since the start of the run."""
    equation = data.equation
    parts = []
    for r in np.unique(observations.run):
        own = observations.run == r
        time, c = observations.time[own], observations.concentration[own]
        if len(time) < 2:
            continue
        integral, error = _integrals(equation.unit_rates(c), time)
        x = c[:, equation.moving]
        square = data.sigma(x, noise) ** 2
        quadrature = _OF_QUADRATURE * error + _OF_NOISE * noise * integral
        parts.append((integral, quadrature, np.diff(x, axis=0), square[1:] + square[:-1], time[1:] - time[0]))
    integral, error, change, variance, since = (np.concatenate(column) for column in zip(*parts, strict=True))
    return integral, error, change, variance, since


def _integrals(
    u: Float[np.ndarray, "frames reactions"], time: Float[np.ndarray, " frames"]
) -> tuple[Float[np.ndarray, "intervals reactions"], Float[np.ndarray, "intervals reactions"]]:
    """Integrals of u over every interval, by a cubic spline in log time, and their differences from the trapezoid."""
    shifted = time - time[0] + (time[1] - time[0])
    log_time = np.log(shifted)
    integrand = u * shifted[:, None]
    trapezoid = 0.5 * (u[1:] + u[:-1]) * np.diff(time)[:, None]
    antiderivative = scipy.interpolate.CubicSpline(log_time, integrand).antiderivative()
    integral = np.diff(antiderivative(log_time), axis=0)
    least = _LEAST_SHARE * np.minimum(u[1:], u[:-1]) * np.diff(time)[:, None]
    integral = np.where(integral > least, integral, trapezoid)
    return integral, np.abs(integral - trapezoid)


def _solve(
    equation: MassAction,
    integral: Float[np.ndarray, "intervals reactions"],
    error: Float[np.ndarray, "intervals reactions"],
    change: Float[np.ndarray, "intervals moving"],
    variance: Float[np.ndarray, "intervals moving"],
) -> tuple[Float[np.ndarray, " reactions"], Float[np.ndarray, " reactions"]]:
    """Generalised least squares for k >= 0; also the lengths of the whitened columns."""
    own, m = equation.stoichiometry, equation.n_reactions
    diagonal = np.arange(len(own))
    root, rows = np.zeros((m + 1, m + 1)), []
    for w in range(len(integral)):
        spread = own * error[w]
        covariance = spread @ spread.T
        covariance[diagonal, diagonal] += variance[w]
        scale = 1 / np.sqrt(covariance[diagonal, diagonal])
        factor = np.linalg.cholesky(covariance * scale * scale[:, None] + _JITTER * np.eye(len(own)))
        both = scale[:, None] * np.column_stack([own * integral[w], change[w]])
        rows.append(scipy.linalg.solve_triangular(factor, both, lower=True, check_finite=False))
        if len(rows) >= _AT_ONCE or w == len(integral) - 1:
            root, rows = triangular(root, *rows), []
    matrix, target = root[:m, :m], root[:m, m]
    length = np.linalg.norm(matrix, axis=0)
    unit = np.where(length > 0, length, 1.0)
    design = np.concatenate([matrix / unit, _RIDGE * np.eye(m)])
    target = np.concatenate([target, np.zeros(m)])
    try:
        scaled = scipy.optimize.nnls(design, target, maxiter=20 * m)[0]
    except RuntimeError:  # too many iterations
        scaled = np.maximum(np.linalg.lstsq(design, target, rcond=None)[0], 0.0)
    return np.asarray(scaled / unit), length
