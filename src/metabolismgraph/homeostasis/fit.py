"""Phase 2: MLP_node and the embeddings, on a frozen Phase 1 checkpoint.

The strategies of the configuration make a `Plan` (objective, penalties and optimiser), which is carried out here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metabolismgraph.config import GraphModel, Training
from metabolismgraph.homeostasis.binned_regression import condense
from metabolismgraph.homeostasis.initial_embeddings import response_coordinates
from metabolismgraph.homeostasis.residuals import Phase2Data, Residuals
from metabolismgraph.homeostasis.strategies import make_plan, orthogonalised_in
from metabolismgraph.homeostasis.training_plan import Objective, Penalty, Plan, optimiser
from metabolismgraph.reactions.descent import snapshot_steps
from metabolismgraph.reactions.result import Phase1Result
from metabolismgraph.system.arrays import generator, on_device
from metabolismgraph.system.model import MetabolismModel, NodeFunction
from metabolismgraph.system.model_rates import mean_homeostasis
from metabolismgraph.system.observations import Observations
from metabolismgraph.system.progress import Progress, silent
from metabolismgraph.system.trainable import check_frozen, phase2_parameters
from metabolismgraph.system.units import Units

# Completed share of Phase 2, as reported, before and after the gradient steps.
_REFINED, _LEARNED = 0.1, 0.8
_CHUNK = 100  # gradient steps between two progress reports
# Purposes of random keys, see `Phase2Data.key`.
_WEIGHTS, _BATCHES, _COMPARISON = 2, 3, 4
_COMPARED = 8  # minibatches for the comparison with MLP_node = 0


@dataclasses.dataclass(frozen=True)
class Phase2Result:
    """The result of Phase 2.

    Attributes:
        model: the Phase 1 model with trained MLP_node and embeddings.
        losses: mean squared error in `loss_unit`, per gradient step, then per iteration of L-BFGS.
        loss_unit: "concentration²" for rollouts, "(concentration/time)²" for a residual.
        components: further loss terms and monitored quantities by name, per gradient step.
        node_magnitude: mean absolute output of MLP_node over the data, in concentration/time.
        notes: plain sentences for the user.
        gain: share of the loss of MLP_node = 0 that the trained one removes, on the same minibatches; None if unknown,
            or after a trial.
        snapshots: `training.phase2_snapshots` models on the way by their numbers of gradient steps, for figures.
    """

    model: MetabolismModel
    losses: Float[np.ndarray, " steps_and_iterations"]
    loss_unit: str
    components: Mapping[str, Float[np.ndarray, " steps"]]
    node_magnitude: float
    notes: tuple[str, ...]
    gain: float | None = None
    snapshots: Mapping[int, MetabolismModel] = dataclasses.field(default_factory=dict)


def fit_homeostasis(
    observations: Observations,
    phase1: Phase1Result,
    graph_model: GraphModel,
    training: Training,
    progress: Progress = silent,
    *,
    orthogonalised: Residuals | None = None,
    most_steps: int | None = None,
    begin: Callable[[MetabolismModel, Phase2Data], MetabolismModel] | None = None,
) -> Phase2Result:
    """Train MLP_node and the embeddings; the arrays of Phase 1 do not change by a single bit.

    Args:
        observations: the data to learn from.
        phase1: a checkpoint of any quality.
        graph_model, training: sections of the configuration.
        progress: see `system.progress`.
        orthogonalised: result of `find_orthogonalised` for the same data, checkpoint and settings; None: unknown.
        most_steps: largest number of gradient steps, for a trial; strategies do not see it.
        begin: applied to the model after the start of the plan, with the data in internal units, for a trial.

    Raises:
        InputError: `training.strategies` are inconsistent, or not applicable to these data.
        FirewallError: an array of Phase 1 changed.
    """
    units = Units.of(observations, graph_model)
    given = Phase2Data(observations, phase1, graph_model, training)
    data = given.in_units(units)

    def report(stage: str, done: float, message: str) -> None:
        # Not `progress` itself, by which a strategy could tell a trial from a run.
        progress(stage, done, message)

    plan = make_plan(data, report, orthogonalised)
    if most_steps is not None:
        plan = dataclasses.replace(plan, steps=min(plan.steps, most_steps))
    before = initial_model(data, plan.residuals)
    started = plan.start(before) if begin is None else begin(plan.start(before), data)
    model, losses, components, snapshots = _descend(started, plan, data, progress)
    model, polished = plan.finish(model, report)
    check_frozen(before, model)
    # Not for a trial, which would compile a program for it.
    gain = _gain(model, before, plan.objective, data.key(_COMPARISON)) if most_steps is None else None
    progress("phase 2", 1.0, "")
    losses = np.concatenate([losses, polished])
    if data is not given:
        losses = losses * (units.rate if "time" in plan.objective.unit else units.concentration) ** 2
        model = _in_units_of_data(model, phase1, units)
        snapshots = {step: _in_units_of_data(each, phase1, units) for step, each in snapshots.items()}
    return Phase2Result(
        model=model,
        losses=losses,
        loss_unit=plan.objective.unit,
        components=components,
        node_magnitude=mean_homeostasis(model, observations.concentration),
        notes=plan.notes,
        gain=gain,
        snapshots=snapshots,
    )


def find_orthogonalised(
    observations: Observations,
    phase1: Phase1Result,
    graph_model: GraphModel,
    training: Training,
    progress: Progress = silent,
) -> Residuals | None:
    """The residuals of the strategy `orthogonalised` in internal units; None if it is not in the configuration.

    Trainings with the same data, checkpoint, options of the strategy and settings, of those in `TRAINING_SETTINGS` and
    `MODEL_SETTINGS` of `residuals`, can share them.

    Args:
        observations, phase1, graph_model, training, progress: as for `fit_homeostasis`.

    Raises:
        InputError: too few observations for the network, or an option of the strategy is unknown.
    """
    strategy = orthogonalised_in(training)
    if strategy is None:
        return None
    data = Phase2Data(observations, phase1, graph_model, training)
    return strategy.find_residuals(data.in_units(Units.of(observations, graph_model)), progress)


def _in_units_of_data(model: MetabolismModel, phase1: Phase1Result, units: Units) -> MetabolismModel:
    """A model in internal units with the frozen arrays of the checkpoint.

    A conversion of these to internal units and back could change the last bit, so the originals are used.
    """
    frozen = (on_device(phase1.log_k), phase1.mlp_sub, units.node_function(model.mlp_node))
    converted: MetabolismModel = eqx.tree_at(lambda m: (m.log_k, m.mlp_sub, m.mlp_node), model, frozen)
    return converted


def initial_model(data: Phase2Data, residuals: Residuals) -> MetabolismModel:
    """The Phase 1 model with an MLP_node that is zero, in units of the residuals, and initial embeddings."""
    graph_model, phase1, points = data.graph_model, data.phase1, condense(residuals)
    rng = generator(data.training.seed, _WEIGHTS)
    n, dim = data.observations.network.n_species, graph_model.embedding_dim
    if data.training.embedding_start == "coefficients":
        start = on_device(response_coordinates(residuals, data.moving, dim))
    else:
        start = on_device(rng.normal(size=(n, dim)))
    node = NodeFunction(
        graph_model.hidden_dim_node,
        graph_model.n_layers_node,
        dim,
        rng,
        center=float(np.asarray(points.c).mean()),
        width=max(float(np.asarray(points.c).std()), 1e-9),
        unit=float(points.unit),
    )
    return MetabolismModel(on_device(phase1.log_k), phase1.mlp_sub, node, start, graph_model.aggr_type)


def _gain(model: MetabolismModel, before: MetabolismModel, objective: Objective, key: PRNGKeyArray) -> float | None:
    """The share of the loss before training that a model removes; None if that is not a number."""
    learned, nothing = (float(_mean_loss(each, objective, key)) for each in (model, before))
    gain = 1 - learned / nothing if nothing else math.nan
    return gain if math.isfinite(gain) else None


@eqx.filter_jit
def _mean_loss(model: MetabolismModel, objective: Objective, key: PRNGKeyArray) -> Float[Array, ""]:
    """The mean loss of a model at the end of training, over minibatches."""
    keys = jax.random.split(key, _COMPARED)
    return jnp.mean(jax.lax.map(lambda key: objective(model, key, jnp.asarray(1.0)).value, keys))


class _Carry(NamedTuple):
    """The state of the descent between two gradient steps."""

    parameters: MetabolismModel
    state: optax.OptState


class _Curves(NamedTuple):
    """The recorded quantities of every gradient step."""

    misfit: Float[Array, " steps"]
    components: dict[str, Float[Array, " steps"]]


def _descend(
    model: MetabolismModel, plan: Plan, data: Phase2Data, progress: Progress
) -> tuple[
    MetabolismModel,
    Float[np.ndarray, " steps"],
    dict[str, Float[np.ndarray, " steps"]],
    dict[int, MetabolismModel],
]:
    """Carry out the gradient steps of a plan, in chunks.

    Returns:
        The model, misfit and components per step, and models on the way by their numbers of steps.
    """
    training = data.training
    chunks = -(-plan.steps // _CHUNK)
    steps = chunks * _CHUNK
    rates = training.rate_node_homeostasis, training.rate_embedding_homeostasis
    chosen = optimiser(plan.schedule, steps, *rates, plan.accumulate, len(model.embeddings))
    parameters, constants = eqx.partition(model, phase2_parameters(model))
    carry = _Carry(parameters, _initial_state(parameters, chosen))
    key, curves, snapshots = data.key(_BATCHES), [], {}
    wanted = {-(-step // _CHUNK) * _CHUNK for step in snapshot_steps(steps, training.phase2_snapshots)}
    for chunk in range(chunks):
        shares = (chunk * _CHUNK + np.arange(_CHUNK)) / steps
        now = (on_device(chunk), on_device(shares))
        carry, curve = _steps(carry, constants, plan.objective, plan.penalties, key, now, chosen)
        curves.append(jax.tree.map(np.asarray, curve))
        if (done := (chunk + 1) * _CHUNK) in wanted:
            snapshots[done] = eqx.combine(carry.parameters, constants)
        progress(
            "phase 2",
            _REFINED + (_LEARNED - _REFINED) * (chunk + 1) / chunks,
            f"left {np.sqrt(curves[-1].misfit[-1]):.1e}",
        )
    whole = jax.tree.map(lambda *parts: np.concatenate(parts), *curves)
    return eqx.combine(carry.parameters, constants), whole.misfit, whole.components, snapshots


@eqx.filter_jit
def _initial_state(parameters: MetabolismModel, chosen: optax.GradientTransformation) -> optax.OptState:
    return chosen.init(parameters)


@eqx.filter_jit
def _steps(
    carry: _Carry,
    constants: MetabolismModel,
    objective: Objective,
    penalties: tuple[Penalty, ...],
    key: PRNGKeyArray,
    now: tuple[Int[Array, ""], Float[Array, " steps"]],
    chosen: optax.GradientTransformation,
) -> tuple[_Carry, _Curves]:
    """One compiled chunk of gradient steps; `now` is its number, and the completed share of training at every step."""

    def total(p: MetabolismModel, key: PRNGKeyArray, share: Float[Array, ""]) -> tuple[Float[Array, ""], _Curves]:
        model = eqx.combine(p, constants)
        loss = objective(model, key, share)
        terms = {penalty.name: penalty(model) for penalty in penalties}
        return loss.value + sum(terms.values()), _Curves(loss.misfit, loss.parts | terms)

    def step(carry: _Carry, now: tuple[PRNGKeyArray, Float[Array, ""]]) -> tuple[_Carry, _Curves]:
        gradient, curves = jax.grad(total, has_aux=True)(carry.parameters, *now)
        updates, state = chosen.update(gradient, carry.state, carry.parameters)
        return _Carry(eqx.apply_updates(carry.parameters, updates), state), curves

    chunk, shares = now
    return jax.lax.scan(step, carry, (jax.random.split(jax.random.fold_in(key, chunk), len(shares)), shares))
