"""Values for rate constants that the data do not determine."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy
from jaxtyping import Bool, Float

from metabolismgraph.config import Training
from metabolismgraph.reactions.identifiability import Identifiability

# A rate constant of zero is stored as this share of the smallest other one, or of its upper bound if that is smaller:
# the model needs its logarithm, and its flux must be negligible.
_ZERO_RATE = 1e-3
_POINTS = 2001  # of the quadrature along a line
_SAMPLES, _COARSE_POINTS = 8_000, 129  # of the hit-and-run sampler, and of the quadrature along each of its lines


def fill_undetermined(
    k: Float[np.ndarray, " reactions"],
    identifiability: Identifiability,
    log_k_range: tuple[Float[np.ndarray, " reactions"], Float[np.ndarray, " reactions"]],
    rng: np.random.Generator,
) -> Float[np.ndarray, " reactions"]:
    """Move k along the null directions to the posterior mean of log10 k under a log-uniform prior.

    Determined combinations do not change. Among the k that the data allow, the one with the
    least expected squared error of log10 k is taken: the point closest, in log10 k, to the posterior
    mean of log10 k. The prior density is proportional to prod 1/k inside a box.

    Args:
        k: one solution of the normal equations; may be negative along null directions.
        identifiability: null space and groups.
        log_k_range: log10 of the lower and upper bound of the prior of each rate constant.
        rng: for hit-and-run sampling, where a group has several null directions.

    Returns:
        k > 0, in the unit of `k`. Every reaction of a group is inside the box of the prior where the data allow it.
    """
    # Null directions link reactions only within a group, so the posterior factorises over groups.
    filled = k.copy()
    low, high = 10.0 ** log_k_range[0], 10.0 ** log_k_range[1]
    for group in identifiability.groups:
        members = list(group)
        directions = _orthonormal(identifiability.null_space[members])
        base, bottom, top = k[members], low[members], high[members]
        if directions.size == 0:
            continue  # components at the level of rounding only
        # If no point of the null directions is inside the box, a box wider by three decades on each side is tried.
        for lower, upper in ((bottom, top), (bottom * 1e-3, top * 1e3)):
            start = _interior(base, directions, lower, upper)
            if start is not None:
                filled[members] = _expected(start, directions, lower, upper, rng)
                break
    # log10 k must exist even where there is no positive solution.
    return np.asarray(np.where(filled > 0, filled, low * 1e-3))


def without_groups(found: Identifiability, reactions: Bool[np.ndarray, " reactions"]) -> Identifiability:
    """The same identifiability without the groups that contain any of the given reactions."""
    pairs = [pair for pair in zip(found.groups, found.combinations, strict=True) if not reactions[list(pair[0])].any()]
    return dataclasses.replace(found, groups=tuple(g for g, _ in pairs), combinations=tuple(c for _, c in pairs))


def fill_all(
    k: Float[np.ndarray, " reactions"],
    hidden: Identifiability,
    training: Training,
    log_unit: Float[np.ndarray, " reactions"],
    upper: Float[np.ndarray, " reactions"],
) -> Float[np.ndarray, " reactions"]:
    """A positive value for every rate constant; along undetermined directions, the most plausible one.

    Args:
        k: estimates; may be negative where undetermined, and zero at the bound.
        hidden: null space and groups.
        log_unit: log10 of the internal unit of each k, in units of the data.
        upper: upper end of the interval of each k at the bound, otherwise NaN.
    """
    # Without a configured prior, its range is that of the determined rate constants.
    known = hidden.identifiable
    positive = k[known & (k > 0)]
    if positive.size == 0:
        positive = np.abs(k[k != 0]) if (k != 0).any() else np.ones(1)
    low, high = (np.full(len(k), np.log10(edge)) for edge in (positive.min(), positive.max()))
    if training.log_k_prior is not None:
        low, high = (edge - log_unit for edge in training.log_k_prior)
    k = np.where(known & (k <= 0), np.fmin(_ZERO_RATE * positive.min(), _ZERO_RATE * upper), k)
    return fill_undetermined(k, hidden, (low, high), np.random.default_rng(training.seed))


def _orthonormal(rows: np.ndarray) -> np.ndarray:
    """Orthonormal basis of the column space."""
    u, s, _ = np.linalg.svd(rows, full_matrices=False)
    return np.asarray(u[:, s > 1e-6])


def _interior(base: np.ndarray, directions: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray | None:
    """The point base + directions @ z deepest inside the box, by linear programming; None if all are outside.

    The sampler needs an interior point to start from: on a face, most lines through it have length zero.
    """
    d = directions.shape[1]
    # Maximise r subject to low + r <= base + directions z <= high - r.
    ones = np.ones((len(base), 1))
    result = scipy.optimize.linprog(
        c=np.r_[np.zeros(d), -1.0],
        A_ub=np.block([[directions, ones], [-directions, ones]]),
        b_ub=np.r_[high - base, base - low],
        bounds=[(None, None)] * d + [(0, None)],
    )
    return base + directions @ np.asarray(result.x)[:d] if result.success else None


def _chord(
    point: np.ndarray, direction: np.ndarray, low: np.ndarray, high: np.ndarray, n_points: int = _POINTS
) -> np.ndarray:
    """Equally spaced points on the part of the line through `point` that is inside the box."""
    # The line parameter at which each coordinate reaches its bounds; the intersection of these intervals is inside.
    moving = np.abs(direction) > 1e-12
    to_low = (low[moving] - point[moving]) / direction[moving]
    to_high = (high[moving] - point[moving]) / direction[moving]
    first = np.minimum(to_low, to_high).max()
    last = np.maximum(to_low, to_high).min()
    return np.asarray(np.clip(point + np.linspace(first, last, n_points)[:, None] * direction, low, high))


def _expected(
    start: np.ndarray, directions: np.ndarray, low: np.ndarray, high: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The point of the null directions closest, in log k, to the posterior mean of log k."""
    # One direction: the posterior is a density on a line, integrated by quadrature. Several: hit-and-run sampling.
    if directions.shape[1] == 1:
        points = _chord(start, directions[:, 0], low, high)
        mean = np.average(np.log(points), axis=0, weights=_density(points))
    else:
        points, mean = _hit_and_run(start, directions, low, high, rng)
    return np.asarray(points[np.argmin(np.sum((np.log(points) - mean) ** 2, axis=1))])


def _density(points: np.ndarray) -> np.ndarray:
    """The log-uniform prior, proportional to prod 1/k, at points on a line; normalised to a sum of one."""
    log_density = -np.log(points).sum(axis=1)
    density = np.exp(log_density - log_density.max())  # avoids overflow
    return np.asarray(density / density.sum())


def _hit_and_run(
    start: np.ndarray, directions: np.ndarray, low: np.ndarray, high: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Samples of the prior restricted to the null directions inside the box (Smith 1984), and the mean of log k.

    Each step draws a random direction and samples the density on the line. The mean is taken over the
    whole line of every step instead of its sample, which reduces the variance (Rao-Blackwell; Gelfand & Smith 1990).
    """
    point, samples, means = start, [], []
    for _ in range(_SAMPLES):
        along = directions @ rng.standard_normal(directions.shape[1])
        chord = _chord(point, along / np.linalg.norm(along), low, high, _COARSE_POINTS)
        density = _density(chord)
        means.append(density @ np.log(chord))
        point = chord[rng.choice(len(chord), p=density)]
        samples.append(point)
    return np.array(samples), np.mean(means, axis=0)
