"""Types of metabolites, as clusters of their embeddings."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

_MIN_SAMPLES = 5  # of DBSCAN


def cluster(embeddings: Float[np.ndarray, "species dim"], threshold: float) -> Int[np.ndarray, " species"]:
    """DBSCAN clusters from 0; points that it calls noise form one extra cluster, the last."""
    from sklearn.cluster import DBSCAN  # noqa: PLC0415 (half a second, which not everybody who fits needs)

    labels = DBSCAN(eps=threshold, min_samples=_MIN_SAMPLES).fit_predict(embeddings)
    return np.asarray(np.where(labels < 0, labels.max() + 1, labels))


def cluster_moving(
    embeddings: Float[np.ndarray, "species dim"], moving: Bool[np.ndarray, " species"], threshold: float
) -> Int[np.ndarray, " species"]:
    """Clusters of the species that may change; -1 for those that are fixed."""
    clusters = np.full(len(moving), -1)
    clusters[moving] = cluster(embeddings[moving], threshold)
    return clusters
