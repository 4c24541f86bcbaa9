"""Phase 1 by gradient descent, as published (Allier 2026): all parameters together, by Adam on random minibatches.

Slower and less accurate than `projection`. It is for comparison with published results, and provides
imperfect checkpoints for tests of Phase 2. MLP_node and the embeddings are part of the model and hence
trained too. They are the result of joint training; otherwise Phase 2 initialises its own.
"""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from metabolismgraph.config import GraphModel, Training
from metabolismgraph.errors import InputError
from metabolismgraph.reactions.data import Phase1Data
from metabolismgraph.reactions.descent import Coefficients, advance, begin, learning_rates, snapshot_steps
from metabolismgraph.reactions.identifiability import analyse
from metabolismgraph.reactions.minibatches import Batches
from metabolismgraph.reactions.notes import data_notes
from metabolismgraph.reactions.result import Phase1Result
from metabolismgraph.reactions.uncertainty import noise_variance
from metabolismgraph.reactions.verdict import Estimates, judge, promised_by_identify
from metabolismgraph.system.arrays import generator, on_device, random_key
from metabolismgraph.system.derivative_rules import Rule
from metabolismgraph.system.kinetics import mass_action
from metabolismgraph.system.model import AnySubstrateFunction, MetabolismModel, NodeFunction, RawSubstrateFunction
from metabolismgraph.system.observations import Observations
from metabolismgraph.system.progress import Progress, silent

_WEIGHTS, _BATCHES = 3, 4  # purposes of random numbers
_CHUNK = 500  # gradient steps between two progress reports
# Converged if the mean misfit of the last tenth of steps is less than this share below that of the tenth before.
_STILL_FALLING = 0.1

