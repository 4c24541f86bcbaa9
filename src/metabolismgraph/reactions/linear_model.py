"""dc/dt as a linear regression on rate constants and homeostasis, in NumPy, one species at a time.

This is the accurate version of `normal_equations`, for steps that are done once per fit and need no gradient.
Every entry (row and species) has its own weight, and homeostasis is projected out of the columns of each species
before the normal matrix is formed. The shape of f can be an additional unknown, so that standard errors
include the uncertainty of f (the Gauss-Newton approximation of the joint fit; Seber & Wild 1989, chapter 2).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from metabolismgraph.reactions.normal_equations import Nodes
from metabolismgraph.system.kinetics import pair_concentrations
from metabolismgraph.system.log_table import LogTable
from metabolismgraph.system.tabulated_reactions import TabulatedReactions

_SHAPES = 4  # possible errors of log f of each rate law: Legendre polynomials of log c, linear to quartic
# Possible additive errors of f: a constant and a multiple of c. A line of homeostasis can compensate both.
_ADDITIVE = 2
_LEVERAGE = 1e-6  # largest share of a determined rate constant in the null space
_MAX_NUMBERS = 20_000_000  # size of the array of shape derivatives; beyond it, only every n-th row is used
_RANK = 1e-12  # relative size below which eigenvalues of the scaled normal matrix, and pivots of a basis, are rounding


class Solution(NamedTuple):
    """The least-squares estimate of rate constants and homeostasis.

    Attributes:
        k: least-squares estimate, in concentration^(1-order)/time; the minimum-norm one (in scaled k) along
            undetermined directions.
        covariance: of k, if weights are 1/variance.
        theta, theta_covariance: coefficients of the basis of homeostasis, in concentration/time, and their covariance
            within a species.
        residual: dc/dt minus the model, in concentration/time, for all entries, with weight or without.
        misfit, total: weighted sums of squares of the residual and of dc/dt.
        matrix, rhs, scale: the normal equations of the scaled rate constants, scale * k. The columns of the scaled
            regression have norm one before homeostasis is projected out.
    """

    k: Float[np.ndarray, " reactions"]
    covariance: Float[np.ndarray, "reactions reactions"]
    theta: Float[np.ndarray, "species terms"]
    theta_covariance: Float[np.ndarray, "species terms terms"]
    residual: Float[np.ndarray, "rows species"]
    misfit: float
    total: float
    matrix: Float[np.ndarray, "reactions reactions"]
    rhs: Float[np.ndarray, " reactions"]
    scale: Float[np.ndarray, " reactions"]

    @property
    def log_share(self) -> float:
        """log(misfit / total), the log of the unexplained share; the same as `projection.projected_loss`."""
        return float(np.log(max(self.misfit, 1e-300) / max(self.total, 1e-300)))


class Joint(NamedTuple):
    """One Gauss-Newton step for rate constants and shapes of rate laws together.

    Attributes:
        covariance: of k, with the uncertainty of the shapes included.
        shapes: step of the coefficient of each shape in log f.
        hidden: True for a k that is not determined once the shapes are unknown.
    """

    covariance: Float[np.ndarray, "reactions reactions"]
    shapes: Float[np.ndarray, " shapes"]
    hidden: Bool[np.ndarray, " reactions"]


class _Species(NamedTuple):
    """The weighted regression of one species, on the rows with a positive weight.

    Attributes:
        unknowns: indices of the reactions that change the species and, after all reactions, of the shapes.
        columns, y: columns of these unknowns and dc/dt, after homeostasis has been projected out.
        solve_theta: matrix from a weighted residual to the coefficients of homeostasis.
        raw_columns, raw_y: the same as `columns` and `y` before the projection.
    """

    unknowns: np.ndarray
    columns: np.ndarray
    y: np.ndarray
    solve_theta: np.ndarray
    raw_columns: np.ndarray
    raw_y: np.ndarray


class _Scaled(NamedTuple):
    """Normal equations, their matrix scaled by the norms of the regression columns, and its eigenvectors.

    The norms are those before homeostasis was projected out. After the projection, a column that homeostasis
    explains consists of rounding errors only. With this scale its eigenvalue is close to zero. A scale to unit
    diagonal would turn the rounding errors into apparent information.

    Attributes:
        matrix: divided by the norms of its row and column.
        rhs: right-hand side, not scaled.
        scale: the norms.
        values, vectors: eigenvalues and eigenvectors of `matrix`.
        seen: True for eigenvalues above rounding.
    """

    matrix: Float[np.ndarray, "unknowns unknowns"]
    rhs: Float[np.ndarray, " unknowns"]
    scale: Float[np.ndarray, " unknowns"]
    values: Float[np.ndarray, " unknowns"]
    vectors: Float[np.ndarray, "unknowns unknowns"]
    seen: Bool[np.ndarray, " unknowns"]

    @classmethod
    def of(cls, regressions: Iterable[_Species], size: int) -> _Scaled:
        """The normal equations of several species for `size` unknowns."""
        matrix, rhs, square = np.zeros((size, size)), np.zeros(size), np.zeros(size)
        # Species are independent given k, so the normal matrix is a sum over species (Schur complements of theta).
        for one in regressions:
            matrix[np.ix_(one.unknowns, one.unknowns)] += one.columns.T @ one.columns
            rhs[one.unknowns] += one.columns.T @ one.y
            square[one.unknowns] += np.sum(one.raw_columns**2, axis=0)
        scale = np.sqrt(np.where(square > 0, square, 1.0))
        scaled = matrix / scale[:, None] / scale
        values, vectors = np.linalg.eigh(scaled)
        return cls(scaled, rhs, scale, values, vectors, values > _RANK)

    def inverse(self) -> Float[np.ndarray, "unknowns unknowns"]:
        """The pseudo-inverse of the unscaled matrix."""
        # With M = D A D (A scaled, D the diagonal matrix of norms): inv(M) = inv(D) inv(A) inv(D).
        vectors = self.vectors[:, self.seen] / self.scale[:, None]
        return np.asarray((vectors / self.values[self.seen]) @ vectors.T)


@dataclasses.dataclass(frozen=True)
class LinearModel:
    """The linear regression dc/dt = S (k V) + basis theta, for one f.

    Attributes:
        v: substrate factor V of each reaction, averaged over the nodes of the rule for dc/dt, in concentration^order.
        derivative: left-hand side, in concentration/time.
        weight: 1/variance of each entry; 0 for an entry that is left out.
        basis: basis of the homeostasis of each species (dimensionless); zeros for a polynomial that the data cannot
            distinguish from those of lower degree.
        stoichiometry: net S.
    """

    v: Float[np.ndarray, "rows reactions"]
    derivative: Float[np.ndarray, "rows species"]
    weight: Float[np.ndarray, "rows species"]
    basis: Float[np.ndarray, "rows species terms"]
    stoichiometry: Float[np.ndarray, "species reactions"]

    @classmethod
    def of(
        cls,
        table: TabulatedReactions,
        nodes: Nodes,
        derivative: Float[np.ndarray, "rows species"],
        weight: Float[np.ndarray, "rows species"],
        basis: Float[np.ndarray, "rows species terms"],
    ) -> LinearModel:
        """Evaluate the substrate factors at the nodes of the rule for dc/dt."""
        v = np.einsum("et,etj->tj", nodes.weight, table.substrate_factors(nodes.concentration))
        return cls(v, derivative, weight, basis, np.asarray(table.structure.stoichiometry))

    def solve(self) -> Solution:
        """Least squares for the rate constants and the homeostasis of every species."""
        n, terms = self.basis.shape[1:]
        regressions = dict(self.regressions())
        scaled = _Scaled.of(regressions.values(), self.v.shape[1])
        covariance = scaled.inverse()
        k = covariance @ scaled.rhs
        theta, theta_covariance = np.zeros((n, terms)), np.zeros((n, terms, terms))
        misfit = total = 0.0
        for i, one in regressions.items():
            theta[i] = one.solve_theta @ (one.raw_y - one.raw_columns @ k[one.unknowns])
            # theta = P (y - X k), P = solve_theta. The first term is its covariance for known k, since y has unit
            # variance; the second propagates the covariance of k, with which P y is uncorrelated.
            theta_by_k = one.solve_theta @ one.raw_columns
            k_covariance = covariance[np.ix_(one.unknowns, one.unknowns)]
            theta_covariance[i] = one.solve_theta @ one.solve_theta.T + theta_by_k @ k_covariance @ theta_by_k.T
            total += float(one.raw_y @ one.raw_y)
            misfit += float(np.sum((one.y - one.columns @ k[one.unknowns]) ** 2))
        return Solution(
            k=k,
            covariance=covariance,
            theta=theta,
            theta_covariance=theta_covariance,
            residual=self.residual(k, theta),
            misfit=misfit,
            total=total,
            matrix=scaled.matrix,
            rhs=scaled.rhs / scaled.scale,
            scale=scaled.scale,
        )

    def nuisance_map(
        self,
    ) -> tuple[Float[np.ndarray, "species terms"], Float[np.ndarray, "species terms reactions"]]:
        """The least-squares theta as an affine function of k: its value at k = 0, and its derivative by k."""
        at_zero = np.zeros(self.basis.shape[1:])
        by_k = np.zeros((*self.basis.shape[1:], self.v.shape[1]))
        for i, one in self.regressions():
            at_zero[i] = one.solve_theta @ one.raw_y
            by_k[i][:, one.unknowns] = -one.solve_theta @ one.raw_columns
        return at_zero, by_k

    def given(self, k: Float[np.ndarray, " reactions"]) -> LinearModel:
        """The regression of homeostasis alone, with known rate constants."""
        left = self.derivative - (self.v * k) @ self.stoichiometry.T
        return dataclasses.replace(self, v=np.zeros_like(self.v), derivative=left)

    def residual(
        self, k: Float[np.ndarray, " reactions"], theta: Float[np.ndarray, "species terms"]
    ) -> Float[np.ndarray, "rows species"]:
        """The residual of dc/dt, in concentration/time."""
        explained = (self.v * k) @ self.stoichiometry.T + np.einsum("til,il->ti", self.basis, theta)
        return np.asarray(self.derivative - explained)

    def with_shapes(
        self,
        solution: Solution,
        changes: Float[np.ndarray, "rows reactions shapes"],
    ) -> Joint:
        """One Gauss-Newton step for k and the shapes of rate laws together.

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
        m, shapes = changes.shape[1:]
        scaled = _Scaled.of((one for _, one in rows.regressions(changes, solution.k)), m + shapes)
        # The squared projection of each unit vector of k onto the null space.
        leverage = np.sum(scaled.vectors[:m, ~scaled.seen] ** 2, axis=1)
        inverse = scaled.inverse()
        return Joint(inverse[:m, :m], (inverse @ scaled.rhs)[m:], leverage > _LEVERAGE)

    def regressions(
        self, changes: np.ndarray | None = None, k: Float[np.ndarray, " reactions"] | None = None
    ) -> Iterator[tuple[int, _Species]]:
        """The index and the regression of every species with an entry of positive weight.

        Derivatives by shapes, if given, are additional columns.
        """
        for i in np.flatnonzero(self.weight.any(axis=0)):
            yield int(i), self._species(int(i), changes, k)

    def _species(self, i: int, changes: np.ndarray | None, k: Float[np.ndarray, " reactions"] | None) -> _Species:
        rows = np.flatnonzero(self.weight[:, i])
        root = np.sqrt(self.weight[rows, i])[:, None]
        unknowns = np.flatnonzero(self.stoichiometry[i])
        coefficients = self.stoichiometry[i, unknowns]
        columns = self.v[np.ix_(rows, unknowns)] * coefficients
        if changes is not None and k is not None:
            # d(dc_i/dt)/d(shape l) = sum_j S_ij k_j dV_j/d(shape l)
            change = np.einsum("tjl,j->tl", changes[np.ix_(rows, unknowns)], coefficients * k[unknowns])
            columns = np.concatenate([columns, change], axis=1)
            unknowns = np.concatenate([unknowns, self.v.shape[1] + np.arange(changes.shape[-1])])
        basis = self.basis[rows, i] * root
        good = np.flatnonzero(np.abs(basis).max(axis=0, initial=0.0) > 0)
        # With X the columns and B = Q R the basis, both weighted: least squares for theta gives inv(R) Q' (y - X k).
        # What remains is the regression of (1 - Q Q') y on (1 - Q Q') X (Frisch & Waugh 1933).
        q, r = np.linalg.qr(basis[:, good])
        solve_theta = np.zeros((basis.shape[1], len(rows)))
        solve_theta[good] = np.linalg.pinv(r, rcond=_RANK) @ q.T
        raw_columns, raw_y = columns * root, self.derivative[rows, i] * root[:, 0]
        return _Species(
            unknowns, raw_columns - q @ (q.T @ raw_columns), raw_y - q @ (q.T @ raw_y), solve_theta, raw_columns, raw_y
        )


