"""dc/dt of a network and its derivatives, for many states at once, in NumPy.

The unknowns are, in this order: log10 of every rate constant, slope and offset of the homeostasis of every species,
and the spline coefficients of every learned rate law. With the flux v_j = k_j exp(sum of log f over the substrates),

    dc/dt = S v + slope c + offset
    d(dc/dt)/dc = S diag(v) d(log V)/dc + diag(slope)
    d(dc/dt)/d(unknowns) = [S diag(v) log 10, diag(c), 1, S diag(v) (sum of phi over the substrates)]

S has few entries per reaction, so these matrices are filled entry by entry.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int

from metabolismgraph.system.kinetics import Structure
from metabolismgraph.trajectories.substrate_spline import SplineLaw, SubstrateSpline, evaluate

FLOOR = 1e-9  # least concentration within logarithms, relative to the largest one
LOG_10 = float(np.log(10.0))
_DENSE = 10_000  # entries of S below which a product with zeros costs less than the search for other entries


@dataclasses.dataclass(frozen=True)
class Unknowns:
    """Where each kind of unknown lies in the vector of all.

    Attributes:
        reactions, species, laws, size: numbers of rate constants, of species, of learned laws, and of spline
            coefficients per law.
    """

    reactions: int
    species: int
    laws: int
    size: int

    @property
    def total(self) -> int:
        return self.reactions + 2 * self.species + self.laws * self.size

    @property
    def log_k(self) -> slice:
        return slice(0, self.reactions)

    @property
    def slope(self) -> slice:
        return slice(self.reactions, self.reactions + self.species)

    @property
    def offset(self) -> slice:
        return slice(self.reactions + self.species, self.reactions + 2 * self.species)

    @property
    def law(self) -> slice:
        return slice(self.reactions + 2 * self.species, self.total)


class Rates(NamedTuple):
    """dc/dt at some states, and what its derivatives are made of.

    Attributes:
        c, log_c: states, and log concentrations of the pairs of species and law.
        rate: dc/dt, in concentration/time.
        flux: of every reaction, in concentration/time.
        log_slope: d(log f)/dc of every pair, in 1/concentration.
    """

    c: Float[np.ndarray, "batch species"]
    log_c: Float[np.ndarray, "batch pairs"]
    rate: Float[np.ndarray, "batch species"]
    flux: Float[np.ndarray, "batch reactions"]
    log_slope: Float[np.ndarray, "batch pairs"]


@dataclasses.dataclass(frozen=True)
class RateEquation:
    """The rate equation of a network, without values of its unknowns.

    Attributes:
        pair_species, pair_order: species and order of each pair of species and law, see `system.kinetics.Structure`.
        pair_law: index of the learned law of each pair; -1 where the law is mass action.
        substrates: pairs of each reaction, padded with their number.
        stoichiometry: S; rows of fixed species are zero.
        moving: False for a fixed species.
        spline: basis of log f.
        floor: concentrations below it count as this concentration where a logarithm is taken.
    """

    pair_species: Int[np.ndarray, " pairs"]
    pair_order: Float[np.ndarray, " pairs"]
    pair_law: Int[np.ndarray, " pairs"]
    substrates: Int[np.ndarray, "reactions width"]
    stoichiometry: Float[np.ndarray, "species reactions"]
    moving: Bool[np.ndarray, " species"]
    spline: SubstrateSpline
    floor: float

    @classmethod
    def of(cls, structure: Structure, spline: SubstrateSpline, floor: float) -> RateEquation:
        """The rate equation of a network; learned laws are numbered by increasing order |s|."""
        laws = structure.rate_laws
        number = np.cumsum(~laws.known) - 1
        law = np.where(laws.known, -1, number)[laws.of_pair] if len(laws.of_pair) else np.zeros(0, dtype=np.int64)
        return cls(
            pair_species=np.asarray(structure.pair_species),
            pair_order=np.asarray(structure.pair_order),
            pair_law=np.asarray(law),
            substrates=np.asarray(structure.substrates),
            stoichiometry=structure.sparse_stoichiometry.toarray(),
            moving=np.asarray(structure.moving),
            spline=spline,
            floor=floor,
        )

    @functools.cached_property
    def unknowns(self) -> Unknowns:
        n, m = self.stoichiometry.shape
        laws = int(self.pair_law.max(initial=-1)) + 1
        return Unknowns(m, n, laws, self.spline.size if laws else 0)

    @property
    def linear(self) -> bool:
        """Whether dc/dt is known to be linear in the concentrations."""
        per_reaction = np.sum(self.substrates < len(self.pair_species), axis=1)
        return not self.unknowns.laws and bool((per_reaction <= 1).all() and (self.pair_order == 1).all())

    @functools.cached_property
    def learned_orders(self) -> Float[np.ndarray, " laws"]:
        """The order |s| of every learned law."""
        of_law = [self.pair_order[self.pair_law == law][0] for law in range(self.unknowns.laws)]
        return np.array(of_law, dtype=np.float64)

    @functools.cached_property
    def _entries(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Species, reaction and value of every entry of S."""
        i, j = np.nonzero(self.stoichiometry)
        return i, j, self.stoichiometry[i, j]

    @functools.cached_property
    def learned(self) -> tuple[np.ndarray, np.ndarray]:
        """The pairs with a learned law, and their laws."""
        learned = np.flatnonzero(self.pair_law >= 0)
        return learned, self.pair_law[learned]

    @functools.cached_property
    def factor(self) -> np.ndarray | scipy.sparse.csr_array:
        """S in the form in which products with it take the least time."""
        return self.stoichiometry if self.stoichiometry.size < _DENSE else self._sparse

    @functools.cached_property
    def _sparse(self) -> scipy.sparse.csr_array:
        return scipy.sparse.csr_array(self.stoichiometry)

    @functools.cached_property
    def triplets(self) -> tuple[np.ndarray, ...]:
        """The contributions to d(dc/dt)/dc, sorted by their place in the flattened matrix.

        Returns:
            Reaction, pair and coefficient of every contribution; the first contribution of every place, and the places.
        """
        i, j, s = self._entries
        width, n = self.substrates.shape[1], len(self.moving)
        pair = self.substrates[j].reshape(-1)
        row, reaction, coefficient = (np.repeat(a, width) for a in (i, j, s))
        real = pair < len(self.pair_species)
        row, reaction, coefficient, pair = row[real], reaction[real], coefficient[real], pair[real]
        place = row * n + self.pair_species[pair]
        order = np.argsort(place, kind="stable")
        places, first = np.unique(place[order], return_index=True)
        return reaction[order], pair[order], coefficient[order], first, places

    @functools.cached_property
    def _membership(self) -> list[scipy.sparse.csr_array]:
        """For each learned law, the number of times that each reaction has each pair."""
        m, p = len(self.substrates), len(self.pair_species)
        found = []
        for law in range(self.unknowns.laws):
            reaction, slot = np.nonzero(self.substrates < p)
            pair = self.substrates[reaction, slot]
            of_law = self.pair_law[pair] == law
            ones = np.ones(int(of_law.sum()))
            found.append(scipy.sparse.csr_array((ones, (reaction[of_law], pair[of_law])), shape=(m, p)))
        return found

    def laws(self, theta: Float[np.ndarray, " unknowns"]) -> list[SplineLaw]:
        """The learned laws."""
        u = self.unknowns
        coefficients = theta[u.law].reshape(u.laws, u.size)
        return [self.spline.law(a, order) for a, order in zip(coefficients, self.learned_orders, strict=True)]

    def bind(self, theta: Float[np.ndarray, " unknowns"]) -> RateFunction:
        """dc/dt for given unknowns."""
        u = self.unknowns
        laws = self.laws(theta)
        pieces = np.stack([law.pieces for law in laws], axis=1) if laws else np.zeros((4, 0, 0))
        slope, offset = (np.where(self.moving, theta[part], 0.0) for part in (u.slope, u.offset))
        return RateFunction(self, 10.0 ** theta[u.log_k], slope, offset, pieces)

    def rates(self, theta: Float[np.ndarray, " unknowns"], c: Float[np.ndarray, "batch species"]) -> Rates:
        """dc/dt at every state of a batch."""
        return self.bind(theta)(c)

    def by_laws(self, at: Rates) -> Float[np.ndarray, "batch species coefficients"]:
        """The derivative of dc/dt by the coefficients of the learned laws."""
        batch, n, size = len(at.c), len(self.moving), self.unknowns.size
        values = np.moveaxis(self.spline(at.log_c), 1, 0).reshape(len(self.pair_species), -1)
        parts = []
        for member in self._membership:
            phi = (member @ values).reshape(-1, batch, size)
            total = self._sparse @ (phi * at.flux.T[..., None]).reshape(len(phi), -1)
            parts.append(np.moveaxis(total.reshape(n, batch, size), 1, 0))
        return np.concatenate(parts, axis=-1)


