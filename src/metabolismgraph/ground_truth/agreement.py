"""Agreement of learned and true values, as single numbers."""

from __future__ import annotations

import math

import numpy as np
import scipy
from jaxtyping import Float, Int


def r_squared(learned: Float[np.ndarray, " n"], true: Float[np.ndarray, " n"]) -> float:
    """Coefficient of determination of learned against true values; NaN for fewer than two or constant true values."""
    spread = np.sum((true - true.mean()) ** 2) if true.size > 1 else 0.0
    return float(1 - np.sum((learned - true) ** 2) / spread) if spread > 0 else math.nan


def squared_correlation(learned: Float[np.ndarray, " n"], true: Float[np.ndarray, " n"]) -> float:
    """Coefficient of determination of the line through learned against true values; NaN if either are constant."""
    if true.size < 2 or not (np.ptp(learned) and np.ptp(true)):
        return math.nan
    return float(np.corrcoef(learned, true)[0, 1] ** 2)


def cluster_accuracy(clusters: Int[np.ndarray, " species"], types: Int[np.ndarray, " species"]) -> float:
    """Share of species whose cluster is assigned to their type, by the best one-to-one assignment."""
    table = np.zeros((clusters.max() + 1, types.max() + 1))
    np.add.at(table, (clusters, types), 1)
    rows, columns = scipy.optimize.linear_sum_assignment(-table)
    return float(table[rows, columns].sum() / len(types))
