"""The normal matrix of a large network: sparse, and solved by conjugate gradients.

Two reactions have an entry if they change the same species, so the number of entries grows with that of the species. A
hub is a species with so many reactions that the square of their number exceeds the size of its columns X. Its part
X X' is never formed but applied as two products; its rank is at most the number of rows of the data.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int

from metabolismgraph.errors import InputError
from metabolismgraph.reactions.columns import Columns
from metabolismgraph.reactions.normal_matrix import RANK, Directions, NormalMatrix

Apply = Callable[[np.ndarray], np.ndarray]

_SAME = 1e-9  # two rate laws are proportional if their random projections differ by less than this share
_WIDE = 64  # entries of a row beyond which it is a hub
_SAMPLES = 64  # of the estimates, for their variance; standard errors then have a relative error of 9 %
_FIRST_PROBES, _MOST_PROBES = 8, 64  # random vectors in the search for further undetermined directions
_FOUND = 1e-4  # length of a random vector of unit variance in an undetermined direction
_INVERSE_STEPS, _VECTORS = 6, 4  # of the inverse iteration for the least eigenvalue


class Accuracy(NamedTuple):
    """When conjugate gradients end.

    Attributes:
        tolerance: norm of the residual relative to that of the right-hand side, at which they end.
        accepted: a larger one after the largest number of iterations is an error.
        iterations: largest number.
    """

    tolerance: float = 1e-12
    accepted: float = 1e-8
    iterations: int = 40_000


_ROUGH = Accuracy(1e-11, np.inf, 500)
_FAST = Accuracy(iterations=5000)  # where a dense matrix is the alternative
_OF_SAMPLES = Accuracy(1e-9, 1e-5)


class Hub(NamedTuple):
    """A part X X' of the matrix, for a species with many reactions.

    Attributes:
        reactions: those of the species.
        columns: X, scaled.
    """

    reactions: Int[np.ndarray, " some"]
    columns: Float[np.ndarray, "some rows"]


class _Block(NamedTuple):
    """Eigenvalues and eigenvectors of the block of reactions with proportional rate laws."""

    members: Int[np.ndarray, " members"]
    values: Float[np.ndarray, " members"]
    vectors: Float[np.ndarray, "members members"]


@dataclasses.dataclass(frozen=True)
class SparseMatrix(NormalMatrix):
    """A normal matrix as a sparse matrix and parts of low rank.

    Attributes:
        matrix: scaled, without the hubs.
        hubs: the parts of low rank.
        scale: norms of the columns.
        group: number of the group of each reaction; rate laws of a group are proportional.
        columns: the regressions of all species.
    """

    matrix: scipy.sparse.csr_array
    hubs: tuple[Hub, ...]
    scale: Float[np.ndarray, " reactions"]
    group: Int[np.ndarray, " reactions"]
    columns: Columns

    @classmethod
    def of(cls, columns: Columns, v: Float[np.ndarray, "rows reactions"]) -> SparseMatrix:
        """The sum over species; `v` has the rate laws as columns."""
        scale = columns.norms
        hubs, parts = [], [np.zeros(0)]
        is_hub = 2 * np.diff(columns.first) > columns.columns.shape[1]
        for one in columns:
            x = one.columns / scale[one.reactions][:, None]
            if is_hub[one.species]:
                hubs.append(Hub(one.reactions, x))
            else:
                parts.append((x @ x.T).ravel())
        place = _pairs(columns, ~is_hub)
        matrix = scipy.sparse.csr_array((np.concatenate(parts), place), shape=(columns.n_reactions,) * 2)
        return cls(matrix, tuple(hubs), scale, proportional(v), columns)

    def __matmul__(self, x: Float[np.ndarray, "reactions ..."]) -> Float[np.ndarray, "reactions ..."]:
        product = self.matrix @ x
        for hub in self.hubs:
            product[hub.reactions] += hub.columns @ (hub.columns.T @ x[hub.reactions])
        return np.asarray(product)

    @functools.cached_property
    def _within(self) -> scipy.sparse.csr_array:
        """The entries of reactions of the same group, hubs included."""
        entries = self.matrix.tocoo()
        same = self.group[entries.row] == self.group[entries.col]
        data, row, column = [entries.data[same]], [entries.row[same]], [entries.col[same]]
        for hub in self.hubs:
            order = np.argsort(self.group[hub.reactions], kind="stable")
            ends = np.flatnonzero(np.diff(self.group[hub.reactions][order])) + 1
            for part in np.split(order, ends):
                x, members = hub.columns[part], hub.reactions[part]
                data.append((x @ x.T).ravel())
                row.append(np.repeat(members, len(members)))
                column.append(np.tile(members, len(members)))
        place = (np.concatenate(row), np.concatenate(column))
        return scipy.sparse.csr_array((np.concatenate(data), place), shape=self.matrix.shape)

    @functools.cached_property
    def _blocks(self) -> list[_Block]:
        """The eigendecomposition of every group of several reactions."""
        order = np.argsort(self.group, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(self.group[order])) + 1)
        blocks = []
        for members in groups:
            if len(members) > 1:
                values, vectors = np.linalg.eigh(self._within[members][:, members].toarray())
                blocks.append(_Block(members, values, vectors))
        return blocks

    @functools.cached_property
    def _preconditioner(self) -> scipy.sparse.csr_array:
        """The pseudo-inverse of the blocks of all groups (block Jacobi)."""
        diagonal = self._within.diagonal()
        alone = np.ones(len(diagonal), dtype=bool)
        data, row, column = [], [], []
        for block in self._blocks:
            alone[block.members] = False
            seen = block.values > RANK
            vectors = block.vectors[:, seen]
            data.append(((vectors / block.values[seen]) @ vectors.T).ravel())
            row.append(np.repeat(block.members, len(block.members)))
            column.append(np.tile(block.members, len(block.members)))
        single = np.flatnonzero(alone)
        seen = diagonal[single] > RANK
        data.append(np.where(seen, 1.0 / np.where(seen, diagonal[single], 1.0), 0.0))
        place = (np.concatenate([*row, single]), np.concatenate([*column, single]))
        return scipy.sparse.csr_array((np.concatenate(data), place), shape=self.matrix.shape)

    def solve(self, rhs: Float[np.ndarray, "reactions ..."]) -> Float[np.ndarray, "reactions ..."]:
        scale = self.scale.reshape(-1, *[1] * (rhs.ndim - 1))
        found = self._solve_scaled((rhs / scale).reshape(len(rhs), -1), Accuracy())
        return np.asarray(found.reshape(rhs.shape) / scale)

    def is_well_conditioned(self) -> bool:
        """Whether conjugate gradients soon find a solution with parts along all eigenvectors."""
        z = np.random.default_rng(0).standard_normal((len(self.scale), 1))
        try:
            self._solve_scaled(self @ z, _FAST)
        except InputError:
            return False
        return True

    def solve_roughly(self, rhs: Float[np.ndarray, " reactions"]) -> Float[np.ndarray, " reactions"]:
        return np.asarray(self._solve_scaled((rhs / self.scale)[:, None], _ROUGH)[:, 0] / self.scale)

    def _solve_scaled(
        self, rhs: Float[np.ndarray, "reactions columns"], accuracy: Accuracy
    ) -> Float[np.ndarray, "reactions columns"]:
        return conjugate_gradients(self.__matmul__, self._preconditioner.__matmul__, rhs, accuracy)

    def variance(self) -> Float[np.ndarray, " reactions"]:
        return np.asarray(np.mean((self._samples / self.scale[:, None]) ** 2, axis=1))

    def covariance_of(self, by_k: scipy.sparse.csr_array, size: int) -> Float[np.ndarray, "groups size size"]:
        values = (by_k @ (self._samples / self.scale[:, None])).reshape(by_k.shape[0] // size, size, -1)
        return np.asarray(np.einsum("gls,gms->glm", values, values) / values.shape[2])

    @functools.cached_property
    def _samples(self) -> Float[np.ndarray, "reactions samples"]:
        """Least-squares estimates of the scaled k from independent errors of unit variance in all entries.

        Their covariance is the pseudo-inverse. The estimate of a variance from N samples has the relative error
        sqrt(2 / N), however the matrix is conditioned; the diagonal of an inverse from random signs (Hutchinson 1989)
        has no such bound.
        """
        rng = np.random.default_rng(0)
        of_entries = np.zeros((len(self.columns.reaction), _SAMPLES))
        for one in self.columns:
            signs = rng.integers(0, 2, (len(one.y), _SAMPLES), dtype=np.int8)
            of_entries[one.entries] = one.columns @ (2.0 * signs - 1.0)
        rhs = self.columns.by_reaction(of_entries) / self.scale[:, None]
        return self._solve_scaled(rhs, _OF_SAMPLES)

    def undetermined(self, tolerance: float) -> list[Directions]:
        """Directions of eigenvalues below a tolerance.

        A is positive semidefinite: a null vector of a block on its diagonal, filled up with zeros, is one of A. The
        blocks are those of the groups; random vectors show whether there are further directions.
        """
        local = self._of_groups(tolerance)
        further = self._further(local, tolerance)
        return local if further is None else [*local, further]

    def _of_groups(self, tolerance: float) -> list[Directions]:
        found = []
        for block in self._blocks:
            hidden = block.values < tolerance
            if hidden.any():
                found.append(Directions(block.members, block.vectors[:, hidden]))
        alone = np.ones(len(self.group), dtype=bool)
        alone[np.concatenate([block.members for block in self._blocks] or [np.zeros(0, dtype=np.int64)])] = False
        single = np.flatnonzero(alone & (self._within.diagonal() < tolerance))
        return found + [Directions(np.array([j]), np.ones((1, 1))) for j in single]

    def _further(self, known: list[Directions], tolerance: float) -> Directions | None:
        """The undetermined directions that are orthogonal to the known ones.

        Raises:
            InputError: there are too many.
        """
        m, number = len(self.scale), _FIRST_PROBES
        while True:
            z = _without(known, np.random.default_rng(0).standard_normal((m, number)))
            # What the solution of A x = A z lacks of z is its part in the null space.
            left = _without(known, z - self._solve_scaled(self @ z, Accuracy()))
            vectors, sizes, _ = np.linalg.svd(left, full_matrices=False)
            vectors = vectors[:, sizes > _FOUND]
            values, within = np.linalg.eigh(vectors.T @ (self @ vectors))
            hidden = vectors @ within[:, values < tolerance]
            if hidden.shape[1] < number:
                return Directions(np.arange(m), hidden) if hidden.size else None
            if number >= _MOST_PROBES:
                raise InputError(
                    f"at least {number} combinations of rate constants are not determined by the data, besides those "
                    "of reactions with the same substrates; measure more frames, or fit a part of the network"
                )
            number *= 2

    def eigenvalues(self, undetermined: list[Directions]) -> Float[np.ndarray, " eigenvalues"]:
        # The least of the others by inverse iteration.
        x = _without(undetermined, np.random.default_rng(1).standard_normal((len(self.scale), _VECTORS)))
        values = np.zeros(0)
        for _ in range(_INVERSE_STEPS):
            x, _ = np.linalg.qr(_without(undetermined, self._solve_scaled(x, _ROUGH)))
            values, within = np.linalg.eigh(x.T @ (self @ x))
            x = x @ within
        return np.concatenate([np.zeros(sum(one.vectors.shape[1] for one in undetermined)), values[:1]])

    def solve_free(
        self, b: Float[np.ndarray, " reactions"], free: Bool[np.ndarray, " reactions"]
    ) -> Float[np.ndarray, " reactions"]:
        def restricted(operator: Apply) -> Apply:
            return lambda x: operator(x * free[:, None]) * free[:, None]

        applied = restricted(self.__matmul__), restricted(self._preconditioner.__matmul__)
        return conjugate_gradients(*applied, (b * free)[:, None], Accuracy())[:, 0]

    def with_rows(self, rows: scipy.sparse.csr_array) -> SparseMatrix:
        wide = np.diff(rows.indptr) > _WIDE
        hubs = [
            Hub(rows.indices[a:b].astype(np.int64), rows.data[a:b, None])
            for a, b in zip(rows.indptr[:-1][wide], rows.indptr[1:][wide], strict=True)
        ]
        narrow = rows[np.flatnonzero(~wide)]
        return dataclasses.replace(self, matrix=(self.matrix + narrow.T @ narrow).tocsr(), hubs=(*self.hubs, *hubs))


def _pairs(columns: Columns, chosen: Bool[np.ndarray, " species"]) -> tuple[np.ndarray, np.ndarray]:
    """Reactions of all pairs of entries of each chosen species, in the order of its flattened normal matrix."""
    degree = np.where(chosen, np.diff(columns.first), 0)
    # Entry (a, b) of the matrix of a species is its number a * degree + b.
    species = np.repeat(np.arange(len(degree)), degree**2)
    number = np.arange(len(species)) - np.repeat(np.cumsum(degree**2) - degree**2, degree**2)
    row, column = np.divmod(number, degree[species])
    return columns.reaction[columns.first[species] + row], columns.reaction[columns.first[species] + column]


def proportional(v: Float[np.ndarray, "rows reactions"]) -> Int[np.ndarray, " reactions"]:
    """Numbers of groups of columns that are proportional to each other; a column of zeros is alone.

    A column that is in a group by chance does no harm: groups only say where undetermined directions are looked for.

    Example:
        >>> group = proportional(np.array([[1.0, 2.0, 1.0], [2.0, 4.0, 3.0]]))
        >>> bool(group[0] == group[1]), bool(group[0] == group[2])
        (True, False)
    """
    size = np.linalg.norm(v, axis=0)
    of_zeros = -1.0 - np.arange(len(size))  # no projection of a unit vector is equal to these
    share = np.random.default_rng(0).uniform(1.0, 2.0, len(v)) @ v
    share = np.where(size > 0, share / np.where(size > 0, size, 1.0), of_zeros)
    order = np.argsort(share, kind="stable")
    apart = np.diff(share[order], prepend=share[order[:1]]) > _SAME * np.abs(share[order])
    group = np.zeros(len(size), dtype=np.int64)
    group[order] = np.cumsum(apart)
    return group


def _without(directions: list[Directions], x: Float[np.ndarray, "reactions columns"]) -> np.ndarray:
    """Columns without their parts along orthonormal directions."""
    x = x.copy()
    for one in directions:
        x[one.reactions] -= one.vectors @ (one.vectors.T @ x[one.reactions])
    return x


def conjugate_gradients(
    apply: Apply, precondition: Apply, rhs: Float[np.ndarray, "size columns"], accuracy: Accuracy
) -> Float[np.ndarray, "size columns"]:
    """Solutions of A x = b for several b (Hestenes & Stiefel 1952), from zero.

    A is positive semidefinite. If b is in its range, the solution is that of least norm, up to the preconditioner.

    Args:
        apply: multiplies columns by A.
        precondition: multiplies them by an approximation of its pseudo-inverse.
        accuracy: when to end.

    Raises:
        InputError: the residual of a solution is too large after the largest number of iterations.
    """
    x, residual = np.zeros_like(rhs), rhs.copy()
    goal = accuracy.tolerance * np.linalg.norm(rhs, axis=0)
    z = precondition(residual)
    direction, size = z, np.sum(residual * z, axis=0)
    for _ in range(accuracy.iterations):
        active = np.linalg.norm(residual, axis=0) > goal
        if not active.any():
            return x
        image = apply(direction)
        curvature = np.sum(direction * image, axis=0)
        # A direction without curvature is rounding, or leads out of the range.
        step = np.where(active & (curvature > 0), size / np.where(curvature > 0, curvature, 1.0), 0.0)
        if not step.any():
            break
        x += step * direction
        residual -= step * image
        z = precondition(residual)
        before, size = size, np.sum(residual * z, axis=0)
        direction = z + np.where(before > 0, size / np.where(before > 0, before, 1.0), 0.0) * direction
    off = np.linalg.norm(residual, axis=0) / np.maximum(np.linalg.norm(rhs, axis=0), 1e-300)
    if off.max(initial=0.0) > accuracy.accepted:
        raise InputError(
            f"the normal equations of the rate constants were solved only to {off.max():.1g}: the data hardly "
            "distinguish some of the reactions; measure more frames, or fit a part of the network"
        )
    return x
