"""Rates of a trained model over many frames, in NumPy: without compilation, and in little memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from metabolismgraph.system.kinetics import Structure
from metabolismgraph.system.model import MetabolismModel
from metabolismgraph.system.node_table import AT_ONCE, NodeTable
from metabolismgraph.system.tabulated_reactions import TabulatedReactions

_KNOTS = 256  # per species; the error of a smooth function is 1e-8 of it
_ABSENT = 1e-6  # highest concentration of a species that is never there, relative to the highest of all

Rates = Callable[[Float[np.ndarray, "frames species"]], Float[np.ndarray, "frames species"]]


@dataclasses.dataclass(frozen=True)
class ModelRates:
    """dc/dt of a trained model at given concentrations, in concentration/time; zero for fixed species.

    Attributes:
        reactions: of the model, or others in their place.
        homeostasis: of the model.
    """

    reactions: TabulatedReactions
    homeostasis: Rates

    @classmethod
    def of(cls, model: MetabolismModel, structure: Structure, c: Float[np.ndarray, "frames species"]) -> ModelRates:
        """Tabulate the rate laws of a model over the range of the concentrations `c`."""
        k = 10.0 ** np.asarray(model.log_k)
        reactions = TabulatedReactions.of(model.mlp_sub, k, structure, model.aggregation, c)
        return cls(reactions, homeostasis_at(model, c))

    def __call__(self, c: Float[np.ndarray, "frames species"]) -> Float[np.ndarray, "frames species"]:
        return in_parts(self._at, c)

    def _at(self, c: Float[np.ndarray, "frames species"]) -> Float[np.ndarray, "frames species"]:
        moving = np.asarray(self.reactions.structure.moving)
        return np.asarray(self.reactions(c) + np.where(moving, self.homeostasis(c), 0.0))


def homeostasis_at(model: MetabolismModel, c: Float[np.ndarray, "frames species"]) -> Rates:
    """The homeostasis of a model at concentrations such as `c`, from a table: ten times as fast as the network."""
    highest = c.max(axis=0, initial=0.0)
    if not highest.any():
        return model.homeostasis
    return NodeTable.of(model, np.maximum(highest, _ABSENT * highest.max()), _KNOTS)


def mean_homeostasis(model: MetabolismModel, c: Float[np.ndarray, "frames species"]) -> float:
    """Mean absolute homeostasis of a model at the given concentrations, in concentration/time."""
    return float(np.mean(np.abs(in_parts(homeostasis_at(model, c), c))))


def in_parts(rates: Rates, c: Float[np.ndarray, "frames species"]) -> Float[np.ndarray, "frames species"]:
    """Rates at the concentrations of many frames, a part of them at a time.

    Example:
        >>> in_parts(lambda c: 2 * c, np.ones((3, 100_000))).sum()
        np.float64(600000.0)
    """
    frames = max(AT_ONCE // max(c.shape[1], 1), 1)
    parts = [rates(c[first : first + frames]) for first in range(0, len(c), frames)]
    return np.concatenate(parts) if parts else np.zeros(c.shape)
