"""Types of species from their lines of homeostasis with errors, without labels.

Slope and offset of every species are measured with a known covariance. A mixture of types, each with one slope and one
offset, is fitted by expectation maximisation; the number of types is chosen by the Bayesian information criterion
(Schwarz 1978). Slope and offset of a type are the generalised least-squares means of its members, with the covariance
of all species (Aitken 1936).
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Int

_MOST_TYPES = 8
_STARTS, _ITERATIONS = 12, 100
_SETTLED = 1e-9  # change of the log likelihood that ends the iteration
_CERTAIN = 0.95  # probability of a type
_REJECTED = 2.5  # chi squared per degree of freedom above which no mixture of types describes the lines


@dataclasses.dataclass(frozen=True)
class Types:
    """The types of some species.

    Attributes:
        member_of: type of each species.
        line: slope and offset of each type.
        line_covariance: of the slopes of all types, then of all offsets.
        probability: of each type, for each species.
        chi2: squared distance of the lines of the species from those of their types per degree of freedom.
    """

    member_of: Int[np.ndarray, " species"]
    line: Float[np.ndarray, "types 2"]
    line_covariance: Float[np.ndarray, "two_types two_types"]
    probability: Float[np.ndarray, "species types"]
    chi2: float

    @property
    def plausible(self) -> bool:
        """Whether the lines of the species agree with those of a few types."""
        return self.chi2 < _REJECTED

    @property
    def doubtful(self) -> int:
        """The number of species whose type is not certain."""
        return int((self.probability.max(axis=1) < _CERTAIN).sum())


def find_types(
    slope: Float[np.ndarray, " species"],
    offset: Float[np.ndarray, " species"],
    covariance: Float[np.ndarray, "lines lines"],
    seed: int = 0,
) -> Types:
    """The types of species whose slopes and offsets are known with errors.

    Args:
        covariance: of all slopes, then of all offsets.
        seed: of the starts of the mixture.

    Example:
        >>> slope, offset = np.repeat([-0.001, -0.002], 20), np.repeat([0.004, 0.012], 20)
        >>> noise = np.random.default_rng(0).normal(size=(2, 40)) * [[1e-4], [4e-4]]
        >>> found = find_types(slope + noise[0], offset + noise[1], np.diag(np.repeat([1e-8, 1.6e-7], 40)))
        >>> len(found.line), len(set(found.member_of[:20])), len(set(found.member_of[20:]))
        (2, 1, 1)
    """
    n = len(slope)
    x = np.column_stack([slope, offset])
    own = np.arange(n)
    blocks = np.stack([covariance[np.ix_([i, n + i], [i, n + i])] for i in own])
    inverse = np.linalg.inv(blocks)
    rng = np.random.default_rng(seed)
    best: tuple[float, np.ndarray] | None = None
    for number in range(1, min(_MOST_TYPES, n) + 1):
        likelihood, probability = max(
            (_mixture(x, inverse, number, rng) for _ in range(_STARTS if number > 1 else 1)), key=lambda found: found[0]
        )
        # Two values and a share of the species for each type.
        criterion = -2 * likelihood + (3 * number - 1) * np.log(2 * n)
        if best is None or criterion < best[0]:
            best = criterion, probability
    assert best is not None  # one type is always tried
    label = np.unique(best[1].argmax(axis=1), return_inverse=True)[1]
    used = np.unique(best[1].argmax(axis=1))
    probability = best[1][:, used] / best[1][:, used].sum(axis=1, keepdims=True)
    line, line_covariance = mean_lines(x, label, covariance)
    left = x - line[label]
    chi2 = float(np.einsum("ia,iab,ib->", left, inverse, left)) / max(2 * (n - len(line)), 1)
    return Types(label, line, line_covariance, probability, chi2)


def _mixture(
    x: Float[np.ndarray, "species 2"], inverse: Float[np.ndarray, "species 2 2"], number: int, rng: np.random.Generator
) -> tuple[float, Float[np.ndarray, "species types"]]:
    """Log likelihood, up to a constant, and probabilities of the types, from one random start (EM)."""
    mean = x[rng.choice(len(x), number, replace=False)]
    share = np.full(number, 1 / number)
    before = -np.inf
    for _ in range(_ITERATIONS):
        left = x[:, None] - mean
        log_p = np.log(share) - 0.5 * np.einsum("ika,iab,ikb->ik", left, inverse, left)
        highest = log_p.max(axis=1, keepdims=True)
        total = highest[:, 0] + np.log(np.exp(log_p - highest).sum(axis=1))
        probability = np.exp(log_p - total[:, None])
        likelihood = float(total.sum())
        if likelihood - before < _SETTLED * abs(likelihood):
            break
        before = likelihood
        share = np.maximum(probability.mean(axis=0), 1e-12)
        for k in range(number):
            weight = probability[:, k, None, None] * inverse
            matrix = weight.sum(axis=0)
            ridge = 1e-12 * np.diag(np.diag(inverse.sum(axis=0)))
            mean[k] = np.linalg.solve(matrix + ridge, np.einsum("iab,ib->a", weight, x) + ridge @ mean[k])
    return likelihood, probability


def mean_lines(
    x: Float[np.ndarray, "species 2"], label: Int[np.ndarray, " species"], covariance: Float[np.ndarray, "lines lines"]
) -> tuple[Float[np.ndarray, "types 2"], Float[np.ndarray, "two_types two_types"]]:
    """Generalised least-squares means of the types, and their covariance.

    Args:
        x: slope and offset of every species.
        label: type of every species, from 0, none empty.
        covariance: of the slopes of all species, then of all offsets.
    """
    members = np.eye(label.max() + 1)[label]
    design = np.kron(np.eye(2), members)
    scale = 1 / np.sqrt(np.diag(covariance))
    inverse = scale[:, None] * np.linalg.pinv(covariance * scale[:, None] * scale, rcond=1e-12, hermitian=True) * scale
    of_means = np.linalg.inv(design.T @ inverse @ design)
    return (of_means @ (design.T @ inverse @ x.T.ravel())).reshape(2, -1).T, of_means
