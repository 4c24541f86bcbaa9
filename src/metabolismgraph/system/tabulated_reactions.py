"""The reactions of a model with their rate laws as tables: for rollouts in JAX, and for NumPy what runs once."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from metabolismgraph.system.kinetics import (
    Aggregation,
    AnyArray,
    LogFunction,
    Structure,
    aggregate,
    array_library,
    pair_concentrations,
    reaction_rates,
)
from metabolismgraph.system.log_table import Knots, LogTable
from metabolismgraph.system.pytrees import pytree

_KNOTS = 8192  # interpolated to better than 1e-9, which costs little once it is made
_BELOW, _ABOVE = 5.0, 2.0  # how far, in log c, the table reaches beyond the data; beyond that f is a power law


@pytree
@dataclasses.dataclass(frozen=True)
class TabulatedReactions:
    """Rates of all reactions of a trained model.

    What it is given decides what it computes with: NumPy arrays with NumPy, without compiling anything, others with
    JAX.

    Attributes:
        table: log f of each rate law.
        law: index of the law of each pair.
        k: rate constants, in concentration^(1-order)/time.
    """

    table: LogTable
    law: Int[Array, " pairs"]
    k: Float[Array, " reactions"]
    structure: Structure
    aggregation: Aggregation = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(
        cls,
        f: LogFunction,
        k: Float[np.ndarray, " reactions"],
        structure: Structure,
        aggregation: Aggregation,
        c: Float[np.ndarray, "frames species"],
    ) -> TabulatedReactions:
        """Tabulate the rate laws over the concentrations `c` and well beyond."""
        seen = np.log(c[c > 0]) if (c > 0).any() else np.zeros(1)
        knots = Knots.over(float(seen.min()) - _BELOW, float(seen.max()) + _ABOVE, _KNOTS)
        laws = structure.rate_laws
        # Without any substrate there is no law; a table of mass action, which nothing reads, keeps the shapes.
        order, known = (laws.order, laws.known) if laws.order.size else (np.ones(1), np.ones(1, dtype=bool))
        if known.all():
            table = LogTable.through(jnp.asarray(order)[:, None] * knots.log_c, knots)
        else:
            table = _tabulate(f, jnp.asarray(order), jnp.asarray(known), knots)
        return cls(table, jnp.asarray(laws.of_pair), jnp.asarray(k), structure, aggregation)

    def substrate_factors(self, c: Float[AnyArray, "*batch species"]) -> Float[AnyArray, "*batch reactions"]:
        """What multiplies k in each rate; f(0) = 0 holds exactly."""
        log_c, present = pair_concentrations(c, self.structure)
        return aggregate(self.table(log_c, self.law), present, self.structure, self.aggregation)

    def fluxes(self, c: Float[AnyArray, "*batch species"]) -> Float[AnyArray, "*batch reactions"]:
        """Rate of every reaction, in concentration per time."""
        fluxes: AnyArray = array_library(c).asarray(self.k) * self.substrate_factors(c)
        return fluxes

    def __call__(self, c: Float[AnyArray, "*batch species"]) -> Float[AnyArray, "*batch species"]:
        """dc/dt by the reactions, in concentration per time. Reactions do not change fixed species."""
        return reaction_rates(self.fluxes(c), self.structure)


_tabulate = eqx.filter_jit(LogTable.of)
