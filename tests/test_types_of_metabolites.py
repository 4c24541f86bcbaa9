"""Clusters of embeddings: the same as those of scikit-learn, which takes too long to import for the program itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import DBSCAN
from sklearn.metrics import silhouette_score

from metabolismgraph.homeostasis.clusters import cluster, count_outliers, dbscan, silhouette

# On a grid, so that points coincide, lie at the threshold exactly, and are near the core points of several clusters.
GRIDS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 4)), min_size=1, max_size=60)


@given(points=GRIDS, threshold=st.sampled_from([0.5, 1.0, 1.5, 2.0]))
def test_clusters_are_those_of_dbscan(points, threshold):
    embeddings = np.array(points, dtype=float)
    expected = DBSCAN(eps=threshold, min_samples=5).fit_predict(embeddings)
    np.testing.assert_array_equal(dbscan(embeddings, threshold), expected)
    assert count_outliers(embeddings, threshold) == (expected < 0).sum()
    assert (cluster(embeddings, threshold) == np.where(expected < 0, expected.max() + 1, expected)).all()


def test_a_point_between_two_clusters_belongs_to_the_first():
    embeddings = np.array([1.3, 1.4, 1.5, 1.6, 1.7, 0.85, 0.0, 0.1, 0.2, 0.3, 0.4])[:, None]
    np.testing.assert_array_equal(dbscan(embeddings, 0.5), [0] * 6 + [1] * 5)


@pytest.mark.parametrize("size", [40, 2500])
def test_silhouette_is_that_of_scikit_learn(size):
    random = np.random.default_rng(0)
    labels = np.append(random.integers(0, 3, size - 1), 7)  # the last one is a cluster of one point
    embeddings = random.normal(size=(size, 2)) + labels[:, None]
    assert silhouette(embeddings, labels) == pytest.approx(silhouette_score(embeddings, labels), abs=1e-12)
    assert silhouette(np.zeros((size, 2)), labels) == 0
