"""The start of a training that looks as if it were nearly over, for a trial.

Training on trial is short. A file could learn honestly there and write down its answers later: when the loss is small,
when MLP_node has its final size, or when the embeddings have moved. So one training of a trial begins with the
homeostasis that the residual of the checkpoint shows.
"""

from __future__ import annotations

import dataclasses

import equinox as eqx
import numpy as np
from jaxtyping import Float

from metabolismgraph.explore.review.response import lines
from metabolismgraph.homeostasis.initial_embeddings import response_coordinates
from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.system.arrays import generator, on_device
from metabolismgraph.system.model import MetabolismModel, NodeFunction

_PURPOSE = 11  # of random numbers; not one of those of the training
_CORRECTION = 0.01  # size of the correction by the network, relative to the residual: not zero, as after training


def trained_start(model: MetabolismModel, data: Phase2Data) -> MetabolismModel:
    """The model with the least-squares line of every species as its homeostasis.

    The embeddings are a random linear image of those at the start, on which such a line depends linearly.

    Args:
        model: after the start of the plan; only the parameters of Phase 2 change.
        data: in the units of the training.
    """
    rng = generator(data.training.seed, _PURPOSE)
    residuals, moving = data.checkpoint_residuals(), data.moving
    n, dim = model.embeddings.shape
    turned, _ = np.linalg.qr(rng.normal(size=(dim, dim)))
    embeddings = response_coordinates(residuals, moving, dim) @ (1.2 * turned)
    node = model.mlp_node
    weights = node.perceptron.weights[-1]
    scale = _CORRECTION / np.sqrt(len(weights))
    # NumPy, since every operation of JAX outside a compiled function compiles a program of its own.
    changed = scale * rng.normal(size=weights.shape), np.zeros(node.slope.shape), np.zeros(node.offset.shape)
    node = eqx.tree_at(
        lambda f: (f.perceptron.weights[-1], f.slope, f.offset), node, tuple(on_device(values) for values in changed)
    )
    # What the line has to add to the correction, in the units of its coefficients, see `NodeFunction.line`.
    slope, offset = lines(data, _with(model, node, embeddings))
    slope, offset = residuals.slope - slope, residuals.offset - offset
    design = np.column_stack([embeddings, np.ones(n)])[moving]
    width, center, unit = float(node.width), float(node.center), float(node.unit)
    targets = np.column_stack([slope * width, offset + slope * center])[moving] / unit
    solved = np.linalg.lstsq(design, targets)[0].T
    node = eqx.tree_at(lambda f: (f.slope, f.offset), node, (on_device(solved[0]), on_device(solved[1])))
    return _with(model, node, embeddings)


def _with(model: MetabolismModel, node: NodeFunction, embeddings: Float[np.ndarray, "species dim"]) -> MetabolismModel:
    return dataclasses.replace(model, mlp_node=node, embeddings=on_device(embeddings))