@dataclasses.dataclass(frozen=True)
class RateFunction:
    """dc/dt for given unknowns.

    Attributes:
        equation: the rate equation.
        k: rate constants.
        slope, offset: of homeostasis; zero for fixed species.
        pieces: see `SplineLaw`, of every learned law.
    """

    equation: RateEquation
    k: Float[np.ndarray, " reactions"]
    slope: Float[np.ndarray, " species"]
    offset: Float[np.ndarray, " species"]
    pieces: Float[np.ndarray, "4 laws intervals"]

    def __call__(self, c: Float[np.ndarray, "batch species"]) -> Rates:
        """dc/dt at every state of a batch."""
        equation = self.equation
        given = c[:, equation.pair_species]
        at = np.maximum(given, equation.floor)
        log_c = np.log(at)
        log_f, log_slope = self._log_factors(log_c)
        padded = np.zeros((len(c), log_f.shape[1] + 1))
        padded[:, :-1] = log_f
        flux = self.k * np.exp(padded[:, equation.substrates].sum(axis=-1))
        rate = (equation.factor @ flux.T).T
        rate += self.slope * c
        rate += self.offset
        # Below the floor f is constant. With the slope at the floor there, Newton steps from negative concentrations
        # hardly converge, and a fit ends away from its optimum.
        return Rates(c, log_c, rate, flux, np.where(given < at, 0.0, log_slope / at))

    def _log_factors(
        self, log_c: Float[np.ndarray, "batch pairs"]
    ) -> tuple[Float[np.ndarray, "batch pairs"], Float[np.ndarray, "*batch pairs"]]:
        """log f of every pair, and its derivative by log c, which is the same for all states of known laws."""
        equation = self.equation
        learned, law = equation.learned
        knots = equation.spline.basis.x
        if len(learned) == log_c.shape[1]:
            return evaluate(self.pieces, law, knots, equation.pair_order, log_c)
        value, order = equation.pair_order * log_c, equation.pair_order
        if not len(learned):
            return value, order
        slope = np.tile(order, (len(log_c), 1))
        found = evaluate(self.pieces, law, knots, order[learned], log_c[:, learned])
        value[:, learned], slope[:, learned] = found
        return value, slope

    def by_state(self, at: Rates) -> Float[np.ndarray, "batch species species"]:
        """The derivative of dc/dt by the state, in 1/time."""
        n = len(self.slope)
        reaction, pair, coefficient, first, places = self.equation.triplets
        matrix = np.zeros((len(at.c), n * n))
        if len(places):
            parts = coefficient * at.flux[:, reaction]
            parts *= at.log_slope[:, pair]
            matrix[:, places] = np.add.reduceat(parts, first, axis=1)
        matrix[:, :: n + 1] += self.slope
        return matrix.reshape(-1, n, n)

    def by_unknowns(
        self, at: Rates, left: Float[np.ndarray, "batch rows species"]
    ) -> Float[np.ndarray, "batch rows unknowns"]:
        """Rows times the derivative of dc/dt by the unknowns, which is never formed: S has few entries."""
        equation, u = self.equation, self.equation.unknowns
        found = np.empty((*left.shape[:2], u.total))
        flat = left.reshape(-1, left.shape[-1])
        by_flux = (equation.factor.T @ flat.T).T.reshape(*left.shape[:2], -1)
        np.multiply(by_flux, LOG_10 * at.flux[:, None], out=found[..., u.log_k])
        moved = left * equation.moving
        np.multiply(moved, at.c[:, None], out=found[..., u.slope])
        found[..., u.offset] = moved
        if u.laws:
            np.matmul(left, equation.by_laws(at), out=found[..., u.law])
        return found
