"""Rate laws as tables in log c.

For each substrate order, f is a function of one variable, needed at every frame, species and iteration. It is
evaluated at some hundred knots and interpolated by the cubic through four neighbouring knots, with an error O(h^4) for
spacing h. This takes a hundredth of the time of a network at every data point. Gradients pass through the knots.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Bool, Float, Int

from metabolismgraph.system.arrays import on_device
from metabolismgraph.system.kinetics import AnyArray, LogFunction, array_library, tabulate_laws
from metabolismgraph.system.pytrees import pytree


@pytree
@dataclasses.dataclass(frozen=True)
class Knots:
    """Equally spaced points, in log c or in log(1 + c / unit).

    The first spacing is for functions that are smooth in log c. The second is for functions that are smooth in c; it
    is linear in c for c >> unit and resolves small concentrations too.

    Attributes:
        first, step: first knot and spacing, in log c or in log(1 + c / unit).
        unit: a typical concentration; None: equally spaced in log c.
        number: number of knots, at least four.
    """

    first: Float[Array, ""]
    step: Float[Array, ""]
    unit: Float[Array, ""] | None
    number: int = dataclasses.field(metadata={"static": True})

    @classmethod
    def over(cls, low: float, high: float, number: int, *, margin: bool = False, unit: float | None = None) -> Knots:
        """Knots from `low` to `high`, two values of log c.

        Args:
            number: number of knots.
            margin: whether to add one more knot on either side, so that the first and the last interval too have
                two of their four knots on either side.
            unit: see the class.
        """
        ends = np.array([low, max(high, low + 1e-3)])
        start, end = ends if unit is None else np.log1p(np.exp(ends) / unit)
        step = (end - start) / (number - (3 if margin else 1))
        first = start - step if margin else start
        return cls(on_device(first), on_device(step), None if unit is None else on_device(unit), number)

    @property
    def log_c(self) -> Float[Array, " knots"]:
        """log c of the knots."""
        u = self.first + self.step * jnp.arange(self.number)
        return u if self.unit is None else jnp.log(self.unit * jnp.expm1(u))

    @property
    def values(self) -> Float[np.ndarray, " knots"]:
        """log c of the knots, in NumPy. Not available inside compiled functions, where arrays have no values."""
        u = float(self.first) + float(self.step) * np.arange(self.number)
        with np.errstate(divide="ignore"):  # with a unit, the first knot may be at c = 0
            return u if self.unit is None else np.log(float(self.unit) * np.expm1(u))

    def positions(self, log_c: Float[AnyArray, "*batch"]) -> Float[AnyArray, "*batch"]:
        """Positions of log concentrations, in units of the spacing, from the first knot."""
        xp = array_library(log_c)
        u = log_c if self.unit is None else xp.log1p(xp.exp(log_c) / xp.asarray(self.unit))
        positions: AnyArray = (u - xp.asarray(self.first)) / xp.asarray(self.step)
        return positions


@pytree
@dataclasses.dataclass(frozen=True)
class LogTable:
    """log f of several rate laws, piecewise cubic, and linear (a power law) beyond the outermost knots.

    Attributes:
        knots: the knots.
        coefficients: of t^0 to t^3 in each interval, t from 0 to 1. The first and the last cubic are also used
            between the two outermost knots.
    """

    knots: Knots
    coefficients: Float[Array, "laws intervals 4"]

    @classmethod
    def of(cls, f: LogFunction, orders: Float[Array, " laws"], known: Bool[Array, " laws"], knots: Knots) -> LogTable:
        """Tabulate the learned f, and mass action where the law is known, for each order."""
        return cls.through(tabulate_laws(f, knots.log_c, orders, known), knots)

    @classmethod
    def through(cls, values: Float[AnyArray, "laws knots"], knots: Knots) -> LogTable:
        """The table of given values of log f on the knots."""
        coefficients = cubic_coefficients(values)
        # Also inside compiled functions: it then has no effect.
        return cls(knots, jax.device_put(coefficients))

    def __call__(
        self, log_c: Float[AnyArray, "*batch columns"], law: Int[Array, " columns"] | Int[np.ndarray, " columns"]
    ) -> Float[AnyArray, "*batch columns"]:
        """log f at log concentrations.

        Args:
            law: index of the law of each column.
        """
        xp: Any = array_library(log_c)
        # Interval i lies between knots i + 1 and i + 2; cubic i goes through knots i to i + 3.
        last = self.knots.number - 1.0
        position = self.knots.positions(log_c)
        inside = xp.clip(position, 0.0, last)
        # The two outermost intervals use the neighbouring cubic, with t in [-1, 0] or [1, 2].
        interval = xp.clip(xp.floor(inside) - 1.0, 0.0, last - 3.0)
        # One flat index: a single gather of four adjacent numbers is faster than four gathers with two indices.
        n = self.knots.number - 3
        flat = xp.asarray(self.coefficients).reshape(-1, 4)
        # Where a model diverges, positions are not finite. As an integer, such a number would be no valid index.
        a = flat[xp.asarray(law) * n + xp.clip(interval.astype(xp.int32), 0, n - 1)]
        t = inside - 1.0 - interval
        value = a[..., 0] + t * (a[..., 1] + t * (a[..., 2] + t * a[..., 3]))
        # Linear extrapolation with the slope at the outermost knot; inside, position - inside = 0.
        slope = a[..., 1] + t * (2 * a[..., 2] + 3 * t * a[..., 3])
        log_f: AnyArray = value + (position - inside) * slope
        return log_f


def cubic_coefficients(values: Float[AnyArray, "*batch knots"]) -> Float[AnyArray, "*batch intervals 4"]:
    """Coefficients of 1, t, t^2, t^3 of cubics through four neighbouring knots, t from 0 to 1 between the middle two.

    Lagrange's formula with nodes at t = -1, 0, 1, 2. Neighbouring cubics share three knots, so log f is continuous, and
    its slope is continuous up to O(h^3).
    """
    a, b, c, d = values[..., :-3], values[..., 1:-2], values[..., 2:-1], values[..., 3:]
    parts = [b, -a / 3 - b / 2 + c - d / 6, a / 2 - b + c / 2, -a / 6 + b / 2 - c / 2 + d / 6]
    coefficients: AnyArray = array_library(values).stack(parts, axis=-1)
    return coefficients


def interpolation_matrix(
    knots: Knots, log_c: Float[np.ndarray, " points"], law: Int[np.ndarray, " points"], n_laws: int
) -> scipy.sparse.csr_array:
    """The matrix from values on the knots, law after law, to those of their `LogTable` between the outermost knots.

    The knots and the points do not depend on the values, so that many tables on the same knots need this once.

    Args:
        log_c: log concentration of each point.
        law: index of the law of each point.
        n_laws: number of laws.
    """
    position = knots.positions(log_c)
    first = np.clip(np.floor(position) - 1, 0, knots.number - 4)
    powers = (position - 1 - first)[:, None] ** np.arange(4)
    of_knots = cubic_coefficients(np.eye(4))[:, 0]  # coefficients of the powers, for a value of one on one knot
    column = (law * knots.number + first.astype(np.int64))[:, None] + np.arange(4)
    entries = ((powers @ of_knots.T).ravel(), column.ravel(), np.arange(len(column) + 1) * 4)
    return scipy.sparse.csr_array(entries, shape=(len(column), n_laws * knots.number))
