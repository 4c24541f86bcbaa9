"""log f as a natural cubic spline of log c, with few coefficients of comparable size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import scipy
from jaxtyping import Float, Int

_KNOTS = 10
# Quantiles of log c between which the knots lie. Beyond them f is a power law, which noise cannot bend.
_LOWEST, _HIGHEST = 0.02, 0.995
_LAW_POINTS = 400  # between the outermost knots, to which a given law is fitted
_STRAIGHT = float(np.log(10.0))  # of log c below the lowest knot, where log f is the straight line that ends there
_RANK = 1e-7  # relative size below which a bend is the same as others


@dataclasses.dataclass(frozen=True)
class SubstrateSpline:
    """Basis functions phi of log c, with log f = sum of coefficient * phi(log c) for each learned rate law.

    phi_0 = log c, so that its coefficient is the exponent of a power law. The others are bends: natural cubic splines,
    orthonormal over the data to one another and orthogonal to phi_0. All are zero at c = 1, so that f(1) = 1.

    Attributes:
        basis: the basis functions as one vector-valued spline between the outermost knots.
        low, high: outermost knots; beyond them the functions are straight lines, down to a tenth of the lowest knot.
            Below that, f is proportional to c^order: with a smaller exponent, its derivative at zero would be infinite,
            and a state near zero would follow no measurement.
    """

    basis: scipy.interpolate.CubicSpline
    low: float
    high: float

    @classmethod
    def over(cls, log_c: Float[np.ndarray, " values"], least: float = -np.inf) -> SubstrateSpline:
        """The basis for data with the given log concentrations.

        Args:
            log_c: log concentrations of learned substrates, in internal units.
            least: log of the concentration below which noise dominates; no knot lies below it.

        Example:
            >>> spline = SubstrateSpline.over(np.log(np.linspace(0.1, 9.0, 500)))
            >>> bool(np.abs(spline(np.zeros(1))).max() < 1e-9)
            True
        """
        low, high = (float(q) for q in np.quantile(log_c, [_LOWEST, _HIGHEST]))
        low = min(max(low, least), high)
        if high - low < 1e-3:
            low, high = low - 0.5, high + 0.5
        knots = np.linspace(low, high, _KNOTS)
        cardinal = cls(scipy.interpolate.CubicSpline(knots, np.eye(_KNOTS), bc_type="natural"), low, high)
        at_one = cardinal(np.zeros(1))[0]
        values = cardinal(log_c) - at_one
        # Coefficients, in cardinal splines, of log c itself and of the bends: the principal axes of what remains of
        # the cardinal splines over the data once their multiple of log c is subtracted.
        line = log_c / max(float(np.sum(log_c**2)), 1e-300)
        rest = np.eye(_KNOTS) - np.outer(knots, line @ values)
        _, sizes, axes = np.linalg.svd((values @ rest) / np.sqrt(len(log_c)), full_matrices=False)
        good = sizes > _RANK * sizes[0] if sizes[0] > 0 else np.zeros(len(sizes), dtype=bool)
        bends = rest @ (axes[good].T / sizes[good])
        table = np.column_stack([knots, bends])
        # The value at c = 1 is subtracted from every function; for log c itself it is zero already.
        table = table - np.concatenate([[0.0], at_one @ bends])
        return cls(scipy.interpolate.CubicSpline(knots, table, bc_type="natural"), low, high)

    @property
    def size(self) -> int:
        """Number of coefficients of a rate law."""
        return int(self.basis.c.shape[-1])

    def __call__(self, log_c: Float[np.ndarray, "*batch"]) -> Float[np.ndarray, "*batch size"]:
        """The basis functions."""
        inside = np.clip(log_c, self.low, self.high)
        beyond = np.maximum(log_c - inside, -_STRAIGHT)[..., None]
        values = self.basis(inside)
        return np.asarray(values + beyond * self.basis(inside, 1) if beyond.any() else values)

    def law(self, coefficients: Float[np.ndarray, " size"], order: float) -> SplineLaw:
        """log f of one law, for a substrate order."""
        return SplineLaw(np.asarray(self.basis.c @ coefficients), self.basis.x, order)

    def coefficients_of(
        self, log_c: Float[np.ndarray, " values"], log_f: Float[np.ndarray, " values"]
    ) -> Float[np.ndarray, " size"]:
        """The coefficients that are closest to given values of log f."""
        return np.asarray(np.linalg.lstsq(self(log_c), log_f, rcond=None)[0])

    def coefficients_of_laws(
        self, log_f: Callable[[np.ndarray, float], np.ndarray], orders: Float[np.ndarray, " laws"]
    ) -> Float[np.ndarray, " coefficients"]:
        """The coefficients of several laws, one law after the other.

        Args:
            log_f: log f at log concentrations, for a substrate order.
            orders: |s| of each law.
        """
        grid = np.linspace(self.low, self.high, _LAW_POINTS)
        own = [self.coefficients_of(grid, log_f(grid, order)) for order in orders]
        return np.concatenate([np.zeros(0), *own])


@dataclasses.dataclass(frozen=True)
class SplineLaw:
    """log f of one law as piecewise cubic, for fast evaluation at many concentrations.

    Attributes:
        pieces: coefficients of (log c - knot)^3 to ^0 in each interval.
        knots: equally spaced.
        order: exponent of f at the lowest concentrations.
    """

    pieces: Float[np.ndarray, "4 intervals"]
    knots: Float[np.ndarray, " knots"]
    order: float

    def __call__(
        self, log_c: Float[np.ndarray, "*batch"]
    ) -> tuple[Float[np.ndarray, "*batch"], Float[np.ndarray, "*batch"]]:
        """log f, and its derivative by log c."""
        return evaluate(self.pieces[:, None], np.intp(0), self.knots, self.order, log_c)


def evaluate(
    pieces: Float[np.ndarray, "4 laws intervals"],
    law: Int[np.ndarray, " values"] | np.intp,
    knots: Float[np.ndarray, " knots"],
    order: Float[np.ndarray, " values"] | float,
    log_c: Float[np.ndarray, "*batch"],
) -> tuple[Float[np.ndarray, "*batch"], Float[np.ndarray, "*batch"]]:
    """log f of several laws, and its derivative by log c.

    Args:
        pieces, knots: see `SplineLaw`.
        law, order: of every value of the last axis of `log_c`.
    """
    step, intervals = knots[1] - knots[0], len(knots) - 1
    inside = np.minimum(np.maximum(log_c, knots[0]), knots[-1])
    interval = ((inside - knots[0]) / step).astype(np.intp)
    np.minimum(np.maximum(interval, 0, out=interval), intervals - 1, out=interval)  # NaN of a diverged state, too
    t = inside - knots[interval]
    a, b, c, d = pieces.reshape(4, -1).take(law * intervals + interval, axis=1)
    slope = (3 * a * t + 2 * b) * t + c
    value = ((a * t + b) * t + c) * t + d
    beyond = log_c - inside
    if beyond.any():
        lowest = np.minimum(beyond + _STRAIGHT, 0.0)
        value += slope * (beyond - lowest) + order * lowest
        slope = np.where(lowest < 0, order, slope)
    return value, slope
