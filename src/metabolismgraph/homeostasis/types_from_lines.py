"""Types of species from their lines of homeostasis with errors, without labels.

Slope and offset of every species are measured with a known covariance. A mixture of types, each with one slope and one
offset, is fitted by expectation maximisation, as if the species were independent. Their errors are not, since species
share rate constants. So the type of every species is found again under the covariance of all species, given the types
of the others (iterated conditional modes, Besag 1986). The number of types is chosen by the Bayesian information
criterion (Schwarz 1978). Slope and offset of a type are the generalised least-squares means of its members (Aitken
1936).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

_MOST_TYPES, _WORSE = 8, 2  # types; larger numbers in turn without a better criterion, after which none is tried
_STARTS, _ITERATIONS = 12, 100
_SETTLED = 1e-9  # change of the log likelihood that ends the iteration
_ROUNDS = 20  # over all species, for their types given those of the others
_CERTAIN = 0.95  # probability of a type
_REJECTED = 2.5  # chi squared per degree of freedom above which no mixture of types describes the lines


@dataclasses.dataclass(frozen=True)
class Types:
    """The types of some species.

    Attributes:
        member_of: type of each species.
        line: slope and offset of each type.
        line_covariance: of the slopes of all types, then of all offsets.
        probability: of each type, for each species, given the types of the others.
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
        >>> slope, offset = np.repeat([-0.1, -0.2], 20), np.repeat([0.3, 0.9], 20)
        >>> noise = np.random.default_rng(0).normal(size=(2, 40)) * [[0.01], [0.04]]
        >>> found = find_types(slope + noise[0], offset + noise[1], np.diag(np.repeat([1e-4, 1.6e-3], 40)))
        >>> len(found.line), len(set(found.member_of[:20])), len(set(found.member_of[20:]))
        (2, 1, 1)
    """
    n = len(slope)
    x = np.column_stack([slope, offset])
    own = np.arange(n)
    blocks = np.stack([covariance[np.ix_([i, n + i], [i, n + i])] for i in own])
    inverse = np.linalg.inv(blocks)
    rng = np.random.default_rng(seed)
    tried: list[tuple[float, np.ndarray, np.ndarray]] = []
    whole = inverse_of_lines(covariance)
    for number in range(1, min(_MOST_TYPES, n) + 1):
        _, probability = max(
            (_mixture(x, inverse, number, rng) for _ in range(_STARTS if number > 1 else 1)), key=lambda found: found[0]
        )
        alone = np.unique(probability.argmax(axis=1), return_inverse=True)[1]
        likelihood, label, probability = _given_the_others(x, alone, whole)
        # Two values and a share of the species for each type.
        criterion = -2 * likelihood + (3 * probability.shape[1] - 1) * np.log(2 * n)
        tried.append((criterion, label, probability))
        if number - int(np.argmin([one[0] for one in tried])) > _WORSE:
            break
    _, label, probability = min(tried, key=lambda one: one[0])
    line, line_covariance = _mean_lines(x, label, whole)
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


def _given_the_others(
    x: Float[np.ndarray, "species 2"], label: Int[np.ndarray, " species"], inverse: Float[np.ndarray, "lines lines"]
) -> tuple[float, Int[np.ndarray, " species"], Float[np.ndarray, "species types"]]:
    """The most likely type of every species, and the probabilities of all types, given the types of the others.

    Args:
        label: types to start from, none empty. None becomes empty: the only species of a type keeps it.
        inverse: of the covariance of all slopes, then of all offsets.

    Returns:
        Log likelihood, up to a constant; types; probabilities.
    """
    n, number = len(x), int(label.max()) + 1
    label, probability = label.copy(), np.ones((n, number))
    types = _Assigned.of(x, label, inverse)
    for _ in range(_ROUNDS):
        before = label.copy()
        for i in range(n if number > 1 else 0):
            count = np.bincount(label, minlength=number)
            if count[label[i]] == 1:
                continue
            log_p = np.log(count) - 0.5 * types.chi2_with(i)
            log_p -= log_p.max()
            probability[i] = np.exp(log_p) / np.exp(log_p).sum()
            if log_p.argmax() != label[i]:
                label[i] = log_p.argmax()
                types = _Assigned.of(x, label, inverse)
        if (label == before).all():
            break
    # By Bayes' rule, the likelihood of a mixture is that of the values and their types over the probability of the
    # types; exact if the species are independent.
    share = np.bincount(label, minlength=number) / n
    log_share = np.log(share[label] / probability[np.arange(n), label])
    return float(log_share.sum() - 0.5 * types.chi2), label, probability


class _Assigned(NamedTuple):
    """Species with their types, and what depends on them.

    Attributes:
        label: type of every species.
        line: slope and offset of each type.
        inverse: of the covariance of the values: all slopes, then all offsets.
        left: the values minus those of the types, times the inverse.
        design: derivative of the values by the slopes of all types, then by all offsets, times the inverse.
        normal: normal matrix of the lines of the types.
        chi2: squared distance of the values from those of the types.
    """

    label: Int[np.ndarray, " species"]
    line: Float[np.ndarray, "types 2"]
    inverse: Float[np.ndarray, "lines lines"]
    left: Float[np.ndarray, " lines"]
    design: Float[np.ndarray, "lines two_types"]
    normal: Float[np.ndarray, "two_types two_types"]
    chi2: float

    @classmethod
    def of(
        cls, x: Float[np.ndarray, "species 2"], label: Int[np.ndarray, " species"], inverse: np.ndarray
    ) -> _Assigned:
        """For given types."""
        members = np.kron(np.eye(2), np.eye(label.max() + 1)[label])
        line, _ = _mean_lines(x, label, inverse)
        left = (x - line[label]).T.ravel()
        weighted = inverse @ left
        design = inverse @ members
        return cls(label.copy(), line, inverse, weighted, design, members.T @ design, float(left @ weighted))

    def chi2_with(self, i: int) -> Float[np.ndarray, " types"]:
        """The squared distance if species `i` had each of the types, with the lines that would go with them.

        The present lines would hold a wrong type in its place, since the species has taken part in them.
        """
        number, own = len(self.line), [i, len(self.label) + i]
        block = self.inverse[np.ix_(own, own)]
        # Its residual with the present lines, and its rows of the design: minus the old type, plus the new one.
        change = self.line[self.label[i]] - self.line
        one = np.eye(number) - np.eye(number)[self.label[i]]
        moved = np.einsum("hk,qt->qhkt", np.eye(2), one).reshape(number, 2, 2 * number)
        chi2 = self.chi2 + 2 * change @ self.left[own] + np.einsum("qa,ab,qb->q", change, block, change)
        cross = np.swapaxes(moved, 1, 2) @ self.design[own]
        normal = self.normal + cross + np.swapaxes(cross, 1, 2) + np.swapaxes(moved, 1, 2) @ block @ moved
        # What the lines gain by moving to their best place.
        gradient = change @ self.design[own] + np.einsum("qau,qa->qu", moved, self.left[own] + change @ block)
        return np.asarray(chi2 - np.einsum("qu,qu->q", gradient, np.linalg.solve(normal, gradient[..., None])[..., 0]))


def mean_lines(
    x: Float[np.ndarray, "species 2"],
    label: Int[np.ndarray, " species"],
    covariance: Float[np.ndarray, "lines lines"] | Float[np.ndarray, "species 2 2"],
) -> tuple[Float[np.ndarray, "types 2"], Float[np.ndarray, "two_types two_types"]]:
    """Generalised least-squares means of the types, and their covariance.

    Args:
        x: slope and offset of every species.
        label: type of every species, from 0, none empty.
        covariance: of the slopes of all species, then of all offsets; or of slope and offset of each species, if
            these are independent.
    """
    if covariance.ndim == 3:
        return _mean_independent_lines(x, label, covariance)
    return _mean_lines(x, label, inverse_of_lines(covariance))


def _mean_independent_lines(
    x: Float[np.ndarray, "species 2"], label: Int[np.ndarray, " species"], blocks: Float[np.ndarray, "species 2 2"]
) -> tuple[Float[np.ndarray, "types 2"], Float[np.ndarray, "two_types two_types"]]:
    """The same for independent species, whose covariance is not filled up with zeros."""
    number = int(label.max()) + 1
    weight = np.linalg.inv(blocks)
    normal, rhs = np.zeros((number, 2, 2)), np.zeros((number, 2))
    np.add.at(normal, label, weight)
    np.add.at(rhs, label, np.einsum("iab,ib->ia", weight, x))
    of_types = np.linalg.inv(normal)
    covariance = np.zeros((2, number, 2, number))
    covariance[:, np.arange(number), :, np.arange(number)] = of_types
    return np.einsum("tab,tb->ta", of_types, rhs), covariance.reshape(2 * number, 2 * number)


def _mean_lines(
    x: Float[np.ndarray, "species 2"], label: Int[np.ndarray, " species"], inverse: Float[np.ndarray, "lines lines"]
) -> tuple[Float[np.ndarray, "types 2"], Float[np.ndarray, "two_types two_types"]]:
    """The same with the inverse of the covariance."""
    members = np.eye(label.max() + 1)[label]
    design = np.kron(np.eye(2), members)
    of_means = np.linalg.inv(design.T @ inverse @ design)
    return (of_means @ (design.T @ inverse @ x.T.ravel())).reshape(2, -1).T, of_means


def inverse_of_lines(covariance: Float[np.ndarray, "lines lines"]) -> Float[np.ndarray, "lines lines"]:
    """The inverse of a covariance whose rows have different units, on what is more than rounding."""
    scale = 1 / np.sqrt(np.diag(covariance))
    correlation = covariance * scale[:, None] * scale
    return np.asarray(scale[:, None] * np.linalg.pinv(correlation, rcond=1e-12, hermitian=True) * scale)
