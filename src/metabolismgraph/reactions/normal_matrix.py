"""Normal matrices of rate constants: a dense one for small networks, a sparse one for large networks.

Both are scaled by the norms of the regression columns before homeostasis was projected out. After the projection, a
column that homeostasis explains consists of rounding errors only. With this scale its eigenvalue is close to zero. A
scale to unit diagonal would turn the rounding errors into apparent information.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int

from metabolismgraph.errors import InputError
from metabolismgraph.reactions.columns import Columns
from metabolismgraph.reactions.normal_equations import RIDGE

RANK = 1e-12  # relative size below which eigenvalues of a scaled normal matrix are rounding
# Largest share of a determined rate constant in the null space. Shares are squares of components of eigenvectors, so
# those that stem from rounding errors are far smaller.
LEVERAGE = 1e-6
# Of rate constants at their bound of zero: largest number, and number without progress before they are made singly.
_EXCHANGES, _FULL_EXCHANGES = 500, 3
LARGEST_IN_NEED = 5000  # where conjugate gradients fail; a decomposition then takes a minute and half a gigabyte


class Directions(NamedTuple):
    """Undetermined directions of some of the rate constants, as orthonormal columns in scaled k."""

    reactions: Int[np.ndarray, " some"]
    vectors: Float[np.ndarray, "some directions"]


class NormalMatrix(abc.ABC):
    """A scaled normal matrix A of rate constants; rate constants are k = scaled k / scale.

    Its pseudo-inverse M is the covariance of k if weights are 1/variance.
    """

    scale: Float[np.ndarray, " reactions"]

    @abc.abstractmethod
    def solve(self, rhs: Float[np.ndarray, "reactions ..."]) -> Float[np.ndarray, "reactions ..."]:
        """M rhs, not scaled: the minimum-norm solution in scaled k.

        Raises:
            InputError: the solution has not been found.
        """

    @abc.abstractmethod
    def solve_roughly(self, rhs: Float[np.ndarray, " reactions"]) -> Float[np.ndarray, " reactions"]:
        """As `solve`, as accurately as the search for f needs it; for an absurd f, not even that."""

    @abc.abstractmethod
    def variance(self) -> Float[np.ndarray, " reactions"]:
        """The diagonal of M: the variance of each k."""

    @abc.abstractmethod
    def covariance_of(self, by_k: scipy.sparse.csr_array, size: int) -> Float[np.ndarray, "groups size size"]:
        """The blocks of G M G' on its diagonal, for groups of `size` functions of k with the derivatives G."""

    @abc.abstractmethod
    def undetermined(self, tolerance: float) -> list[Directions]:
        """Directions of eigenvalues below a tolerance."""

    @abc.abstractmethod
    def eigenvalues(self, undetermined: list[Directions]) -> Float[np.ndarray, " eigenvalues"]:
        """Eigenvalues of A in ascending order: all, or zero for the undetermined directions and the next one."""

    def null_leverage(self) -> Float[np.ndarray, " reactions"]:
        """The squared projection of the unit vector of each scaled k onto the null space."""
        return leverage(self.undetermined(RANK), len(self.scale))

    @abc.abstractmethod
    def __matmul__(self, x: Float[np.ndarray, "reactions ..."]) -> Float[np.ndarray, "reactions ..."]:
        """A x, scaled."""

    @abc.abstractmethod
    def solve_free(
        self, b: Float[np.ndarray, " reactions"], free: Bool[np.ndarray, " reactions"]
    ) -> Float[np.ndarray, " reactions"]:
        """The solution of least norm of A x = b in the free scaled k; the others are zero."""

    @abc.abstractmethod
    def with_rows(self, rows: scipy.sparse.csr_array) -> NormalMatrix:
        """The matrix with further, scaled rows of the regression."""

    def non_negative(
        self,
        rhs: Float[np.ndarray, " reactions"],
        more: scipy.sparse.csr_array | None = None,
        target: Float[np.ndarray, " rows"] | None = None,
    ) -> Float[np.ndarray, " reactions"]:
        """The least-squares k >= 0, by block principal pivoting (Kim & Park 2011).

        Unlike the method of Lawson & Hanson (1974), it does not go far along undetermined directions.

        Args:
            rhs: right-hand side, not scaled.
            more, target: rows of the regression on k besides those of the matrix, and their left-hand sides.

        Raises:
            InputError: it does not end.
        """
        whole, b = self, rhs / self.scale
        if more is not None and target is not None:
            scaled = (more @ scipy.sparse.diags_array(1.0 / self.scale)).tocsr()
            whole, b = self.with_rows(scaled), b + scaled.T @ target
        free = np.ones(len(b), dtype=bool)
        fewest, full_exchanges = len(b) + 1, _FULL_EXCHANGES
        rounding = RANK * np.abs(b).max(initial=0.0)
        for _ in range(_EXCHANGES):
            x = whole.solve_free(b, free)
            wrong = (free & (x < 0)) | (~free & (whole @ x - b < -rounding))
            if not wrong.any():
                return np.asarray(x / self.scale)
            # All exchanges at once can cycle. After some without progress, only the last one is made.
            if wrong.sum() < fewest:
                fewest, full_exchanges = int(wrong.sum()), _FULL_EXCHANGES
            else:
                full_exchanges -= 1
            if full_exchanges < 0:
                wrong = np.arange(len(b)) == np.flatnonzero(wrong)[-1]
            free = free ^ wrong
        raise InputError(
            "rate constants >= 0 were not found: many of them came out negative; measure with less noise or more often"
        )


