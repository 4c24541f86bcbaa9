"""What can be identified, against the rank of a design matrix that is written out."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import build, network_of, relabelled, written_networks

from metabolismgraph.errors import InputError
from metabolismgraph.reactions.identifiability import Combination, analyse, identify
from metabolismgraph.reactions.normal_matrix import DenseMatrix
from metabolismgraph.reactions.unidentifiable import fill_undetermined
from metabolismgraph.system.observations import Observations

A_B = {"A": 1.0, "B": 1.0}
# Reactions that change nothing, of which nothing can be found.
INERT = [(A_B, {}), *(({s: order}, {}) for s in "ABC" for order in (1.0, 2.0))]


def build_padded(written):
    reactions, species, fixed = written
    return build((reactions + INERT, species, fixed))


def brute_force(network, aggregation):
    """Projector onto what is invisible of k, from an SVD of the explicit design matrix."""
    c = np.random.default_rng(7).uniform(0.3, 3.0, (150, network.n_species))
    v = np.ones((len(c), network.n_reactions))
    for j, reaction in enumerate(network.to_reactions()):
        factors = [c[:, network.species.index(s)] ** order for s, order in reaction.substrates.items()]
        if factors:
            v[:, j] = np.prod(factors, axis=0) if aggregation == "mul" else np.sum(factors, axis=0)
    columns = (v[:, None, :] * network.stoichiometry[None]).reshape(-1, network.n_reactions)
    homeostasis = np.zeros((len(c), network.n_species, network.n_species, 2))
    for i in np.flatnonzero(~network.fixed):
        homeostasis[:, i, i, 0], homeostasis[:, i, i, 1] = 1.0, c[:, i]
    design = np.hstack([columns, homeostasis.reshape(len(columns), -1)])
    _, values, vectors = np.linalg.svd(design, full_matrices=False)
    rank = int((values > 1e-9 * values[0]).sum()) if values[0] > 0 else 0
    hidden = vectors[rank:, : network.n_reactions].T
    u, s, _ = np.linalg.svd(hidden, full_matrices=False)
    return u[:, s > 1e-9]


@settings(deadline=None, max_examples=40)
@given(written=written_networks(), aggregation=st.sampled_from(["mul", "add"]))
def test_the_identifiable_set_is_that_of_a_brute_force_rank(written, aggregation):
    network = build_padded(written)
    found, hidden = identify(network, aggregation=aggregation), brute_force(network, aggregation)
    # e_j lies in the row space exactly where no invisible direction moves k_j.
    assert found.identifiable.tolist() == (np.linalg.norm(hidden, axis=1) < 1e-7).tolist()
    np.testing.assert_allclose(found.null_space @ found.null_space.T, hidden @ hidden.T, atol=1e-5)
    # Groups part the rest, and do not mix.
    assert sorted(j for group in found.groups for j in group) == np.flatnonzero(~found.identifiable).tolist()
    projector = hidden @ hidden.T
    for group in found.groups:
        others = [j for j in range(network.n_reactions) if j not in group]
        np.testing.assert_allclose(projector[np.ix_(group, others)], 0, atol=1e-7)
    # Combinations are blind to every invisible direction, and there are as many as there can be.
    for group, combinations in zip(found.groups, found.combinations, strict=True):
        functionals = np.zeros((len(combinations), network.n_reactions))
        for row, combination in zip(functionals, combinations, strict=True):
            assert set(combination.reactions) <= set(group)
            row[list(combination.reactions)] = combination.coefficients
        np.testing.assert_allclose(functionals @ hidden, 0, atol=1e-4)
        if combinations:
            assert np.linalg.matrix_rank(functionals) == len(combinations)
        assert len(combinations) == len(group) - np.linalg.matrix_rank(hidden[list(group)], tol=1e-7)


def test_duplicates():
    found = identify(network_of((A_B, {"A": -1.0, "B": 1.0}), (A_B, {"A": -1.0, "B": 1.0}), (A_B, {"C": 1.0})))
    assert found.identifiable.tolist() == [False, False, True]
    assert found.groups == ((0, 1),)
    assert found.combinations == ((Combination((0, 1), (1.0, 1.0)),),)
    np.testing.assert_allclose(np.abs(found.null_space[:, 0]), [0.5**0.5, 0.5**0.5, 0], atol=1e-6)


def test_an_opposite_pair():
    found = identify(network_of((A_B, {"A": -1.0, "B": 1.0}), (A_B, {"A": 1.0, "B": -1.0})))
    assert found.identifiable.tolist() == [False, False]
    assert found.combinations == ((Combination((0, 1), (1.0, -1.0)),),)


def test_a_reaction_without_participants():
    found = identify(network_of((A_B, {"A": -1.0, "B": 1.0}), ({}, {})))
    assert found.identifiable.tolist() == [True, False]
    assert found.groups == ((1,),)
    assert found.combinations == ((),)


def test_multiples_weigh_in_the_combination():
    found = identify(network_of((A_B, {"A": -1.0, "C": 1.0}), (A_B, {"A": -2.0, "C": 2.0})))
    assert found.combinations == ((Combination((0, 1), (1.0, 2.0)),),)


def test_three_nets_in_a_plane():
    """A:-1 B:+1, then B:-1 C:+1, then their sum: no two are equal, yet one direction is invisible."""
    found = identify(
        network_of((A_B, {"A": -1.0, "B": 1.0}), (A_B, {"B": -1.0, "C": 1.0}), (A_B, {"A": -1.0, "C": 1.0}))
    )
    assert found.identifiable.tolist() == [False] * 3
    assert found.groups == ((0, 1, 2),)
    assert found.combinations == ((Combination((0, 2), (1.0, 1.0)), Combination((1, 2), (1.0, 1.0))),)


def test_two_groups_are_told_apart():
    found = identify(
        network_of((A_B, {"C": 1.0}), ({"C": 2.0}, {"A": 1.0}), (A_B, {"C": 1.0}), ({"C": 2.0}, {"A": 1.0}), ({}, {}))
    )
    assert set(found.groups) == {(0, 2), (1, 3), (4,)}


def test_what_homeostasis_could_explain_is_not_a_rate_constant():
    """A -> nothing is a pull -k c, and an inflow a constant: both can be homeostasis just as well."""
    decay, inflow = ({"A": 1.0}, {"A": -1.0}), ({}, {"B": 1.0})
    assert identify(network_of(decay, inflow, ({"A": 1.0}, {"A": -1.0, "B": 1.0}))).identifiable.tolist() == [
        False,
        False,
        True,
    ]
    # Where the product has no equation, nothing is left to see it by.
    assert identify(network_of(({"A": 1.0}, {"A": -1.0, "B": 1.0}), fixed=["B"])).identifiable.tolist() == [False]


def test_networks_with_nothing_to_find():
    assert identify(network_of()).identifiable.shape == (0,)
    assert identify(network_of(({}, {}), ({}, {"A": 1.0}))).identifiable.tolist() == [False, False]


def test_scales_do_not_matter():
    """A flux a million times smaller is as visible as any other."""
    network = network_of((A_B, {"A": -1.0, "B": 1.0}), ({"C": 2.0}, {"C": -1.0, "D": 1.0}))
    rng = np.random.default_rng(0)
    c = rng.uniform(0.5, 2.0, (80, 4)) * [1.0, 1.0, 1e-4, 1e-4]
    data = Observations(network, np.arange(80.0), np.zeros(80, dtype=np.int64), c)
    found = identify(network, data)
    assert found.identifiable.tolist() == [True, True]
    assert found.smallest_determined > 0.01


def test_what_the_data_do_not_show():
    """A substrate that is never there makes a reaction invisible that the network alone would allow."""
    network = network_of((A_B, {"A": -1.0, "B": 1.0}), ({"C": 2.0, "A": 1.0}, {"C": -1.0, "D": 1.0}))
    c = np.random.default_rng(0).uniform(0.5, 2.0, (80, 4))
    c[:, 2] = 0.0
    data = Observations(network, np.arange(80.0), np.zeros(80, dtype=np.int64), c)
    assert identify(network).identifiable.tolist() == [True, True]
    assert identify(network, data).identifiable.tolist() == [True, False]


@settings(deadline=None, max_examples=20)
@given(written=written_networks(), species_order=st.permutations(range(3)), reaction_order=st.permutations(range(13)))
def test_relabelling_changes_nothing(written, species_order, reaction_order):
    network = build_padded(written)
    here, there = identify(network), identify(relabelled(network, species_order, reaction_order))
    assert there.identifiable.tolist() == here.identifiable[reaction_order].tolist()
    assert {frozenset(reaction_order[j] for j in g) for g in there.groups} == {frozenset(g) for g in here.groups}


def test_data_of_the_benchmark_show_what_the_network_allows(small):
    observations = small.observations
    by_network, by_data = identify(observations.network), identify(observations.network, observations)
    assert by_network.identifiable.tolist() == by_data.identifiable.tolist()
    assert by_data.smallest_determined > 1e-3
    # Every group is a pair (or more) with equal substrates.
    written = observations.network.to_reactions()
    for group in by_data.groups:
        assert len({frozenset(written[j].substrates.items()) for j in group}) == 1


# -- values for what is not determined

PRIOR = (-2.0, -1.0)


def unknown(*directions, n=4):
    """An Identifiability with the given invisible directions."""
    rows = np.array(directions, dtype=float).reshape(-1, n)
    basis = np.linalg.qr(rows.T)[0] if len(rows) else np.zeros((n, 0))
    return analyse(DenseMatrix(np.eye(n) - basis @ basis.T, np.ones(n)), 1e-8)


def fill(k, identifiability, prior=PRIOR, seed=0):
    low, high = (np.full(len(k), edge) for edge in prior)
    return fill_undetermined(np.array(k, dtype=float), identifiability, (low, high), np.random.default_rng(seed))


def test_what_is_determined_is_left_alone():
    k = [0.5, 1e-5, 0.02, 7.0]
    assert fill(k, unknown()).tolist() == k
    assert fill(k, unknown([0, 1, 1, 0]))[[0, 3]].tolist() == [0.5, 7.0]


def test_duplicates_share_their_sum():
    filled = fill([0.08, 0.0, -0.01, 0.0], unknown([1, 0, -1, 0]))
    np.testing.assert_allclose(filled[[0, 2]], 0.035, rtol=1e-3)
    np.testing.assert_allclose(filled[0] + filled[2], 0.07, rtol=1e-12)


def test_a_difference_is_kept():
    filled = fill([0.05, 0.0, 0.0, 0.0], unknown([1, 1, 0, 0]))
    np.testing.assert_allclose(filled[0] - filled[1], 0.05, rtol=1e-12)
    assert (filled[:2] >= 0.01).all()
    assert (filled[:2] <= 0.1).all()


def test_of_the_invisible_the_middle_of_the_prior():
    filled = fill([123.0, 0.0, 0.0, 0.0], unknown([1, 0, 0, 0]))
    np.testing.assert_allclose(np.log10(filled[0]), -1.5, atol=1e-3)
    free = fill([123.0, 5.0, 0.0, 0.0], unknown([1, 0, 0, 0], [0, 1, 0, 0]))
    np.testing.assert_allclose(np.log10(free[:2]), -1.5, atol=1e-3)


@pytest.mark.parametrize("direction", [[1, -1, 0, 0], [1, 1, 0, 0], [1, -2, 0, 0], [1, 1, -1, 0]])
def test_one_direction_has_the_least_expected_error(direction):
    """Against expected squared errors by sampling: no other allowed point may be clearly better."""
    identifiability, direction = unknown(direction), np.array(direction, dtype=float)
    k = np.array([0.03, 0.04, 0.05, 0.06])
    filled = fill(k, identifiability)
    steps = np.linspace(-0.2, 0.2, 40_001)
    line = k + steps[:, None] * direction
    members = direction != 0
    line = line[(line[:, members] >= 0.01).all(axis=1) & (line[:, members] <= 0.1).all(axis=1)][:, members]
    density = 1 / line.prod(axis=1)
    logs = np.log10(line)

    def expected(point):
        return np.average(((np.log10(point) - logs) ** 2).sum(axis=1), weights=density)

    best = min(expected(point) for point in line[::50])
    assert expected(filled[members]) <= best * (1 + 1e-4)


def test_two_directions():
    """Three reactions of which only the sum is visible."""
    identifiability = unknown([1, -1, 0, 0], [0, 1, -1, 0])
    assert identifiability.groups == ((0, 1, 2),)
    filled = fill([0.2, -0.05, 0.0, 1.0], identifiability)
    np.testing.assert_allclose(filled[:3].sum(), 0.15, rtol=1e-10)
    assert (filled[:3] >= 0.01).all()
    assert (filled[:3] <= 0.1).all()
    np.testing.assert_allclose(filled[:3], 0.05, rtol=0.15)  # equal by symmetry, up to sampling
    assert filled[3] == 1.0


def test_two_directions_have_the_least_expected_error():
    """2 k0 + k1 + k2 is visible: against the posterior mean of log k by quadrature over the plane."""
    identifiability = unknown([1, -2, 0, 0], [1, 0, -2, 0])
    assert identifiability.combinations == ((Combination((0, 1, 2), (1.0, 0.5, 0.5)),),)
    filled = fill([0.05, 0.05, 0.05, 1.0], identifiability)[:3]
    np.testing.assert_allclose(filled @ [2, 1, 1], 0.2, rtol=1e-10)
    k1, k2 = np.meshgrid(*[np.linspace(0.01, 0.1, 901)] * 2)
    k0 = (0.2 - k1 - k2) / 2
    plane = np.stack([k0, k1, k2], axis=-1)[(k0 >= 0.01) & (k0 <= 0.1)]
    mean = np.average(np.log10(plane), axis=0, weights=1 / plane.prod(axis=1))
    nearest = plane[np.argmin(((np.log10(plane) - mean) ** 2).sum(axis=1))]
    np.testing.assert_allclose(np.log10(filled), np.log10(nearest), atol=0.02)


def test_same_seed_same_bits():
    identifiability = unknown([1, -1, 0, 0], [0, 1, -1, 0])
    k = [0.1, 0.03, 0.02, 1.0]
    assert fill(k, identifiability, seed=3).tolist() == fill(k, identifiability, seed=3).tolist()
    assert fill(k, identifiability, seed=3).tolist() != fill(k, identifiability, seed=4).tolist()


def test_outside_the_prior_but_positive():
    """A sum that no two values of the prior reach: the box is widened, the sum kept."""
    filled = fill([3.0, 0.0, 0.0, 0.0], unknown([1, -1, 0, 0]))
    np.testing.assert_allclose(filled[:2].sum(), 3.0, rtol=1e-12)
    assert (filled > 0)[:2].all()


def test_impossible_combinations_still_give_positive_values():
    filled = fill([-3.0, -1.0, 0.0, 0.0], unknown([1, -1, 0, 0]))
    assert (filled[:2] > 0).all()


def test_every_rate_constant_has_bounds_of_its_own():
    """As where the prior is one of rate constants in other units than those of the fit."""
    low, high = np.array([-2.0, 1.0, -7.0, 0.0]), np.array([-1.0, 2.0, -6.0, 0.5])
    k, all_four = np.array([123.0, 5.0, 0.0, -2.0]), unknown(*np.eye(4))
    filled = fill_undetermined(k, all_four, (low, high), np.random.default_rng(0))
    np.testing.assert_allclose(np.log10(filled), (low + high) / 2, atol=1e-3)


def test_observations_of_another_network_are_refused(small):
    network = small.observations.network
    other = dataclasses.replace(network, species=tuple(reversed(network.species)))
    with pytest.raises(InputError, match="the observations are of other species"):
        identify(other, small.observations)
