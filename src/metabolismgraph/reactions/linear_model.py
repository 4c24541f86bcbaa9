"""dc/dt as a linear regression on rate constants and homeostasis, in NumPy.

This is the accurate version of `normal_equations`, for all that JAX does not differentiate. Every entry (row and
species) has its own weight, and homeostasis is projected out of the columns of each species before the normal matrix is
formed (`columns`).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool, Float

from metabolismgraph.reactions.columns import Columns
from metabolismgraph.reactions.normal_equations import LARGEST_DENSE
from metabolismgraph.reactions.normal_matrix import (
    LARGEST_IN_NEED,
    LEVERAGE,
    RANK,
    DenseMatrix,
    NormalMatrix,
)
from metabolismgraph.reactions.sparse_matrix import SparseMatrix


@dataclasses.dataclass(frozen=True)
class Solution:
    """The least-squares estimate of rate constants and homeostasis.

    Attributes:
        k: least-squares estimate, in concentration^(1-order)/time; the minimum-norm one (in scaled k) along
            undetermined directions.
        theta: coefficients of the basis of homeostasis, in concentration/time.
        residual: dc/dt minus the model, in concentration/time, for all entries, with weight or without.
        misfit, total: weighted sums of squares of the residual and of dc/dt, over the species that a reaction changes:
            the others say nothing of f, and their dc/dt may be rounding.
        columns: the regressions of all species.
        matrix: the normal matrix of the rate constants; its pseudo-inverse is the covariance of k, if weights are
            1/variance.
    """

    k: Float[np.ndarray, " reactions"]
    theta: Float[np.ndarray, "species terms"]
    residual: Float[np.ndarray, "rows species"]
    misfit: float
    total: float
    columns: Columns
    matrix: NormalMatrix

    @property
    def log_share(self) -> float:
        """log(misfit / total), the log of the unexplained share; the same as `search.projected_loss`."""
        return float(np.log(max(self.misfit, 1e-300) / max(self.total, 1e-300)))

    @functools.cached_property
    def theta_covariance(self) -> Float[np.ndarray, "species terms terms"]:
        """Covariance of theta within each species, if weights are 1/variance."""
        # theta = P (y - X k), P = inv(R) Q'. The first term is its covariance for known k, since y has unit variance;
        # the second propagates the covariance of k, with which P y is uncorrelated.
        inverse, by_k = self.columns.inverse, self.columns.theta_by_k
        of_k = self.matrix.covariance_of(by_k, inverse.shape[1])
        return np.asarray(inverse @ np.swapaxes(inverse, 1, 2) + of_k)

    def non_negative(self) -> Float[np.ndarray, " reactions"]:
        """The least-squares rate constants with the constraint k >= 0."""
        return self.matrix.non_negative(self.columns.rhs)


class Joint(NamedTuple):
    """One Gauss-Newton step for rate constants and shapes of rate laws together.

    Attributes:
        variance: of each k, with the uncertainty of the shapes included.
        shapes: step of the coefficient of each shape in log f.
        hidden: True for a k that is not determined once the shapes are unknown.
    """

    variance: Float[np.ndarray, " reactions"]
    shapes: Float[np.ndarray, " shapes"]
    hidden: Bool[np.ndarray, " reactions"]


@dataclasses.dataclass(frozen=True)
class LinearModel:
    """The linear regression dc/dt = S (k V) + basis theta, for one f.

    Attributes:
        v: substrate factor V of each reaction, averaged over the nodes of the rule for dc/dt, in concentration^order.
        derivative: left-hand side, in concentration/time.
        weight: 1/variance of each entry; 0 for an entry that is left out.
        basis: basis of the homeostasis of each species (dimensionless); zeros for a polynomial that the data cannot
            distinguish from those of lower degree.
        stoichiometry: net S (species x reactions).
    """

    v: Float[np.ndarray, "rows reactions"]
    derivative: Float[np.ndarray, "rows species"]
    weight: Float[np.ndarray, "rows species"]
    basis: Float[np.ndarray, "rows species terms"]
    stoichiometry: scipy.sparse.csr_array

    def columns(self) -> Columns:
        """The regressions of all species."""
        return Columns.of(self.v, self.derivative, self.weight, self.basis, self.stoichiometry)

    def matrix_of(self, columns: Columns) -> NormalMatrix:
        """The normal matrix of the rate constants: dense for small networks, sparse for large ones.

        It is dense, too, where the data hardly distinguish some of the reactions, as far as memory and time allow.
        """
        if columns.n_reactions > LARGEST_DENSE:
            sparse = SparseMatrix.of(columns, self.v)
            if columns.n_reactions > LARGEST_IN_NEED or sparse.is_well_conditioned():
                return sparse
        return DenseMatrix.of(columns)

    def solve(self) -> Solution:
        """Least squares for the rate constants and the homeostasis of every species.

        Raises:
            InputError: the rate constants of a large network are not found, see `sparse_matrix`.
        """
        columns = self.columns()
        matrix = self.matrix_of(columns)
        return self._solution(columns, matrix, matrix.solve(columns.rhs))

    def given(self, k: Float[np.ndarray, " reactions"]) -> LinearModel:
        """The regression of homeostasis alone, with known rate constants."""
        left = self.derivative - self._rates(k)
        return dataclasses.replace(self, v=self.v[:, :0], derivative=left, stoichiometry=self.stoichiometry[:, :0])

    def _solution(self, columns: Columns, matrix: NormalMatrix, k: Float[np.ndarray, " reactions"]) -> Solution:
        theta = columns.theta(self.derivative, k)
        residual = self.derivative - self._rates(k) - np.einsum("til,il->ti", self.basis, theta)
        changed = np.diff(columns.first) > 0 if columns.n_reactions else np.ones(len(theta), dtype=bool)
        weight = self.weight[:, changed]
        misfit, total = (float(np.sum(weight * x[:, changed] ** 2)) for x in (residual, self.derivative))
        return Solution(k, theta, residual, misfit, total, columns, matrix)

    def _rates(self, k: Float[np.ndarray, " reactions"]) -> Float[np.ndarray, "rows species"]:
        """dc/dt by the reactions, in concentration/time."""
        return np.asarray((self.stoichiometry @ (self.v * k).T).T)

    def with_shapes(self, solution: Solution, changes: Float[np.ndarray, "rows reactions shapes"]) -> Joint:
        """One Gauss-Newton step for k and the shapes of rate laws together.

        The shape of f is an additional unknown, so that standard errors include the uncertainty of f (the Gauss-Newton
        approximation of the joint fit; Seber & Wild 1989, chapter 2).

        Args:
            solution: the point of linearisation; derivatives by a shape are proportional to its k.
            changes: derivative of V by the coefficient of each shape, on every n-th row of the data.
        """
        # One row of n then represents n rows, hence its n-fold weight. The step of k starts from the solution, so the
        # left-hand side is its residual.
        stride = -(-len(self.v) // len(changes))
        rows = dataclasses.replace(
            self,
            v=self.v[::stride],
            derivative=solution.residual[::stride],
            weight=stride * self.weight[::stride],
            basis=self.basis[::stride],
        )
        columns = rows.columns()
        matrix = rows.matrix_of(columns)
        # d(dc/dt)/d(shape) = S (k dV/d(shape))
        of_shapes = [rows.stoichiometry @ (change * solution.k).T for change in np.moveaxis(changes, -1, 0)]
        b, c, target = columns.products(columns.projected(of_shapes))
        # Schur complement of k in the normal equations of both, in shapes whose columns have norm one.
        through = matrix.solve(b)
        size = np.sqrt(np.where(np.diag(c) > 0, np.diag(c), 1.0))
        values, vectors = np.linalg.eigh((c - b.T @ through) / size[:, None] / size)
        seen = values > RANK
        inverse = (vectors[:, seen] / values[seen]) @ vectors[:, seen].T / size[:, None] / size
        step = inverse @ (target - through.T @ columns.rhs)
        # A null direction of the shapes is compensated by rate constants, which are then not determined.
        along = matrix.scale[:, None] * (through @ (vectors[:, ~seen] / size[:, None]))
        hidden = np.sum(along**2 / (1.0 + np.sum(along**2, axis=0)), axis=1) + matrix.null_leverage()
        variance = matrix.variance() + np.einsum("js,sr,jr->j", through, inverse, through)
        return Joint(variance, step, hidden > LEVERAGE)