@dataclasses.dataclass(frozen=True)
class DenseMatrix(NormalMatrix):
    """A normal matrix with its eigenvectors.

    Attributes:
        matrix: scaled.
        scale: norms of the columns.
    """

    matrix: Float[np.ndarray, "unknowns unknowns"]
    scale: Float[np.ndarray, " unknowns"]

    @classmethod
    def of(cls, columns: Columns) -> DenseMatrix:
        """The sum over species, which are independent given k (Schur complements of theta)."""
        matrix = np.zeros((columns.n_reactions, columns.n_reactions))
        for one in columns:
            matrix[one.reactions[:, None], one.reactions] += one.columns @ one.columns.T
        scale = columns.norms
        return cls(matrix / scale[:, None] / scale, scale)

    @functools.cached_property
    def _eigen(self) -> tuple[np.ndarray, np.ndarray]:
        values, vectors = np.linalg.eigh(self.matrix)
        return values, vectors

    @functools.cached_property
    def _root(self) -> Float[np.ndarray, "unknowns rank"]:
        """R with R R' the pseudo-inverse of the unscaled matrix."""
        # With M = D A D (A scaled, D the diagonal matrix of norms): inv(M) = inv(D) inv(A) inv(D).
        values, vectors = self._eigen
        seen = values > RANK
        return np.asarray(vectors[:, seen] / np.sqrt(values[seen]) / self.scale[:, None])

    @functools.cached_property
    def inverse(self) -> Float[np.ndarray, "unknowns unknowns"]:
        """The pseudo-inverse of the unscaled matrix."""
        return np.asarray(self._root @ self._root.T)

    def solve(self, rhs: Float[np.ndarray, "reactions ..."]) -> Float[np.ndarray, "reactions ..."]:
        return np.asarray(self._root @ (self._root.T @ rhs))

    def solve_roughly(self, rhs: Float[np.ndarray, " reactions"]) -> Float[np.ndarray, " reactions"]:
        try:
            factor = scipy.linalg.cho_factor(self.matrix + RIDGE * np.eye(len(rhs)), check_finite=False)
        except np.linalg.LinAlgError:  # eigenvalues of the null space that are rounded to less than -RIDGE
            return self.solve(rhs)
        return np.asarray(scipy.linalg.cho_solve(factor, rhs / self.scale, check_finite=False) / self.scale)

    def variance(self) -> Float[np.ndarray, " reactions"]:
        return np.diag(self.inverse)

    def covariance_of(self, by_k: scipy.sparse.csr_array, size: int) -> Float[np.ndarray, "groups size size"]:
        dense = by_k.toarray().reshape(by_k.shape[0] // size, size, by_k.shape[1])
        return np.asarray(np.einsum("glj,gmj->glm", dense @ self.inverse, dense))

    def undetermined(self, tolerance: float) -> list[Directions]:
        values, vectors = self._eigen
        return [Directions(np.arange(len(values)), vectors[:, values < tolerance])]

    def eigenvalues(self, undetermined: list[Directions]) -> Float[np.ndarray, " eigenvalues"]:
        del undetermined
        return self._eigen[0]

    def __matmul__(self, x: Float[np.ndarray, "unknowns ..."]) -> Float[np.ndarray, "unknowns ..."]:
        return np.asarray(self.matrix @ x)

    def solve_free(
        self, b: Float[np.ndarray, " reactions"], free: Bool[np.ndarray, " reactions"]
    ) -> Float[np.ndarray, " reactions"]:
        x = np.zeros_like(b)
        x[free] = np.linalg.lstsq(self.matrix[np.ix_(free, free)], b[free], rcond=RANK)[0]
        return x

    def with_rows(self, rows: scipy.sparse.csr_array) -> DenseMatrix:
        return dataclasses.replace(self, matrix=self.matrix + (rows.T @ rows).toarray())


def leverage(directions: Sequence[Directions], size: int) -> Float[np.ndarray, " reactions"]:
    """The squared projection of the unit vector of each of `size` scaled k onto orthonormal directions."""
    total = np.zeros(size)
    for one in directions:
        total[one.reactions] += np.sum(one.vectors**2, axis=1)
    return total
