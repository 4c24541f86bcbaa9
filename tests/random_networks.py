"""Random networks and relabelled copies, for the tests that hold for any network."""

import dataclasses

import numpy as np
from hypothesis import strategies as st

from metabolismgraph.system.network import Reaction, ReactionNetwork


def network_of(*reactions, species="ABCD", fixed=()):
    """A network from (substrates, net) pairs; reactions are called R0, R1, ..."""
    written = [Reaction(f"R{j}", substrates, net) for j, (substrates, net) in enumerate(reactions)]
    return ReactionNetwork.from_reactions("test", list(species), written, fixed)


@st.composite
def written_networks(draw, *, n_species=3, n_reactions=6, orders=(1.0, 2.0), coefficients=(-1.0, 1.0, 2.0)):
    """Arguments for `build`.

    So few species that reactions with the same substrates or the same net come about by chance. Not
    a network yet: the shape checks draw random numbers of their own, which Hypothesis does not want
    while it draws.
    """
    species = [chr(ord("A") + i) for i in range(n_species)]

    def side(values):
        return st.dictionaries(st.sampled_from(species), st.sampled_from(values), max_size=2)

    reactions = [(draw(side(orders)), draw(side(coefficients))) for _ in range(n_reactions)]
    return reactions, species, draw(st.lists(st.sampled_from(species), max_size=1))


def build(written):
    """The network that `written_networks` wrote."""
    reactions, species, fixed = written
    return network_of(*reactions, species=species, fixed=fixed)


def relabelled(network, species_order, reaction_order):
    """The same network with species and reactions listed in another order (names stay)."""
    written = network.to_reactions()
    return ReactionNetwork.from_reactions(
        network.id,
        [network.species[i] for i in species_order],
        [written[j] for j in reaction_order],
        [s for s, f in zip(network.species, network.fixed, strict=True) if f],
    )


def relabelled_observations(observations, species_order, reaction_order):
    return dataclasses.replace(
        observations,
        network=relabelled(observations.network, species_order, reaction_order),
        concentration=observations.concentration[:, np.asarray(species_order)],
    )
