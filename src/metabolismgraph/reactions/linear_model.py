"""dc/dt as a linear function of rate constants and homeostasis, in NumPy and species by species, for what is done once.

`normal_equations` is made for a loop that learns f, and needs gradients. Here every entry has a weight of its own,
homeostasis is projected out of the columns of each species before they are multiplied, and nothing is
compiled. The shape of f may stand beside the rate constants as an unknown, so that standard errors count
what f does not know (the Gauss-Newton approximation of the joint fit; Seber & Wild 1989, chapter 2).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from metabolismgraph.reactions.normal_equations import Nodes
from metabolismgraph.system.kinetics import pair_concentrations
from metabolismgraph.system.log_table import LogTable
from metabolismgraph.system.tabulated_reactions import TabulatedReactions

_SHAPES = 4  # functions of log c by which each rate law may be off: linear to quartic
_ADDITIVE = 2  # and what a line of homeostasis can stand in for: f may be off by a constant, and by a multiple of c
_LEVERAGE = 1e-6  # of a rate constant on directions that are not determined
_MOST_NUMBERS = 20_000_000  # of tangents held at a time; beyond that every n-th row stands for n
_RANK = 1e-12  # eigenvalues of the scaled normal matrix, and pivots of a basis, below this share are rounding


class Solution(NamedTuple):
    """The best rate constants and homeostasis.

    Attributes:
        k: with the least sum of squares; along undetermined directions the smallest.
        covariance: of k, for weights that are 1/variance.
        theta, theta_covariance: coefficients of the basis of homeostasis, and their covariance within a species.
        left: what is left of dc/dt, in entries left out too.
        misfit, total: weighted sums of squares of what is left, and of dc/dt itself.
        matrix, rhs, scale: the normal equations of the scaled k, which is scale * k: each column has size one
            before homeostasis is projected out of it.
    """

    k: Float[np.ndarray, " reactions"]
    covariance: Float[np.ndarray, "reactions reactions"]
    theta: Float[np.ndarray, "species terms"]
    theta_covariance: Float[np.ndarray, "species terms terms"]
    left: Float[np.ndarray, "rows species"]
    misfit: float
    total: float
    matrix: Float[np.ndarray, "reactions reactions"]
    rhs: Float[np.ndarray, " reactions"]
    scale: Float[np.ndarray, " reactions"]

    @property
    def log_share(self) -> float:
        """log of the share of the weighted sum of squares that is left, as in `projection.projected_loss`."""
        return float(np.log(max(self.misfit, 1e-300) / max(self.total, 1e-300)))


class Joint(NamedTuple):
    """Rate constants and shapes of rate laws fitted together, to first order.

    Attributes:
        covariance: of k.
        shapes: by how much each shape should change log f.
        hidden: True for a k that is not determined beside the shapes.
    """

    covariance: Float[np.ndarray, "reactions reactions"]
    shapes: Float[np.ndarray, " shapes"]
    hidden: Bool[np.ndarray, " reactions"]


class _Species(NamedTuple):
    """The equations of one species, weighted, homeostasis projected out.

    Attributes:
        unknowns: reactions that move it.
        columns, y: their columns and dc/dt, of the rows in use.
        solve_theta: takes a weighted residual of the rows in use to coefficients of homeostasis.
        raw_columns: weighted columns before the projection.
        raw_y: weighted dc/dt before it.
    """

    unknowns: np.ndarray
    columns: np.ndarray
    y: np.ndarray
    solve_theta: np.ndarray
    raw_columns: np.ndarray
    raw_y: np.ndarray


class _Scaled(NamedTuple):
    """A normal matrix scaled by the sizes of its columns, and its eigenvectors.

    Sizes are those before homeostasis was projected out. A column that homeostasis explains keeps next to nothing of
    its size, and so counts as zero; scaled to a unit diagonal, its rounding would pass for information.

    Attributes:
        matrix: divided by the sizes of row and column.
        scale: the sizes.
        values, vectors: its eigenvalues and eigenvectors.
        seen: eigenvalues that are more than rounding.
    """

    matrix: Float[np.ndarray, "unknowns unknowns"]
    scale: Float[np.ndarray, " unknowns"]
    values: Float[np.ndarray, " unknowns"]
    vectors: Float[np.ndarray, "unknowns unknowns"]
    seen: Bool[np.ndarray, " unknowns"]

    @classmethod
    def of(cls, matrix: Float[np.ndarray, "unknowns unknowns"], square: Float[np.ndarray, " unknowns"]) -> _Scaled:
        """Scale a matrix, given the sum of squares of each column."""
        scale = np.sqrt(np.where(square > 0, square, 1.0))
        scaled = matrix / scale[:, None] / scale
        values, vectors = np.linalg.eigh(scaled)
        return cls(scaled, scale, values, vectors, values > _RANK)

    def inverse(self) -> Float[np.ndarray, "unknowns unknowns"]:
        """The pseudo-inverse of the matrix as it was before it was scaled."""
        vectors = self.vectors[:, self.seen] / self.scale[:, None]
        return np.asarray((vectors / self.values[self.seen]) @ vectors.T)


@dataclasses.dataclass(frozen=True)
class LinearModel:
    """The regression rows.

    Attributes:
        v: what multiplies k in each reaction's rate, averaged over the nodes of the rule for dc/dt.
        derivative: left-hand side, in concentration per time.
        weight: 1/variance of each entry, 0 for one left out.
        basis: of the homeostasis of each species; a column of zeros where the data cannot tell it from lower ones.
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
        """Evaluate the rates at the nodes of the rule."""
        v = np.einsum("et,etj->tj", nodes.weight, table.substrate_factors(nodes.concentration))
        return cls(v, derivative, weight, basis, np.asarray(table.structure.stoichiometry))

    def solve(self) -> Solution:
        """Least squares for the rate constants and the homeostasis of every species."""
        m, (n, terms) = self.v.shape[1], self.basis.shape[1:]
        matrix, rhs, square, total = np.zeros((m, m)), np.zeros(m), np.zeros(m), 0.0
        equations = {i: self._species(i) for i in self._moving()}
        for one in equations.values():
            matrix[np.ix_(one.unknowns, one.unknowns)] += one.columns.T @ one.columns
            rhs[one.unknowns] += one.columns.T @ one.y
            square[one.unknowns] += np.sum(one.raw_columns**2, axis=0)
            total += float(one.raw_y @ one.raw_y)
        scaled = _Scaled.of(matrix, square)
        covariance = scaled.inverse()
        k = covariance @ rhs
        theta, theta_covariance = np.zeros((n, terms)), np.zeros((n, terms, terms))
        misfit = 0.0
        for i, one in equations.items():
            theta[i] = one.solve_theta @ (one.raw_y - one.raw_columns @ k[one.unknowns])
            through = one.solve_theta @ one.raw_columns
            among = covariance[np.ix_(one.unknowns, one.unknowns)]
            theta_covariance[i] = one.solve_theta @ one.solve_theta.T + through @ among @ through.T
            misfit += float(np.sum((one.y - one.columns @ k[one.unknowns]) ** 2))
        return Solution(
            k=k,
            covariance=covariance,
            theta=theta,
            theta_covariance=theta_covariance,
            left=self.residual(k, theta),
            misfit=misfit,
            total=total,
            matrix=scaled.matrix,
            rhs=rhs / scaled.scale,
            scale=scaled.scale,
        )

    def nuisance_map(
        self,
    ) -> tuple[Float[np.ndarray, "species terms"], Float[np.ndarray, "species terms reactions"]]:
        """The best homeostasis as a linear function of the rate constants: at k = 0, and its derivative by k."""
        at_zero = np.zeros(self.basis.shape[1:])
        by_k = np.zeros((*self.basis.shape[1:], self.v.shape[1]))
        for i in self._moving():
            one = self._species(i)
            at_zero[i] = one.solve_theta @ one.raw_y
            by_k[i][:, one.unknowns] = -one.solve_theta @ one.raw_columns
        return at_zero, by_k

    def nuisance(self, k: Float[np.ndarray, " reactions"]) -> Float[np.ndarray, "species terms"]:
        """The best homeostasis for given rate constants."""
        at_zero, by_k = self.nuisance_map()
        return np.asarray(at_zero + by_k @ k)

    def residual(
        self, k: Float[np.ndarray, " reactions"], theta: Float[np.ndarray, "species terms"]
    ) -> Float[np.ndarray, "rows species"]:
        """What is left of dc/dt."""
        explained = (self.v * k) @ self.stoichiometry.T + np.einsum("til,il->ti", self.basis, theta)
        return np.asarray(self.derivative - explained)

    def with_shapes(
        self,
        solution: Solution,
        changes: Float[np.ndarray, "rows reactions shapes"],
    ) -> Joint:
        """The step to the best k and shapes of rate laws together, to first order.

        Args:
            solution: where the effect of a change of shape, which is proportional to k, is taken.
            changes: derivative of V by each shape; every n-th row of the data stands for n.
        """
        stride = -(-len(self.v) // len(changes))
        rows = dataclasses.replace(
            self,
            v=self.v[::stride],
            derivative=solution.left[::stride],
            weight=stride * self.weight[::stride],
            basis=self.basis[::stride],
        )
        return rows.solve_with_shapes(solution.k, changes)

    def solve_with_shapes(
        self, k: Float[np.ndarray, " reactions"], changes: Float[np.ndarray, "rows reactions shapes"]
    ) -> Joint:
        """The same with rows and changes of shape side by side; see `with_shapes`."""
        m, extra = changes.shape[1:]
        matrix, rhs, square = np.zeros((m + extra, m + extra)), np.zeros(m + extra), np.zeros(m + extra)
        for i in self._moving():
            one = self._species(i, changes, k)
            index = np.concatenate([one.unknowns, m + np.arange(extra)])
            matrix[np.ix_(index, index)] += one.columns.T @ one.columns
            rhs[index] += one.columns.T @ one.y
            square[index] += np.sum(one.raw_columns**2, axis=0)
        scaled = _Scaled.of(matrix, square)
        leverage = np.sum(scaled.vectors[:m, ~scaled.seen] ** 2, axis=1)
        inverse = scaled.inverse()
        return Joint(inverse[:m, :m], (inverse @ rhs)[m:], leverage > _LEVERAGE)

    def _moving(self) -> list[int]:
        """Species that have an equation in use."""
        return [int(i) for i in np.flatnonzero(self.weight.any(axis=0))]

    def _species(
        self, i: int, changes: np.ndarray | None = None, k: Float[np.ndarray, " reactions"] | None = None
    ) -> _Species:
        """The equations of a species; changes of shape, if there are any, are further columns."""
        rows = np.flatnonzero(self.weight[:, i])
        root = np.sqrt(self.weight[rows, i])[:, None]
        unknowns = np.flatnonzero(self.stoichiometry[i])
        coefficients = self.stoichiometry[i, unknowns]
        columns = self.v[np.ix_(rows, unknowns)] * coefficients
        if changes is not None and k is not None:
            change = np.einsum("tjl,j->tl", changes[np.ix_(rows, unknowns)], coefficients * k[unknowns])
            columns = np.concatenate([columns, change], axis=1)
        basis = self.basis[rows, i] * root
        good = np.flatnonzero(np.abs(basis).max(axis=0, initial=0.0) > 0)
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
    """Derivative of V by the shape of each of the chosen laws: Legendre polynomials of log c.

    f is fixed at the reference concentration, so no shape changes it there. Where this would be too large,
    it holds every n-th row only.

    Args:
        additive: whether f may also be off by a constant and by a multiple of c, which offset and slope of a species
            can make up for.
    """
    each = _SHAPES + _ADDITIVE * additive
    shapes = each * int(laws.sum())
    stride = 1 + nodes.weight.shape[1] * len(table.k) * shapes // _MOST_NUMBERS
    c, weight = nodes.concentration[:, ::stride], nodes.weight[:, ::stride]
    v = table.substrate_factors(c)
    log_c, present = pair_concentrations(c, table.structure)
    of_pair, seen = table.structure.rate_laws.of_pair, _range(nodes)
    changes = np.zeros((*v.shape[1:], shapes))
    for number in range(shapes):
        law, degree = int(np.flatnonzero(laws)[number // each]), number % each + 1
        change = np.where((of_pair == law) & present, _shape(table, law, degree, log_c, seen), 0.0)
        padded = np.concatenate([change, np.zeros((*change.shape[:-1], 1))], axis=-1)
        of_reactions = np.sum(padded[..., np.asarray(table.structure.substrates)], axis=-1)
        changes[..., number] = np.einsum("et,etj,etj->tj", weight, v, of_reactions)
    return changes


def reshaped(
    table: TabulatedReactions, nodes: Nodes, laws: Bool[np.ndarray, " laws"], shapes: Float[np.ndarray, " shapes"]
) -> TabulatedReactions:
    """The table with log f of the chosen laws changed by so much of each shape."""
    knots, seen = table.table.knots, _range(nodes)
    at = np.asarray(knots.log_c)
    log_f = np.stack([_log_f(table, law, at) for law in range(len(laws))])
    for number, amount in enumerate(shapes):
        law, degree = int(np.flatnonzero(laws)[number // _SHAPES]), number % _SHAPES + 1
        log_f[law] += amount * _shape(table, law, degree, at, seen)
    return dataclasses.replace(table, table=LogTable.through(jnp.asarray(log_f), knots))


def _shape(
    table: TabulatedReactions, law: int, degree: int, log_c: Float[np.ndarray, "*batch"], seen: tuple[float, float]
) -> Float[np.ndarray, "*batch"]:
    """Change of log f: a Legendre polynomial over the observed log concentrations, or one of the additive shapes.

    All are zero at c = 1, the reference concentration in units of our own.

    Args:
        seen: lowest and highest observed log concentration.
    """
    one = np.zeros(1)
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
