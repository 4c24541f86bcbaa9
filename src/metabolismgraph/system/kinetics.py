"""From concentrations to fluxes to dc/dt: pure functions, one copy for the simulator and the model.

The rate of reaction j is v_j = k_j V_j, with V_j the product (aggr_type "mul") or the sum ("add") of
f(c_m, |s_mj|) over its substrates m. The substrate function f is passed as its logarithm on a log
axis, so that f > 0 and a power law is a straight line; f(0) = 0 holds exactly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from metabolismgraph.system.network import ReactionNetwork
from metabolismgraph.system.pytrees import pytree

# Homeostasis is hundreds of times weaker than the reactions, and normal equations square that ratio:
# everything here needs double precision.
jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]

Aggregation = Literal["mul", "add"]
# NumPy arrays in, NumPy arrays out; the same for JAX.
AnyArray = TypeVar("AnyArray", Array, np.ndarray)
Scalar = float | Float[Array, ""]
# log f at log concentrations, for a substrate order: an array of one shape in, one of that shape out.
LogFunction = Callable[[Array, Array], Array]


class RateLaws(NamedTuple):
    """The distinct rate laws of a network: one per substrate order, and per order that is known to be mass action.

    Attributes:
        order: |s| of each law.
        known: True where the law is c^|s|, False where it is learned.
        of_pair: index of the law of each pair.
    """

    order: Float[np.ndarray, " laws"]
    known: Bool[np.ndarray, " laws"]
    of_pair: Int[np.ndarray, " pairs"]


@pytree
@dataclasses.dataclass(frozen=True)
class Structure:
    """A network as arrays for JAX.

    f is needed once per distinct (species, order, law) triple, P in all, called pairs, and not once per edge.

    Attributes:
        pair_species, pair_order: species index and order |s| of each pair.
        pair_known: True where f of the pair is known to be c^|s|, False where it is learned.
        substrates: pairs of each reaction, padded with P to the largest number of substrates.
        stoichiometry: net S (species x reactions); rows of fixed species are zero.
        moving: False for a fixed species.
    """

    pair_species: Int[Array, " pairs"]
    pair_order: Float[Array, " pairs"]
    pair_known: Bool[Array, " pairs"]
    substrates: Int[Array, "reactions width"]
    stoichiometry: Float[Array, "species reactions"]
    moving: Bool[Array, " species"]

    @classmethod
    def of(cls, network: ReactionNetwork) -> Structure:
        """Compile a network."""
        known = network.mass_action[network.edge_reaction]
        edges = np.stack([network.edge_species.astype(np.float64), network.edge_order, known], axis=1)
        pairs, pair_of_edge = np.unique(edges.reshape(-1, 3), axis=0, return_inverse=True)
        counts = np.bincount(network.edge_reaction, minlength=network.n_reactions)
        substrates = np.full((network.n_reactions, max(1, int(counts.max(initial=0)))), len(pairs))
        slot = np.arange(len(edges)) - np.repeat(np.cumsum(counts) - counts, counts)
        substrates[network.edge_reaction, slot] = pair_of_edge.reshape(-1)
        return cls(
            pair_species=jnp.asarray(pairs[:, 0].astype(np.int64)),
            pair_order=jnp.asarray(pairs[:, 1]),
            pair_known=jnp.asarray(pairs[:, 2].astype(bool)),
            substrates=jnp.asarray(substrates),
            stoichiometry=jnp.asarray(network.stoichiometry),
            moving=jnp.asarray(~network.fixed),
        )

    @property
    def rate_laws(self) -> RateLaws:
        """The distinct rate laws; outside of compiled functions only."""
        pairs = np.stack([np.asarray(self.pair_order), np.asarray(self.pair_known)], axis=1)
        laws, of_pair = np.unique(pairs, axis=0, return_inverse=True)
        return RateLaws(laws[:, 0], laws[:, 1].astype(bool), of_pair.reshape(-1))

    @property
    def empty(self) -> Bool[Array, " reactions"]:
        """True for a reaction without substrates: its V is 1 (zero order) unless its net is zero too."""
        return jnp.all(self.substrates == len(self.pair_species), axis=1)


def array_library(values: object) -> Any:
    """NumPy for its own arrays, JAX's for all others, traced ones among them.

    What runs once is computed with NumPy: compiling it would cost more than it saves.
    """
    return np if isinstance(values, np.ndarray) else jnp


def aggregate(
    log_f: Float[AnyArray, "*batch pairs"],
    present: Bool[AnyArray, "*batch pairs"],
    structure: Structure,
    aggregation: Aggregation,
) -> Float[AnyArray, "*batch reactions"]:
    """V_j from log f of every pair; `present` is False where the concentration is exactly zero."""
    xp = array_library(log_f)
    nothing = xp.zeros((*log_f.shape[:-1], 1))  # what padding points at
    product = aggregation == "mul"
    factors = xp.where(present, log_f, -xp.inf) if product else xp.where(present, xp.exp(log_f), 0.0)
    padded = xp.concatenate([factors, nothing], axis=-1)
    total = xp.sum(padded[..., xp.asarray(structure.substrates)], axis=-1)
    v: AnyArray = xp.exp(total) if product else xp.where(xp.asarray(structure.empty), 1.0, total)
    return v


def pair_concentrations(
    c: Float[AnyArray, "*batch species"], structure: Structure
) -> tuple[Float[AnyArray, "*batch pairs"], Bool[AnyArray, "*batch pairs"]]:
    """log c of every pair (0 where c is zero, to keep gradients finite) and where c is positive."""
    xp = array_library(c)
    values = c[..., xp.asarray(structure.pair_species)]
    present = values > 0
    return xp.log(xp.where(present, values, 1.0)), present


def mass_action(log_c: Float[Array, "*batch pairs"], order: Float[Array, " pairs"]) -> Float[Array, "*batch pairs"]:
    """log f of mass action, f = c^s (Guldberg & Waage 1864)."""
    return order * log_c


def log_factors(
    f: LogFunction, log_c: Float[Array, "*batch pairs"], structure: Structure
) -> Float[Array, "*batch pairs"]:
    """log of each pair's factor in the rate: c^|s| where the law is known, otherwise the learned f."""
    order = structure.pair_order
    return jnp.where(structure.pair_known, mass_action(log_c, order), f(log_c, order))


