"""The table of f: exact for cubics, of fourth order, and differentiable."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metabolismgraph.system.kinetics import RateLaws, tabulate_laws
from metabolismgraph.system.log_table import Knots, LogTable, interpolation_matrix
from metabolismgraph.system.model import SubstrateFunction

LOG_C = np.log(10.0) * np.random.default_rng(0).uniform(-3, 2, (200, 3))
ORDER = np.array([1.0, 2.0, 1.0])
LAWS = RateLaws(np.array([1.0, 2.0]), np.zeros(2, dtype=bool), np.array([0, 1, 0]))


@pytest.fixture(scope="module")
def trained_like():
    """MLP_sub with a last layer that is not zero: a power law with bends of a tenth or so."""
    f = SubstrateFunction(16, 3, center=-1.0, width=2.5, rng=np.random.default_rng(0))
    last = 0.1 * jax.random.normal(jax.random.key(1), f.perceptron.weights[-1].shape)
    return eqx.tree_at(lambda f: (f.perceptron.weights[-1], f.skip), f, (last, jnp.array([0.9, 0.05])))


@eqx.filter_jit
def direct(f):
    return f(jnp.asarray(LOG_C), jnp.asarray(ORDER))


def knots_over(log_c, number=512):
    return Knots.over(float(log_c.min(initial=0.0)), float(log_c.max(initial=0.0)), number, margin=True)


@eqx.filter_jit
def tabulated(f, knots, laws=LAWS, log_c=LOG_C):
    order, known, of_pair = map(jnp.asarray, laws)
    return LogTable.of(f, order, known, knots)(jnp.asarray(log_c), of_pair)


def test_the_gauge(trained_like):
    assert trained_like(jnp.zeros(2), jnp.array([1.0, 2.0])).tolist() == [0.0, 0.0]
    assert float(jnp.ptp(direct(trained_like) - LOG_C * ORDER)) > 0.1


def test_as_good_as_evaluating_the_network(trained_like):
    found = tabulated(trained_like, knots_over(LOG_C))
    assert float(jnp.abs(found - direct(trained_like)).max()) < 1e-9


def test_fourth_order(trained_like):
    knots = np.array([33, 65, 129, 257])
    errors = [
        float(jnp.abs(tabulated(trained_like, knots_over(LOG_C, int(n))) - direct(trained_like)).max()) for n in knots
    ]
    order = -np.polyfit(np.log(knots - 3), np.log(errors), 1)[0]
    assert order == pytest.approx(4.0, abs=0.3)


def test_exact_for_cubics_up_to_both_ends():
    def cubic(x, order):
        return order * (1 + x - 0.5 * x**2 + 0.1 * x**3)

    for n_knots in (5, 8, 512):
        values = tabulated(cubic, knots_over(LOG_C, n_knots))
        np.testing.assert_allclose(values, cubic(LOG_C, ORDER), atol=1e-11)


def test_a_known_law_is_mass_action_whatever_f(trained_like):
    """The last column, of the order of the first, whose law is learned."""
    laws = RateLaws(np.array([1.0, 1.0, 2.0]), np.array([False, True, False]), np.array([0, 2, 1]))
    values = tabulated(trained_like, knots_over(LOG_C), laws)
    np.testing.assert_allclose(values[:, 2], LOG_C[:, 2], atol=1e-11)
    assert float(jnp.abs(values - direct(trained_like))[:, :2].max()) < 1e-9
    assert float(jnp.abs(values - direct(trained_like))[:, 2].max()) > 0.1


@pytest.mark.parametrize("log_c", [np.zeros((4, 1)), np.full((4, 1), 2.0), np.full((4, 1), -3.0), np.zeros((0, 1))])
def test_data_without_spread(log_c):
    laws = RateLaws(np.ones(1), np.zeros(1, dtype=bool), np.zeros(1, dtype=np.int64))
    found = tabulated(lambda x, order: order * x, knots_over(log_c), laws, log_c)
    np.testing.assert_allclose(found, log_c, atol=1e-12)


def test_gradients_pass(trained_like):
    knots = knots_over(LOG_C)
    weight = jnp.asarray(np.random.default_rng(1).standard_normal(LOG_C.shape))
    through_knots = eqx.filter_jit(eqx.filter_grad(lambda f: jnp.sum(weight * tabulated(f, knots))))(trained_like)
    exact = eqx.filter_jit(eqx.filter_grad(lambda f: jnp.sum(weight * direct(f))))(trained_like)
    for a, b in zip(jax.tree.leaves(through_knots), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    assert float(jnp.abs(exact.skip).min()) > 1.0


def test_a_power_law_beyond_the_knots(trained_like):
    """With the slope that the table ends with, in NumPy as in JAX."""
    order, known, of_pair = map(jnp.asarray, LAWS)
    table = LogTable.of(trained_like, order, known, Knots.over(-2.0, 2.0, 512))
    for low, high in ((-9.0, -5.0), (3.0, 8.0)):
        log_c = np.array([[low], [high]])
        found = [table(kind(log_c), of_pair[:1]) for kind in (np.asarray, jnp.asarray)]
        assert isinstance(found[0], np.ndarray)
        np.testing.assert_allclose(*found, rtol=1e-12)
        end = float(np.clip(low, -2.0, 2.0))
        slope = float(jax.grad(lambda x: trained_like(x, jnp.ones(())))(jnp.asarray(end)))
        assert (found[0][1, 0] - found[0][0, 0]) / (high - low) == pytest.approx(slope, rel=1e-3)


def test_knots_for_a_function_of_the_concentration_itself():
    knots = Knots.over(np.log(1e-3), np.log(50.0), 200, unit=2.0)
    c = np.geomspace(1e-3, 50.0, 70)[:, None]
    table = LogTable.through(jnp.log1p(jnp.exp(knots.log_c))[None], knots)
    np.testing.assert_allclose(table(np.log(c), np.zeros(1, dtype=np.int64)), np.log1p(c), atol=1e-7)


def test_the_matrix_of_the_interpolation(trained_like):
    knots = knots_over(LOG_C, 40)
    order, known, law = LAWS
    values = tabulate_laws(trained_like, knots.values, order, known)
    found = interpolation_matrix(knots, LOG_C.ravel(), np.broadcast_to(law, LOG_C.shape).ravel(), 2) @ values.ravel()
    np.testing.assert_allclose(found.reshape(LOG_C.shape), LogTable.through(values, knots)(LOG_C, law), rtol=1e-12)
    ends = interpolation_matrix(knots, knots.values[[0, 1, -2, -1]], np.ones(4, dtype=np.int64), 2)
    np.testing.assert_allclose(ends @ values.ravel(), values[1, [0, 1, -2, -1]], rtol=1e-9)
