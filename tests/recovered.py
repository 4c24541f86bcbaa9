"""How well Phase 2 found types and lines of homeostasis."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import DBSCAN


def lines(model):
    """Slope and offset of MLP_node per species, over the sweep 0 to 40."""
    c = np.linspace(0, 40, 50)
    n = len(model.embeddings)
    response = eqx.filter_jit(lambda m, x: m.homeostasis(x))
    curves = np.asarray(response(model, jnp.broadcast_to(c[:, None], (50, n))))
    return np.polyfit(c, curves, 1)


def ratios(model, truth):
    """Mean ratio of learned to true slope, and of offset, per true type."""
    slope, offset = lines(model)
    types = [truth.type == one for one in np.unique(truth.type)]
    return np.array(
        [
            (np.mean(slope[of] / -truth.lam[of]), np.mean(offset[of] / (truth.lam * truth.baseline)[of]))
            for of in types
        ]
    )  # fmt: skip


def assert_types(model, truth):
    """The true types, by DBSCAN on the embeddings, and the line of each within 2 %."""
    pairs = np.stack([truth.lam, truth.baseline], axis=1)
    true = np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1)
    found = DBSCAN(eps=0.1, min_samples=5).fit_predict(np.asarray(model.embeddings))
    assert len(set(zip(true, found, strict=True))) == len(set(true)) == len(set(found)), found
    assert ratios(model, truth) == pytest.approx(1.0, abs=0.02)
    return found
