"""Phase 2: MLP_node and the embeddings, on a frozen Phase 1 checkpoint.

What is minimised and how is a `Plan`, made by the strategies that the configuration names; here it is
carried out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Key, PRNGKeyArray

from metabolismgraph.config import GraphModel, Training
from metabolismgraph.homeostasis.binned_regression import condense
from metabolismgraph.homeostasis.residuals import Phase2Data, Residuals
from metabolismgraph.homeostasis.strategies import make_plan
from metabolismgraph.homeostasis.training_plan import Objective, Penalty, Plan, optimiser
from metabolismgraph.reactions.result import Phase1Result
from metabolismgraph.system.model import MetabolismModel, NodeFunction
from metabolismgraph.system.observations import Observations
from metabolismgraph.system.progress import Progress, silent
from metabolismgraph.system.trainable import check_frozen, phase2_parameters
from metabolismgraph.system.units import Units

# Shares of Phase 2 that are over when the residuals have been found, and when the gradient steps are done.
_REFINED, _LEARNED = 0.1, 0.8
_CHUNK = 100  # gradient steps between two progress reports
# Response coefficients that differ by less than this share of the typical one are not pulled apart.
_RESOLUTION = 0.05
# Purposes of random keys, see `Phase2Data.key`.
_WEIGHTS, _BATCHES = 2, 3


@dataclasses.dataclass(frozen=True)
class Phase2Result:
    """What Phase 2 found.

    Attributes:
        model: the Phase 1 model with MLP_node and embeddings trained.
        losses: mean square of what is left, in `loss_unit`, per gradient step, then per iteration of a polish.
        loss_unit: "concentration²" for rollouts, "(concentration/time)²" for a residual.
        components: further loss terms and watched figures by name, per gradient step.
        node_magnitude: mean absolute output of MLP_node over the data, in concentration/time.
        notes: plain sentences on anything that a user should know.
    """

    model: MetabolismModel
    losses: Float[np.ndarray, " steps_and_iterations"]
    loss_unit: str
    components: Mapping[str, Float[np.ndarray, " steps"]]
    node_magnitude: float
    notes: tuple[str, ...]


def fit_homeostasis(
    observations: Observations,
    phase1: Phase1Result,
    graph_model: GraphModel,
    training: Training,
    progress: Progress = silent,
) -> Phase2Result:
    """Train MLP_node and the embeddings; everything of Phase 1 stays as it is, bit for bit.

    Args:
        phase1: any checkpoint, good or bad.

    Raises:
        InputError: `training.strategies` make no sense, or not for these data.
        FirewallError: an array of Phase 1 changed.
    """
    units = Units.of(observations, graph_model)
    given = Phase2Data(observations, phase1, graph_model, training)
    data = given.in_units(units)
    plan = make_plan(data, progress)
    before = initial_model(data, plan.residuals)
    model, losses, components = _descend(plan.start(before), plan, data, progress)
    model, polished = plan.finish(model, progress)
    check_frozen(before, model)
    progress("phase 2", 1.0, "")
    losses = np.concatenate([losses, polished])
    if data is not given:
        losses = losses * (units.rate if "time" in plan.objective.unit else units.concentration) ** 2
        # The frozen arrays as they were given, to the last bit.
        model = eqx.tree_at(
            lambda m: (m.log_k, m.mlp_sub, m.mlp_node),
            model,
            (jnp.asarray(phase1.log_k), phase1.mlp_sub, units.node_function(model.mlp_node)),
        )
    response = eqx.filter_jit(MetabolismModel.homeostasis)(model, jnp.asarray(observations.concentration))
    return Phase2Result(
        model=model,
        losses=losses,
        loss_unit=plan.objective.unit,
        components=components,
        node_magnitude=float(np.mean(np.abs(np.asarray(response)))),
        notes=plan.notes,
    )


def initial_model(data: Phase2Data, residuals: Residuals) -> MetabolismModel:
    """The Phase 1 model with an MLP_node that is zero, in units of the residuals, and embeddings at their start."""
    graph_model, phase1, points = data.graph_model, data.phase1, condense(residuals)
    node_key, embedding_key = jax.random.split(data.key(_WEIGHTS))
    n, dim = data.observations.network.n_species, graph_model.embedding_dim
    if data.training.embedding_start == "coefficients":
        start = jnp.asarray(response_coordinates(residuals, data.moving, dim))
    else:
        start = jax.random.normal(embedding_key, (n, dim))
    node = NodeFunction(
        graph_model.hidden_dim_node,
        graph_model.n_layers_node,
        dim,
        node_key,
        center=float(jnp.mean(points.c)),
        width=max(float(jnp.std(points.c)), 1e-9),
        unit=float(points.unit),
    )
    return MetabolismModel(jnp.asarray(phase1.log_k), phase1.mlp_sub, node, start, graph_model.aggr_type)


def response_coordinates(
    residuals: Residuals, moving: Bool[np.ndarray, " species"], dim: int
) -> Float[np.ndarray, "species dim"]:
    """Slope and offset of every species' own line of homeostasis, centred and scaled to about [-1, 1].

    The scale is half the 5-95 % range, but never so fine that uncertainty or differences of a few
    per cent fill it: types that are one would be torn apart. Further dimensions start at zero.
    """
    coordinates = np.zeros((len(moving), max(dim, 2)))
    lines = ((residuals.slope, residuals.slope_error), (residuals.offset, residuals.offset_error))
    for axis, (value, error) in enumerate(lines):
        center = np.median(value[moving])
        low, high = np.quantile(value[moving], [0.05, 0.95])
        scale = max(
            (high - low) / 2, 3 * np.median(error[moving]), _RESOLUTION * np.median(np.abs(value[moving])), 1e-30
        )
        coordinates[moving, axis] = np.clip((value[moving] - center) / scale, -1.5, 1.5)
    return coordinates[:, :dim]


class _Carry(NamedTuple):
    """What one gradient step hands to the next."""

    parameters: MetabolismModel
    state: optax.OptState


class _Curves(NamedTuple):
    """What is recorded of every step."""

    misfit: Float[Array, " steps"]
    components: dict[str, Float[Array, " steps"]]


def _descend(
    model: MetabolismModel, plan: Plan, data: Phase2Data, progress: Progress
) -> tuple[MetabolismModel, Float[np.ndarray, " steps"], dict[str, Float[np.ndarray, " steps"]]]:
    """The gradient steps of a plan, a chunk at a time."""
    training = data.training
    chunks = -(-plan.steps // _CHUNK)
    steps = chunks * _CHUNK
    chosen = optimiser(
        plan.schedule, steps, training.rate_node_homeostasis, training.rate_embedding_homeostasis, plan.accumulate
    )
    parameters, constants = eqx.partition(model, phase2_parameters(model))
    carry = _Carry(parameters, chosen.init(parameters))
    curves = []
    for chunk in range(chunks):
        shares = (chunk * _CHUNK + np.arange(_CHUNK)) / steps
        keys = jax.random.split(jax.random.fold_in(data.key(_BATCHES), chunk), _CHUNK)
        carry, curve = _steps(carry, constants, plan.objective, plan.penalties, keys, jnp.asarray(shares), chosen)
        curves.append(jax.tree.map(np.asarray, curve))
        progress(
            "phase 2",
            _REFINED + (_LEARNED - _REFINED) * (chunk + 1) / chunks,
            f"left {np.sqrt(curves[-1].misfit[-1]):.1e}",
        )
    whole = jax.tree.map(lambda *parts: np.concatenate(parts), *curves)
    return eqx.combine(carry.parameters, constants), whole.misfit, whole.components


@eqx.filter_jit
def _steps(
    carry: _Carry,
    constants: MetabolismModel,
    objective: Objective,
    penalties: tuple[Penalty, ...],
    keys: Key[Array, " steps"],
    shares: Float[Array, " steps"],
    chosen: optax.GradientTransformation,
) -> tuple[_Carry, _Curves]:
    def total(p: MetabolismModel, key: PRNGKeyArray, share: Float[Array, ""]) -> tuple[Float[Array, ""], _Curves]:
        model = eqx.combine(p, constants)
        loss = objective(model, key, share)
        terms = {penalty.name: penalty(model) for penalty in penalties}
        return loss.value + sum(terms.values()), _Curves(loss.misfit, loss.parts | terms)

    def step(carry: _Carry, now: tuple[PRNGKeyArray, Float[Array, ""]]) -> tuple[_Carry, _Curves]:
        gradient, curves = jax.grad(total, has_aux=True)(carry.parameters, *now)
        updates, state = chosen.update(gradient, carry.state, carry.parameters)
        return _Carry(eqx.apply_updates(carry.parameters, updates), state), curves

    return jax.lax.scan(step, carry, (keys, shares))