def tabulate_laws(
    f: LogFunction, log_c: Float[Array, " points"], order: Float[Array, " laws"], known: Bool[Array, " laws"]
) -> Float[Array, "laws points"]:
    """log of the factor of each rate law at the same concentrations."""
    return jax.vmap(lambda s, is_known: jnp.where(is_known, s * log_c, f(log_c, s)))(order, known)


def reaction_rates(
    fluxes: Float[AnyArray, "*batch reactions"], structure: Structure
) -> Float[AnyArray, "*batch species"]:
    """dc/dt caused by the reactions: S v, in concentration per time."""
    rates: AnyArray = fluxes @ array_library(fluxes).asarray(structure.stoichiometry).T
    return rates


def limit_fluxes(
    fluxes: Float[Array, " reactions"], c: Float[Array, " species"], dt: Scalar, structure: Structure
) -> Float[Array, " reactions"]:
    """Scale reactions down so that no species is consumed beyond what is there within one step."""
    consumption = jnp.maximum(-structure.stoichiometry, 0.0)
    demand = dt * consumption @ fluxes
    share = jnp.where(demand > c, c / jnp.where(demand > 0, demand, 1.0), 1.0)
    scale = jnp.min(jnp.where(consumption > 0, share[:, None], 1.0), axis=0)
    return fluxes * scale


def homeostasis(
    c: Float[Array, "*batch species"], lam: Float[Array, " species"], baseline: Float[Array, "*#batch species"]
) -> Float[Array, "*batch species"]:
    """The linear pull -lambda (c - baseline), in concentration per time."""
    return -lam * (c - baseline)
