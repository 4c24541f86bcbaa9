"""Which rate constants the data can determine, alone or only in combination.

Two reactions with the same substrates have the same rate law, so only combinations of their k are
visible; in general, what cannot be seen is the null space of the scaled normal matrix of
`normal_equations`. Along it, the most plausible value under a log-uniform prior is all that can be said.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.sparse
from jaxtyping import Array, Bool, Float

from metabolismgraph.config import GraphModel
from metabolismgraph.errors import InputError
from metabolismgraph.reactions.linear_model import LinearModel
from metabolismgraph.reactions.normal_equations import Nodes, follows_equation, orthonormal_basis
from metabolismgraph.system.kinetics import Aggregation, Structure
from metabolismgraph.system.network import ReactionNetwork
from metabolismgraph.system.observations import Observations, Transitions
from metabolismgraph.system.tabulated_reactions import TabulatedReactions
from metabolismgraph.system.units import Units

_LEVERAGE = 1e-6
_SAME = 1e-4  # null directions of two analyses that differ by less are the same one


@dataclasses.dataclass(frozen=True)
class Combination:
    """One linear combination of rate constants, sum of coefficient * k."""

    reactions: tuple[int, ...]
    coefficients: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Identifiability:
    """What the data determine about the rate constants.

    Attributes:
        identifiable: True where a rate constant is determined by itself.
        null_space: orthonormal directions of k (unscaled) that change nothing visible.
        eigenvalues: of the scaled normal matrix, ascending; the gap above the null space says how
            sharp the verdict is.
        groups: reactions that share null directions, as tuples of indices.
        combinations: per group, what of it is determined (empty: nothing).
    """

    identifiable: Bool[np.ndarray, " reactions"]
    null_space: Float[np.ndarray, "reactions directions"]
    eigenvalues: Float[np.ndarray, " reactions"]
    groups: tuple[tuple[int, ...], ...]
    combinations: tuple[tuple[Combination, ...], ...]

    def joined(self, other: Identifiability) -> Identifiability:
        """What both determine: hidden is whatever either of them does not see."""
        if not (self.identifiable & ~other.identifiable).any():
            return self
        both, sizes, _ = np.linalg.svd(np.concatenate([self.null_space, other.null_space], axis=1))
        null_space = both[:, : len(sizes)][:, sizes > _SAME]
        identifiable = self.identifiable & other.identifiable
        groups = _groups(null_space, ~identifiable)
        return Identifiability(
            identifiable=identifiable,
            null_space=null_space,
            eigenvalues=other.eigenvalues,
            groups=groups,
            combinations=tuple(_determined(null_space[list(g)], g) for g in groups),
        )

    @property
    def smallest_determined(self) -> float:
        """Smallest eigenvalue outside the null space (NaN where there is none)."""
        rest = self.eigenvalues[self.null_space.shape[1] :]
        return float(rest[0]) if rest.size else float("nan")


def analyse(
    matrix: Float[np.ndarray, "reactions reactions"], scale: Float[np.ndarray, " reactions"], tolerance: float
) -> Identifiability:
    """Split the space of rate constants into what the scaled normal matrix sees and what it does not.

    Args:
        matrix: symmetric, scaled (k = scaled k / scale), as in `regression.NormalEquations`.
        tolerance: eigenvalues below it count as zero.
    """
    eigenvalues, vectors = np.linalg.eigh(matrix)
    hidden = vectors[:, eigenvalues < tolerance] / scale[:, None]
    null_space = scipy.linalg.orth(hidden) if hidden.size else hidden
    # Leverage in scaled units: an unscaled null vector would hide reactions with large fluxes.
    leverage = np.sum(vectors[:, eigenvalues < tolerance] ** 2, axis=1)
    identifiable = leverage < _LEVERAGE
    groups = _groups(null_space, ~identifiable)
    return Identifiability(
        identifiable=identifiable,
        null_space=null_space,
        eigenvalues=eigenvalues,
        groups=groups,
        combinations=tuple(_determined(null_space[list(g)], g) for g in groups),
    )


def _groups(null_space: np.ndarray, hidden: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """Connected sets of reactions under the projector onto the null space."""
    members = np.flatnonzero(hidden)
    rows = null_space[members]
    linked = np.abs(rows @ rows.T) > _LEVERAGE
    _, label = scipy.sparse.csgraph.connected_components(scipy.sparse.csr_array(linked), directed=False)
    return tuple(tuple(int(j) for j in members[label == g]) for g in range(label.max(initial=-1) + 1))


def _determined(rows: np.ndarray, group: tuple[int, ...]) -> tuple[Combination, ...]:
    """Row-reduced basis of the functionals of a group's k that vanish on its null directions."""
    basis = scipy.linalg.null_space(rows.T, rcond=1e-8).T
    pivots: list[int] = []
    for row in range(len(basis)):
        column = int(np.argmax(np.abs(basis[row:]).max(axis=0) > _LEVERAGE))
        best = row + int(np.argmax(np.abs(basis[row:, column])))
        basis[[row, best]] = basis[[best, row]]
        basis[row] /= basis[row, column]
        for other in range(len(basis)):
            if other != row:
                basis[other] -= basis[other, column] * basis[row]
        pivots.append(column)
    combinations = []
    for functional in basis:
        nonzero = np.flatnonzero(np.abs(functional) > _LEVERAGE)
        combinations.append(
            Combination(tuple(group[i] for i in nonzero), tuple(float(round(functional[i], 6)) for i in nonzero))
        )
    return tuple(combinations)


