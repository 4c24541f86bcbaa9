"""Euler's, Heun's and Runge and Kutta's methods: their order, the clamp at zero, and steps of any length."""

import functools
import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from random_networks import network_of

from metabolismgraph.system.derivative_rules import StepQuadrature
from metabolismgraph.system.integrate import euler, evaluate_rate, integrate, rollout
from metabolismgraph.system.kinetics import Structure
from metabolismgraph.system.model import MetabolismModel, NodeFunction, SubstrateFunction
from metabolismgraph.system.model_rates import ModelRates
from metabolismgraph.system.observations import Observations

heun = functools.partial(integrate, rule="trapezoid")
runge_kutta = functools.partial(integrate, rule="cubic")


def logistic(c):
    return c * (1.0 - c)


def exact_logistic(c, t):
    return c * np.exp(t) / (1 + c * (np.exp(t) - 1))


@pytest.mark.parametrize(("method", "order"), [(euler, 1.0), (heun, 2.0), (runge_kutta, 4.0)])
def test_order(method, order):
    start, end = np.array([0.1, 0.5, 1.7]), 2.0
    steps = np.array([32, 64, 128, 256])
    errors = [
        np.abs(np.asarray(method(logistic, jnp.asarray(start), jnp.full(n, end / n))[-1]) - exact_logistic(start, end))
        for n in steps
    ]
    orders = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    np.testing.assert_allclose(orders, order, atol=0.05)


def test_every_state_of_linear_decay():
    states = euler(lambda c: -0.5 * c, jnp.array([2.0, 4.0]), jnp.full(3, 0.1))
    np.testing.assert_allclose(states, np.outer(0.95 ** np.arange(1, 4), [2.0, 4.0]), rtol=1e-14)


def test_steps_of_different_length():
    dt = np.array([0.5, 0.125, 0.25])
    c, expected = np.array([0.3, 0.9]), []
    for step in dt:
        c = c + step * c * (1 - c)
        expected.append(c)
    np.testing.assert_allclose(euler(logistic, jnp.array([0.3, 0.9]), jnp.asarray(dt)), expected, rtol=1e-14)


def test_every_member_of_a_batch_has_its_own_steps():
    c, dt = np.array([[0.3, 0.9], [0.2, 0.1]]), np.array([[0.5, 0.1], [0.25, 0.2]])
    together = euler(logistic, jnp.asarray(c), jnp.asarray(dt))
    assert together.shape == (2, 2, 2)
    for b in range(2):
        np.testing.assert_allclose(
            together[:, b], euler(logistic, jnp.asarray(c[b]), jnp.asarray(dt[:, b])), rtol=1e-14
        )


@pytest.mark.parametrize("method", [euler, heun, runge_kutta])
def test_concentrations_stop_at_zero(method):
    states = method(lambda c: -jnp.ones_like(c), jnp.array([0.25, 9.0]), jnp.full(3, 0.2))
    np.testing.assert_allclose(states, [[0.05, 8.8], [0.0, 8.6], [0.0, 8.4]], atol=1e-14)


@pytest.fixture(scope="module")
def decay():
    """A -> B with k = 0.1; homeostasis adds 0.5 to whatever is not fixed, as B is."""
    network = network_of(({"A": 1.0}, {"A": -1.0, "B": 1.0}), species="AB", fixed=["B"])
    mlp_sub = SubstrateFunction(4, 2, 0.0, 1.0, np.random.default_rng(0))
    node = NodeFunction(4, 2, 2, np.random.default_rng(1))
    model = MetabolismModel(
        log_k=jnp.array([-1.0]),
        mlp_sub=eqx.tree_at(lambda f: f.skip, mlp_sub, jnp.array([1.0, 0.0])),
        mlp_node=eqx.tree_at(lambda f: f.offset, node, jnp.array([0.0, 0.0, 0.5])),
        embeddings=jnp.zeros((2, 2)),
        aggregation="mul",
    )
    return model, Structure.of(network)


@pytest.mark.parametrize("rule", ["forward", "trapezoid", "cubic"])
def test_rollout_of_a_model(decay, rule):
    model, structure = decay
    c, expected = 2.0, []
    for dt in (0.5, 1.0):
        first = 0.5 - 0.1 * c
        # A linear rate, which falls by 0.1 per unit of c: every method is its Taylor series up to its own order.
        terms = {"forward": 1, "trapezoid": 2, "cubic": 4}[rule]
        mean = first * sum((-0.1 * dt) ** n / math.factorial(n + 1) for n in range(terms))
        c += dt * mean
        expected.append([c, 3.0])
    states = integrate(eqx.Partial(model, structure=structure), jnp.array([2.0, 3.0]), jnp.array([0.5, 1.0]), rule)
    np.testing.assert_allclose(states, expected, rtol=1e-12)
    start = np.array([[2.0, 3.0]])
    states = rollout(ModelRates.of(model, structure, start), start, np.array([[0.5], [1.0]]), rule)
    np.testing.assert_allclose(states[:, 0], expected, rtol=1e-12)


def test_the_mean_rate_over_a_step():
    c = np.array([[0.3, 0.9], [0.5, 0.1]])
    observations = Observations(network_of(species="AB"), np.arange(2.0), np.zeros(2, dtype=np.int64), c)
    rates = np.asarray(evaluate_rate(logistic, jnp.asarray(c)))

    def mean_rate(rule):
        return StepQuadrature.of(observations, rule).mean(rates)[0]

    np.testing.assert_allclose(mean_rate("forward"), [0.21, 0.09], rtol=1e-12)
    np.testing.assert_allclose(mean_rate("trapezoid"), [0.23, 0.09], rtol=1e-12)
