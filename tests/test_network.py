"""ReactionNetwork: what is written comes back, what is wrong is named."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import build, network_of, relabelled, written_networks

from metabolismgraph.errors import InputError
from metabolismgraph.system.network import Reaction, ReactionNetwork


def test_substrates_and_net_are_two_things():
    network = network_of(({"A": 1.0, "B": 1.0}, {"A": -1.0, "B": 1.0}), ({"C": 2.0}, {"C": -2.0, "A": 1.0}))
    assert (network.n_species, network.n_reactions) == (4, 2)
    assert network.edge_species.tolist() == [0, 1, 2]
    assert network.edge_reaction.tolist() == [0, 0, 1]
    assert network.edge_order.tolist() == [1, 1, 2]
    assert network.stoichiometry.tolist() == [[-1, 1], [1, 0], [0, -2], [0, 0]]


def test_fixed_species_have_no_equation_but_keep_what_was_written():
    network = network_of(({"A": 1.0}, {"A": -1.0, "B": 1.0}), fixed=["A"])
    assert network.fixed.tolist() == [True, False, False, False]
    assert network.stoichiometry[:, 0].tolist() == [0, 1, 0, 0]
    assert network.to_reactions()[0].net == {"A": -1.0, "B": 1.0}


def test_zeros_are_no_entries():
    network = network_of(({"A": 1.0, "B": 0.0}, {"A": -1.0, "B": 0.0}))
    assert network.to_reactions() == [Reaction("R0", {"A": 1.0}, {"A": -1.0})]


def test_an_empty_network():
    network = ReactionNetwork.from_reactions("empty", ["A"], [])
    assert network.stoichiometry.shape == (1, 0)
    assert ReactionNetwork.from_json(network.to_json()).species == ("A",)


@pytest.mark.parametrize(
    ("species", "reactions", "message"),
    [
        (["A", "A"], [], "network net: species id 'A' is used twice; ids must be unique"),
        (["A"], [Reaction("R", {}, {})] * 2, "network net: reaction id 'R' is used twice; ids must be unique"),
        (["A"], [Reaction("R", {"X": 1.0}, {})], "network net: reaction R names species 'X', which is not listed"),
        (["A"], [Reaction("R", {}, {"Y": 1.0})], "network net: reaction R names species 'Y', which is not listed"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(species, reactions, message):
    with pytest.raises(InputError) as caught:
        ReactionNetwork.from_reactions("net", species, reactions)
    assert str(caught.value) == message


@settings(deadline=None)
@given(written=written_networks(orders=(0.5, 1.0, 3.0)))
def test_round_trips(written):
    network = build(written)
    again = ReactionNetwork.from_json(network.to_json())
    assert (again.id, again.species, again.reactions) == (network.id, network.species, network.reactions)
    assert again.to_reactions() == network.to_reactions()
    for name in ("edge_species", "edge_reaction", "edge_order", "net_species", "net_reaction", "net_coefficient"):
        np.testing.assert_array_equal(getattr(again, name), getattr(network, name))
    np.testing.assert_array_equal(again.fixed, network.fixed)


@settings(deadline=None)
@given(written=written_networks(), species_order=st.permutations(range(3)), reaction_order=st.permutations(range(6)))
def test_relabelling_permutes_the_stoichiometry(written, species_order, reaction_order):
    network = build(written)
    other = relabelled(network, species_order, reaction_order)
    np.testing.assert_array_equal(other.stoichiometry, network.stoichiometry[species_order][:, reaction_order])
    assert (np.diff(other.edge_reaction) >= 0).all()
    assert (np.diff(other.net_reaction) >= 0).all()
