import contextlib

import jax.numpy as jnp
import numpy as np
import pytest
import scipy

from metabolismgraph.system.minimise import compiled, minimise


def quietly(_, loss):
    del loss


def evaluations(log_loss, start, **settings):
    """The minimum of a log loss from a start, and the number of evaluations."""
    evaluate, count = compiled(log_loss), [0]

    def counted(parameters, constants):
        count[0] += 1
        return evaluate(parameters, constants)

    settings = {"max_iterations": 100, "tolerance": 1e-3, "after_iteration": quietly} | settings
    return minimise(counted, [start], [True], **settings), count[0]


def test_the_best_point_counts_even_if_the_search_ends_at_another(monkeypatch):
    """Where rounding prevents progress, the line search of L-BFGS-B can accept a point that is far worse."""

    def wander(function, z, *, callback, **_):
        for at in (0.5, 0.1, 3.0):
            # The search starts at zero, in units of 1 / |gradient|, here sqrt(2).
            value, _ = function(np.full_like(z, (at - 1.0) * np.sqrt(2)))
            with contextlib.suppress(StopIteration):  # as the search does
                callback(intermediate_result=scipy.optimize.OptimizeResult(fun=value))
        return scipy.optimize.OptimizeResult(x=np.full_like(z, 3.0))

    monkeypatch.setattr(scipy.optimize, "minimize", wander)
    found, _ = evaluations(lambda model: jnp.log(jnp.sum(model[0] ** 2)), jnp.ones(2))
    np.testing.assert_allclose(found.parameters[0], [0.1, 0.1])
    assert found.losses[-1] == pytest.approx(np.log(0.02))
    assert found.losses[-1] == min(found.losses)


@pytest.mark.parametrize("distance", [1e-6, 1e-3, 1.0])
def test_the_first_step_suits_the_distance_of_the_minimum(distance):
    """A step of length one would be a million times too long close to the minimum of a log loss."""
    least = 1e-4 * distance**2
    found, count = evaluations(lambda model: jnp.log(least + jnp.sum((model[0] - 1.0) ** 2)), jnp.ones(5) + distance)
    assert found.converged
    assert found.losses[-1] == pytest.approx(np.log(least), abs=1e-3)
    assert count < 25


def valley(model):
    """The log of Rosenbrock's function: slow along its valley, then faster and faster."""
    x, y = model[0]
    return jnp.log((1 - x) ** 2 + 100 * (y - x**2) ** 2 + 1e-8)


def test_a_search_gives_up_only_where_the_target_is_out_of_reach():
    start = jnp.array([-1.2, 1.0])
    whole, count = evaluations(valley, start)
    reachable, same = evaluations(valley, start, target=whole.losses[-1] + 1.0)
    assert (reachable.losses, same, reachable.given_up) == (whole.losses, count, False)
    hopeless, fewer = evaluations(valley, start, target=-1e4)
    assert hopeless.given_up
    assert not hopeless.converged
    assert fewer < count
    assert whole.converged
    assert not whole.given_up


def test_a_search_that_stands_still_ends():
    """Once rounding prevents progress, every line search would take twenty evaluations for nothing."""
    found, count = evaluations(lambda model: jnp.log(1.0 + 1e-13 * jnp.sum(model[0] ** 2)), jnp.ones(3))
    assert found.converged
    assert len(found.losses) <= 5
    assert count < 100