def shape_changes(
    table: TabulatedReactions, nodes: Nodes, laws: Bool[np.ndarray, " laws"], *, additive: bool = False
) -> Float[np.ndarray, "rows reactions shapes"]:
    """Derivative of V by the coefficient of each shape of the chosen laws, in the unit of V.

    A shape is a Legendre polynomial of log c that is added to log f. f is fixed at the reference concentration, so
    every shape is zero there. Of large data, only every n-th row is computed.

    Args:
        laws: True for the laws whose shape is unknown.
        additive: whether a constant and a multiple of c, added to f, are further shapes. An error of this form can be
            compensated by offset and slope of homeostasis, so standard errors must include it.
    """
    each = _SHAPES + _ADDITIVE * additive
    shapes = each * int(laws.sum())
    stride = 1 + nodes.weight.shape[1] * len(table.k) * shapes // _MAX_NUMBERS
    c, weight = nodes.concentration[:, ::stride], nodes.weight[:, ::stride]
    v = table.substrate_factors(c)
    log_c, present = pair_concentrations(c, table.structure)
    of_pair, seen = table.structure.rate_laws.of_pair, _range(nodes)
    changes = np.zeros((*v.shape[1:], shapes))
    for number in range(shapes):
        law, degree = int(np.flatnonzero(laws)[number // each]), number % each + 1
        change = np.where((of_pair == law) & present, _shape(table, law, degree, log_c, seen), 0.0)
        # V is a product over substrates, so dV/d(shape) = V * sum over substrates of d(log f)/d(shape). The last
        # column, zero, is that of the padding in `Structure.substrates`.
        padded = np.concatenate([change, np.zeros((*change.shape[:-1], 1))], axis=-1)
        of_reactions = np.sum(padded[..., np.asarray(table.structure.substrates)], axis=-1)
        changes[..., number] = np.einsum("et,etj,etj->tj", weight, v, of_reactions)
    return changes


def reshaped(
    table: TabulatedReactions, nodes: Nodes, laws: Bool[np.ndarray, " laws"], shapes: Float[np.ndarray, " shapes"]
) -> TabulatedReactions:
    """The table with shapes added to log f of the chosen laws.

    Args:
        shapes: coefficient of each shape, in the order of `shape_changes` without additive ones.
    """
    knots, seen = table.table.knots, _range(nodes)
    at = knots.values
    log_f = np.stack([_log_f(table, law, at) for law in range(len(laws))])
    for number, amount in enumerate(shapes):
        law, degree = int(np.flatnonzero(laws)[number // _SHAPES]), number % _SHAPES + 1
        log_f[law] += amount * _shape(table, law, degree, at, seen)
    return dataclasses.replace(table, table=LogTable.through(log_f, knots))


def _shape(
    table: TabulatedReactions, law: int, degree: int, log_c: Float[np.ndarray, "*batch"], seen: tuple[float, float]
) -> Float[np.ndarray, "*batch"]:
    """Derivative of log f by the coefficient of a shape.

    Up to degree 4, a Legendre polynomial over the observed log concentrations; beyond, one of the additive shapes.
    All are zero at c = 1, the reference concentration in the internal units.

    Args:
        degree: from 1.
        seen: lowest and highest observed log concentration.
    """
    one = np.zeros(1)  # log c at the reference concentration
    if degree > _SHAPES:
        power = degree - _SHAPES - 1  # f + a c^power changes log f by a c^power / f

        def added(x: np.ndarray) -> np.ndarray:
            return np.asarray(np.exp(power * x - _log_f(table, law, x)))

        return np.asarray(added(log_c) - added(one)[0])
    low, high = seen
    middle, half = (high + low) / 2, max((high - low) / 2, 1e-3)
    polynomial = np.polynomial.Legendre.basis(degree)
    return np.asarray(polynomial((log_c - middle) / half) - polynomial(-middle / half))


def _log_f(table: TabulatedReactions, law: int, log_c: Float[np.ndarray, "*batch"]) -> Float[np.ndarray, "*batch"]:
    """log f of one law."""
    return np.asarray(table.table(log_c[..., None], np.array([law]))[..., 0])


def _range(nodes: Nodes) -> tuple[float, float]:
    """Lowest and highest observed log concentration."""
    c = nodes.concentration[nodes.concentration > 0]
    return (float(np.log(c.min())), float(np.log(c.max()))) if c.size else (0.0, 0.0)
