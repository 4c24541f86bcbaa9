"""The data of gradient Phase 1, laid out for many small batches, and dc/dt by the reactions on one.

f depends on one variable per substrate order, so a step evaluates MLP_sub on a few dozen knots, and
interpolates to the batch; gradients pass through the knots. Substrates are multiplied by one dense
matrix product of log f.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from metabolismgraph.errors import InputError
from metabolismgraph.reactions.data import Phase1Data
from metabolismgraph.system.derivative_rules import Rule
from metabolismgraph.system.kinetics import Aggregation
from metabolismgraph.system.log_table import cubic_coefficients
from metabolismgraph.system.model import AnySubstrateFunction

_KNOTS = 96
_ABSENT = -1e4  # log f where there is no substrate: exp of it is exactly zero, and so are its derivatives


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Table:
    """Knots that span the observed concentrations, evenly spaced in log c or, for a raw input, in log(1 + c / unit).

    The first suits a function that is smooth in log c, the second one that is smooth in c, and still
    resolves small concentrations. Beyond the observed range (rollouts only) f is held constant.

    Attributes:
        log_knots: log c of the knots.
        orders: the distinct substrate orders, one table each.
        first, step: of the knots, in the spacing's own coordinate.
        unit: median concentration.
    """

    log_knots: Float[Array, " knots"]
    orders: Float[Array, " orders"]
    first: Float[Array, ""]
    step: Float[Array, ""]
    unit: Float[Array, ""]
    raw: bool = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(
        cls,
        c: Float[np.ndarray, " values"],
        order: Float[np.ndarray, " pairs"],
        *,
        raw: bool,
        n_knots: int = _KNOTS,
    ) -> Table:
        """A table for the concentrations c > 0 and the orders that occur."""
        c = c if c.size else np.ones(1)
        unit = float(np.median(c))
        low, high = (np.log1p(x / unit) if raw else np.log(x) for x in (c.min(), c.max()))
        u = np.linspace(low, max(high, low + 1e-3), n_knots)
        return cls(
            log_knots=jnp.asarray(np.log(unit * np.expm1(u)) if raw else u),
            orders=jnp.asarray(np.unique(order)),
            first=jnp.asarray(u[0]),
            step=jnp.asarray(u[1] - u[0]),
            unit=jnp.asarray(unit),
            raw=raw,
        )

    def tabulate(self, mlp_sub: AnySubstrateFunction) -> Float[Array, "orders knots"]:
        """log f on the knots."""
        return jax.vmap(lambda order: mlp_sub(self.log_knots, order))(self.orders)

    def interpolate(
        self, values: Float[Array, "orders knots"], c: Float[Array, "*batch pairs"], table: Int[Array, " pairs"]
    ) -> Float[Array, "*batch pairs"]:
        """log f at concentrations c > 0, by the cubics through four knots.

        Args:
            values: from `tabulate`.
            table: index of the order of each pair.
        """
        coordinate = jnp.log1p(c / self.unit) if self.raw else jnp.log(c)
        n = len(self.log_knots)
        u = jnp.clip((coordinate - self.first) / self.step, 0.0, n - 1.0)
        # The first and the last cubic serve half an interval more each: no knots beyond the data are needed.
        interval = jnp.clip(jnp.floor(u) - 1.0, 0.0, n - 4.0)
        cubic = cubic_coefficients(values).reshape(-1, 4)[table * (n - 3) + interval.astype(jnp.int32)]
        t = u - 1.0 - interval
        return cubic[..., 0] + t * (cubic[..., 1] + t * (cubic[..., 2] + t * cubic[..., 3]))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batches:
    """The data of gradient Phase 1 and how they are drawn: windows of `time_step` transitions of one run.

    Attributes:
        first: transitions that a window may begin with.
        start, end, dt, derivative: of all transitions, see `observations.Transitions`.
        weight: 1 for an entry that follows the rate equation, else 0.
        pair_species, pair_table: species of each (species, order) pair, and the index of its order's table.
        factors: 1 where a pair is a substrate of a reaction.
        empty: True for a reaction without substrates.
        aggregation, rule: as in the model and in `integrate`; `time_step` 1 compares dc/dt itself.
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
    stoichiometry: Float[Array, "species reactions"]
    empty: Bool[Array, " reactions"]
    moving: Bool[Array, " species"]
    table: Table
    batch_size: int = dataclasses.field(metadata={"static": True})
    time_step: int = dataclasses.field(metadata={"static": True})
    aggregation: Aggregation = dataclasses.field(metadata={"static": True})
    rule: Rule = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(cls, data: Phase1Data) -> Batches:
        """Everything that follows the rate equation.

        Raises:
            InputError: no run is as long as a window.
        """
        transitions, structure, training = data.transitions, data.structure, data.training
        steps = training.time_step if training.recurrent_training else 1
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
            first=jnp.asarray(first),
            start=jnp.asarray(transitions.start),
            end=jnp.asarray(transitions.end),
            dt=jnp.asarray(transitions.dt),
            derivative=jnp.asarray(transitions.derivative),
            weight=jnp.asarray((data.usable & ~data.fixed).astype(np.float64)),
            pair_species=structure.pair_species,
            pair_table=jnp.asarray(np.unique(order, return_inverse=True)[1].reshape(-1)),
            factors=jnp.asarray(factors[:pairs]),
            stoichiometry=structure.stoichiometry,
            empty=structure.empty,
            moving=jnp.asarray(~data.fixed),
            table=Table.of(c[c > 0], order, raw=data.graph_model.substrate_input == "raw"),
            batch_size=training.batch_size,
            time_step=steps,
            aggregation=data.graph_model.aggr_type,
            rule=data.rule,
        )

    def reactions(
        self, log_k: Float[Array, " reactions"], values: Float[Array, "orders knots"], c: Float[Array, "batch species"]
    ) -> Float[Array, "batch species"]:
        """dc/dt by the reactions, with log f from its table."""
        at = c[:, self.pair_species]
        present = at > 0
        log_f = self.table.interpolate(values, jnp.where(present, at, 1.0), self.pair_table)
        log_f = jnp.where(present, log_f, _ABSENT)
        if self.aggregation == "mul":
            v = jnp.exp(log_f @ self.factors)
        else:
            v = jnp.where(self.empty, 1.0, jnp.exp(log_f) @ self.factors)
        return (10.0**log_k * v) @ self.stoichiometry.T
