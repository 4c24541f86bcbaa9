"""The nuisance copies: the spline of log f, Gauss-Newton on it, and what is projected out."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metabolismgraph.reactions.data import Phase1Data
from metabolismgraph.reactions.gauss_newton import Spline, _tangents, learn_spline, project_out
from metabolismgraph.reactions.projection import evaluate_loss, fit_linear
from metabolismgraph.system.kinetics import reaction_rates
from metabolismgraph.system.progress import silent


@pytest.fixture(scope="module")
def problem(small, small_config):
    """Every fifth row of the small benchmark, which is mass action."""
    data = Phase1Data(small.observations, small_config.graph_model, small_config.training, rule="forward")
    return data.problem(data.usable, None, stride=5)


@pytest.fixture(scope="module")
def true_spline(problem):
    return Spline.through(lambda log_c, order: order * log_c, problem)


# -- the spline


def within(spline, n=301):
    """Values of log c from one end of the spline to the other."""
    return spline.low + spline.step * jnp.linspace(0.0, 32.0, n)


def test_a_power_law_is_held_exactly(true_spline):
    log_c = within(true_spline)
    for order in np.asarray(true_spline.orders):
        found = true_spline(log_c, jnp.asarray(order))
        np.testing.assert_allclose(found, order * log_c, atol=1e-9)


def test_f_is_one_at_one(problem, true_spline):
    """Whatever the coefficients, and whatever the function that it was made from."""
    rng = np.random.default_rng(0)
    wild = dataclasses.replace(
        true_spline, coefficients=jnp.asarray(rng.standard_normal(true_spline.coefficients.shape))
    )
    shifted = Spline.through(lambda log_c, order: order * log_c + 3.0, problem)
    for spline in (true_spline, wild, shifted):
        for order in spline.orders:
            assert float(spline(jnp.zeros(1), order)[0]) == 0.0
    assert float(jnp.abs(wild(within(wild), wild.orders[0])).max()) > 0.1
    np.testing.assert_allclose(shifted(within(shifted), jnp.ones(())), within(shifted), atol=1e-8)


def test_basis_is_a_partition_of_unity(true_spline):
    basis = np.asarray(true_spline.basis(within(true_spline)))
    assert basis.shape == (301, 35)
    np.testing.assert_allclose(basis.sum(axis=1), 1.0, atol=1e-12)
    assert basis.min() >= 0.0
    assert ((basis > 0).sum(axis=1) <= 4).all()
    beyond = np.asarray(true_spline.basis(jnp.array([-1e3, 1e3])))
    np.testing.assert_allclose(beyond, basis[[0, -1]], atol=1e-12)


def test_a_curved_function_is_followed(problem, true_spline):
    """Where the data are; saturation is the curve that matters."""
    spline = Spline.through(lambda log_c, order: order * (log_c - jnp.log1p(jnp.exp(log_c))), problem)
    log_c = jnp.linspace(0.0, 2.0, 40)
    expected = log_c - jnp.log1p(jnp.exp(log_c)) + np.log(2.0)
    np.testing.assert_allclose(spline(log_c, jnp.ones(())), expected, atol=1e-4)


# -- what rate constants and homeostasis explain


@pytest.fixture(scope="module")
def fitted(problem, true_spline):
    return fit_linear(true_spline, problem)


project = eqx.filter_jit(project_out)


def weighted(problem, a, b):
    return float(jnp.sum(problem.rows.full_weight * a * b))


def test_what_k_and_homeostasis_explain_is_removed(problem, fitted):
    """Any rate constants, any line of homeostasis per species: nothing is left."""
    rng = np.random.default_rng(1)
    rows = problem.rows
    k, theta = (jnp.asarray(rng.standard_normal(x.shape)) for x in (fitted.k, fitted.theta))
    target = reaction_rates(fitted.v * k, problem.structure) + jnp.einsum("til,il->ti", rows.basis, theta)
    used = jnp.sqrt(rows.full_weight)
    size = float(jnp.abs(used * target).max())
    assert float(jnp.abs(used * project(target, fitted, problem)).max()) < 1e-7 * size


def test_projection_is_orthogonal_and_idempotent(problem, fitted):
    rng = np.random.default_rng(2)
    target = jnp.asarray(rng.standard_normal(problem.rows.derivative.shape))
    left = project(target, fitted, problem)
    total = weighted(problem, target, target)
    assert 0.5 * total < weighted(problem, left, left) < total
    np.testing.assert_allclose(project(left, fitted, problem), left, atol=1e-7)
    # Pythagoras, and nothing along any rate constant or line.
    assert weighted(problem, left, target - left) == pytest.approx(0.0, abs=1e-8 * total)
    along_k = jnp.einsum("ti,tj,ij->j", problem.rows.full_weight * left, fitted.v, problem.structure.stoichiometry)
    size = jnp.sqrt(
        jnp.einsum("ti,tj,ij->j", problem.rows.full_weight, fitted.v**2, problem.structure.stoichiometry**2)
    )
    np.testing.assert_allclose(along_k / size, 0.0, atol=1e-6 * np.sqrt(total))
    along_lines = jnp.einsum("ti,til->il", problem.rows.full_weight * left, problem.rows.basis)
    np.testing.assert_allclose(along_lines, 0.0, atol=1e-6 * np.sqrt(total))


# -- Gauss-Newton


def test_tangents_against_finite_differences(problem):
    """The normal equations of dc/dt's derivative by each coefficient, k and homeostasis projected out."""
    spline = Spline.through(lambda log_c, order: 0.8 * order * log_c + 0.1 * jnp.sin(log_c), problem)
    fitted, found = fit_linear(spline, problem), _tangents(spline, problem)
    root = np.sqrt(np.asarray(problem.rows.full_weight))

    @jax.jit
    def rates(coefficients):
        v = problem.substrate_factors(dataclasses.replace(spline, coefficients=coefficients))
        return reaction_rates(v * fitted.k, problem.structure)

    terms = spline.coefficients.size
    some = np.linspace(2, terms - 3, 6).astype(int)
    columns = []
    for term in some:
        nudge = jnp.zeros(terms).at[term].set(1e-5).reshape(spline.coefficients.shape)
        slope = (rates(spline.coefficients + nudge) - rates(spline.coefficients - nudge)) / 2e-5
        columns.append((root * np.asarray(project(slope, fitted, problem))).ravel())
    design = np.stack(columns)
    expected = design @ design.T
    size = np.sqrt(np.diag(expected).max())
    assert size > 0
    np.testing.assert_allclose(found.matrix[np.ix_(some, some)], expected, atol=1e-5 * size**2)
    rhs = design @ (root * np.asarray(fitted.residual)).ravel()
    np.testing.assert_allclose(found.rhs[some], rhs, atol=1e-5 * np.abs(rhs).max())
    # A step along the right-hand side lowers the loss as fast as the projected loss has a slope.
    gradient = jax.jit(jax.grad(lambda a: evaluate_loss(dataclasses.replace(spline, coefficients=a), problem)))
    total = float(np.sum((root * np.asarray(fitted.residual)) ** 2))
    slope = np.asarray(gradient(spline.coefficients)).ravel()
    np.testing.assert_allclose(slope, -2 * np.asarray(found.rhs) / total, atol=1e-6 * np.abs(slope).max())


