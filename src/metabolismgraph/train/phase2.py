"""Phase 2: MLP_node and the embeddings on the residual of the frozen reaction model.

After a clean Phase 1 the residual dc/dt - reactions is homeostasis, and MLP_node is regressed on it
directly (strategy 1 of the requirement; residual decomposition as in Raissi et al. 2019, Brunton et
al. 2016). Two label-free means make the embeddings form types: they start at each species' own
response coefficients, and a functional-similarity loss draws species with equal response curves
together and pushes the others apart (after contrastive learning, Chen et al. 2020).
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
from jaxtyping import Array, Bool, Float

from metabolismgraph.config import GraphModel, Training
from metabolismgraph.errors import FirewallError
from metabolismgraph.integrate import mean_rate
from metabolismgraph.kinetics import Structure
from metabolismgraph.model import MetabolismModel, NodeFunction
from metabolismgraph.observations import Observations
from metabolismgraph.train.minimise import minimise
from metabolismgraph.train.phase1 import Phase1Result
from metabolismgraph.train.progress import Progress, silent

_BINS = 24  # points per species that stand for all its frames
_GRID = 16  # concentrations at which response curves are compared
_REACH = 12  # concentrations at which a needless correction is penalised
_CHUNK = 100  # gradient steps between two progress reports
# Response coefficients that differ by less than this share of the typical one are not pulled apart.
_RESOLUTION = 0.05
_CORRECTION = 1e-3  # weight of the penalty on what MLP_node adds to its straight line
_EMBEDDINGS_WAIT = 0.4  # share of the steps for which the embeddings are held at their start
# Ridges of the output layers that MLP_node starts with, and of those it is polished from. Where all embeddings
# are about equal, the first keeps the response to them small: they could not be told apart by it, but torn apart.
_START_RIDGE = 1e-2
_END_RIDGE = 1e-10
_POLISH_ITERATIONS = 300
_POLISH_TOLERANCE = 1e-2


@dataclasses.dataclass(frozen=True)
class Phase2Result:
    """What Phase 2 found.

    Attributes:
        model: the Phase 1 model with MLP_node and embeddings trained.
        losses: mean square of (MLP_node - residual), in (concentration/time)^2, per gradient step, then per
            iteration of the polish.
        similarity_losses: of the functional-similarity loss, per step.
        node_magnitude: mean absolute output of MLP_node over the data, in concentration/time.
    """

    model: MetabolismModel
    losses: Float[np.ndarray, " steps_and_iterations"]
    similarity_losses: Float[np.ndarray, " steps"]
    node_magnitude: float


class Points(NamedTuple):
    """The residual as a function of concentration, condensed: per species a few bins of equal counts.

    Attributes:
        c: mean concentration of each bin.
        residual: mean residual of each bin, in units of `unit`.
        weight: 1 for a bin whose mean is well known, towards 0 where noise hides the signal.
        unit: rms of the residual, in concentration/time.
        grid: concentrations at which response curves are compared (quantiles of the data).
        reach: concentrations from 0 to the highest of any species, evenly spaced.
    """

    c: Float[Array, "species bins"]
    residual: Float[Array, "species bins"]
    weight: Float[Array, "species bins"]
    unit: Float[Array, ""]
    grid: Float[Array, " grid"]
    reach: Float[Array, " reach"]


def fit_homeostasis(
    observations: Observations,
    phase1: Phase1Result,
    graph_model: GraphModel,
    training: Training,
    progress: Progress = silent,
) -> Phase2Result:
    """Train MLP_node and the embeddings; everything of Phase 1 stays as it is, bit for bit.

    Raises:
        FirewallError: an array of Phase 1 changed.
    """
    before = initial_model(observations, phase1, graph_model, training)
    points = condense(observations, before, phase1)
    model = eqx.tree_at(
        lambda m: (m.mlp_node.center, m.mlp_node.width, m.mlp_node.unit),
        before,
        (jnp.mean(points.c), jnp.maximum(jnp.std(points.c), 1e-9), points.unit),
    )
    model = solve_outputs(model, points, jnp.asarray(_START_RIDGE))
    model, losses, similarity = _descend(model, points, training, progress)
    model, polished = _polish(model, points, progress)
    check_frozen(before, model)
    misfit = float(regress(model, points).misfit)
    progress("phase 2", 1.0, "")
    response = eqx.filter_jit(MetabolismModel.homeostasis)(model, jnp.asarray(observations.concentration))
    return Phase2Result(
        model=model,
        losses=np.concatenate([losses, polished, [misfit]]) * float(points.unit) ** 2,
        similarity_losses=similarity,
        node_magnitude=float(np.mean(np.abs(np.asarray(response)))),
    )


def initial_model(
    observations: Observations, phase1: Phase1Result, graph_model: GraphModel, training: Training
) -> MetabolismModel:
    """The Phase 1 model with an MLP_node that is zero and embeddings at their start."""
    node_key, embedding_key = jax.random.split(jax.random.fold_in(jax.random.key(training.seed), 2))
    n, dim = observations.network.n_species, graph_model.embedding_dim
    if training.embedding_start == "coefficients":
        start = jnp.asarray(response_coordinates(phase1, ~observations.network.fixed, dim))
    else:
        start = jax.random.normal(embedding_key, (n, dim))
    return MetabolismModel(
        log_k=jnp.asarray(phase1.log_k),
        mlp_sub=phase1.mlp_sub,
        mlp_node=NodeFunction(graph_model.hidden_dim_node, graph_model.n_layers_node, dim, node_key),
        embeddings=start,
        aggregation=graph_model.aggr_type,
    )


def response_coordinates(
    phase1: Phase1Result, moving: Bool[np.ndarray, " species"], dim: int
) -> Float[np.ndarray, "species dim"]:
    """Slope and offset of every species' own nuisance homeostasis, centred and scaled to about [-1, 1].

    The scale is half the 5-95 % range, but never so fine that uncertainty or differences of a few
    per cent fill it: types that are one would be torn apart. Further dimensions start at zero.
    """
    coordinates = np.zeros((len(moving), max(dim, 2)))
    for axis, (value, error) in enumerate(((phase1.slope, phase1.slope_error), (phase1.offset, phase1.offset_error))):
        center = np.median(value[moving])
        low, high = np.quantile(value[moving], [0.05, 0.95])
        scale = max(
            (high - low) / 2, 3 * np.median(error[moving]), _RESOLUTION * np.median(np.abs(value[moving])), 1e-30
        )
        coordinates[moving, axis] = np.clip((value[moving] - center) / scale, -1.5, 1.5)
    return coordinates[:, :dim]


def condense(observations: Observations, model: MetabolismModel, phase1: Phase1Result) -> Points:
    """Average the residual of the frozen model over bins of concentration, species by species.

    Within a narrow bin homeostasis is a straight line, and the mean of a straight line is its value
    at the mean concentration: nothing is lost, and noise averages out.
    """
    transitions = observations.transitions()
    structure = Structure.of(observations.network)
    explained = mean_rate(
        eqx.Partial(model.reactions, structure=structure),
        jnp.asarray(transitions.start),
        jnp.asarray(transitions.end),
        trapezoid=phase1.trapezoid,
    )
    residual = transitions.derivative - np.asarray(explained)
    at = (transitions.start + transitions.end) / 2 if phase1.trapezoid else transitions.start
    keep = phase1.keep & ~observations.network.fixed
    n = observations.network.n_species
    c, mean, count = np.zeros((n, _BINS)), np.zeros((n, _BINS)), np.zeros((n, _BINS))
    for i in range(n):
        rows = np.flatnonzero(keep[:, i])
        rows = rows[np.argsort(at[rows, i], kind="stable")]
        for b, part in enumerate(np.array_split(rows, _BINS)):
            if part.size:
                c[i, b] = at[part, i].mean()
                mean[i, b] = residual[part, i].mean()
                count[i, b] = part.size
    filled = count > 0
    unit = float(np.sqrt(np.mean(mean[filled] ** 2))) if filled.any() else 1.0
    unit = max(unit, 1e-30)
    noise = phase1.noise[:, None] ** 2 / np.maximum(count, 1)
    return Points(
        c=jnp.asarray(c),
        residual=jnp.asarray(mean / unit),
        weight=jnp.asarray(np.where(filled, 1.0 / (1.0 + noise / unit**2), 0.0)),
        unit=jnp.asarray(unit),
        grid=jnp.asarray(np.quantile(at[keep], (np.arange(_GRID) + 0.5) / _GRID)),
        reach=jnp.linspace(0.0, at[keep].max(), _REACH),
    )


def check_frozen(before: MetabolismModel, after: MetabolismModel) -> None:
    """Compare every array of Phase 1, bit for bit.

    Raises:
        FirewallError: one differs.
    """
    for name in ("log_k", "mlp_sub"):
        old, new = (jax.tree.leaves(eqx.filter(getattr(m, name), eqx.is_array)) for m in (before, after))
        if not all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(old, new, strict=True)):
            raise FirewallError(f"Phase 2 changed {name}, which Phase 1 had frozen; its result is void")


class Losses(NamedTuple):
    """The two parts of the Phase 2 loss, in units of the residual's mean square."""

    regression: Float[Array, ""]
    similarity: Float[Array, ""]


