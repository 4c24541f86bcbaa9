"""The normal equations against least squares on a design matrix that is written out."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_networks import network_of

from metabolismgraph.reactions.normal_equations import (
    Nodes,
    follows_equation,
    make_rows,
    normal_equations,
    orthonormal_basis,
    residual,
    solve_rate_constants,
)
from metabolismgraph.system.kinetics import Structure
from metabolismgraph.system.observations import Transitions

# D is fixed: it drives R2 and is not moved by R4.
NETWORK = network_of(
    ({"A": 1.0, "B": 1.0}, {"A": -1.0, "B": 1.0}),
    ({"B": 2.0}, {"B": -2.0, "C": 1.0}),
    ({"C": 1.0, "D": 1.0}, {"C": -1.0, "A": 1.0}),
    ({"A": 0.5, "C": 1.0}, {"A": 1.0, "C": -1.0}),
    ({"A": 2.0, "C": 1.0}, {"A": -1.0, "D": 1.0, "B": 1.0}),
    fixed=["D"],
)
STRUCTURE = Structure.of(NETWORK)
N = 60


@pytest.fixture(scope="module")
def transitions():
    """Random ones: dc/dt has nothing to do with the network, so that nothing cancels in the residual."""
    rng = np.random.default_rng(0)
    start = rng.uniform(0.2, 3.0, (N, 4))
    return Transitions(start, start + rng.standard_normal((N, 4)), rng.uniform(0.5, 2.0, N), np.arange(N))


def by_hand(c):
    """V of every reaction at concentrations (rows, species)."""
    v = np.ones((len(c), NETWORK.n_reactions))
    for j, reaction in enumerate(NETWORK.to_reactions()):
        for name, order in reaction.substrates.items():
            v[:, j] *= c[:, NETWORK.species.index(name)] ** order
    return v


def design(v, c, degree):
    """Columns: one per reaction, then 1, c, c^2, ... of each species; rows: (transition, species)."""
    rows, n = c.shape
    reactions = (v[:, None, :] * NETWORK.stoichiometry[None]).reshape(rows * n, -1)
    nuisance = np.zeros((rows, n, n, degree + 1))
    for i in range(n):
        nuisance[:, i, i] = c[:, i, None] ** np.arange(degree + 1)
    return reactions, nuisance.reshape(rows * n, -1)


CASES = {
    "plain": {},
    "degree 0": {"degree": 0},
    "degree 2": {"degree": 2},
    "trapezoid": {"shares": np.array([0.5, 0.5])},
    "unequal shares of both ends": {"shares": np.array([1.2, -0.2])},
    "weights": {"weight": np.array([1.0, 30.0, 0.1, 5.0])},
    "a few rows dropped": {"dropped": 9},
    "many rows dropped": {"dropped": 100, "weight": np.array([1.0, 30.0, 0.1, 5.0])},
    "all at once": {
        "degree": 2,
        "dropped": 9,
        "shares": np.array([0.5, 0.5]),
        "weight": np.array([1.0, 30.0, 0.1, 5.0]),
    },
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_normal_equations_are_those_of_the_full_design(transitions, case):
    degree, shares, weight = case.get("degree", 1), case.get("shares"), case.get("weight")
    keep = np.ones((N, 4), dtype=bool)
    keep.flat[np.random.default_rng(1).choice(4 * N, case.get("dropped", 0), replace=False)] = False
    ends, nodes = transitions.start[None], None
    if shares is not None:  # random ends may be negative
        transitions = dataclasses.replace(transitions, end=np.abs(transitions.end))
        ends = np.stack([transitions.start, transitions.end])
        nodes = Nodes(ends, np.repeat(shares[:, None], N, axis=1))
    rows, transform = make_rows(transitions, NETWORK.fixed, degree=degree, nodes=nodes, keep=keep, weight=weight)
    v = np.average([by_hand(c) for c in ends], axis=0, weights=shares)
    equations = jax.jit(normal_equations)(jnp.asarray(v), rows, STRUCTURE)
    k = solve_rate_constants(equations)
    theta = equations.nuisance(k)

    # The same, written out.
    y = ((transitions.end - transitions.start) / transitions.dt[:, None]).reshape(-1)
    if weight is None:
        weight = 1 / np.array([np.mean(y.reshape(N, 4)[keep[:, i], i] ** 2) * keep[:, i].mean() for i in range(4)])
    root = np.sqrt(keep * weight * ~NETWORK.fixed).reshape(-1)
    reactions, nuisance = design(v, np.average(ends, axis=0, weights=shares), degree)
    used = np.repeat(~NETWORK.fixed, degree + 1)
    X, Z = root[:, None] * reactions, root[:, None] * nuisance[:, used]
    solution = np.linalg.lstsq(np.hstack([X, Z]), root * y, rcond=None)[0]
    np.testing.assert_allclose(k, solution[:5], rtol=1e-7, atol=1e-8)

    # Homeostasis in powers of c, the residual, and the matrix whose null space cannot be determined.
    powers = np.einsum("ipl,il->ip", transform, theta)[~NETWORK.fixed]
    np.testing.assert_allclose(powers, solution[5:].reshape(3, degree + 1), rtol=1e-6, atol=1e-6)
    left = residual(jnp.asarray(v), k, theta, rows, STRUCTURE)
    np.testing.assert_allclose(
        root * np.asarray(left).reshape(-1), root * y - np.hstack([X, Z]) @ solution, atol=1e-7 * root.max()
    )
    cleaned = X - Z @ np.linalg.lstsq(Z, X, rcond=None)[0]
    scale = np.asarray(equations.scale)
    np.testing.assert_allclose(scale, np.linalg.norm(X, axis=0), rtol=1e-10)
    np.testing.assert_allclose(equations.matrix, cleaned.T @ cleaned / np.outer(scale, scale), atol=1e-9)
    np.testing.assert_allclose(equations.rhs, cleaned.T @ (root * y) / scale, rtol=1e-7, atol=1e-7 * root.max())


def test_the_best_homeostasis_for_any_k(transitions):
    """Back-substitution holds for rate constants other than the best, such as filled-in ones."""
    rows, _ = make_rows(transitions, NETWORK.fixed, degree=1)
    v = jnp.asarray(by_hand(transitions.start))
    equations = normal_equations(v, rows, STRUCTURE)
    k = jnp.arange(1.0, 6.0)
    left = residual(v, k, equations.nuisance(k), rows, STRUCTURE)
    gradient = jnp.einsum("ti,til->il", rows.full_weight * left, rows.basis)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-6)


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_orthonormal_basis(degree):
    rng = np.random.default_rng(2)
    c = np.stack([rng.uniform(0, 1, 40), rng.uniform(100, 101, 40), rng.lognormal(0, 2, 40)], axis=1)
    basis, transform = orthonormal_basis(c, degree)
    for i in range(3):
        np.testing.assert_allclose(basis[:, i].T @ basis[:, i] / 40, np.eye(degree + 1), atol=1e-9)
        powers = c[:, i, None] ** np.arange(degree + 1)
        # Powers of a concentration near 100 that hardly varies cancel to a few digits.
        np.testing.assert_allclose(powers @ transform[i], basis[:, i], atol=1e-3 if i == 1 else 1e-8)
        assert transform[i][degree, degree] > 0
        assert np.tril(transform[i], -1).max() == 0


def test_a_constant_concentration_has_only_a_constant():
    c = np.stack([np.full(20, 3.0), np.zeros(20), np.arange(20.0), np.arange(20.0) % 2], axis=1)
    basis, transform = orthonormal_basis(c, 2)
    for i in (0, 1):
        np.testing.assert_allclose(basis[:, i], np.eye(3)[[0] * 20], atol=1e-12)
        np.testing.assert_allclose(transform[i], np.diag([1.0, 0.0, 0.0]), atol=1e-12)
    assert (np.abs(basis[:, 2]).max(axis=0) > 0.5).all()
    # Two values cannot tell a square from a line.
    assert (np.abs(basis[:, 3]).max(axis=0) > 0.5).tolist() == [True, True, False]


def test_steps_into_or_out_of_zero_do_not_follow_the_equation():
    """A zero at the first frame of a run is where it was started: leaving it is no clamp."""
    start, end = np.array([[0.0, 0.0, 1.0, 1.0]]), np.array([[0.0, 1.0, 0.0, 2.0]])
    steps = Transitions(start, end, np.ones(1), np.zeros(1, dtype=np.int64))
    assert follows_equation(steps).tolist() == [[True, True, False, True]]
    rows, _ = make_rows(steps, np.zeros(4, dtype=bool), degree=0)
    assert rows.keep.tolist() == [[1.0, 1.0, 0.0, 1.0]]


def test_leaving_zero_later_within_a_run_does_not_follow_the_equation():
    """The same step at the first frame of a run, at the next, and at the first frame of another run."""
    start, end = np.array([[0.0, 0.0, 1.0, 1.0]] * 3), np.array([[0.0, 1.0, 0.0, 2.0]] * 3)
    steps = Transitions(start, end, np.ones(3), np.array([0, 1, 3]))  # frame 2 is the last one of the first run
    first, later = [True, True, False, True], [True, False, False, True]
    assert follows_equation(steps).tolist() == [first, later, first]
    rows, _ = make_rows(steps, np.zeros(4, dtype=bool), degree=0)
    assert rows.keep.astype(bool).tolist() == [first, later, first]


def test_weights_make_species_equal(transitions):
    rows, _ = make_rows(transitions, NETWORK.fixed, degree=1)
    size = np.mean(rows.full_weight * rows.derivative**2, axis=0)
    np.testing.assert_allclose(size, [1, 1, 1, 0], rtol=1e-12)


def test_dropped_rows_do_not_count_towards_the_weight(transitions):
    keep = np.ones((N, 4), dtype=bool)
    wild = dataclasses.replace(transitions, end=transitions.end.copy())
    wild.end[3, 0] = 1e6
    keep[3, 0] = False
    rows, _ = make_rows(wild, NETWORK.fixed, degree=1, keep=keep)
    calm, _ = make_rows(transitions, NETWORK.fixed, degree=1, keep=keep)
    np.testing.assert_array_equal(rows.weight, calm.weight)


def test_a_reaction_that_ran_only_in_rows_left_out_is_invisible(transitions):
    """What is left of it after subtraction is rounding, and must not pass for information."""
    keep = np.ones((N, 4), dtype=bool)
    keep[:7] = False
    rows, _ = make_rows(transitions, NETWORK.fixed, degree=1, keep=keep)
    v = by_hand(transitions.start)
    v[7:, 3] = 0.0
    equations = normal_equations(jnp.asarray(v), rows, STRUCTURE)
    assert np.abs(equations.matrix[3]).max() == 0
    assert equations.rhs[3] == 0
    assert float(solve_rate_constants(equations)[3]) == 0
