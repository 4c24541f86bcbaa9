"""Embeddings before training: the line of homeostasis of every species, without labels."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from metabolismgraph.homeostasis.residuals import Residuals

# Least scale of response coefficients, relative to their median magnitude: smaller differences count as equal.
_RESOLUTION = 0.05
_CERTAIN = 0.05  # standard error of the coordinates of a species that keep their values
_ALIKE = 0.01  # difference of coordinates within a type, beside their errors
_CONSISTENT = 9.2  # chi squared of a line that explains the data of another species, with a probability of 1 %


def response_coordinates(
    residuals: Residuals, moving: Bool[np.ndarray, " species"], dim: int
) -> Float[np.ndarray, "species dim"]:
    """Slope and offset of the line of homeostasis of every species, centred and scaled to about [-1, 1].

    The scale is half the 5-95 % range, with lower bounds: three times the median standard error, and a few per cent
    of the median magnitude. Without them, species of one type would be separated by noise. Where the line of a species
    is uncertain and those of others are not, it is replaced, see `_explained_by_others`. Further dimensions are zero.
    (The result is dimensionless.)
    """
    coordinates = np.zeros((len(moving), max(dim, 2)))
    scales = np.ones(2)
    lines = ((residuals.slope, residuals.slope_error), (residuals.offset, residuals.offset_error))
    for axis, (value, error) in enumerate(lines):
        # Median and quantiles are robust against species with a poorly determined line.
        center = np.median(value[moving])
        low, high = np.quantile(value[moving], [0.05, 0.95])
        scale = max(
            (high - low) / 2, 3 * np.median(error[moving]), _RESOLUTION * np.median(np.abs(value[moving])), 1e-30
        )
        coordinates[moving, axis] = (value[moving] - center) / scale
        scales[axis] = scale
    covariance = residuals.line_covariance[moving] / np.outer(scales, scales)
    own = _explained_by_others(coordinates[moving, :2], covariance)
    coordinates[moving, :2] = np.clip(own, -1.5, 1.5)
    return coordinates[:, :dim]


def _explained_by_others(
    at: Float[np.ndarray, "moving 2"], covariance: Float[np.ndarray, "moving 2 2"]
) -> Float[np.ndarray, "moving 2"]:
    """The coordinates, with those of uncertain species replaced by means over the species with a certain line.

    The data of a species that stays near its baseline fix one point of its line and hardly its slope. Weights are the
    likelihoods of its own line if that of the other species were the true one: an empirical Bayes estimate (Robbins
    1956). Where the lines of several types explain the data, the result lies between these; where none does, it is the
    species' own.
    """
    uncertain = np.sqrt(np.maximum(np.einsum("ipp->ip", covariance), 0).max(axis=1)) > _CERTAIN
    certain, found = at[~uncertain], at.copy()
    of_certain = covariance[~uncertain] + _ALIKE**2 * np.eye(2)
    for i in np.flatnonzero(uncertain) if len(certain) else ():
        left = certain - at[i]
        chi2 = np.einsum("ka,ka->k", left, np.linalg.solve(covariance[i] + of_certain, left[..., None])[..., 0])
        if chi2.min() < _CONSISTENT:
            weight = np.exp(-0.5 * (chi2 - chi2.min()))
            found[i] = weight @ certain / weight.sum()
    return found
