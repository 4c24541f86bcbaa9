"""MLP_node of every species as a table: a look-up in place of an evaluation of the network."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Int

from metabolismgraph.system.kinetics import AnyArray, array_library
from metabolismgraph.system.log_table import cubic_coefficients
from metabolismgraph.system.model import MetabolismModel

_KNOTS = 48  # of the correction, per species; enough for training
AT_ONCE = 1 << 16  # evaluations of the network; a hidden layer then takes 32 MB
_HEADROOM = 1.5  # upper end of the table of a species, relative to its highest concentration
_ZERO = 1e-12  # concentration that counts as zero, relative to the upper end


class NodeTable(eqx.Module):
    """MLP_node of every species: the straight line exactly, its correction from a table in sqrt(c).

    Knots that are equally spaced in sqrt(c) are denser at low concentrations, which are more frequent.

    Attributes:
        slope, offset: of the line, in 1/time and concentration/time.
        step: spacing of the knots in sqrt(c), per species.
        coefficients: of the cubics, in concentration/time.
    """

    slope: Float[Array, " species"]
    offset: Float[Array, " species"]
    step: Float[Array, " species"]
    coefficients: Float[Array, "species intervals 4"]

    @classmethod
    def of(
        cls,
        model: MetabolismModel,
        highest: Float[Array, " species"] | Float[np.ndarray, " species"],
        knots: int = _KNOTS,
    ) -> NodeTable:
        """Evaluate MLP_node on the knots; gradients pass through them.

        Args:
            highest: highest concentration of each species.
            knots: number of intervals, per species.
        """
        node, a = model.mlp_node, model.embeddings
        xp: Any = array_library(highest, a, node.slope)
        a = xp.asarray(a)
        step = xp.sqrt(_HEADROOM * highest) / knots
        root = step[:, None] * (xp.arange(knots + 3) - 1.0)
        # The first cubic needs one knot below c = 0, where c = -root^2 continues the coordinate.
        c = root * xp.abs(root)
        # In NumPy, some species at a time: a hidden layer of all of them would take gigabytes.
        some = len(c) if xp is not np else max(AT_ONCE // c.shape[1], 1)
        blocks = [slice(first, first + some) for first in range(0, len(c), max(some, 1))]
        corrections = [node.parts(c[b], xp.broadcast_to(a[b, None], (*c[b].shape, a.shape[-1])))[1] for b in blocks]
        correction = xp.concatenate(corrections) if corrections else xp.zeros(c.shape)
        slope, offset = node.line(a)
        # Inside compiled functions, `device_put` has no effect.
        return cls(*map(jax.device_put, (slope, offset, step, cubic_coefficients(correction))))

    def __call__(self, c: Float[AnyArray, "*batch species"]) -> Float[AnyArray, "*batch species"]:
        xp = array_library(c, self.slope, self.coefficients)
        slope, offset, step, coefficients = map(xp.asarray, (self.slope, self.offset, self.step, self.coefficients))
        # The derivative of sqrt is infinite at zero, and concentrations are clamped to zero.
        root = xp.sqrt(xp.maximum(c, _ZERO * (coefficients.shape[1] * step) ** 2))
        total: AnyArray = slope * c + offset + _read(coefficients, xp.arange(len(slope)), root / step)
        return total

    def only(self, moving: Float[Array, " species"]) -> NodeTable:
        """The table with zero homeostasis for species with `moving` zero."""
        return NodeTable(
            self.slope * moving, self.offset * moving, self.step, self.coefficients * moving[:, None, None]
        )


def _read(
    coefficients: Float[AnyArray, "tables intervals 4"],
    table: Int[AnyArray, " columns"],
    u: Float[AnyArray, "*batch columns"],
) -> Float[AnyArray, "*batch columns"]:
    """Piecewise cubics at the positions `u`, in intervals; constant beyond either end."""
    xp = array_library(u, coefficients)
    u = xp.clip(u, 0.0, coefficients.shape[1])
    # Where a model diverges, positions are not finite. As an integer, such a number would be no valid index.
    interval = xp.clip(u.astype(xp.int32), 0, coefficients.shape[1] - 1)
    t = u - interval
    a = coefficients[table, interval]
    read: AnyArray = a[..., 0] + t * (a[..., 1] + t * (a[..., 2] + t * a[..., 3]))
    return read
