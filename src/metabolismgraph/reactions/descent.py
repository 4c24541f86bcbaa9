"""The inner loop of gradient Phase 1: many Adam steps per compiled call, in single precision.

The residual of this method is far above the rounding errors of float32. All other methods need float64.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metabolismgraph.config import Training
from metabolismgraph.reactions import penalties
from metabolismgraph.reactions.minibatches import Batches
from metabolismgraph.system.integrate import integrate
from metabolismgraph.system.log_table import LogTable
from metabolismgraph.system.model import MetabolismModel
from metabolismgraph.system.trainable import node_parameters, substrate_parameters

_FIRST_SNAPSHOT = 10  # steps


class Coefficients(NamedTuple):
    """Weights of the penalties, and the threshold of log10 k, by their names in `Training`."""

    coeff_MLP_sub_diff: Float[Array, ""]
    coeff_MLP_sub_norm: Float[Array, ""]
    coeff_MLP_node_L1: Float[Array, ""]
    coeff_k_floor: Float[Array, ""]
    k_floor_threshold: Float[Array, ""]

    @classmethod
    def of(cls, training: Training) -> Coefficients:
        return cls(*(jnp.asarray(getattr(training, name)) for name in cls._fields))


def objective(
    model: MetabolismModel, batches: Batches, chosen: Int[Array, " batch"], coefficients: Coefficients
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The loss with penalties, and the misfit without, on the windows that begin with the `chosen` transitions.

    The misfit is the mean square error of dc/dt, in (concentration/time)^2. For rollouts, the error of the state
    is divided by the time since the start, which gives the error of the mean dc/dt over that time. A rollout of
    one step thus has the same misfit as dc/dt itself.
    """
    values = batches.tabulate(model.mlp_sub)
    table = LogTable.through(values, batches.knots)
    c = batches.start[chosen]

    def node(c: Float[Array, "batch species"]) -> Float[Array, "batch species"]:
        return jnp.where(batches.moving, model.homeostasis(c), 0.0)

    def rate(c: Float[Array, "batch species"]) -> Float[Array, "batch species"]:
        return batches.reactions(model.log_k, table, c) + node(c)

    at_start = node(c)
    if batches.time_step == 1:
        weight = batches.weight[chosen]
        predicted = batches.reactions(model.log_k, table, c) + at_start
        if batches.rule == "trapezoid":
            predicted = (predicted + rate(batches.end[chosen])) / 2
        error = predicted - batches.derivative[chosen]
    else:
        steps = chosen + jnp.arange(batches.time_step)[:, None]
        dt = batches.dt[steps]
        states = integrate(rate, c, dt, batches.rule)
        error = (states - batches.end[steps]) / jnp.cumsum(dt, axis=0)[..., None]
        # After an entry that does not follow the rate equation, the observed trajectory is another one.
        weight = jnp.cumprod(batches.weight[steps], axis=0)
    misfit = jnp.sum(weight * error**2) / jnp.maximum(jnp.sum(weight), 1.0)
    at_one = model.mlp_sub(jnp.zeros(1, values.dtype), jnp.ones(1, values.dtype))[0]
    loss = (
        misfit
        + coefficients.coeff_MLP_sub_diff * penalties.substrate_falls(values)
        + coefficients.coeff_MLP_sub_norm * penalties.substrate_norm(at_one)
        + coefficients.coeff_MLP_node_L1 * penalties.node_magnitude(at_start)
        + coefficients.coeff_k_floor * penalties.rate_constant_floor(model.log_k, coefficients.k_floor_threshold)
    )
    return loss, misfit


def snapshot_steps(total: int, count: int) -> tuple[int, ...]:
    """At most `count` different numbers of steps, log-spaced up to `total`."""
    if count == 0 or total == 0:
        return ()
    steps = np.geomspace(min(_FIRST_SNAPSHOT, total), total, count) if count > 1 else np.array([total])
    return tuple(int(s) for s in np.unique(np.round(steps)))


class Carry(NamedTuple):
    """The state of the descent between two compiled calls.

    Attributes:
        parameters: the model without its constants.
        state: state of Adam, for all parameters as one vector.
        step: number of gradient steps so far.
    """

    parameters: MetabolismModel
    state: optax.OptState
    step: Int[Array, ""]


def begin(model: MetabolismModel) -> tuple[Carry, MetabolismModel]:
    """The state before the first step, and the constants of the model."""
    parameters, constants = eqx.partition(model, _trainable(model))
    return Carry(parameters, _ADAM.init(ravel_pytree(parameters)[0]), jnp.zeros((), jnp.int32)), constants


def learning_rates(model: MetabolismModel, training: Training) -> MetabolismModel:
    """The learning rate of every parameter, in the structure of the model."""
    rates = {
        "log_k": training.rate_k,
        "mlp_sub": training.rate_sub,
        "mlp_node": training.rate_node,
        "embeddings": training.rate_embedding,
    }
    filled = {
        name: jax.tree.map(functools.partial(jnp.full_like, fill_value=rate), getattr(model, name))
        for name, rate in rates.items()
    }
    kept: MetabolismModel = eqx.filter(dataclasses.replace(model, **filled), _trainable(model))
    return kept


def _trainable(model: MetabolismModel) -> MetabolismModel:
    """True for all parameters of a model, False for its constants."""
    mask = jax.tree.map(lambda _: True, model)
    parts = substrate_parameters(model.mlp_sub), node_parameters(model.mlp_node)
    trainable: MetabolismModel = eqx.tree_at(lambda m: (m.mlp_sub, m.mlp_node), mask, parts)
    return trainable


_ADAM = optax.scale_by_adam()


@eqx.filter_jit
def advance(
    carry: Carry,
    constants: MetabolismModel,
    rates: MetabolismModel,
    batches: Batches,
    coefficients: Coefficients,
    key: PRNGKeyArray,
    steps: Int[Array, ""],
) -> tuple[Carry, Float[Array, ""]]:
    """Take some Adam steps (Kingma & Ba 2015) on random batches; returns the state and the mean misfit.

    The batch of a step depends only on `key` and the number of the step. The result therefore does not depend
    on the number of steps per call.
    """
    # One vector: Adam on thirty small arrays takes longer than the evaluation of the reactions.
    start, unravel = ravel_pytree(carry.parameters)
    every_rate = ravel_pytree(rates)[0]
    value_and_gradient = jax.value_and_grad(
        lambda x, chosen: objective(eqx.combine(unravel(x), constants), batches, chosen, coefficients), has_aux=True
    )

    def step(i: Int[Array, ""], before: tuple[Array, optax.OptState, Array]) -> tuple[Array, optax.OptState, Array]:
        x, state, total = before
        drawn = jax.random.randint(
            jax.random.fold_in(key, carry.step + i), (batches.batch_size,), 0, len(batches.first), jnp.int32
        )
        (_, misfit), gradient = value_and_gradient(x, batches.first[drawn])
        direction, state = _ADAM.update(gradient, state)
        return x - every_rate * direction, state, total + misfit

    nothing = jnp.zeros((), batches.start.dtype)
    x, state, total = jax.lax.fori_loop(0, steps, step, (start, carry.state, nothing))
    return Carry(unravel(x), state, carry.step + steps), total / steps
