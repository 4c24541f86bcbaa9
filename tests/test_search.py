"""The projected loss in NumPy: the same as the compiled one, and its gradient, for every kind of network and data."""

import dataclasses
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from random_networks import network_of

from metabolismgraph.config import GraphModel, Training
from metabolismgraph.reactions.data import Phase1Data
from metabolismgraph.reactions.normal_matrix import DenseMatrix
from metabolismgraph.reactions.projection import evaluate_loss
from metabolismgraph.reactions.search import best_power_law, loss_and_gradient, projected_loss
from metabolismgraph.system.kinetics import tabulate_laws
from metabolismgraph.system.observations import Observations
from metabolismgraph.system.trainable import substrate_parameters

# With a zero-order reaction, a known rate law, two orders, and a species that no reaction changes. No rate law that
# changes is that of homeostasis: such a k is undetermined at one point only, where the loss is not smooth.
NETWORK = dataclasses.replace(
    network_of(
        ({"A": 1.0}, {"A": -1.0, "B": 1.0}),
        ({"A": 1.0, "B": 2.0}, {"B": -2.0, "C": 1.0}),
        ({}, {"A": 1.0}),
        ({"B": 1.0}, {"C": 1.0}),
        ({"C": 1.0, "D": 1.0}, {"A": 1.0}),
    ),
    mass_action=np.array([False, False, False, True, False]),
)


@pytest.fixture(params=itertools.product(["forward", "cubic"], ["mul", "add"]), ids="-".join)
def data(request):
    """With concentrations of zero."""
    rule, aggregation = request.param
    time = np.linspace(0, 6, 60)
    c = 1.2 + np.sin(time[:, None] + np.arange(4)) + 0.05 * np.random.default_rng(0).random((60, 4))
    c[0, 0] = 0.0
    observations = Observations(NETWORK, time, np.zeros(60, dtype=np.int64), c)
    return Phase1Data(observations, GraphModel(aggr_type=aggregation), Training(), rule=rule)


@pytest.fixture
def problem(data):
    """With entries that are left out."""
    keep = data.usable.copy()
    keep[5:8, 2] = keep[30, 0] = False
    return data.problem(keep, np.geomspace(1.0, 10.0, 4))


@pytest.fixture
def somewhere(data):
    """MLP_sub at a random point, last layer included."""
    start = data.initial_function()
    last = 0.3 * jax.random.normal(jax.random.key(5), start.perceptron.weights[-1].shape)
    return eqx.tree_at(lambda f: (f.perceptron.weights[-1], f.skip), start, (last, jnp.array([0.8, 0.1])))


def values_of(f, problem):
    return tabulate_laws(f, problem.knots.values, np.asarray(problem.orders), np.asarray(problem.known))


def test_it_is_the_compiled_loss(problem, somewhere):
    assert problem.absent.size > 0
    expected = float(evaluate_loss(somewhere, problem))
    assert projected_loss(values_of(somewhere, problem), problem).value == pytest.approx(expected, rel=1e-7)
    value, _ = loss_and_gradient(problem)(*eqx.partition(somewhere, substrate_parameters(somewhere)))
    assert value == pytest.approx(expected, rel=1e-7)


def test_gradient_by_the_values_against_finite_differences(problem, somewhere):
    values, rng, step = values_of(somewhere, problem), np.random.default_rng(0), 1e-4
    gradient = projected_loss(values, problem).of_values
    for _ in range(3):
        direction = rng.standard_normal(len(values))[:, None] * np.sin(np.arange(values.shape[1]) * rng.random() / 50)
        shifted = [projected_loss(values + s * step * direction, problem).value for s in (2, 1, -1, -2)]
        by_difference = np.dot([-1, 8, -8, 1], shifted) / (12 * step)  # of fourth order
        assert np.sum(gradient * direction) == pytest.approx(by_difference, rel=1e-5, abs=1e-7)


def test_gradient_by_the_parameters_is_the_compiled_one(problem, somewhere):
    parameters, constants = eqx.partition(somewhere, substrate_parameters(somewhere))
    _, ours = loss_and_gradient(problem)(parameters, constants)
    theirs = jax.grad(lambda p: evaluate_loss(eqx.combine(p, constants), problem))(parameters)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_no_number_for_an_f_that_is_too_large(problem, somewhere):
    found = projected_loss(values_of(somewhere, problem) + 1e4, problem)
    assert np.isnan(found.value)
    assert not found.of_values.any()


def test_a_perfect_fit_has_a_loss(data):
    """Where dc/dt is zero, nothing is left."""
    none = data.problem(data.usable, np.ones(4))
    none = dataclasses.replace(
        none, rows=dataclasses.replace(none.rows, derivative=jnp.zeros_like(none.rows.derivative))
    )
    found = projected_loss(np.zeros((len(none.orders), none.knots.number)), none)
    assert found.value == 0
    assert not found.of_values.any()


def test_the_best_power_law_is_the_best_of_many(problem, somewhere):
    flat = eqx.tree_at(lambda f: f.perceptron.weights[-1], somewhere, jnp.zeros_like(somewhere.perceptron.weights[-1]))
    found = best_power_law(flat, problem)
    share = [float(evaluate_loss(flat.with_exponent(p), problem)) for p in np.linspace(0.25, 3.0, 60)]
    assert float(evaluate_loss(found, problem)) <= min(share) + 1e-9


def test_exponents_for_which_f_is_too_large_are_not_chosen():
    time = np.linspace(0, 6, 60)
    c = np.stack([np.exp(-time), 10.0 ** (50 * np.cos(time))], axis=1)
    network = network_of(({"A": 1.0}, {"A": -1.0, "B": 1.0}), ({"B": 1.0}, {"A": 1.0}), species="AB")
    data = Phase1Data(
        Observations(network, time, np.zeros(60, dtype=np.int64), c), GraphModel(), Training(), rule="forward"
    )
    found = best_power_law(data.initial_function(), data.problem(data.usable, np.ones(2)))
    assert 0.25 <= float(found.skip[0]) < 2.0


def test_a_matrix_that_is_not_positive_is_solved_by_its_eigenvectors():
    """Eigenvalues of the null space, rounded to less than the ridge."""
    rng = np.random.default_rng(0)
    q = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    matrix = (q * np.array([1.0, 0.5, 0.2, 0.1, -1e-10, 0.0])) @ q.T
    found = DenseMatrix(matrix, np.ones(6))
    rhs = matrix @ np.arange(6.0)
    with pytest.raises(np.linalg.LinAlgError):
        scipy.linalg.cho_factor(matrix)
    np.testing.assert_allclose(found.solve_roughly(rhs), found.solve(rhs), rtol=0, atol=1e-12)
