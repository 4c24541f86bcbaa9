"""The start of a training that looks as if it were nearly over, for a trial.

Training on trial is short. A file could learn honestly there and write down its answers later: when the loss is small,
when MLP_node has its final size, or when the embeddings have moved. So one training of a trial begins with the
homeostasis that the residual of the checkpoint shows.
"""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metabolismgraph.explore.review.response import lines
from metabolismgraph.homeostasis.initial_embeddings import response_coordinates
from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.system.model import MetabolismModel, NodeFunction

_PURPOSE = 11  # of the random key, see `Phase2Data.key`; not one of those of the training
_CORRECTION = 0.01  # size of the correction by the network, relative to the residual: not zero, as after training


def trained_start(model: MetabolismModel, data: Phase2Data) -> MetabolismModel:
    """The model with the least-squares line of every species as its homeostasis.

    The embeddings are a random linear image of those at the start, on which such a line depends linearly.

    Args:
        model: after the start of the plan; only the parameters of Phase 2 change.
        data: in the units of the training.
    """
    turn, last = jax.random.split(data.key(_PURPOSE))
    residuals, moving = data.checkpoint_residuals(), data.moving
    n, dim = model.embeddings.shape
    turned, _ = jnp.linalg.qr(jax.random.normal(turn, (dim, dim)))
    embeddings = jnp.asarray(response_coordinates(residuals, moving, dim)) @ (1.2 * turned)
    node = model.mlp_node
    weights = node.perceptron.weights[-1]
    scale = _CORRECTION / np.sqrt(len(weights))
    node = eqx.tree_at(
        lambda f: (f.perceptron.weights[-1], f.slope, f.offset),
        node,
        (scale * jax.random.normal(last, weights.shape), jnp.zeros_like(node.slope), jnp.zeros_like(node.offset)),
    )
    # What the line has to add to the correction, in the units of its coefficients, see `NodeFunction.line`.
    slope, offset = lines(data, _with(model, node, embeddings))
    slope, offset = residuals.slope - slope, residuals.offset - offset
    design = np.column_stack([np.asarray(embeddings), np.ones(n)])[moving]
    targets = np.column_stack([slope * node.width, offset + slope * node.center])[moving] / float(node.unit)
    solved = jnp.asarray(np.linalg.lstsq(design, targets)[0].T)
    node = eqx.tree_at(lambda f: (f.slope, f.offset), node, (solved[0], solved[1]))
    return _with(model, node, embeddings)


def _with(model: MetabolismModel, node: NodeFunction, embeddings: Float[Array, "species dim"]) -> MetabolismModel:
    return dataclasses.replace(model, mlp_node=node, embeddings=embeddings)
