"""The data of gradient Phase 1, arranged for small batches, and dc/dt of a batch by the reactions.

For each substrate order, f depends on one variable. A step therefore evaluates MLP_sub on 96 knots and
interpolates to the batch; gradients pass through the knots. The product over substrates is one dense
matrix product of log f.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from metabolismgraph.errors import InputError
from metabolismgraph.reactions.data import Phase1Data
from metabolismgraph.system.arrays import on_device
from metabolismgraph.system.derivative_rules import Rule
from metabolismgraph.system.kinetics import Aggregation, Structure, reaction_rates, tabulate_laws
from metabolismgraph.system.log_table import Knots, LogTable
from metabolismgraph.system.model import AnySubstrateFunction
from metabolismgraph.system.pytrees import pytree

_KNOTS = 96  # of the table of f
# log f at a concentration of zero: the exponential and its derivatives are exactly zero, and 0 * log f is not NaN.
_ABSENT = -1e4


@pytree
@dataclasses.dataclass(frozen=True)
class Batches:
    """The data of gradient Phase 1; a batch consists of windows of `time_step` transitions of one run.

    Attributes:
        first: transitions with which a window may begin.
        start, end, dt, derivative: of all transitions, see `observations.Transitions`.
        weight: 1 for an entry that follows the rate equation, otherwise 0.
        pair_species, pair_table: species of each (species, order) pair, and index of the table of its order.
        factors: 1 where a pair is a substrate of a reaction.
        structure: the network.
        empty: True for a reaction without substrates.
        moving: False for a fixed species.
        knots, orders: of the tables of log f.
        batch_size, time_step: windows per batch, and transitions per window; 1 compares dc/dt itself.
        aggregation, rule: as in the model and in `integrate`.
    """

    first: Int[Array, " windows"]
    start: Float[Array, "transitions species"]
    end: Float[Array, "transitions species"]
    dt: Float[Array, " transitions"]
    derivative: Float[Array, "transitions species"]
    weight: Float[Array, "transitions species"]
    pair_species: Int[Array, " pairs"]
    pair_table: Int[Array, " pairs"]
    factors: Float[Array, "pairs reactions"]
    structure: Structure
    empty: Bool[Array, " reactions"]
    moving: Bool[Array, " species"]
    knots: Knots
    orders: Float[Array, " orders"]
    batch_size: int = dataclasses.field(metadata={"static": True})
    time_step: int = dataclasses.field(metadata={"static": True})
    aggregation: Aggregation = dataclasses.field(metadata={"static": True})
    rule: Rule = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(cls, data: Phase1Data) -> Batches:
        """Arrange the data.

        Raises:
            InputError: every run is shorter than a window.
        """
        transitions, structure, training = data.transitions, data.structure, data.training
        steps = training.time_step if training.recurrent_training else 1
        # Frame numbers of transitions skip one between runs, so a window within one run has consecutive numbers.
        frame = transitions.frame
        first = np.flatnonzero(frame[steps - 1 :] - frame[: len(frame) - steps + 1] == steps - 1)
        if not first.size:
            raise InputError(f"training.time_step is {steps}, but no run has so many steps; lower it")
        substrates = np.asarray(structure.substrates)
        pairs = structure.pair_species.size
        factors = np.zeros((pairs + 1, len(substrates)))
        factors[substrates, np.arange(len(substrates))[:, None]] = 1.0
        order = np.asarray(structure.pair_order)
        c = transitions.start[:, np.asarray(structure.pair_species)]
        return cls(
            first=on_device(first),
            start=on_device(transitions.start),
            end=on_device(transitions.end),
            dt=on_device(transitions.dt),
            derivative=on_device(transitions.derivative),
            weight=on_device((data.usable & ~data.fixed).astype(np.float64)),
            pair_species=jnp.asarray(structure.pair_species),
            pair_table=on_device(np.unique(order, return_inverse=True)[1].reshape(-1)),
            factors=on_device(factors[:pairs]),
            structure=structure,
            empty=jnp.asarray(structure.empty),
            moving=on_device(~data.fixed),
            knots=_knots(c[c > 0], raw=data.graph_model.substrate_input == "raw"),
            orders=on_device(np.unique(order)),
            batch_size=training.batch_size,
            time_step=steps,
            aggregation=data.graph_model.aggr_type,
            rule=data.rule,
        )

    def tabulate(self, mlp_sub: AnySubstrateFunction) -> Float[Array, "orders knots"]:
        """log f on the knots for each order. This method learns all rate laws."""
        return tabulate_laws(mlp_sub, self.knots.log_c, self.orders, jnp.zeros(len(self.orders), dtype=bool))

    def reactions(
        self, log_k: Float[Array, " reactions"], table: LogTable, c: Float[Array, "batch species"]
    ) -> Float[Array, "batch species"]:
        """dc/dt by the reactions, in concentration/time, with log f from its table."""
        at = c[:, self.pair_species]
        present = at > 0
        log_f = table(jnp.log(jnp.where(present, at, 1.0)), self.pair_table)
        log_f = jnp.where(present, log_f, _ABSENT)
        if self.aggregation == "mul":
            v = jnp.exp(log_f @ self.factors)
        else:
            v = jnp.where(self.empty, 1.0, jnp.exp(log_f) @ self.factors)
        return reaction_rates(10.0**log_k * v, self.structure)


def _knots(c: Float[np.ndarray, " values"], *, raw: bool) -> Knots:
    """Knots that span the concentrations c > 0, equally spaced in the input of MLP_sub.

    They do not extend beyond the data: with a raw input, MLP_sub would be evaluated at negative concentrations.
    """
    c = c if c.size else np.ones(1)
    return Knots.over(float(np.log(c.min())), float(np.log(c.max())), _KNOTS, unit=float(np.median(c)) if raw else None)
