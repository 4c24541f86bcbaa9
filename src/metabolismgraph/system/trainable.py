"""The trainable parameters of each phase, as masks over a model, and a check that the others did not change."""

from __future__ import annotations

from typing import Any, TypeVar

import equinox as eqx
import jax
import numpy as np

from metabolismgraph.errors import FirewallError
from metabolismgraph.system.model import (
    AnySubstrateFunction,
    MetabolismModel,
    NodeFunction,
    PublishedSubstrateFunction,
    RawSubstrateFunction,
)

F = TypeVar("F", bound=AnySubstrateFunction)


def substrate_parameters(mlp_sub: F) -> F:
    """True for the trainable parameters of MLP_sub: all except the standardisation of the input, and the gauge."""

    def constants(f: F) -> tuple[object, ...]:
        if isinstance(f, PublishedSubstrateFunction):
            return (f.log_alpha,)
        return f.center, f.width, f.gauge if isinstance(f, RawSubstrateFunction) else f.reference

    trainable: F = eqx.tree_at(constants, jax.tree.map(lambda _: True, mlp_sub), replace_fn=lambda _: False)
    return trainable


def node_parameters(mlp_node: NodeFunction) -> NodeFunction:
    """True for the trainable parameters of MLP_node: all except the standardisation of input and output."""
    mask = jax.tree.map(lambda _: True, mlp_node)
    trainable: NodeFunction = eqx.tree_at(lambda f: (f.center, f.width, f.unit), mask, (False, False, False))
    return trainable


def phase2_parameters(model: MetabolismModel) -> MetabolismModel:
    """True for the trainable parameters of Phase 2: MLP_node and the embeddings."""
    mask = jax.tree.map(lambda _: False, model)
    trainable: MetabolismModel = eqx.tree_at(
        lambda m: (m.mlp_node, m.embeddings), mask, (node_parameters(model.mlp_node), True)
    )
    return trainable


def check_frozen(before: Any, after: MetabolismModel) -> None:
    """Compare every array of Phase 1 bit by bit.

    Args:
        before: a model, or a result of Phase 1.
        after: the model that was learned from it.

    Raises:
        FirewallError: an array differs.
    """
    for name in ("log_k", "mlp_sub"):
        old, new = (jax.tree.leaves(getattr(m, name)) for m in (before, after))
        if not all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(old, new, strict=True)):
            raise FirewallError(f"Phase 2 changed {name}, which is frozen after Phase 1; its result is invalid")
