import dataclasses

import numpy as np
import pytest
from continuous import LOTKA_VOLTERRA, MICHAELIS_MENTEN, observe

import metabolismgraph as mg
from metabolismgraph.config import GraphModel, Training
from metabolismgraph.system.assumed_rate_laws import assume_rate_laws, rate_law_notes
from metabolismgraph.system.kinetics import Structure
from metabolismgraph.system.tabulated_reactions import TabulatedReactions

TIME = np.linspace(0, 30, 301)
QUICK = ["training.homeostasis_training=false"]


def known(choice, stated, **training):
    observations = observe(LOTKA_VOLTERRA, TIME, mass_action=stated)
    found = assume_rate_laws(observations, GraphModel(rate_law=choice), Training(**training))
    return found.network.mass_action


def test_what_is_known_is_what_the_network_states_unless_told_otherwise():
    assert known("auto", True).all()
    assert not known("auto", False).any()
    assert known("mass_action", False).all()
    assert not known("learned", True).any()


def test_gradient_phase_1_learns_every_law():
    assert not known("auto", True, phase1_method="gradient").any()
    with pytest.raises(mg.InputError, match="rate_law"):
        known("mass_action", True, phase1_method="gradient")


def test_a_checkpoint_decides_what_was_known_when_it_was_made():
    observations = observe(LOTKA_VOLTERRA, TIME)
    config = mg.load_config("small", [*QUICK, "graph_model.rate_law=learned"])
    first = mg.fit(observations, config)
    again = mg.fit(observations, mg.load_config("small", QUICK), checkpoint=first.phase1)
    assert not again.observations.network.mass_action.any()


def test_a_stated_law_is_exact_and_a_learned_one_comes_close():
    observations = observe(MICHAELIS_MENTEN, np.linspace(0, 30, 1201))
    stated = mg.fit(observations, mg.load_config("small", QUICK))
    assert stated.phase1.losses.size <= 4  # nothing is searched for: one value a round
    for name, k in MICHAELIS_MENTEN[1].items():
        assert stated.rate_constants.set_index("reaction").loc[name, "k"] == pytest.approx(k, rel=2e-3)
    learned = mg.fit(observations, mg.load_config("small", [*QUICK, "graph_model.rate_law=learned"]))
    table = learned.rate_constants.set_index("reaction")
    for name in table.index[table["identifiable"]]:
        assert table.loc[name, "k"] == pytest.approx(MICHAELIS_MENTEN[1][name], rel=0.1)


def test_known_and_learned_laws_stand_side_by_side():
    observations = observe(LOTKA_VOLTERRA, TIME)
    mixed = np.array([False, True, False])
    network = dataclasses.replace(observations.network, mass_action=mixed)
    observations = dataclasses.replace(observations, network=network)
    assert "1 of 3 reactions" in rate_law_notes(observations)[0]
    result = mg.fit(observations, mg.load_config("small", QUICK))
    assert result.rate_constants.set_index("reaction").loc["eat", "k"] == pytest.approx(0.1, rel=0.01)
    structure = Structure.of(network)
    assert structure.rate_laws.known.sum() == 1
    table = TabulatedReactions.of(
        lambda log_c, order: 0 * log_c + 0 * order, np.ones(3), structure, "mul", observations.concentration
    )
    v = table.substrate_factors(observations.concentration)
    np.testing.assert_allclose(v[:, 1], observations.concentration.prod(axis=1), rtol=1e-6)
    np.testing.assert_allclose(v[:, [0, 2]], 1.0)
