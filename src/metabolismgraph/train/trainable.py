"""What each phase may move, as masks over a model, and the check that nothing else moved."""

from __future__ import annotations

import equinox as eqx
import jax
import numpy as np

from metabolismgraph.errors import FirewallError
from metabolismgraph.model import MetabolismModel


def phase2_parameters(model: MetabolismModel) -> MetabolismModel:
    """True for what Phase 2 moves: MLP_node, but not its standardisation, and the embeddings."""
    mask = jax.tree.map(lambda _: False, model)
    node = jax.tree.map(lambda _: True, model.mlp_node)
    node = eqx.tree_at(lambda f: (f.center, f.width, f.unit), node, (False, False, False))
    trainable: MetabolismModel = eqx.tree_at(lambda m: (m.mlp_node, m.embeddings), mask, (node, True))
    return trainable


def check_frozen(before: MetabolismModel, after: MetabolismModel) -> None:
    """Compare every array of Phase 1, bit for bit.

    Raises:
        FirewallError: one differs.
    """
    for name in ("log_k", "mlp_sub"):
        old, new = (jax.tree.leaves(eqx.filter(getattr(m, name), eqx.is_array)) for m in (before, after))
        if not all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(old, new, strict=True)):
            raise FirewallError(f"Phase 2 changed {name}, which Phase 1 had frozen; its result is void")
