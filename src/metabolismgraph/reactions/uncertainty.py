"""The noise of dc/dt, estimated from residuals, and standard errors of rate constants."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from metabolismgraph.config import Training
from metabolismgraph.reactions.identifiability import Identifiability
from metabolismgraph.reactions.normal_equations import (
    NormalEquations,
)

# Bounds on how far the noise of one species may lie below the median's, so that none rules alone.
_LEAST_NOISE = 1e-2
# Beyond this correlation of neighbouring residuals the number of independent ones is anybody's guess.
_MOST_CORRELATED = 0.999


def noise_variance(
    left: Float[np.ndarray, "rows species"],
    keep: Bool[np.ndarray, "rows species"],
    signal: Float[np.ndarray, " species"] | float = 1.0,
) -> Float[np.ndarray, " species"]:
    """Variance that independent errors would need to make the estimates as uncertain as they are.

    What f misses is smooth in time: n rows with correlation rho from one to the next are worth
    n (1 - rho) / (1 + rho) independent ones (Bartlett 1946).

    Args:
        signal: rms dc/dt of each species; the noise of none lies far below the others' as a share of it.
    """
    used = np.where(keep, left, 0.0)
    squares = np.sum(used**2, axis=0)
    rho = np.sum(used[1:] * used[:-1], axis=0) / np.maximum(squares, 1e-300)
    rho = np.clip(rho, 0.0, _MOST_CORRELATED)
    variance = squares / np.maximum(keep.sum(axis=0), 1) * (1 + rho) / (1 - rho)
    square = np.maximum(np.broadcast_to(signal, variance.shape) ** 2, 1e-300)
    there = variance > 0
    typical = np.median((variance / square)[there]) if there.any() else 1.0
    return np.asarray(np.maximum(variance, _LEAST_NOISE**2 * typical * square))


def standard_errors(
    equations: NormalEquations,
    identifiability: Identifiability,
    training: Training,
) -> Float[np.ndarray, " reactions"]:
    """Standard errors of k, infinite where it is not identifiable; rows are weighted by 1/variance already."""
    values, vectors = np.linalg.eigh(np.asarray(equations.matrix))
    seen = values > training.identifiability_tolerance
    scaled = vectors[:, seen] / np.asarray(equations.scale)[:, None]
    covariance = (scaled / values[seen]) @ scaled.T
    hidden = ~identifiability.identifiable
    return np.where(hidden, np.inf, np.sqrt(np.diag(covariance)))
