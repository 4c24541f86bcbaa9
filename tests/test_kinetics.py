"""From concentrations to dc/dt, by hand, by conservation laws and by symmetry."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import build, network_of, relabelled, written_networks

from metabolismgraph.config import Simulation
from metabolismgraph.ground_truth.rate_laws.michaelis_menten import MichaelisMenten
from metabolismgraph.ground_truth.simulator import random_network
from metabolismgraph.system.kinetics import (
    Structure,
    aggregate,
    homeostasis,
    limit_fluxes,
    mass_action,
    pair_concentrations,
    reaction_rates,
)

# A + 2 B -> C; A + B -> 2 B; B^0.5 -> D; zero order -> A; nothing at all
NETWORK = network_of(
    ({"A": 1.0, "B": 2.0}, {"A": -1.0, "B": -2.0, "C": 1.0}),
    ({"A": 1.0, "B": 1.0}, {"A": -1.0, "B": 1.0}),
    ({"B": 0.5}, {"B": -1.0, "D": 1.0}),
    ({}, {"A": 1.0}),
    ({}, {}),
)
STRUCTURE = Structure.of(NETWORK)


@partial(jax.jit, static_argnames="aggregation")
def compiled(c, structure, aggregation, exponent):
    log_c, present = pair_concentrations(c, structure)
    return aggregate(exponent * mass_action(log_c, structure.pair_order), present, structure, aggregation)


def substrate_factors(c, structure=STRUCTURE, aggregation="mul", exponent=1.0):
    return compiled(jnp.asarray(c, dtype=float), structure, aggregation, exponent)


def test_a_pair_of_species_and_order_is_computed_once():
    assert len(STRUCTURE.pair_species) == 4  # A once, although two reactions use it; B with orders 0.5, 1, 2
    assert STRUCTURE.empty.tolist() == [False, False, False, True, True]


def test_mass_action_by_hand():
    c = [3.0, 2.0, 7.0, 11.0]
    np.testing.assert_allclose(substrate_factors(c), [3 * 2**2, 3 * 2, 2**0.5, 1, 1], rtol=1e-14)
    np.testing.assert_allclose(substrate_factors(c, aggregation="add"), [3 + 2**2, 3 + 2, 2**0.5, 1, 1], rtol=1e-14)


def test_rates_by_hand():
    fluxes = jnp.array([0.5, 0.25, 2.0, 1.0, 9.0])
    rates = reaction_rates(fluxes, STRUCTURE)
    assert rates.tolist() == [-0.5 - 0.25 + 1.0, -2 * 0.5 + 0.25 - 2.0, 0.5, 2.0]


def test_fixed_species_are_not_moved():
    fixed = Structure.of(network_of(*[(r.substrates, r.net) for r in NETWORK.to_reactions()], fixed=["B"]))
    assert reaction_rates(jnp.ones(5), fixed)[1] == 0
    assert fixed.moving.tolist() == [True, False, True, True]


def test_leading_axes_are_carried_along():
    c = np.random.default_rng(0).random((3, 2, 4))
    np.testing.assert_allclose(substrate_factors(c)[1, 1], substrate_factors(c[1, 1]), rtol=1e-14)


def test_nothing_reacts_where_a_substrate_is_missing():
    a_missing = substrate_factors([0.0, 2.0, 1.0, 1.0])
    assert a_missing[:2].tolist() == [0.0, 0.0]
    assert a_missing[2] > 0
    assert substrate_factors([0.0, 2.0, 1.0, 1.0], aggregation="add").tolist()[:2] == pytest.approx([4.0, 2.0])
    assert substrate_factors(np.zeros(4)).tolist() == [0, 0, 0, 1, 1]
    assert substrate_factors(np.zeros(4), aggregation="add").tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("aggregation", ["mul", "add"])
def test_gradients_are_finite_where_a_concentration_is_zero(aggregation):
    @jax.jit
    @partial(jax.grad, argnums=(0, 1))
    def gradient(exponent, c):
        return jnp.sum(substrate_factors(c, aggregation=aggregation, exponent=exponent))

    for c in ([0.0, 2.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0], [3.0, 2.0, 1.0, 1.0]):
        by_exponent, by_c = gradient(1.0, jnp.array(c))
        assert np.isfinite(by_exponent)
        assert np.isfinite(by_c).all()


def test_a_network_without_substrates():
    inflow = Structure.of(network_of(({}, {"A": 1.0}), ({}, {"B": 1.0})))
    assert substrate_factors(np.ones((5, 4)), inflow).tolist() == [[1.0, 1.0]] * 5
    assert substrate_factors(np.ones(4), inflow, "add").tolist() == [1.0, 1.0]


@settings(deadline=None, max_examples=12)
@given(
    written=written_networks(orders=(1.0, 2.0)),
    species_order=st.permutations(range(3)),
    reaction_order=st.permutations(range(6)),
    aggregation=st.sampled_from(["mul", "add"]),
    c=st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=3, max_size=3),
)
def test_relabelling_changes_nothing(written, species_order, reaction_order, aggregation, c):
    network, c = build(written), np.array(c)
    structure, other = Structure.of(network), Structure.of(relabelled(network, species_order, reaction_order))
    here = substrate_factors(c, structure, aggregation)
    there = substrate_factors(c[species_order], other, aggregation)
    np.testing.assert_allclose(there, here[jnp.array(reaction_order)], rtol=1e-14)
    rates = reaction_rates(here, structure)
    np.testing.assert_allclose(reaction_rates(there, other), rates[jnp.array(species_order)], rtol=1e-12, atol=1e-12)


@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 2**32), cycle_fraction=st.sampled_from([0.0, 0.5, 1.0]))
def test_reactions_conserve_mass(seed, cycle_fraction):
    options = Simulation(n_metabolites=12, n_reactions=20, cycle_fraction=cycle_fraction)
    rng = np.random.default_rng(seed)
    network = random_network(options, "random", rng)
    np.testing.assert_array_equal(network.stoichiometry.sum(axis=0), 0.0)
    structure = Structure.of(network)
    rates = reaction_rates(substrate_factors(rng.uniform(0, 10, 12), structure), structure)
    assert abs(float(rates.sum())) <= 1e-12 * float(jnp.abs(rates).sum())


@settings(deadline=None, max_examples=30)
@given(
    c=st.lists(st.just(0.0) | st.floats(1e-6, 10.0), min_size=4, max_size=4),
    fluxes=st.lists(st.floats(0, 1e6), min_size=5, max_size=5),
    dt=st.floats(0.01, 10.0),
)
def test_limited_fluxes_never_use_up_more_than_there_is(c, fluxes, dt):
    c, fluxes = np.array(c), np.array(fluxes)
    limited = limit_fluxes(fluxes, c, dt, STRUCTURE)
    used = dt * np.maximum(-NETWORK.stoichiometry, 0) @ limited
    assert (used <= c * (1 + 1e-12)).all()
    assert (limited >= 0).all()
    assert (limited <= fluxes).all()
    # What is not short of anything stays as it is, to the last bit.
    demand = dt * np.maximum(-NETWORK.stoichiometry, 0) @ fluxes
    for j in range(5):
        consumed = NETWORK.stoichiometry[:, j] < 0
        if (demand[consumed] <= c[consumed]).all():
            assert limited[j] == fluxes[j]


def test_limited_fluxes_share_what_there_is():
    # A is short by half (used by the first two reactions), B by a quarter more (used by the first and the third).
    c = np.array([1.0, 4.0, 1.0, 1.0])
    limited = limit_fluxes(np.array([1.0, 1.0, 4.0, 1.0, 1.0]), c, 1.0, STRUCTURE)
    assert limited.tolist() == pytest.approx([0.5, 0.5, 4 * 2 / 3, 1.0, 1.0])


@pytest.mark.parametrize("order", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("half_saturation", [0.1, 5.0])
def test_michaelis_menten(order, half_saturation):
    def f(c):
        return np.exp(MichaelisMenten(half_saturation=half_saturation).log_factor(np.log([c]), np.array([order])))[0]

    assert f(1.0) == pytest.approx(1.0, abs=1e-15)
    assert f(half_saturation) == pytest.approx(((1 + half_saturation) / 2) ** order)
    assert f(1e9) == pytest.approx((1 + half_saturation) ** order)
    assert f(1e-9) == pytest.approx(((1 + half_saturation) / half_saturation * 1e-9) ** order)


def test_homeostasis_pulls_towards_the_baseline():
    pull = homeostasis(jnp.array([[1.0, 5.0], [4.0, 8.0]]), jnp.array([0.5, 2.0]), jnp.array([4.0, 6.0]))
    assert pull.tolist() == [[1.5, 2.0], [0.0, -4.0]]
