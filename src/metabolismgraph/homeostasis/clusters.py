"""Types of metabolites, as clusters of their embeddings.

Both methods are a few lines on top of SciPy. scikit-learn, with which the tests compare them, takes half a second to
import.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

_MIN_SAMPLES = 5  # of DBSCAN
_BLOCK = 1024  # points


def cluster(embeddings: Float[np.ndarray, "species dim"], threshold: float) -> Int[np.ndarray, " species"]:
    """DBSCAN clusters from 0; points that DBSCAN labels as noise form a further, last one.

    Args:
        threshold: largest distance of neighbours (eps of DBSCAN), in units of the embeddings.
    """
    labels = dbscan(embeddings, threshold)
    return np.where(labels < 0, labels.max(initial=-1) + 1, labels)


def count_outliers(embeddings: Float[np.ndarray, "species dim"], threshold: float) -> int:
    """Number of points that DBSCAN labels as noise, see `cluster`."""
    return int((dbscan(embeddings, threshold) < 0).sum())


def dbscan(embeddings: Float[np.ndarray, "species dim"], threshold: float) -> Int[np.ndarray, " species"]:
    """Labels of DBSCAN (Ester et al. 1996) with at least five points in a neighbourhood; -1 for noise.

    Clusters are numbered by their first core point. A point that is not a core point belongs to the first cluster of
    which a core point is near.

    Args:
        threshold: see `cluster`.

    Example:
        >>> dbscan(np.array([[0.0], [0.1], [0.2], [0.3], [0.4], [9.0]]), threshold=0.5)
        array([ 0,  0,  0,  0,  0, -1])
    """
    labels = np.full(len(embeddings), -1)
    near = KDTree(embeddings).query_ball_point(embeddings, threshold, return_length=True)
    core = np.flatnonzero(near >= _MIN_SAMPLES)
    if not len(core):
        return labels
    labels[core] = _chained(embeddings[core], threshold)
    rest = np.flatnonzero(near < _MIN_SAMPLES)
    for point, neighbours in zip(
        rest, KDTree(embeddings[core]).query_ball_point(embeddings[rest], threshold), strict=True
    ):
        labels[point] = min(labels[core[neighbours]], default=-1)
    return labels


def _chained(points: Float[np.ndarray, "points dim"], threshold: float) -> Int[np.ndarray, " points"]:
    """Groups of points that are connected by steps up to a threshold, numbered by their first point."""
    if len(points) == 1:
        return np.zeros(1, dtype=int)
    groups = fcluster(linkage(points, "single"), threshold, "distance")
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[group])


def silhouette(embeddings: Float[np.ndarray, "species dim"], labels: Int[np.ndarray, " species"]) -> float:
    """The mean silhouette of points in at least two clusters (Rousseeuw 1987); that of a single point is 0.

    Example:
        >>> round(silhouette(np.array([[0.0], [1.0], [9.0], [10.0]]), np.array([0, 0, 1, 1])), 3)
        0.889
    """
    _, of_point, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    members = np.eye(len(sizes))[of_point]
    # Sums of the distances to the points of each cluster; in blocks, since all distances can need gigabytes.
    blocks = np.array_split(embeddings, -(-len(embeddings) // _BLOCK))
    total = np.concatenate([cdist(block, embeddings) @ members for block in blocks])
    own = members > 0
    inner = total[own] / np.maximum(sizes[of_point] - 1, 1)
    outer = np.where(own, np.inf, total / sizes).min(axis=1)
    larger = np.maximum(inner, outer)
    scores = np.divide(outer - inner, larger, out=np.zeros(len(larger)), where=larger > 0)
    return float(np.where(sizes[of_point] > 1, scores, 0.0).mean())


def cluster_moving(
    embeddings: Float[np.ndarray, "species dim"], moving: Bool[np.ndarray, " species"], threshold: float
) -> Int[np.ndarray, " species"]:
    """Clusters of the species that are not fixed; -1 for fixed species."""
    clusters = np.full(len(moving), -1)
    clusters[moving] = cluster(embeddings[moving], threshold)
    return clusters
