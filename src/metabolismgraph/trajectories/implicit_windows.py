"""Misfit of a stiff network of mass action over windows of two measured frames, as a triangular matrix."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy
from jaxtyping import Float

from metabolismgraph.system.observations import Observations
from metabolismgraph.trajectories.implicit_step import FLOOR, MassAction, integrate_window

LOG_10 = float(np.log(10.0))
_TOLERANCE, _LEAST_TOLERANCE, _MOST_TOLERANCE = 30.0, 3e-7, 1e-3  # of the integrator, in units of the noise
_AT_ONCE = 20  # windows per QR factorisation
_JITTER = 1e-13  # relative, of the covariance
_NO_PRIOR = 1e5  # decades


@dataclasses.dataclass(frozen=True)
class WindowData:
    """Neighbouring frames of a run as windows, from a measured state to the next one.

    Attributes:
        equation: the network.
        start, end: concentrations of all species at both ends.
        duration: of every window, in time.
        typical: largest concentration of every moving species.
    """

    equation: MassAction
    start: Float[np.ndarray, "windows species"]
    end: Float[np.ndarray, "windows species"]
    duration: Float[np.ndarray, " windows"]
    typical: Float[np.ndarray, " moving"]

    @classmethod
    def of(cls, observations: Observations) -> WindowData:
        """All windows of two frames."""
        equation, steps = MassAction.of(observations.network), observations.transitions()
        largest = observations.concentration[:, equation.moving].max(axis=0)
        positive = largest[largest > 0]
        least = float(positive.min()) if positive.size else 1.0
        return cls(equation, steps.start, steps.end, steps.dt, np.where(largest > 0, largest, least))

    def up_to(self, duration: float) -> WindowData:
        """The windows of at most a duration."""
        own = self.duration <= duration * (1 + 1e-9)
        return dataclasses.replace(self, start=self.start[own], end=self.end[own], duration=self.duration[own])

    def sigma(self, c: Float[np.ndarray, "*batch moving"], noise: float) -> Float[np.ndarray, "*batch moving"]:
        """Standard deviation of measured concentrations: relative noise, with a floor for small concentrations."""
        return np.asarray(noise * (c + FLOOR * self.typical))


@dataclasses.dataclass(frozen=True)
class Misfit:
    """Residuals of windows and their derivatives by log10 k, in units of their expected errors.

    Attributes:
        root: triangular R of the whitened derivatives and, as its last column, of the residuals.
        chi2: sum of squares of the whitened residuals.
        log_det: log determinant of the covariances of the residuals.
        values: number of residuals.
        failed: windows that could not be integrated.
        noise: relative standard deviation of the measurements for which all this holds.
        residual, error: of every window, in concentration; NaN for a failed one.
    """

    root: Float[np.ndarray, "unknowns+1 unknowns+1"]
    chi2: float
    log_det: float
    values: int
    failed: int
    noise: float
    residual: Float[np.ndarray, "windows moving"]
    error: Float[np.ndarray, "windows moving"]

    @property
    def deviance(self) -> float:
        """Minus twice the log likelihood, up to a constant."""
        return self.chi2 + self.log_det

    @property
    def left(self) -> float:
        """The noise for which the sum of squares is that of its expectation."""
        return self.noise * float(np.sqrt(self.chi2 / max(self.values, 1)))

    def with_noise(self, noise: float) -> Misfit:
        """The same residuals for another noise of the measurements, without a new integration."""
        ratio = self.noise / noise
        return dataclasses.replace(
            self,
            root=self.root * ratio,
            chi2=self.chi2 * ratio**2,
            log_det=self.log_det - 2 * self.values * float(np.log(ratio)),
            noise=noise,
            error=self.error / ratio,
        )

    def errors(self, noise: float, decades: float = _NO_PRIOR) -> Float[np.ndarray, " reactions"]:
        """Standard errors of log10 k for a noise of the measurements.

        Args:
            noise: relative.
            decades: standard deviation of a prior on log10 k. A weak one on the logarithm would take a small k for
                known: a multiple of it has an effect that no decade up or down has.
        """
        m = self.root.shape[1] - 1
        whitened = self.root[:m, :m] * (self.noise / noise)
        factor = triangular(whitened, np.eye(m) / decades)
        return np.asarray(np.linalg.norm(scipy.linalg.solve_triangular(factor, np.eye(m)), axis=1))


def triangular(*rows: Float[np.ndarray, "_ columns"]) -> Float[np.ndarray, "columns columns"]:
    """The triangular R with R'R = A'A for the rows A."""
    return np.asarray(np.linalg.qr(np.concatenate(rows), mode="r"), dtype=np.float64)


def tolerance_of(noise: float) -> float:
    """Tolerance of the integrator for a relative noise of the measurements."""
    return float(np.clip(_TOLERANCE * noise, _LEAST_TOLERANCE, _MOST_TOLERANCE))


def evaluate(
    data: WindowData,
    k: Float[np.ndarray, " reactions"],
    noise: float,
    uncertain: Float[np.ndarray, "reactions some"] | None = None,
) -> Misfit:
    """Residuals of all windows, whitened by the error that the noise at both ends causes.

    Args:
        data: the windows.
        k: rate constants.
        noise: relative standard deviation of the measurements.
        uncertain: root of the covariance of log10 k, whose effect is part of the expected errors; None: k is exact.
    """
    equation, m = data.equation, data.equation.n_reactions
    size, diagonal = len(equation.moving), np.arange(len(equation.moving))
    root, rows = np.zeros((m + 1, m + 1)), []
    residuals = np.full((len(data.duration), size), np.nan)
    errors = residuals.copy()
    chi2 = log_det = 0.0
    for w, duration in enumerate(data.duration):
        with np.errstate(all="ignore"):
            found = _integrate(data, w, float(duration), k, noise)
        if found is None:
            continue
        end, by_start, by_log_k = found
        measured = data.end[w, equation.moving]
        spread = by_start * data.sigma(data.start[w, equation.moving], noise)
        covariance = spread @ spread.T
        if uncertain is not None:
            by_errors = by_log_k * LOG_10 @ uncertain
            covariance += by_errors @ by_errors.T
        covariance[diagonal, diagonal] += data.sigma(measured, noise) ** 2
        scale = 1 / np.sqrt(covariance[diagonal, diagonal])
        try:
            factor = np.linalg.cholesky(covariance * scale * scale[:, None] + _JITTER * np.eye(size))
        except np.linalg.LinAlgError:
            continue
        both = np.column_stack([by_log_k * LOG_10, measured - end]) * scale[:, None]
        whitened = scipy.linalg.solve_triangular(factor, both, lower=True, check_finite=False)
        rows.append(whitened)
        chi2 += float(whitened[:, m] @ whitened[:, m])
        log_det += 2 * float(np.sum(np.log(factor[diagonal, diagonal] / scale)))
        residuals[w], errors[w] = measured - end, 1 / scale
        if len(rows) >= _AT_ONCE:
            root, rows = triangular(root, *rows), []
    if rows:
        root = triangular(root, *rows)
    done = int(np.isfinite(errors[:, 0]).sum())
    return Misfit(root, chi2, log_det, done * size, len(errors) - done, noise, residuals, errors)


def _integrate(
    data: WindowData, w: int, duration: float, k: Float[np.ndarray, " reactions"], noise: float
) -> (
    tuple[Float[np.ndarray, " moving"], Float[np.ndarray, "moving moving"], Float[np.ndarray, "moving reactions"]]
    | None
):
    """End of a window with its derivatives by the start and by ln k; None if it could not be integrated."""
    try:
        found = integrate_window(data.equation, data.start[w], duration, k, tolerance_of(noise), data.typical)
    except (np.linalg.LinAlgError, ValueError):
        return None
    if found is None or not np.isfinite(found.by_log_k).all() or not np.isfinite(found.by_start).all():
        return None
    return found.state, found.by_start, found.by_log_k