class Regression(NamedTuple):
    """How MLP_node fits the residual, in units of the residual's mean square.

    Attributes:
        misfit: weighted mean square of MLP_node minus residual.
        correction: mean square of what MLP_node adds to its straight line, at `Points.reach` for every
            species. Penalised a little, so that it is there only where data ask for it: line and
            network could otherwise share a trend in the data and part ways beyond them.
    """

    misfit: Float[Array, ""]
    correction: Float[Array, ""]

    @property
    def loss(self) -> Float[Array, ""]:
        return self.misfit + _CORRECTION * self.correction


def regress(model: MetabolismModel, points: Points) -> Regression:
    """Compare MLP_node with the residual."""
    n = points.c.shape[1]
    c = jnp.concatenate([points.c, jnp.broadcast_to(points.reach, (len(points.c), _REACH))], axis=1)
    a = jnp.broadcast_to(model.embeddings[:, None], (*c.shape, model.embeddings.shape[-1]))
    line, correction = (part / points.unit for part in model.mlp_node.parts(c, a))
    error = (line + correction)[:, :n] - points.residual
    misfit = jnp.sum(points.weight * error**2) / jnp.sum(points.weight)
    return Regression(misfit, jnp.mean(correction[:, n:] ** 2))


def similarity_loss(model: MetabolismModel, points: Points) -> Float[Array, ""]:
    """Pull embeddings of species with equal response curves together, push others to distance one.

    Weights w = exp(-(|R_i - R_j| / h)^2 / 2), h a quarter of the median distance of two curves but
    not below what counts as equal; no gradient passes through w.
    """
    curves = _responses(model, jnp.broadcast_to(points.grid, (len(points.c), _GRID))) / points.unit
    a, n = model.embeddings, len(points.c)
    informed = jnp.sum(points.weight, axis=1) > 0
    pairs = (informed[:, None] & informed[None, :] & ~jnp.eye(n, dtype=bool)).astype(a.dtype)
    distance = jnp.sqrt(_squared_distances(curves))
    typical = jnp.sqrt(jnp.mean(jnp.sum(curves**2, axis=1)))
    width = jnp.maximum(_masked_median(distance, pairs) / 4, _RESOLUTION / 2 * typical) + 1e-12
    w = jax.lax.stop_gradient(jnp.exp(-0.5 * (distance / width) ** 2))
    apart = _squared_distances(a)
    push = jax.nn.relu(1.0 - jnp.sqrt(apart + 1e-12)) ** 2
    return jnp.sum(pairs * (w * apart + (1 - w) * push)) / jnp.maximum(jnp.sum(pairs), 1.0)


