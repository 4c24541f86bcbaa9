"""The reactions of a model with tabulated rate laws: in JAX for rollouts, in NumPy for computations that run once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, Int

from metabolismgraph.system.arrays import on_device
from metabolismgraph.system.kinetics import (
    Aggregation,
    AnyArray,
    LogFunction,
    Structure,
    aggregate,
    aggregate_published,
    array_library,
    pair_concentrations,
    reaction_rates,
    tabulate_laws,
)
from metabolismgraph.system.log_table import Knots, LogTable
from metabolismgraph.system.model import AnySubstrateFunction, PublishedSubstrateFunction
from metabolismgraph.system.pytrees import pytree

_KNOTS = 8192  # interpolation errors below 1e-9; the time per look-up does not depend on the number
_BELOW, _ABOVE = 5.0, 2.0  # margins of the table in log c beyond the data; outside, f is a power law


@pytree
@dataclasses.dataclass(frozen=True)
class TabulatedReactions:
    """Rates of all reactions of a trained model.

    NumPy arrays are processed with NumPy, without compilation; other arrays with JAX.

    Attributes:
        table: log f of each rate law.
        law: index of the rate law of each pair, see `Structure`.
        k: rate constants, in concentration^(1-order)/time.
        structure: the network.
        aggregation: "mul" for a product over substrates, "add" for a sum.
        log_alpha: of a published MLP_sub, whose outputs are tabulated in place of log f, see `aggregate_published`;
            None for all others.
    """

    table: LogTable
    law: Int[Array, " pairs"]
    k: Float[Array, " reactions"]
    structure: Structure
    aggregation: Aggregation = dataclasses.field(metadata={"static": True})
    log_alpha: Float[Array, ""] | None = None

    @classmethod
    def of(
        cls,
        f: LogFunction,
        k: Float[np.ndarray, " reactions"],
        structure: Structure,
        aggregation: Aggregation,
        c: Float[np.ndarray, "frames species"],
    ) -> TabulatedReactions:
        """Tabulate the rate laws over the range of the concentrations `c`, with a margin."""
        seen = np.log(c[c > 0]) if (c > 0).any() else np.zeros(1)
        highest = float(seen.max()) + _ABOVE
        tabulated: Callable[..., Any] = f
        log_alpha = None
        if isinstance(f, PublishedSubstrateFunction):
            # The outputs are smooth in c and not zero at c = 0, where the first knot is.
            knots = Knots.over(-np.inf, highest, _KNOTS, unit=float(np.exp(np.median(seen))))
            tabulated, log_alpha = f.output, f.log_alpha
        else:
            knots = Knots.over(float(seen.min()) - _BELOW, highest, _KNOTS)
        laws = structure.rate_laws
        # Without any substrate there is no rate law. A table of mass action, which is not used, keeps the shapes.
        order, known = (laws.order, laws.known) if laws.order.size else (np.ones(1), np.ones(1, dtype=bool))
        if known.all() or isinstance(f, AnySubstrateFunction):  # these can be computed without compilation
            table = LogTable.through(tabulate_laws(tabulated, knots.values, order, known), knots)
        else:
            table = _tabulate(tabulated, on_device(order), on_device(known), knots)
        return cls(table, on_device(laws.of_pair), on_device(k), structure, aggregation, log_alpha)

    def substrate_factors(self, c: Float[AnyArray, "*batch species"]) -> Float[AnyArray, "*batch reactions"]:
        """The substrate factor V of each reaction, in concentration^order.

        f(0) = 0 holds exactly, except for a published MLP_sub.
        """
        log_c, present = pair_concentrations(c, self.structure)
        if self.log_alpha is not None:
            xp = array_library(c)
            outputs = self.table(xp.where(present, log_c, -xp.inf), self.law)
            published: AnyArray = aggregate_published(outputs, self.structure, self.aggregation, self.log_alpha)
            return published
        return aggregate(self.table(log_c, self.law), present, self.structure, self.aggregation)

    def fluxes(self, c: Float[AnyArray, "*batch species"]) -> Float[AnyArray, "*batch reactions"]:
        """Rate of every reaction, in concentration/time."""
        fluxes: AnyArray = array_library(c).asarray(self.k) * self.substrate_factors(c)
        return fluxes

    def __call__(self, c: Float[AnyArray, "*batch species"]) -> Float[AnyArray, "*batch species"]:
        """dc/dt by the reactions, in concentration/time; zero for fixed species."""
        return reaction_rates(self.fluxes(c), self.structure)


_tabulate = eqx.filter_jit(LogTable.of)
