"""The weighted regressions of all species on rate constants, with homeostasis projected out.

With X the columns and B = Q R the basis of homeostasis of a species, both weighted: least squares for theta gives
inv(R) Q' (y - X k). What remains is the regression of (1 - Q Q') y on (1 - Q Q') X (Frisch & Waugh 1933). It is formed
from the data and not from normal equations, whose rounding errors would be squared.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Float, Int

from metabolismgraph.reactions.normal_equations import orthonormalise

_RANK = 1e-12  # share of a polynomial of the basis outside those of lower degree, below which it is rounding


class OfSpecies(NamedTuple):
    """The regression of one species.

    Attributes:
        species: its index.
        entries: its entries of S, a range of those of all species.
        reactions: the reactions of these entries.
        columns, y: their columns and dc/dt, weighted and projected.
    """

    species: int
    entries: slice
    reactions: Int[np.ndarray, " entries"]
    columns: Float[np.ndarray, "entries rows"]
    y: Float[np.ndarray, " rows"]


@dataclasses.dataclass(frozen=True)
class Columns:
    """The regressions of all species; entries are those of S, sorted by species.

    Attributes:
        species, reaction, coefficient: of each entry.
        first: first entry of each species, and the number of all entries.
        columns: weighted and projected.
        of_basis: Q'X, the part of each column that the projection removed.
        square: sum of squares of each column before the projection.
        y: dc/dt, weighted and projected.
        q: orthonormal basis of homeostasis, weighted; zero for a polynomial that the data do not distinguish.
        inverse: inv(R), with zeros for such a polynomial.
        root: square root of the weights.
        n_reactions: number of all reactions.
    """

    species: Int[np.ndarray, " entries"]
    reaction: Int[np.ndarray, " entries"]
    coefficient: Float[np.ndarray, " entries"]
    first: Int[np.ndarray, " species_and_end"]
    columns: Float[np.ndarray, "entries rows"]
    of_basis: Float[np.ndarray, "entries terms"]
    square: Float[np.ndarray, " entries"]
    y: Float[np.ndarray, "species rows"]
    q: Float[np.ndarray, "species terms rows"]
    inverse: Float[np.ndarray, "species terms terms"]
    root: Float[np.ndarray, "species rows"]
    n_reactions: int

    @classmethod
    def of(
        cls,
        v: Float[np.ndarray, "rows reactions"],
        derivative: Float[np.ndarray, "rows species"],
        weight: Float[np.ndarray, "rows species"],
        basis: Float[np.ndarray, "rows species terms"],
        stoichiometry: scipy.sparse.csr_array,
    ) -> Columns:
        """Form and project the columns; arguments as the attributes of `LinearModel`."""
        root = np.sqrt(weight).T.copy()
        q, inverse = orthonormalise(np.moveaxis(basis, 0, -1) * root[:, None], _RANK)
        used = stoichiometry.multiply(root.any(axis=1)[:, None]).tocsr()
        used.eliminate_zeros()
        first, reaction = used.indptr.astype(np.int64), used.indices.astype(np.int64)
        species = np.repeat(np.arange(len(root)), np.diff(first))
        y = _projected(_weighted(derivative, root), q)
        columns, of_basis, square = _columns(v, reaction, used.data, first, root, q)
        return cls(species, reaction, used.data, first, columns, of_basis, square, y, q, inverse, root, v.shape[1])

    def with_factors(self, v: Float[np.ndarray, "rows reactions"]) -> Columns:
        """The regressions of the same data with other substrate factors V."""
        columns, of_basis, square = _columns(v, self.reaction, self.coefficient, self.first, self.root, self.q)
        return dataclasses.replace(self, columns=columns, of_basis=of_basis, square=square)

    def __iter__(self) -> Iterator[OfSpecies]:
        """The regression of every species with entries."""
        for i in np.flatnonzero(np.diff(self.first)):
            entries = slice(self.first[i], self.first[i + 1])
            yield OfSpecies(int(i), entries, self.reaction[entries], self.columns[entries], self.y[i])

    def by_reaction(self, of_entries: Float[np.ndarray, "entries ..."]) -> Float[np.ndarray, "reactions ..."]:
        """The sum of values over the entries of each reaction."""
        total = np.zeros((self.n_reactions, *of_entries.shape[1:]))
        np.add.at(total, self.reaction, of_entries)
        return total

    @property
    def norms(self) -> Float[np.ndarray, " reactions"]:
        """The norm of the column of each reaction over all species, before the projection; 1 for a column of zeros."""
        square = self.by_reaction(self.square)
        return np.sqrt(np.where(square > 0, square, 1.0))

    @functools.cached_property
    def rhs(self) -> Float[np.ndarray, " reactions"]:
        """X'y over all species, the right-hand side of the normal equations."""
        return self._times(self.y[None])[:, 0]

    def projected(self, more: list[Float[np.ndarray, "species rows"]]) -> Float[np.ndarray, "further species rows"]:
        """Further columns of the regression of every species, weighted and projected."""
        return np.array([_projected(one * self.root, self.q) for one in more]).reshape(-1, *self.root.shape)

    def products(
        self, further: Float[np.ndarray, "further species rows"]
    ) -> tuple[
        Float[np.ndarray, "reactions further"], Float[np.ndarray, "further further"], Float[np.ndarray, " further"]
    ]:
        """X'C, C'C and C'y for further columns C, over all species."""
        flat = further.reshape(len(further), -1)
        return self._times(further), flat @ flat.T, flat @ self.y.ravel()

    def _times(self, further: Float[np.ndarray, "further species rows"]) -> Float[np.ndarray, "reactions further"]:
        """X'C over all species."""
        of_entries = np.zeros((len(self.reaction), len(further)))
        for i in np.flatnonzero(np.diff(self.first)):
            entries = slice(self.first[i], self.first[i + 1])
            of_entries[entries] = self.columns[entries] @ further[:, i].T
        return self.by_reaction(of_entries)

    @property
    def theta_by_k(self) -> scipy.sparse.csr_array:
        """Derivative of theta by k ((species x terms) x reactions)."""
        n, terms = self.inverse.shape[:2]
        values = -np.einsum("zlm,zm->zl", self.inverse[self.species], self.of_basis)
        row = self.species[:, None] * terms + np.arange(terms)
        column = np.broadcast_to(self.reaction[:, None], row.shape)
        shape = (n * terms, self.n_reactions)
        return scipy.sparse.csr_array((values.ravel(), (row.ravel(), column.ravel())), shape=shape)

    def theta(
        self, derivative: Float[np.ndarray, "rows species"], k: Float[np.ndarray, " reactions"]
    ) -> Float[np.ndarray, "species terms"]:
        """The least-squares coefficients of the basis for given rate constants."""
        left = np.einsum("ilt,it->il", self.q, _weighted(derivative, self.root))
        np.subtract.at(left, self.species, self.of_basis * k[self.reaction, None])
        return np.asarray(np.einsum("ilm,im->il", self.inverse, left))