def _responses(model: MetabolismModel, c: Float[Array, "species points"]) -> Float[Array, "species points"]:
    return model.homeostasis(c.T).T


def _squared_distances(x: Float[Array, "n dim"]) -> Float[Array, "n n"]:
    return jnp.sum((x[:, None] - x[None]) ** 2, axis=-1)


def _masked_median(values: Float[Array, "n n"], mask: Float[Array, "n n"]) -> Float[Array, ""]:
    return jnp.nan_to_num(jnp.nanmedian(jnp.where(mask > 0, values, jnp.nan)))


def _trainable(model: MetabolismModel) -> MetabolismModel:
    """A mask of what Phase 2 moves: MLP_node, but not its standardisation, and the embeddings."""
    mask = jax.tree.map(lambda _: False, model)
    node = jax.tree.map(lambda _: True, model.mlp_node)
    node = eqx.tree_at(lambda f: (f.center, f.width, f.unit), node, (False, False, False))
    trainable: MetabolismModel = eqx.tree_at(lambda m: (m.mlp_node, m.embeddings), mask, (node, True))
    return trainable


class _Carry(NamedTuple):
    """What one gradient step hands to the next."""

    parameters: MetabolismModel
    state: optax.OptState


def _descend(
    model: MetabolismModel, points: Points, training: Training, progress: Progress
) -> tuple[MetabolismModel, Float[np.ndarray, " steps"], Float[np.ndarray, " steps"]]:
    """Adam on both losses with a one-cycle schedule (Smith & Topin 2019)."""
    chunks = -(-training.phase2_steps // _CHUNK)
    optimiser = _optimiser(chunks * _CHUNK, training.rate_node_homeostasis, training.rate_embedding_homeostasis)
    parameters, constants = eqx.partition(model, _trainable(model))
    carry = _Carry(parameters, optimiser.init(parameters))
    regression, similarity = [], []
    for chunk in range(chunks):
        carry, parts = _steps(carry, constants, points, jnp.asarray(training.coeff_similarity), optimiser)
        regression.append(np.asarray(parts.regression))
        similarity.append(np.asarray(parts.similarity))
        progress(
            "phase 2", 0.8 * (chunk + 1) / chunks, f"unexplained {np.sqrt(regression[-1][-1]):.1e} of the residual"
        )
    return eqx.combine(carry.parameters, constants), np.concatenate(regression), np.concatenate(similarity)


@eqx.filter_jit
def _steps(
    carry: _Carry,
    constants: MetabolismModel,
    points: Points,
    coeff_similarity: Float[Array, ""],
    optimiser: optax.GradientTransformation,
) -> tuple[_Carry, Losses]:
    def loss(p: MetabolismModel) -> tuple[Float[Array, ""], Losses]:
        m = eqx.combine(p, constants)
        regression, similarity = regress(m, points), similarity_loss(m, points)
        return regression.loss + coeff_similarity * similarity, Losses(regression.misfit, similarity)

    def step(carry: _Carry, _: None) -> tuple[_Carry, Losses]:
        gradient, parts = jax.grad(loss, has_aux=True)(carry.parameters)
        updates, state = optimiser.update(gradient, carry.state)
        return _Carry(eqx.apply_updates(carry.parameters, updates), state), parts

    return jax.lax.scan(step, carry, None, length=_CHUNK)


@functools.lru_cache(maxsize=8)
def _optimiser(steps: int, rate_node: float, rate_embedding: float) -> optax.GradientTransformation:
    """Adam with the two learning rates of Phase 2 as the peaks of their schedules.

    MLP_node learns first: while it is still wrong, its gradient would carry embeddings out of their
    types, to places where it then explains each of them by itself. The same arguments give the same
    object, so that nothing is compiled again for it.
    """
    wait = int(_EMBEDDINGS_WAIT * steps)
    late = optax.join_schedules(
        [optax.constant_schedule(0.0), optax.cosine_onecycle_schedule(steps - wait, rate_embedding)], [wait]
    )
    return optax.partition(
        {
            "node": optax.adam(optax.cosine_onecycle_schedule(steps, rate_node)),
            "embedding": optax.adam(late),
        },
        lambda parameters: eqx.tree_at(lambda m: m.embeddings, jax.tree.map(lambda _: "node", parameters), "embedding"),
    )


def _polish(
    model: MetabolismModel, points: Points, progress: Progress
) -> tuple[MetabolismModel, Float[np.ndarray, " iterations"]]:
    """MLP_node alone, embeddings held: its output layers solved exactly, then L-BFGS on all of it."""
    mask = eqx.tree_at(lambda m: m.embeddings, _trainable(model), replace=False)
    parameters, constants = eqx.partition(solve_outputs(model, points, jnp.asarray(_END_RIDGE)), mask)
    found = minimise(
        lambda p: _polish_value_and_gradient(p, constants, points),
        parameters,
        max_iterations=_POLISH_ITERATIONS,
        tolerance=_POLISH_TOLERANCE,
        after_iteration=lambda i, loss: progress(
            "phase 2", 0.8 + 0.2 * i / _POLISH_ITERATIONS, f"unexplained {np.exp(loss / 2):.1e} of the residual"
        ),
    )
    return eqx.combine(found.parameters, constants), np.exp(np.array(found.losses))


@eqx.filter_jit
def solve_outputs(model: MetabolismModel, points: Points, ridge: Float[Array, ""]) -> MetabolismModel:
    """The best straight line and last layer of MLP_node, for embeddings and hidden layers as they are.

    `Regression.loss` is a quadratic in both, so its minimum is one linear solve: where a line
    explains the residual, the correction is zero at once, which gradient steps only creep up to.

    Args:
        ridge: added to the normal matrix, whose rows have total weight one.
    """
    lines, correction = _features(model, points.c)
    features = jnp.concatenate([lines, correction], axis=-1)
    weight = points.weight.reshape(-1, 1) / jnp.sum(points.weight)
    matrix = features.T @ (weight * features)
    _, beyond = _features(model, jnp.broadcast_to(points.reach, (len(points.c), _REACH)))
    start = lines.shape[-1]
    matrix = matrix.at[start:, start:].add(_CORRECTION * beyond.T @ beyond / len(beyond))
    matrix = matrix + ridge * jnp.eye(len(matrix))
    solution = jnp.linalg.solve(matrix, features.T @ (weight[:, 0] * points.residual.reshape(-1)))
    slope, offset = jnp.split(solution[:start], 2)
    solved: MetabolismModel = eqx.tree_at(
        _outputs,
        model,
        (slope, offset, solution[start:-1, None], solution[-1:]),
    )
    return solved


def _outputs(model: MetabolismModel) -> tuple[object, ...]:
    """What MLP_node is linear in."""
    node = model.mlp_node
    return node.slope, node.offset, node.perceptron.weights[-1], node.perceptron.biases[-1]


def _features(
    model: MetabolismModel, c: Float[Array, "species points"]
) -> tuple[Float[Array, "rows lines"], Float[Array, "rows units"]]:
    """What slope and offset, and what the last layer of the perceptron, are multiplied with."""
    node = model.mlp_node
    a = jnp.broadcast_to(model.embeddings[:, None], (*c.shape, model.embeddings.shape[-1]))
    z = ((c - node.center) / node.width)[..., None]
    affine = jnp.concatenate([a, jnp.ones_like(z)], axis=-1)
    hidden = node.perceptron.hidden(jnp.concatenate([z, a], axis=-1))
    lines = jnp.concatenate([affine * z, affine], axis=-1)
    correction = jnp.concatenate([hidden, jnp.ones_like(z)], axis=-1)
    return lines.reshape(-1, lines.shape[-1]), correction.reshape(-1, correction.shape[-1])


@eqx.filter_jit
def _polish_value_and_gradient(
    parameters: MetabolismModel, constants: MetabolismModel, points: Points
) -> tuple[Float[Array, ""], MetabolismModel]:
    def log_loss(p: MetabolismModel) -> Float[Array, ""]:
        return jnp.log(regress(eqx.combine(p, constants), points).loss + 1e-30)

    return jax.value_and_grad(log_loss)(parameters)
