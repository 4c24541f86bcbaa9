"""The table of f: exact for cubics, of fourth order, and differentiable."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metabolismgraph.system.kinetics import RateLaws
from metabolismgraph.system.log_table import Stencil
from metabolismgraph.system.model import SubstrateFunction

LOG_C = np.log(10.0) * np.random.default_rng(0).uniform(-3, 2, (200, 3))
ORDER = np.array([1.0, 2.0, 1.0])
LAWS = RateLaws(np.array([1.0, 2.0]), np.zeros(2, dtype=bool), np.array([0, 1, 0]))


@pytest.fixture(scope="module")
def trained_like():
    """MLP_sub with a last layer that is not zero: a power law with bends of a tenth or so."""
    f = SubstrateFunction(16, 3, center=-1.0, width=2.5, key=jax.random.key(0))
    last = 0.1 * jax.random.normal(jax.random.key(1), f.perceptron.weights[-1].shape)
    return eqx.tree_at(lambda f: (f.perceptron.weights[-1], f.skip), f, (last, jnp.array([0.9, 0.05])))


@eqx.filter_jit
def direct(f):
    return f(jnp.asarray(LOG_C), jnp.asarray(ORDER))


@eqx.filter_jit
def tabulated(f, table):
    return table.interpolate(f)


def test_the_gauge(trained_like):
    assert trained_like(jnp.zeros(2), jnp.array([1.0, 2.0])).tolist() == [0.0, 0.0]
    assert float(jnp.ptp(direct(trained_like) - LOG_C * ORDER)) > 0.1


def test_as_good_as_evaluating_the_network(trained_like):
    table = Stencil.of(LOG_C, LAWS)
    assert len(table.knots) == 512
    assert float(jnp.abs(tabulated(trained_like, table) - direct(trained_like)).max()) < 1e-9


def test_fourth_order(trained_like):
    knots = np.array([33, 65, 129, 257])
    errors = [
        float(jnp.abs(tabulated(trained_like, Stencil.of(LOG_C, LAWS, int(n))) - direct(trained_like)).max())
        for n in knots
    ]
    order = -np.polyfit(np.log(knots - 4), np.log(errors), 1)[0]
    assert order == pytest.approx(4.0, abs=0.3)


def test_exact_for_cubics_up_to_both_ends():
    def cubic(x, order):
        return order * (1 + x - 0.5 * x**2 + 0.1 * x**3)

    for n_knots in (5, 8, 512):
        values = Stencil.of(LOG_C, LAWS, n_knots).interpolate(cubic)
        np.testing.assert_allclose(values, cubic(LOG_C, ORDER), atol=1e-11)


def test_a_known_law_is_mass_action_whatever_f(trained_like):
    """The last column, of the order of the first, whose law is learned."""
    laws = RateLaws(np.array([1.0, 1.0, 2.0]), np.array([False, True, False]), np.array([0, 2, 1]))
    table = Stencil.of(LOG_C, laws)
    assert table.known.tolist() == [False, True, False]
    values = tabulated(trained_like, table)
    np.testing.assert_allclose(values[:, 2], LOG_C[:, 2], atol=1e-11)
    assert float(jnp.abs(values - direct(trained_like))[:, :2].max()) < 1e-9
    assert float(jnp.abs(values - direct(trained_like))[:, 2].max()) > 0.1


@pytest.mark.parametrize("log_c", [np.zeros((4, 1)), np.full((4, 1), 2.0), np.full((4, 1), -3.0), np.zeros((0, 1))])
def test_data_without_spread(log_c):
    table = Stencil.of(log_c, RateLaws(np.ones(1), np.zeros(1, dtype=bool), np.zeros(1, dtype=np.int64)))
    np.testing.assert_allclose(table.interpolate(lambda x, order: order * x), log_c, atol=1e-12)
    # The gauge is fixed at log c = 0, which has to lie on the table.
    assert float(table.knots[1]) <= 0 <= float(table.knots[-3]) + 1e-12


def test_gradients_pass(trained_like):
    table = Stencil.of(LOG_C, LAWS)
    weight = jnp.asarray(np.random.default_rng(1).standard_normal(LOG_C.shape))
    through_knots = eqx.filter_jit(eqx.filter_grad(lambda f: jnp.sum(weight * table.interpolate(f))))(trained_like)
    exact = eqx.filter_jit(eqx.filter_grad(lambda f: jnp.sum(weight * direct(f))))(trained_like)
    for a, b in zip(jax.tree.leaves(through_knots), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    assert float(jnp.abs(exact.skip).min()) > 1.0
