"""The substrate function as a table in log c.

f is a function of one variable (per substrate order), but is needed at every frame, species and
iteration. Evaluating it on a few hundred knots and interpolating (four-point Lagrange, error O(h^4))
costs a hundredth of evaluating the network at every data point; gradients pass through the knots.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from metabolismgraph.system.kinetics import LogFunction, RateLaws, tabulate_laws


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Stencil:
    """Where fixed data points lie on the knots.

    Attributes:
        knots: equally spaced values of log c.
        orders, known: order of each distinct rate law, and whether it is known to be mass action; one table each.
        table: index of the table of each column.
        first: first of the four knots of each point.
        share: their Lagrange weights.
    """

    knots: Float[Array, " knots"]
    orders: Float[Array, " laws"]
    known: Bool[Array, " laws"]
    table: Int[Array, " columns"]
    first: Int[Array, "*batch columns"]
    share: Float[Array, "*batch columns 4"]

    @classmethod
    def of(cls, log_c: Float[np.ndarray, "*batch columns"], laws: RateLaws, n_knots: int = 512) -> Stencil:
        """Knots that span `log_c` and 0 (where the gauge is fixed), and the place of every point on them."""
        low, high = min(log_c.min(initial=0.0), 0.0), max(log_c.max(initial=0.0), 0.0)
        step = max(high - low, 1e-3) / (n_knots - 4)
        knots = low + step * (np.arange(n_knots) - 1.0)
        u = (log_c - knots[0]) / step
        left = np.clip(np.floor(u).astype(np.int64), 1, n_knots - 3)
        return cls(
            knots=jnp.asarray(knots),
            orders=jnp.asarray(laws.order),
            known=jnp.asarray(laws.known),
            table=jnp.asarray(laws.of_pair),
            first=jnp.asarray(left - 1),
            share=jnp.asarray(_lagrange(u - left)),
        )

    def interpolate(self, log_f: LogFunction) -> Float[Array, "*batch columns"]:
        """log f at every data point."""
        values = tabulate_laws(log_f, self.knots, self.orders, self.known)
        index = self.first[..., None] + jnp.arange(4)
        return jnp.sum(values[self.table[:, None], index] * self.share, axis=-1)


def _lagrange(t: Float[np.ndarray, "*batch"]) -> Float[np.ndarray, "*batch 4"]:
    """Weights of the values at -1, 0, 1, 2 for a point at t."""
    return np.stack(
        [
            -t * (t - 1) * (t - 2) / 6,
            (t + 1) * (t - 1) * (t - 2) / 2,
            -(t + 1) * t * (t - 2) / 2,
            (t + 1) * t * (t - 1) / 6,
        ],
        axis=-1,
    )


def cubic_coefficients(values: Float[Array, "*batch knots_and_three"]) -> Float[Array, "*batch intervals 4"]:
    """Powers of t in [0, 1) of the same four-point cubics, interval by interval.

    Args:
        values: at equally spaced knots, one before the first interval and two after the start of the last.
    """
    a, b, c, d = values[..., :-3], values[..., 1:-2], values[..., 2:-1], values[..., 3:]
    return jnp.stack([b, -a / 3 - b / 2 + c - d / 6, a / 2 - b + c / 2, -a / 6 + b / 2 - c / 2 + d / 6], axis=-1)
