"""Types of metabolites, as clusters of their embeddings."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

_MIN_SAMPLES = 5  # of DBSCAN


def cluster(embeddings: Float[np.ndarray, "species dim"], threshold: float) -> Int[np.ndarray, " species"]:
    """DBSCAN clusters from 0 (Ester et al. 1996); points that DBSCAN labels as noise form a further, last one.

    Args:
        threshold: largest distance of neighbours (eps of DBSCAN), in units of the embeddings.
    """
    labels = _label(embeddings, threshold)
    return np.where(labels < 0, labels.max() + 1, labels)


def count_outliers(embeddings: Float[np.ndarray, "species dim"], threshold: float) -> int:
    """Number of points that DBSCAN labels as noise, see `cluster`."""
    return int((_label(embeddings, threshold) < 0).sum())


def _label(embeddings: Float[np.ndarray, "species dim"], threshold: float) -> Int[np.ndarray, " species"]:
    """Labels of DBSCAN; -1 for noise."""
    from sklearn.cluster import DBSCAN  # noqa: PLC0415 (takes half a second, and is not needed for Phase 1)

    return np.asarray(DBSCAN(eps=threshold, min_samples=_MIN_SAMPLES).fit_predict(embeddings))


def cluster_moving(
    embeddings: Float[np.ndarray, "species dim"], moving: Bool[np.ndarray, " species"], threshold: float
) -> Int[np.ndarray, " species"]:
    """Clusters of the species that are not fixed; -1 for fixed species."""
    clusters = np.full(len(moving), -1)
    clusters[moving] = cluster(embeddings[moving], threshold)
    return clusters