Tree = TypeVar("Tree")


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The model after some gradient steps, in double precision and with f(1, 1) = 1.

    Attributes:
        step: number of gradient steps so far.
        log_k: log10 of the rate constants, in concentration^(1-order)/time.
        mlp_sub: the substrate function.
        losses: log of the unexplained share of the sum of squares of dc/dt, mean over the batches of each chunk
            of steps so far.
        alpha: f(1, 1) before it was divided out.
    """

    step: int
    log_k: Float[np.ndarray, " reactions"]
    mlp_sub: AnySubstrateFunction
    losses: Float[np.ndarray, " pieces"]
    alpha: float = 1.0


@dataclasses.dataclass(frozen=True)
class GradientFit:
    """The end of a descent.

    Attributes:
        result: of Phase 1.
        model: the whole model, with the MLP_node and the embeddings that were trained beside it.
        steps: number of gradient steps in each piece of the loss curve.
        misfit: mean square error of dc/dt in each piece, in (concentration/time)^2.
        snapshots: `training.phase1_snapshots` models on the way, the last one after the last step.
    """

    result: Phase1Result
    model: MetabolismModel
    steps: Int[np.ndarray, " pieces"]
    misfit: Float[np.ndarray, " pieces"]
    snapshots: tuple[Snapshot, ...]


def descend(
    observations: Observations, graph_model: GraphModel, training: Training, progress: Progress = silent
) -> GradientFit:
    """Take n_epochs * steps_per_epoch(n_frames) Adam steps.

    The initial log_k is the middle of training.log_k_prior or, without a prior, the common value for which mass
    action gives the observed rms dc/dt.

    Raises:
        InputError: the method does not support the configuration, or the loss is not a number.
    """
    data = _data(observations, graph_model, training)
    batches: Batches = to_single_precision(Batches.of(data))
    model: MetabolismModel = to_single_precision(initial_model(data))
    carry, constants = begin(model)
    rates = to_single_precision(learning_rates(model, training))
    coefficients = to_single_precision(Coefficients.of(training))
    key = random_key(training.seed, _BATCHES)
    total = training.n_epochs * training.steps_per_epoch(observations.n_frames)
    wanted = snapshot_steps(total, training.phase1_snapshots)
    variance = float(np.mean(data.transitions.derivative[:, ~data.fixed] ** 2))
    losses: list[float] = []
    reached: list[int] = []
    snapshots: list[Snapshot] = []
    here = 0
    # One compiled call per chunk: long enough to amortise the overhead of a call, short enough for progress reports.
    for there in sorted({*range(_CHUNK, total, _CHUNK), *wanted, total} - {0}):
        carry, misfit = advance(carry, constants, rates, batches, coefficients, key, on_device(np.int32(there - here)))
        here = there
        reached.append(here)
        losses.append(float(np.log(max(float(misfit), 1e-300) / variance)))
        if not np.isfinite(losses[-1]):
            raise InputError(f"training: the loss is not finite after {here} gradient steps; lower the learning rates")
        progress("phase 1", here / total, f"unexplained {np.exp(losses[-1] / 2):.1e} of dc/dt")
        if here in wanted:
            snapshots.append(_snapshot(here, carry.parameters, constants, data, losses))
    end = _snapshot(here, carry.parameters, constants, data, losses)
    return GradientFit(
        result=conclude(end, observations, graph_model, training),
        model=dataclasses.replace(
            to_double_precision(eqx.combine(carry.parameters, constants)),
            log_k=on_device(end.log_k),
            mlp_sub=end.mlp_sub,
        ),
        steps=np.diff(np.array(reached, dtype=np.int64), prepend=0),
        misfit=variance * np.exp(losses),
        snapshots=tuple(snapshots),
    )


def conclude(
    snapshot: Snapshot, observations: Observations, graph_model: GraphModel, training: Training
) -> Phase1Result:
    """The result of Phase 1 for a given model.

    Homeostasis is the least-squares line of the residual of each species. Standard errors treat the
    residual as noise; they state the accuracy with which the data determine k for this f.
    """
    data = _data(observations, graph_model, training)
    keep, k = data.usable, 10.0**snapshot.log_k
    model = data.linear_model(snapshot.mlp_sub, keep)
    left = model.given(k).solve()
    share = left.misfit / np.sum(model.weight * model.derivative**2)
    variance = noise_variance(left.residual, keep, data.signal)
    # With weights 1/variance, covariances are the inverse of normal matrices (Seber & Wild 1989, chapter 2).
    model = data.linear_model(snapshot.mlp_sub, keep, 1.0 / variance)
    fitted, homeostasis = model.solve(), model.given(k).solve()
    promised, apart = promised_by_identify(observations, graph_model, training)
    identifiability = promised.joined(analyse(fitted.matrix, training.identifiability_tolerance))
    known, nothing = identifiability.identifiable, np.full(len(k), np.nan)
    # Only identifiability is judged here. Errors of k due to an imperfect f are unknown.
    verdict = judge(promised, apart, Estimates(k, 0 * k, known, np.zeros_like(known), nothing))
    return Phase1Result(
        mlp_sub=snapshot.mlp_sub,
        log_k=snapshot.log_k,
        log_k_error=np.where(known, np.sqrt(fitted.matrix.variance()) / (k * np.log(10.0)), np.inf),
        identifiability=identifiability,
        reasons=verdict.reason,
        upper=verdict.upper,
        mass_action=np.zeros(len(k), dtype=bool),
        law_fails=False,
        **data.lines_with_errors(homeostasis.theta, homeostasis.theta_covariance),
        noise=np.sqrt(variance),
        keep=keep,
        losses=np.append(snapshot.losses, np.log(max(share, 1e-300))),
        converged=has_settled(snapshot.losses),
        rule=data.rule,
        notes=(*data_notes(data, keep), *_descent_notes(snapshot)),
        alpha=snapshot.alpha,
    )


def has_settled(losses: Float[np.ndarray, " pieces"]) -> bool:
    """Whether the misfit of the last tenth of the descent is less than 10 % below that of the tenth before."""
    tenth = len(losses) // 10
    if tenth == 0:
        return False
    shares = np.exp(losses)
    return bool(shares[-tenth:].mean() > (1 - _STILL_FALLING) * shares[-2 * tenth : -tenth].mean())


def _descent_notes(snapshot: Snapshot) -> list[str]:
    if snapshot.step == 0 or has_settled(snapshot.losses):  # without steps: it was trained elsewhere
        return []
    return [
        f"the loss of Phase 1 was still decreasing after {snapshot.step} gradient steps; raise training.n_epochs, "
        "or use training.phase1_method: projection"
    ]


def _data(observations: Observations, graph_model: GraphModel, training: Training) -> Phase1Data:
    if training.derivative == "cubic":
        raise InputError(
            "training.derivative is cubic, but gradient Phase 1 supports only forward and trapezoid; set "
            "training.phase1_method to projection, or the rule to trapezoid"
        )
    rule: Rule = "trapezoid" if training.derivative == "trapezoid" else "forward"
    return Phase1Data(observations, graph_model, training, rule=rule)


def initial_model(data: Phase1Data) -> MetabolismModel:
    """A model with random networks and embeddings, and equal rate constants."""
    graph_model, c = data.graph_model, data.transitions.start
    rng = generator(data.training.seed, _WEIGHTS)
    return MetabolismModel(
        log_k=on_device(np.full(data.structure.n_reactions, _initial_log_k(data))),
        mlp_sub=data.initial_function(),
        mlp_node=NodeFunction(
            graph_model.hidden_dim_node,
            graph_model.n_layers_node,
            graph_model.embedding_dim,
            rng,
            center=float(c.mean()),
            width=max(float(c.std()), 1e-6),
        ),
        embeddings=on_device(rng.normal(size=(c.shape[1], graph_model.embedding_dim))),
        aggregation=graph_model.aggr_type,
    )


def _initial_log_k(data: Phase1Data) -> float:
    prior = data.training.log_k_prior
    if prior is not None:
        return sum(prior) / 2
    # dc/dt is proportional to the common k, so k^2 is the ratio of mean squares: observed over that for k = 1.
    rates = data.tabulated_reactions(mass_action)(data.transitions.start)
    squares, observed = (np.mean(x[:, ~data.fixed] ** 2) for x in (rates, data.transitions.derivative))
    return float(np.log10(observed / squares) / 2) if squares > 0 else 0.0


def _snapshot(
    step: int, parameters: MetabolismModel, constants: MetabolismModel, data: Phase1Data, losses: list[float]
) -> Snapshot:
    model: MetabolismModel = to_double_precision(eqx.combine(parameters, constants))
    log_k, mlp_sub, log_alpha = model.log_k, model.mlp_sub, jnp.zeros(())
    if isinstance(mlp_sub, RawSubstrateFunction):
        # f(1, 1) = alpha is not fixed by construction here. f / alpha and k alpha^n are an equivalent model.
        log_alpha = mlp_sub(jnp.zeros(()), jnp.ones(()))
        mlp_sub = eqx.tree_at(lambda f: f.gauge, mlp_sub, mlp_sub.gauge + log_alpha)
        log_k = log_k + _factors(data) * log_alpha / np.log(10.0)
    return Snapshot(step, np.asarray(log_k), mlp_sub, np.array(losses), float(jnp.exp(log_alpha)))


def _factors(data: Phase1Data) -> Float[np.ndarray, " reactions"]:
    """The power of f in the flux of each reaction: the number of substrates, or one for a sum of them."""
    n = np.sum(np.asarray(data.structure.substrates) < data.structure.pair_species.size, axis=1)
    return np.asarray(n if data.graph_model.aggr_type == "mul" else np.minimum(n, 1), dtype=np.float64)


def to_single_precision(tree: Tree) -> Tree:
    """The same pytree with floating-point arrays as float32."""
    return _cast(tree, jnp.float32)


def to_double_precision(tree: Tree) -> Tree:
    """The same pytree with floating-point arrays as float64."""
    return _cast(tree, jnp.float64)


def _cast(tree: Tree, kind: type) -> Tree:
    """The same pytree with floating-point arrays of another type."""
    cast: Tree = jax.tree.map(lambda a: a.astype(kind) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree)
    return cast
