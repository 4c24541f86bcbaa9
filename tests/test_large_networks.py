"""What is done differently for large networks, on small ones."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from metabolismgraph.errors import InputError
from metabolismgraph.evaluation.evaluate import homeostasis_metrics
from metabolismgraph.homeostasis import binned_regression
from metabolismgraph.homeostasis.fit import fit_homeostasis
from metabolismgraph.homeostasis.types_from_lines import mean_lines
from metabolismgraph.metrics import by_index
from metabolismgraph.reactions import normal_equations
from metabolismgraph.reactions.fit import fit_reactions
from metabolismgraph.system.kinetics import Structure, limit_fluxes, reaction_rates


@pytest.fixture(scope="module")
def phase1(small, small_config):
    seen, _ = small.observations.split(*small_config.training.held_out)
    return fit_reactions(seen, small_config.graph_model, small_config.training)


def test_homeostasis_is_learned_from_a_part_of_the_species(small, small_config, phase1, monkeypatch):
    monkeypatch.setattr(binned_regression, "_PER_STEP", 7)
    monkeypatch.setattr(binned_regression, "_POLISHED", 11)
    seen, _ = small.observations.split(*small_config.training.held_out)
    found = fit_homeostasis(seen, phase1, small_config.graph_model, small_config.training)
    assert found.model.embeddings.shape[0] == 30
    metrics, _ = homeostasis_metrics(small.observations, found, small_config.training, small.truth)
    assert metrics["embedding_cluster_acc"] == 1.0
    for what in ("slope", "offset"):
        np.testing.assert_allclose(list(by_index(metrics, f"MLP_node_{what}_ratio_{{t}}").values()), 1.0, atol=0.02)


@pytest.mark.parametrize("key", ["joint_refinement", "strategies"])
def test_what_needs_dense_matrices_is_refused(key, small, small_config, phase1, monkeypatch):
    monkeypatch.setattr(normal_equations, "_LARGEST", 71)
    changed = {"joint_refinement": True, "strategies": ("orthogonalised",)}[key]
    training = small_config.replace({f"training.{key}": changed}).training
    seen, _ = small.observations.split(*small_config.training.held_out)
    with pytest.raises(InputError, match="is for up to 71 reactions, and the network has 72; leave it out"):
        fit_homeostasis(seen, phase1, small_config.graph_model, training)


def test_independent_lines_need_no_whole_covariance():
    rng = np.random.default_rng(0)
    n = 40
    label = np.repeat([0, 1], n // 2)
    root = rng.normal(size=(n, 2, 2)) + 2 * np.eye(2)
    blocks = np.einsum("iab,icb->iac", root, root)
    x = np.array([[-0.1, 0.3], [-0.2, 0.9]])[label] + 0.01 * rng.normal(size=(n, 2))
    whole = np.zeros((2, n, 2, n))
    whole[:, np.arange(n), :, np.arange(n)] = blocks
    for ours, theirs in zip(
        mean_lines(x, label, blocks), mean_lines(x, label, whole.reshape(2 * n, 2 * n)), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_errors_of_lines_are_the_blocks_of_their_covariance(phase1):
    n = len(phase1.slope)
    for i in (0, 7):
        own = np.ix_([i, n + i], [i, n + i])
        np.testing.assert_allclose(phase1.line_errors[i], phase1.line_covariance[own])
    assert not np.count_nonzero(phase1.line_covariance[0, 1:n])


def test_sparse_rates_are_those_of_the_matrix(small):
    structure, s = Structure.of(small.observations.network), small.observations.network.stoichiometry
    fluxes = np.random.default_rng(0).uniform(size=(2, 3, structure.n_reactions))
    expected = fluxes @ s.T
    np.testing.assert_allclose(reaction_rates(fluxes, structure), expected, atol=1e-14)
    np.testing.assert_allclose(reaction_rates(jnp.asarray(fluxes), structure), expected)
    np.testing.assert_allclose(structure.stoichiometry, s)
    c = np.full(structure.n_species, 0.1)
    limited = limit_fluxes(fluxes[0, 0], c, 10.0, structure)
    assert (limited <= fluxes[0, 0]).all()
    assert (10.0 * np.maximum(-s, 0) @ limited <= c * (1 + 1e-12)).all()


def test_a_fixed_species_has_no_entry(small):
    network = small.observations.network
    fixed = dataclasses.replace(network, fixed=np.arange(network.n_species) == 3)
    assert not fixed.stoichiometry[3].any()
    assert fixed.sparse_stoichiometry.nnz == network.sparse_stoichiometry.nnz - np.count_nonzero(
        network.stoichiometry[3]
    )
