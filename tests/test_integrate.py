"""Euler's method: its order, its clamp, and steps of any length."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_networks import network_of

from metabolismgraph.integrate import euler, rollout
from metabolismgraph.kinetics import Structure
from metabolismgraph.model import MetabolismModel, NodeFunction, SubstrateFunction


def logistic(c):
    return c * (1.0 - c)


def exact_logistic(c, t):
    return c * np.exp(t) / (1 + c * (np.exp(t) - 1))


def test_first_order():
    start, end = np.array([0.1, 0.5, 1.7]), 2.0
    steps = np.array([32, 64, 128, 256])
    errors = [
        np.abs(np.asarray(euler(logistic, jnp.asarray(start), jnp.full(n, end / n))[-1]) - exact_logistic(start, end))
        for n in steps
    ]
    orders = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    np.testing.assert_allclose(orders, 1.0, atol=0.05)


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


def test_concentrations_stop_at_zero():
    states = euler(lambda c: -jnp.ones_like(c), jnp.array([0.25, 9.0]), jnp.full(3, 0.2))
    np.testing.assert_allclose(states, [[0.05, 8.8], [0.0, 8.6], [0.0, 8.4]], atol=1e-14)


@pytest.fixture(scope="module")
def decay():
    """A -> B with k = 0.1, B fixed, no homeostasis yet."""
    network = network_of(({"A": 1.0}, {"A": -1.0, "B": 1.0}), species="AB", fixed=["B"])
    mlp_sub = SubstrateFunction(4, 2, 0.0, 1.0, jax.random.key(0))
    model = MetabolismModel(
        log_k=jnp.array([-1.0]),
        mlp_sub=eqx.tree_at(lambda f: f.skip, mlp_sub, jnp.array([1.0, 0.0])),
        mlp_node=NodeFunction(4, 2, 2, jax.random.key(1)),
        embeddings=jnp.zeros((2, 2)),
        aggregation="mul",
    )
    return model, Structure.of(network)


def test_rollout_of_a_model(decay):
    model, structure = decay
    states = rollout(model, structure, jnp.array([2.0, 3.0]), jnp.array([0.5, 1.0]))
    np.testing.assert_allclose(states, [[2.0 * 0.95, 3.0], [2.0 * 0.95 * 0.9, 3.0]], rtol=1e-12)
