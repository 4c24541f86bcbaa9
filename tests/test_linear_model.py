import dataclasses

import numpy as np
import pytest
from continuous import LOTKA_VOLTERRA, MICHAELIS_MENTEN, observe

from metabolismgraph.config import GraphModel, Training
from metabolismgraph.reactions.data import Phase1Data
from metabolismgraph.reactions.projection import fit_linear
from metabolismgraph.reactions.shapes import reshaped, shape_changes


def power(log_c, order):
    return order * log_c


@pytest.fixture(scope="module")
def data(small, small_config):
    return Phase1Data(small.observations, small_config.graph_model, small_config.training, rule="forward")


def test_it_solves_what_the_compiled_normal_equations_solve(data):
    keep = data.usable.copy()
    keep[::7, 3] = False
    weight = np.geomspace(1.0, 100.0, keep.shape[1])
    ours = data.linear_model(power, keep, weight).solve()
    theirs = fit_linear(power, data.problem(keep, weight))
    s = data.observations.network.stoichiometry
    explained = data.linear_model(power, keep, weight).v @ np.diag(ours.k) @ s.T
    compiled = data.linear_model(power, keep, weight).v @ np.diag(np.asarray(theirs.k))
    np.testing.assert_allclose(explained, compiled @ s.T, rtol=0, atol=1e-6 * np.abs(explained).max())
    changed = np.diff(data.structure.sparse_stoichiometry.indptr) > 0  # the compiled version omits the other species
    np.testing.assert_allclose(ours.residual[:, changed], np.asarray(theirs.residual)[:, changed], atol=1e-6)
    np.testing.assert_allclose(ours.matrix.matrix, np.asarray(theirs.equations.matrix), atol=1e-7)


def test_entries_left_out_have_no_influence(data):
    keep = data.usable.copy()
    keep[100:200, 5] = False
    model = data.linear_model(power, keep, np.ones(keep.shape[1]))
    spoilt = model.derivative.copy()
    spoilt[100:200, 5] = 1e6
    np.testing.assert_allclose(dataclasses.replace(model, derivative=spoilt).solve().k, model.solve().k, rtol=1e-9)


def test_standard_errors_are_those_of_the_estimates():
    """Least squares on the same rows with noise of known size: the spread of k is what the covariance says."""
    observations = observe(MICHAELIS_MENTEN, np.linspace(0, 20, 201))
    data = Phase1Data(observations, GraphModel(), Training(), rule="cubic")
    sigma = np.array([1e-3, 2e-3, 1e-3, 3e-3])
    model = data.linear_model(power, data.usable, 1 / sigma**2)
    rng = np.random.default_rng(0)
    found = [
        dataclasses.replace(
            model, derivative=model.derivative + sigma * rng.standard_normal(model.derivative.shape)
        ).solve()
        for _ in range(300)
    ]
    expected = np.sqrt(found[0].matrix.variance())
    np.testing.assert_allclose(np.std([f.k for f in found], axis=0), expected, rtol=0.15)
    lines = np.stack([data.homeostatic_lines(f.theta) for f in found])
    of_line = data.line_covariance(found[0].theta_covariance)
    np.testing.assert_allclose(lines.std(axis=0), np.sqrt(np.einsum("ipp->ip", of_line)), rtol=0.15)


def test_an_unknown_shape_makes_errors_larger():
    observations = observe(LOTKA_VOLTERRA, np.linspace(0, 30, 301), mass_action=False)
    data = Phase1Data(observations, GraphModel(), Training(), rule="cubic")
    model = data.linear_model(power, data.usable)
    found = model.solve()
    table = data.tabulated_reactions(power)
    variance = model.with_shapes(found, shape_changes(table, data.nodes, ~table.structure.rate_laws.known)).variance
    assert (variance >= found.matrix.variance() * (1 - 1e-9)).all()
    assert variance[1] > found.matrix.variance()[1]


def test_tangents_of_the_shapes_against_finite_differences():
    observations = observe(LOTKA_VOLTERRA, np.linspace(0, 30, 61), mass_action=False)
    data = Phase1Data(observations, GraphModel(), Training(), rule="cubic")
    table = data.tabulated_reactions(power)
    laws = ~table.structure.rate_laws.known
    changes = shape_changes(table, data.nodes, laws)
    for number in range(changes.shape[-1]):
        step = 1e-5 * np.eye(changes.shape[-1])[number]
        up, down = (
            reshaped(table, data.nodes, laws, s).substrate_factors(data.nodes.concentration) for s in (step, -step)
        )
        slope = np.einsum("et,etj->tj", data.nodes.weight, (up - down) / 2e-5)
        np.testing.assert_allclose(changes[..., number], slope, rtol=1e-3, atol=1e-3 * np.abs(slope).max())
