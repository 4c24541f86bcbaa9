"""Values for rate constants that the data do not determine."""

from __future__ import annotations

import numpy as np
import scipy.optimize
from jaxtyping import Float

from metabolismgraph.reactions.identifiability import Identifiability

_POINTS = 2001
_SAMPLES, _COARSE_POINTS = 8_000, 129  # of the walk, and points of each of its lines


def fill_undetermined(
    k: Float[np.ndarray, " reactions"],
    identifiability: Identifiability,
    log_k_range: tuple[Float[np.ndarray, " reactions"], Float[np.ndarray, " reactions"]],
    rng: np.random.Generator,
) -> Float[np.ndarray, " reactions"]:
    """Move k along the null directions to where a log-uniform prior expects it.

    Every determined combination stays as it is. Among the k that the data allow, the one with the
    least expected squared error in log10 k is taken: the point nearest, in log10 k, to the posterior
    mean of log10 k under density prod 1/k on the prior box.

    Args:
        k: one solution of the normal equations; may be negative along null directions.
        log_k_range: log10 of the prior's bounds on each rate constant.
        rng: used where a group has more than one null direction (hit-and-run sampling).

    Returns:
        k, with every reaction of a group inside the prior box where the data allow that, and > 0
        where at least that is possible.
    """
    filled = k.copy()
    low, high = 10.0 ** log_k_range[0], 10.0 ** log_k_range[1]
    for group in identifiability.groups:
        members = list(group)
        directions = _orthonormal(identifiability.null_space[members])
        base, bottom, top = k[members], low[members], high[members]
        if directions.size == 0:
            continue  # too faint to move along
        for lower, upper in ((bottom, top), (bottom * 1e-3, top * 1e3)):
            start = _interior(base, directions, lower, upper)
            if start is not None:
                filled[members] = _expected(start, directions, lower, upper, rng)
                break
    # Where no positive solution exists, k must still have a logarithm.
    return np.asarray(np.where(filled > 0, filled, low * 1e-3))


def _orthonormal(rows: np.ndarray) -> np.ndarray:
    u, s, _ = np.linalg.svd(rows, full_matrices=False)
    return np.asarray(u[:, s > 1e-6])


def _interior(base: np.ndarray, directions: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray | None:
    """The point of the line (or plane) deepest inside the box, by linear programming; None if it misses it."""
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
    """Equally spaced points of the line through `point` that lie inside the box."""
    moving = np.abs(direction) > 1e-12
    to_low = (low[moving] - point[moving]) / direction[moving]
    to_high = (high[moving] - point[moving]) / direction[moving]
    first = np.minimum(to_low, to_high).max()
    last = np.maximum(to_low, to_high).min()
    return np.asarray(np.clip(point + np.linspace(first, last, n_points)[:, None] * direction, low, high))


def _expected(
    start: np.ndarray, directions: np.ndarray, low: np.ndarray, high: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    if directions.shape[1] == 1:
        points = _chord(start, directions[:, 0], low, high)
        mean = np.average(np.log(points), axis=0, weights=_density(points))
    else:
        points, mean = _hit_and_run(start, directions, low, high, rng)
    return np.asarray(points[np.argmin(np.sum((np.log(points) - mean) ** 2, axis=1))])


def _density(points: np.ndarray) -> np.ndarray:
    """The log-uniform prior at points on one line, summing to one."""
    log_density = -np.log(points).sum(axis=1)
    density = np.exp(log_density - log_density.max())
    return np.asarray(density / density.sum())


def _hit_and_run(
    start: np.ndarray, directions: np.ndarray, low: np.ndarray, high: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Samples of the prior on the plane's share of the box (Smith 1984), and the mean of their logarithms.

    The mean is taken over the whole line of every step instead of its one sample, which has less
    variance (Rao-Blackwell; Gelfand & Smith 1990).
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