def _columns(
    v: Float[np.ndarray, "rows reactions"],
    reaction: Int[np.ndarray, " entries"],
    coefficient: Float[np.ndarray, " entries"],
    first: Int[np.ndarray, " species_and_end"],
    root: Float[np.ndarray, "species rows"],
    q: Float[np.ndarray, "species terms rows"],
) -> tuple[Float[np.ndarray, "entries rows"], Float[np.ndarray, "entries terms"], Float[np.ndarray, " entries"]]:
    """Columns, `of_basis` and `square` of `Columns`, from its other attributes."""
    columns = np.ascontiguousarray(v.T)[reaction]
    columns *= coefficient[:, None]
    of_basis = np.empty((len(columns), q.shape[1]))
    for i in np.flatnonzero(np.diff(first)):
        entries = slice(first[i], first[i + 1])
        columns[entries] *= root[i]
        of_basis[entries] = columns[entries] @ q[i].T
        columns[entries] -= of_basis[entries] @ q[i]
    # Both parts are orthogonal.
    square = np.einsum("zt,zt->z", columns, columns) + np.einsum("zl,zl->z", of_basis, of_basis)
    return columns, of_basis, square


def _weighted(
    derivative: Float[np.ndarray, "rows species"], root: Float[np.ndarray, "species rows"]
) -> Float[np.ndarray, "species rows"]:
    """dc/dt times the root of its weight. An entry without weight has no influence, whatever its value."""
    return np.asarray(np.where(root > 0, derivative.T, 0.0) * root)


def _projected(
    values: Float[np.ndarray, "species rows"], q: Float[np.ndarray, "species terms rows"]
) -> Float[np.ndarray, "species rows"]:
    """What the basis of homeostasis of each species does not explain."""
    return np.asarray(values - np.einsum("ilt,il->it", q, np.einsum("ilt,it->il", q, values)))
