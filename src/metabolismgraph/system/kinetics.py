"""From concentrations to fluxes to dc/dt: pure functions, used by both the simulator and the model.

The rate of reaction j is v_j = k_j V_j. The substrate factor V_j is the product (aggr_type "mul") or the sum
("add") of f(c_m, |s_mj|) over its substrates m. The substrate function f is given as log f at log c, so that
f > 0, and a power law is a straight line. f(0) = 0 holds exactly.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Bool, Float, Int

from metabolismgraph.system.arrays import on_device
from metabolismgraph.system.network import ReactionNetwork
from metabolismgraph.system.pytrees import pytree

Aggregation = Literal["mul", "add"]
SMALLEST_OUTPUT = 1e-8  # of MLP_sub in a product, in the published program
# Functions of NumPy arrays return NumPy arrays, those of JAX arrays return JAX arrays.
AnyArray = TypeVar("AnyArray", Array, np.ndarray)
Scalar = float | Float[Array, ""]
# log f as a function of log concentrations and substrate orders; the result has the shape of the first.
LogFunction = Callable[[Array, Array], Array]


class RateLaws(NamedTuple):
    """The distinct rate laws of a network: one learned law and one of mass action per substrate order, if they occur.

    Attributes:
        order: |s| of each law.
        known: True where the law is c^|s|, False where it is learned.
        of_pair: index of the law of each pair, see `Structure`.
    """

    order: Float[np.ndarray, " laws"]
    known: Bool[np.ndarray, " laws"]
    of_pair: Int[np.ndarray, " pairs"]


@pytree
@dataclasses.dataclass(frozen=True)
class Structure:
    """A network as arrays, of NumPy or, for compiled functions, of JAX.

    f is evaluated once per distinct combination of species, order and rate law instead of once per edge. These
    combinations are called pairs (of species and law); P is their number.

    Attributes:
        pair_species, pair_order: species index and order |s| of each pair.
        pair_known: True where f of the pair is known to be c^|s|, False where it is learned.
        substrates: pairs of each reaction, padded with P to the largest number of substrates.
        net_species, net_reaction, net_coefficient: nonzero entries of net S, sorted by species; a fixed species has
            none. Time and memory of S v grow with their number, not with that of species x reactions.
        moving: False for a fixed species.
    """

    pair_species: Int[Array | np.ndarray, " pairs"]
    pair_order: Float[Array | np.ndarray, " pairs"]
    pair_known: Bool[Array | np.ndarray, " pairs"]
    substrates: Int[Array | np.ndarray, "reactions width"]
    net_species: Int[Array | np.ndarray, " entries"]
    net_reaction: Int[Array | np.ndarray, " entries"]
    net_coefficient: Float[Array | np.ndarray, " entries"]
    moving: Bool[Array | np.ndarray, " species"]

    @classmethod
    def of(cls, network: ReactionNetwork, array: Callable[[object], Any] = on_device) -> Structure:
        """The arrays of a network.

        Args:
            array: makes each of them; `np.asarray` for NumPy, which does not start JAX.
        """
        known = network.mass_action[network.edge_reaction]
        edges = np.stack([network.edge_species.astype(np.float64), network.edge_order, known], axis=1)
        pairs, pair_of_edge = np.unique(edges.reshape(-1, 3), axis=0, return_inverse=True)
        counts = np.bincount(network.edge_reaction, minlength=network.n_reactions)
        substrates = np.full((network.n_reactions, max(1, int(counts.max(initial=0)))), len(pairs))
        # Edges are sorted by reaction: the slot of an edge is its index minus that of the first edge of its reaction.
        slot = np.arange(len(edges)) - np.repeat(np.cumsum(counts) - counts, counts)
        substrates[network.edge_reaction, slot] = pair_of_edge.reshape(-1)
        net = network.sparse_stoichiometry
        return cls(
            pair_species=array(pairs[:, 0].astype(np.int64)),
            pair_order=array(pairs[:, 1]),
            pair_known=array(pairs[:, 2].astype(bool)),
            substrates=array(substrates),
            net_species=array(np.repeat(np.arange(network.n_species), np.diff(net.indptr))),
            net_reaction=array(net.indices.astype(np.int64)),
            net_coefficient=array(net.data),
            moving=array(~network.fixed),
        )

    @property
    def n_species(self) -> int:
        return len(self.moving)

    @property
    def n_reactions(self) -> int:
        return len(self.substrates)

    @functools.cached_property
    def sparse_stoichiometry(self) -> scipy.sparse.csr_array:
        """Net S (species x reactions). Not available inside compiled functions, where arrays have no values."""
        place = (np.asarray(self.net_species), np.asarray(self.net_reaction))
        return scipy.sparse.csr_array(
            (np.asarray(self.net_coefficient), place), shape=(self.n_species, self.n_reactions)
        )

    @functools.cached_property
    def sparse_substrates(self) -> scipy.sparse.csr_array:
        """1 for each pair of a reaction (reactions x pairs). Not available inside compiled functions either."""
        reaction, slot = np.nonzero(np.asarray(self.substrates) < len(self.pair_species))
        place = reaction, np.asarray(self.substrates)[reaction, slot]
        return scipy.sparse.csr_array((np.ones(len(reaction)), place), shape=(self.n_reactions, len(self.pair_species)))

    @property
    def stoichiometry(self) -> Float[Array, "species reactions"]:
        """Dense net S inside compiled functions, for small networks."""
        zeros = jnp.zeros((self.n_species, self.n_reactions))
        return zeros.at[self.net_species, self.net_reaction].add(self.net_coefficient)

    @property
    def rate_laws(self) -> RateLaws:
        """The distinct rate laws. Not available inside compiled functions, where arrays have no values."""
        pairs = np.stack([np.asarray(self.pair_order), np.asarray(self.pair_known)], axis=1)
        laws, of_pair = np.unique(pairs, axis=0, return_inverse=True)
        return RateLaws(laws[:, 0], laws[:, 1].astype(bool), of_pair.reshape(-1))

    @property
    def empty(self) -> Bool[Array | np.ndarray, " reactions"]:
        """True for a reaction without substrates (zero order), whose V is 1."""
        return (self.substrates == len(self.pair_species)).all(axis=1)


def array_library(values: object, *others: object) -> Any:
    """NumPy for NumPy arrays, `jax.numpy` for all others, including traced ones.

    Args:
        values: the input of a computation.
        others: arrays that it uses besides; if one of them is traced, NumPy could not process it.

    Computations that run only once use NumPy: compilation would take longer than the computation.
    """
    traced = any(isinstance(other, jax.core.Tracer) for other in others)
    return np if isinstance(values, np.ndarray) and not traced else jnp


def aggregate(
    log_f: Float[AnyArray, "*batch pairs"],
    present: Bool[AnyArray, "*batch pairs"],
    structure: Structure,
    aggregation: Aggregation,
) -> Float[AnyArray, "*batch reactions"]:
    """The substrate factor V_j from log f of every pair, in concentration^order.

    Args:
        log_f: log f of each pair.
        present: False where the concentration is exactly zero.
        structure: the network.
        aggregation: "mul" for the product over substrates, "add" for the sum.
    """
    xp = array_library(log_f)
    # A product is a sum of logarithms, so both cases are sums over the substrates of a reaction.
    product = aggregation == "mul"
    factors = xp.where(present, log_f, -xp.inf) if product else xp.where(present, xp.exp(log_f), 0.0)
    total = sum_over_substrates(factors, structure)
    v: AnyArray = xp.exp(total) if product else xp.where(xp.asarray(structure.empty), 1.0, total)
    return v


def aggregate_published(
    outputs: Float[AnyArray, "*batch pairs"], structure: Structure, aggregation: Aggregation, log_alpha: Scalar
) -> Float[AnyArray, "*batch reactions"]:
    """The substrate factor of the published program (Allier 2026), from the outputs of its MLP_sub.

    V is the softplus of the product of the absolute outputs, each at least 1e-8, or of the sum of the outputs. It is
    divided by alpha^n for n substrates, so that rate constants are those that the program compares with the truth.

    Args:
        outputs: of each pair; of any sign.
        structure: the network.
        aggregation: "mul" for the product over substrates, "add" for the sum.
        log_alpha: log of alpha, the absolute output at c = 1 and order 1.
    """
    xp = array_library(outputs)
    if aggregation == "mul":
        total = xp.exp(sum_over_substrates(xp.log(xp.maximum(xp.abs(outputs), SMALLEST_OUTPUT)), structure))
    else:
        total = sum_over_substrates(outputs, structure)
    # The program counts a reaction without substrates as one with a single substrate.
    n = xp.maximum(xp.sum(xp.asarray(structure.substrates) < len(structure.pair_species), axis=1), 1)
    v: AnyArray = xp.logaddexp(total, 0.0) * xp.exp(-n * xp.asarray(log_alpha))
    return v


def sum_over_substrates(
    values: Float[AnyArray, "*batch pairs"], structure: Structure
) -> Float[AnyArray, "*batch reactions"]:
    """The sum of the values of all pairs of each reaction."""
    total: Any
    if array_library(values) is np:
        *batch, pairs = values.shape
        flat = values.reshape(math.prod(batch), pairs)
        total = (structure.sparse_substrates @ flat.T).T.reshape(*batch, structure.n_reactions)
    else:
        # The padding index P refers to an additional column of zeros.
        padded = jnp.concatenate([values, jnp.zeros((*values.shape[:-1], 1))], axis=-1)
        total = jnp.sum(padded[..., structure.substrates], axis=-1)
    found: AnyArray = total
    return found


def pair_concentrations(
    c: Float[AnyArray, "*batch species"], structure: Structure
) -> tuple[Float[AnyArray, "*batch pairs"], Bool[AnyArray, "*batch pairs"]]:
    """log c of every pair (0 for a concentration of zero, to keep gradients finite), and True where c is not zero."""
    xp = array_library(c)
    values = c[..., xp.asarray(structure.pair_species)]
    present = ~(values <= 0)  # NaN, of a model that diverges, is not an absence
    return xp.log(xp.where(present, values, 1.0)), present


def mass_action(log_c: Float[AnyArray, "*batch"], order: Float[AnyArray, "*#batch"]) -> Float[AnyArray, "*batch"]:
    """log f of mass action, f = c^s (Guldberg & Waage 1864)."""
    log_f: AnyArray = order * log_c
    values: AnyArray = log_f
    return values


def log_factors(
    f: LogFunction, log_c: Float[Array, "*batch pairs"], structure: Structure
) -> Float[Array, "*batch pairs"]:
    """log of the factor of each pair: that of c^|s| where the law is known, otherwise the learned log f."""
    order = jnp.asarray(structure.pair_order)
    return jnp.where(structure.pair_known, mass_action(log_c, order), f(log_c, order))


def tabulate_laws(
    f: LogFunction, log_c: Float[AnyArray, " points"], order: Float[AnyArray, " laws"], known: Bool[AnyArray, " laws"]
) -> Float[AnyArray, "laws points"]:
    """log f of each rate law at the same log concentrations."""
    learned: Any = f
    log_f: Any
    if array_library(log_c) is np:  # for an f that processes NumPy arrays
        laws = zip(order, known, strict=True)
        log_f = np.stack([s * log_c if is_known else learned(log_c, np.full(log_c.shape, s)) for s, is_known in laws])
    else:
        log_f = jax.vmap(lambda s, is_known: jnp.where(is_known, s * log_c, learned(log_c, s)))(order, known)
    values: AnyArray = log_f
    return values


def reaction_rates(
    fluxes: Float[AnyArray, "*batch reactions"], structure: Structure
) -> Float[AnyArray, "*batch species"]:
    """dc/dt by the reactions, S v, in concentration/time, from their fluxes v."""
    rates: Any
    if array_library(fluxes) is np:
        *batch, m = fluxes.shape
        rates = (structure.sparse_stoichiometry @ fluxes.reshape(-1, m).T).T.reshape(*batch, structure.n_species)
    else:
        parts: Array = jnp.asarray(fluxes)[..., structure.net_reaction] * structure.net_coefficient
        zeros = jnp.zeros((*parts.shape[:-1], structure.n_species), parts.dtype)
        rates = zeros.at[..., structure.net_species].add(parts, indices_are_sorted=True)
    found: AnyArray = rates
    return found


def limit_fluxes(
    fluxes: Float[np.ndarray, " reactions"], c: Float[np.ndarray, " species"], dt: float, structure: Structure
) -> Float[np.ndarray, " reactions"]:
    """Reduce fluxes so that one Euler step of length `dt` does not consume more of a species than its concentration.

    All reactions that consume a species are reduced by the same factor; a reaction with several substrates, by the
    smallest one.
    """
    # A common factor per reaction, not per species, preserves stoichiometry and hence conserved masses.
    species, reaction = np.asarray(structure.net_species), np.asarray(structure.net_reaction)
    consumption = np.maximum(-np.asarray(structure.net_coefficient), 0.0)
    demand = dt * np.bincount(species, consumption * fluxes[reaction], structure.n_species)
    share = np.where(demand > c, c / np.where(demand > 0, demand, 1.0), 1.0)
    scale = np.ones_like(fluxes)
    np.minimum.at(scale, reaction, np.where(consumption > 0, share[species], 1.0))
    return np.asarray(fluxes * scale)


def homeostasis(
    c: Float[AnyArray, "*batch species"], lam: Float[AnyArray, " species"], baseline: Float[AnyArray, "*#batch species"]
) -> Float[AnyArray, "*batch species"]:
    """Linear homeostasis -lambda (c - baseline), in concentration/time; `lam` is lambda, in 1/time."""
    pull: AnyArray = -lam * (c - baseline)
    return pull
