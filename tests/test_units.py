import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from continuous import LOTKA_VOLTERRA, MICHAELIS_MENTEN, observe

import metabolismgraph as mg
from metabolismgraph.config import GraphModel
from metabolismgraph.system.units import Units

TIME = np.linspace(0, 30, 301)
FACTORS = [(1e-9, 1.0), (1e6, 1.0), (1.0, 1 / 3600), (1e-9, 3600.0), (37.0, 1.0)]


def in_units(observations, concentration, time):
    return dataclasses.replace(
        observations, concentration=observations.concentration * concentration, time=observations.time * time
    )


def units_of_k(network, concentration, time):
    order = np.zeros(network.n_reactions)
    np.add.at(order, network.edge_reaction, network.edge_order)
    return concentration ** (1 - order) / time


@pytest.fixture(scope="module", params=[MICHAELIS_MENTEN, LOTKA_VOLTERRA], ids=["michaelis_menten", "lotka_volterra"])
def fitted(request):
    """Observations, a configuration and their fit."""
    config = mg.load_config("small", ["training.homeostasis_training=false"])
    plain = observe(request.param, TIME)
    return plain, config, mg.fit(plain, config)


@pytest.mark.parametrize(("concentration", "time"), FACTORS)
def test_results_do_not_hang_on_the_unit(fitted, concentration, time):
    plain, config, given = fitted
    other = mg.fit(in_units(plain, concentration, time), config)
    np.testing.assert_array_equal(given.rate_constants["identifiable"], other.rate_constants["identifiable"])
    assert given.phase1.reasons == other.phase1.reasons
    expected = given.rate_constants["k"] * units_of_k(plain.network, concentration, time)
    np.testing.assert_allclose(other.rate_constants["k"], expected, rtol=1e-3)
    known = given.rate_constants["identifiable"].to_numpy()
    np.testing.assert_allclose(
        other.rate_constants["standard_error"][known], given.rate_constants["standard_error"][known], rtol=0.05
    )
    assert given.trust.trustworthy == other.trust.trustworthy


def test_a_learned_law_and_both_phases_do_not_hang_on_the_unit(small, small_config, small_phase1, small_phase2):
    config = small_config
    other = mg.fit(in_units(small.observations, 1e-9, 10.0), config.override(["training.held_out_fraction=0"]))
    network = small.observations.network
    found = other.phase1.log_k - np.log10(units_of_k(network, 1e-9, 10.0))
    known = small_phase1.identifiability.identifiable
    np.testing.assert_array_equal(known, other.phase1.identifiability.identifiable)
    np.testing.assert_allclose(found[known], small_phase1.log_k[known], atol=1e-4)
    np.testing.assert_allclose(other.phase1.slope * 10.0, small_phase1.slope, atol=1e-6)
    np.testing.assert_allclose(other.phase1.offset * 10.0 / 1e-9, small_phase1.offset, atol=1e-5)
    c = np.linspace(1.0, 9.0, 5)
    ours = np.asarray(small_phase2.model.homeostasis(jnp.asarray(np.broadcast_to(c[:, None], (5, network.n_species)))))
    theirs = np.asarray(
        other.phase2.model.homeostasis(jnp.asarray(np.broadcast_to(1e-9 * c[:, None], (5, network.n_species))))
    )
    np.testing.assert_allclose(theirs * 10.0 / 1e-9, ours, atol=2e-4)
    np.testing.assert_array_equal(np.asarray(other.phase2.model.log_k), other.phase1.log_k)


def test_data_of_the_order_of_one_stay_as_they_are(small):
    units = Units.of(small.observations, GraphModel())
    assert units == Units(1.0, 1.0)


def test_identify_does_not_hang_on_the_unit():
    plain = observe(MICHAELIS_MENTEN, TIME)
    for concentration, time in FACTORS:
        found = mg.identify(plain.network, in_units(plain, concentration, time))
        np.testing.assert_array_equal(found.identifiable, mg.identify(plain.network, plain).identifiable)
