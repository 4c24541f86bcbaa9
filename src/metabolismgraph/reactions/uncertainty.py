"""The noise variance of dc/dt, estimated from residuals."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

# Least noise of a species, relative to its rms dc/dt and to the median of all species. With a smaller estimate, the
# weight of the species would make all others irrelevant.
_LEAST_NOISE = 1e-2
# Largest autocorrelation of residuals: (1 - rho)/(1 + rho) cannot be estimated close to rho = 1.
_MAX_CORRELATION = 0.999


def noise_variance(
    residual: Float[np.ndarray, "rows species"],
    keep: Bool[np.ndarray, "rows species"],
    signal: Float[np.ndarray, " species"] | float = 1.0,
) -> Float[np.ndarray, " species"]:
    """The variance of independent errors that would give the estimates the same uncertainty.

    Errors of f are smooth in time, so residuals are correlated: n of them with autocorrelation rho are equivalent to
    n (1 - rho)/(1 + rho) independent ones (Bartlett 1946).

    Args:
        residual: of dc/dt, in concentration/time.
        keep: entries in use.
        signal: rms dc/dt of each species. The noise relative to it has a lower bound, a share of the median.

    Returns:
        In (concentration/time)^2.
    """
    used = np.where(keep, residual, 0.0)
    squares = np.sum(used**2, axis=0)
    rho = np.sum(used[1:] * used[:-1], axis=0) / np.maximum(squares, 1e-300)
    # A negative rho counts as zero, so that the result is never below the variance of the residuals.
    rho = np.clip(rho, 0.0, _MAX_CORRELATION)
    variance = squares / np.maximum(keep.sum(axis=0), 1) * (1 + rho) / (1 - rho)
    square = np.maximum(np.square(signal), 1e-300)
    positive = variance > 0
    typical = np.median((variance / square)[positive]) if positive.any() else 1.0
    return np.asarray(np.maximum(variance, _LEAST_NOISE**2 * typical * square))