def identify(
    network: ReactionNetwork,
    observations: Observations | None = None,
    *,
    aggregation: Aggregation = "mul",
    homeostasis: bool = True,
    tolerance: float = 1e-8,
) -> Identifiability:
    """Which rate constants can be determined, mass action taken as the rate law.

    Args:
        network: the reactions.
        observations: the data; None: what the network alone allows, whatever is measured (random
            positive concentrations, more of them than reactions).
        homeostasis: whether every species may also have an unknown linear homeostasis, as `fit`
            assumes; a first-order loss A -> nothing cannot be told apart from it.
        tolerance: eigenvalues of the scaled normal matrix below this share of the largest count as zero.

    Returns:
        `identifiable` is True for each rate constant that is determined by itself; `groups` are the sets of reactions
        that are known only in combination, and `combinations` what of each is determined.

    Raises:
        InputError: the observations are of another network.

    Source:
        Rate constants enter dc/dt linearly, so what data determine is the row space of the regression (Seber & Lee
        2003, chapter 3); the null space is what no data of this network can tell.

    Example:
        >>> import metabolismgraph as mg
        >>> network = mg.simulate(mg.load_config("small")).observations.network
        >>> found = mg.identify(network)
        >>> int(found.identifiable.sum()), network.n_reactions
        (62, 72)
    """
    if observations is not None and observations.network.species != network.species:
        raise InputError(
            f"network {network.id}: the observations are of other species ({observations.network.id}); give the "
            "network that they were read with"
        )
    if observations is None:
        rng = np.random.default_rng(0)
        frames = 2 * network.n_reactions + 64
        c = np.exp(rng.uniform(-2.0, 2.0, (frames, network.n_species)))
        transitions = Transitions(c, c, np.ones(frames), np.arange(frames))
    else:
        # In units of its own, so that the verdict does not hang on those of the data.
        units = Units.of(observations, GraphModel(aggr_type=aggregation))
        transitions = units.observations(observations).transitions()
    known = dataclasses.replace(network, mass_action=np.ones(network.n_reactions, dtype=bool))
    c = transitions.start
    table = TabulatedReactions.of(_no_law, np.ones(network.n_reactions), Structure.of(known), aggregation, c)
    basis, _ = orthonormal_basis(c, 1)
    model = LinearModel.of(
        table,
        Nodes(c[None], np.ones((1, len(c)))),
        transitions.derivative,
        np.where(follows_equation(transitions) & ~network.fixed, 1.0, 0.0),
        basis if homeostasis else np.zeros_like(basis),
    )
    # Rows as heavy as their own reactions, so that a species with small fluxes is not lost to rounding.
    flow = np.mean((model.v**2) @ (model.stoichiometry**2).T, axis=0)
    found = dataclasses.replace(model, weight=model.weight / np.where(flow > 0, flow, 1.0)).solve()
    return analyse(found.matrix, found.scale, tolerance)


def _no_law(log_c: Array, order: Array) -> Array:
    """In place of a learned rate law, where all are known."""
    del order
    return log_c
