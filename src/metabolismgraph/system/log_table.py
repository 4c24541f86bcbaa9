"""Rate laws as tables in log c.

f is a function of one variable for each substrate order, but is needed at every frame, species and iteration.
Evaluating it on some hundred knots and interpolating with cubics through four of them, with an error O(h^4), costs a
hundredth of evaluating a network at every data point. Gradients pass through the knots.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from metabolismgraph.system.kinetics import AnyArray, LogFunction, array_library, tabulate_laws
from metabolismgraph.system.pytrees import pytree


@pytree
@dataclasses.dataclass(frozen=True)
class Knots:
    """Equally spaced points, in log c or in log(1 + c / unit).

    The first spacing suits a function that is smooth in log c, the second one that is smooth in c, and still resolves
    small concentrations.

    Attributes:
        first, step: of the knots, in the spacing's own coordinate.
        unit: a typical concentration; None: equally spaced in log c.
        number: of the knots, at least four.
    """

    first: Float[Array, ""]
    step: Float[Array, ""]
    unit: Float[Array, ""] | None
    number: int = dataclasses.field(metadata={"static": True})

    @classmethod
    def over(cls, low: float, high: float, number: int, *, margin: bool = False, unit: float | None = None) -> Knots:
        """Knots from `low` to `high`, two values of log c.

        Args:
            margin: whether one more knot lies on either side, so that even the first and last interval lie between
                the middle ones of their four knots.
        """
        ends = np.array([low, max(high, low + 1e-3)])
        start, end = ends if unit is None else np.log1p(np.exp(ends) / unit)
        step = (end - start) / (number - (3 if margin else 1))
        first = start - step if margin else start
        return cls(jnp.asarray(first), jnp.asarray(step), None if unit is None else jnp.asarray(unit), number)

    @property
    def log_c(self) -> Float[Array, " knots"]:
        """log c of the knots."""
        u = self.first + self.step * jnp.arange(self.number)
        return u if self.unit is None else jnp.log(self.unit * jnp.expm1(u))

    def positions(self, log_c: Float[AnyArray, "*batch"]) -> Float[AnyArray, "*batch"]:
        """Where concentrations lie, counted in knots from the first."""
        xp = array_library(log_c)
        u = log_c if self.unit is None else xp.log1p(xp.exp(log_c) / xp.asarray(self.unit))
        positions: AnyArray = (u - xp.asarray(self.first)) / xp.asarray(self.step)
        return positions


@pytree
@dataclasses.dataclass(frozen=True)
class LogTable:
    """log f of several rate laws, cubic between knots and linear beyond them, as a power law is.

    Attributes:
        coefficients: of t^0 to t^3 in each interval, t running from 0 to 1. The first and the last interval reach out
            to the outermost knots.
    """

    knots: Knots
    coefficients: Float[Array, "laws intervals 4"]

    @classmethod
    def of(cls, f: LogFunction, orders: Float[Array, " laws"], known: Bool[Array, " laws"], knots: Knots) -> LogTable:
        """Tabulate f for some orders; mass action for those that are known."""
        return cls.through(tabulate_laws(f, knots.log_c, orders, known), knots)

    @classmethod
    def through(cls, values: Float[Array, "laws knots"], knots: Knots) -> LogTable:
        """The table of given values of log f on the knots."""
        return cls(knots, cubic_coefficients(values))

    def __call__(
        self, log_c: Float[AnyArray, "*batch columns"], law: Int[Array, " columns"] | Int[np.ndarray, " columns"]
    ) -> Float[AnyArray, "*batch columns"]:
        """log f at log concentrations.

        Args:
            law: index of the law of each column.
        """
        xp: Any = array_library(log_c)
        last = self.knots.number - 1.0
        position = self.knots.positions(log_c)
        inside = xp.clip(position, 0.0, last)
        interval = xp.clip(xp.floor(inside) - 1.0, 0.0, last - 3.0)
        # One flat index reads the four coefficients in one go.
        n = self.knots.number - 3
        flat = xp.asarray(self.coefficients).reshape(-1, 4)
        a = flat[xp.asarray(law) * n + interval.astype(xp.int32)]
        t = inside - 1.0 - interval
        value = a[..., 0] + t * (a[..., 1] + t * (a[..., 2] + t * a[..., 3]))
        slope = a[..., 1] + t * (2 * a[..., 2] + 3 * t * a[..., 3])
        log_f: AnyArray = value + (position - inside) * slope
        return log_f


def cubic_coefficients(values: Float[Array, "*batch knots"]) -> Float[Array, "*batch intervals 4"]:
    """Powers of t in [0, 1) of the cubics through four neighbouring knots, for the interval between the middle two."""
    a, b, c, d = values[..., :-3], values[..., 1:-2], values[..., 2:-1], values[..., 3:]
    return jnp.stack([b, -a / 3 - b / 2 + c - d / 6, a / 2 - b + c / 2, -a / 6 + b / 2 - c / 2 + d / 6], axis=-1)