STARTS = {
    "half the exponent": lambda log_c, order: 0.5 * order * log_c,
    "a tenth too steep": lambda log_c, order: 1.1 * order * log_c,
    "saturating": lambda log_c, order: order * (log_c + np.log(3.0) - jnp.log(jnp.exp(log_c) + 2.0)),
    "wavy": lambda log_c, order: order * (log_c + 0.3 * jnp.sin(3.0 * log_c)),
}


@pytest.fixture(scope="module")
def learned(problem, true_spline):
    return learn_spline(true_spline, problem, max_iterations=100, tolerance=1e-3, progress=silent)


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_bad_starts_end_where_the_truth_does(problem, learned, start):
    spline = Spline.through(start, problem)
    found = learn_spline(spline, problem, max_iterations=100, tolerance=1e-3, progress=silent)
    assert found.converged
    assert found.losses[0] > learned.losses[-1] + 2.0
    assert (np.diff(found.losses) < 0).all()
    assert found.losses[-1] == pytest.approx(learned.losses[-1], abs=0.05)
    assert found.losses[-1] == pytest.approx(float(evaluate_loss(found.parameters, problem)))
    seen = jnp.linspace(0.5, 2.0, 20)
    np.testing.assert_allclose(found.parameters(seen, jnp.ones(())), seen, atol=2e-3)


def test_it_ends_after_as_many_steps_as_it_may(problem):
    spline = Spline.through(STARTS["wavy"], problem)
    found = learn_spline(spline, problem, max_iterations=2, tolerance=1e-3, progress=silent)
    assert not found.converged
    assert len(found.losses) == 3
