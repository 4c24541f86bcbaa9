"""Regression of MLP_node on a residual, averaged over bins of concentration per species.

For given embeddings and hidden layers, the loss is quadratic in the straight line and in the
last layer of MLP_node. Both are solved for exactly, before and after the gradient steps.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from metabolismgraph.homeostasis.residuals import Residuals
from metabolismgraph.homeostasis.training_plan import Loss, Objective
from metabolismgraph.system.arrays import on_device
from metabolismgraph.system.minimise import compiled, minimise
from metabolismgraph.system.model import MetabolismModel, NodeFunction
from metabolismgraph.system.progress import Progress
from metabolismgraph.system.trainable import phase2_parameters

_BINS = 24  # bins of concentration per species
# Species per gradient step, and for the polish: of a larger network, a random part. MLP_node is the same for all.
_PER_STEP, _POLISHED = 1024, 2048
_REACH = 12  # concentrations at which the correction is penalised
_CORRECTION = 1e-3  # weight of the penalty on the correction of MLP_node to its straight line
# Ridges of the output layers, before and after the gradient steps. If all embeddings are nearly equal, output layers
# without a ridge would respond strongly to small random differences, and the gradient would enlarge these.
_START_RIDGE = 1e-2
_END_RIDGE = 1e-10
_POLISH_ITERATIONS = 300
_POLISH_TOLERANCE = 1e-2


class Points(NamedTuple):
    """The residual as a function of concentration: means over bins of equal counts per species.

    Attributes:
        c: mean concentration of each bin.
        residual: mean residual of each bin, in units of `unit`.
        weight: 1/(1 + (standard error of the mean / `unit`)^2): 1 for an accurate mean, close to 0 for a noisy one.
        unit: rms of the mean residuals, in concentration/time.
        reach: equally spaced concentrations from 0 to the highest one of all species.
    """

    c: Float[Array, "species bins"]
    residual: Float[Array, "species bins"]
    weight: Float[Array, "species bins"]
    unit: Float[Array, ""]
    reach: Float[Array, " reach"]


def condense(residuals: Residuals) -> Points:
    """Average the residual over bins of concentration, for each species.

    Within a narrow bin homeostasis is nearly a straight line, and the mean of a straight line is its value
    at the mean concentration. The mean residual is therefore unbiased, with less noise than a frame. One gradient
    step then needs 24 points per species instead of thousands of frames.
    """
    at, residual, keep = residuals.at, residuals.residual, residuals.keep
    n = at.shape[1]
    c, mean, count = np.zeros((n, _BINS)), np.zeros((n, _BINS)), np.zeros((n, _BINS))
    for i in range(n):
        rows = np.flatnonzero(keep[:, i])
        # Equal counts instead of equal widths: every bin has the same noise, and none is empty.
        rows = rows[np.argsort(at[rows, i], kind="stable")]
        for b, part in enumerate(np.array_split(rows, _BINS)):
            if part.size:
                c[i, b] = at[part, i].mean()
                mean[i, b] = residual[part, i].mean()
                count[i, b] = part.size
    filled = count > 0
    unit = float(np.sqrt(np.mean(mean[filled] ** 2))) if filled.any() else 1.0
    unit = max(unit, 1e-30)
    # Variance of the mean. Added to unit^2, it gives weights close to 1/variance for noisy bins that stay finite for
    # exact ones.
    noise = residuals.noise[:, None] ** 2 / np.maximum(count, 1)
    return Points(
        c=on_device(c),
        residual=on_device(mean / unit),
        weight=on_device(np.where(filled, 1.0 / (1.0 + noise / unit**2), 0.0)),
        unit=on_device(unit),
        reach=on_device(np.linspace(0.0, at[keep].max(), _REACH)),
    )


class Regress(Objective):
    """Regression of MLP_node on the binned residual, of all species or of a random part of many.

    In single precision, which is twice as fast: gradient steps are small, and the polish is in double precision.
    """

    points: Points

    @property
    def unit(self) -> str:
        return "(concentration/time)²"

    def __call__(self, model: MetabolismModel, key: PRNGKeyArray, share: Float[Array, ""]) -> Loss:
        del share
        n = len(self.points.c)
        compared = model, self.points
        if n > _PER_STEP:
            compared = _part(model, self.points, jax.random.permutation(key, n)[:_PER_STEP])
        # Without "highest", a GPU multiplies with three decimal digits.
        with jax.default_matmul_precision("highest"):
            found = regress(*_in_single_precision(*compared))
        loss, misfit = (x.astype(self.points.unit.dtype) for x in (found.loss, found.misfit))
        return Loss(loss, misfit * self.points.unit**2, {})


class Regression(NamedTuple):
    """Misfit of MLP_node and size of its correction, in units of `Points.unit` squared.

    Attributes:
        misfit: weighted mean square of MLP_node minus residual.
        correction: mean square of the correction of MLP_node to its straight line, at `Points.reach` for every
            species. A small penalty makes the correction zero unless the data require it. Without it, line and
            network could share a trend over the data, and the line alone would extrapolate a wrong slope.
    """

    misfit: Float[Array, ""]
    correction: Float[Array, ""]

    @property
    def loss(self) -> Float[Array, ""]:
        """Misfit with penalty."""
        return self.misfit + _CORRECTION * self.correction


def regress(model: MetabolismModel, points: Points) -> Regression:
    """Compare MLP_node with the binned residual."""
    n = points.c.shape[1]
    c = jnp.concatenate([points.c, jnp.broadcast_to(points.reach, (len(points.c), _REACH))], axis=1)
    a = jnp.broadcast_to(model.embeddings[:, None], (*c.shape, model.embeddings.shape[-1]))
    line, correction = (part / points.unit for part in model.mlp_node.parts(c, a))
    error = (line + correction)[:, :n] - points.residual
    misfit = jnp.sum(points.weight * error**2) / jnp.sum(points.weight)
    return Regression(misfit, jnp.mean(correction[:, n:] ** 2))


def _in_single_precision(model: MetabolismModel, points: Points) -> tuple[MetabolismModel, Points]:
    """The same comparison with standardised concentrations and residuals, as numbers of 32 bits.

    Concentrations are standardised first: of those that differ little, nothing would be left in 32 bits.
    """
    node = model.mlp_node
    standard = jnp.zeros(()), jnp.ones(()), node.unit / points.unit
    model = eqx.tree_at(lambda m: (m.mlp_node.center, m.mlp_node.width, m.mlp_node.unit), model, standard)
    c, reach = ((x - node.center) / node.width for x in (points.c, points.reach))
    points = points._replace(c=c, reach=reach, unit=jnp.ones(()))
    single: tuple[MetabolismModel, Points] = jax.tree.map(
        lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, (model, points)
    )
    return single


def _part(model: MetabolismModel, points: Points, species: Int[Array, " part"]) -> tuple[MetabolismModel, Points]:
    """Some species of a model, and their points."""
    of_species = {name: getattr(points, name)[species] for name in ("c", "residual", "weight")}
    return dataclasses.replace(model, embeddings=model.embeddings[species]), points._replace(**of_species)


def polish(
    model: MetabolismModel, progress: Progress, points: Points
) -> tuple[MetabolismModel, Float[np.ndarray, " iterations"]]:
    """Solve for the output layers of MLP_node, then minimise over all of its parameters by L-BFGS.

    The embeddings do not change, since penalties on them, such as the similarity loss, are not part of this loss.

    Returns:
        The model, and the mean squared error per iteration, in (concentration/time)^2.
    """
    mask = eqx.tree_at(lambda m: m.embeddings, phase2_parameters(model), replace=False)
    start, few = solve_outputs(model, points, on_device(_END_RIDGE)), points
    n = len(points.c)
    if n > _POLISHED:
        chosen = on_device(np.sort(np.random.default_rng(0).permutation(n)[:_POLISHED]))
        start, few = _part(start, points, chosen)
    found = minimise(
        compiled(_log_loss, few),
        start,
        mask,
        max_iterations=_POLISH_ITERATIONS,
        tolerance=_POLISH_TOLERANCE,
        after_iteration=lambda i, loss: progress(
            "phase 2", 0.8 + 0.2 * i / _POLISH_ITERATIONS, f"unexplained {np.exp(loss / 2):.1e} of the residual"
        ),
    )
    polished = dataclasses.replace(found.parameters, embeddings=model.embeddings)
    losses = np.append(np.exp(np.array(found.losses)), float(_misfit(polished, points)))
    return polished, losses * float(points.unit) ** 2


@eqx.filter_jit
def _misfit(model: MetabolismModel, points: Points) -> Float[Array, ""]:
    return regress(model, points).misfit


def _log_loss(model: MetabolismModel, points: Points) -> Float[Array, ""]:
    return jnp.log(regress(model, points).loss + 1e-30)


def start_from_line(model: MetabolismModel, points: Points) -> MetabolismModel:
    """The initial model: output layers by least squares, with a ridge that limits the response to embeddings."""
    return solve_outputs(model, points, on_device(_START_RIDGE))


@eqx.filter_jit
def solve_outputs(model: MetabolismModel, points: Points, ridge: Float[Array, ""]) -> MetabolismModel:
    """The least-squares straight line and last layer of MLP_node, for given embeddings and hidden layers.

    `Regression.loss` is quadratic in both, so its minimum is the solution of one linear system. If a line
    explains the residual, the correction is zero immediately; gradient steps would approach that slowly.

    Args:
        ridge: added to the diagonal of the normal matrix, for rows with a total weight of one.
    """
    # Minimise sum w (F x - r)^2 + correction penalty |G x_correction|^2 / rows + ridge |x|^2, with F the features at
    # the points, G those at `reach`, and x the coefficients: (F'WF + penalty + ridge) x = F'W r.
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
    node: NodeFunction = eqx.tree_at(
        lambda f: (f.slope, f.offset, f.perceptron.weights[-1], f.perceptron.biases[-1]),
        model.mlp_node,
        (slope, offset, solution[start:-1, None], solution[-1:]),
    )
    return dataclasses.replace(model, mlp_node=node)


def _features(
    model: MetabolismModel, c: Float[Array, "species points"]
) -> tuple[Float[Array, "rows lines"], Float[Array, "rows units"]]:
    """Derivatives of MLP_node by the coefficients of the line, and by the last layer; both times 1 / `unit`."""
    node = model.mlp_node
    a = jnp.broadcast_to(model.embeddings[:, None], (*c.shape, model.embeddings.shape[-1]))
    z = ((c - node.center) / node.width)[..., None]
    affine = jnp.concatenate([a, jnp.ones_like(z)], axis=-1)
    hidden = node.perceptron.hidden(jnp.concatenate([z, a], axis=-1))
    lines = jnp.concatenate([affine * z, affine], axis=-1)
    correction = jnp.concatenate([hidden, jnp.ones_like(z)], axis=-1)
    return lines.reshape(-1, lines.shape[-1]), correction.reshape(-1, correction.shape[-1])
