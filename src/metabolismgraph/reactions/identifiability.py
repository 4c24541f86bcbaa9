"""Which rate constants the data determine, individually or only in combination.

Two reactions with the same substrates have the same rate law, so dc/dt depends only on combinations of their k.
In general, the undetermined directions are the null space of the scaled normal matrix (`linear_model`). Along
them, only the prior on k distinguishes between values (`unidentifiable`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import scipy
from jaxtyping import Bool, Float

from metabolismgraph.config import GraphModel
from metabolismgraph.errors import InputError, check_argument
from metabolismgraph.overview import Overview, Rows
from metabolismgraph.reactions.linear_model import LinearModel
from metabolismgraph.reactions.normal_equations import follows_equation, orthonormal_basis
from metabolismgraph.reactions.normal_matrix import LEVERAGE, NormalMatrix, leverage
from metabolismgraph.system.kinetics import Aggregation, Structure, mass_action
from metabolismgraph.system.network import ReactionNetwork
from metabolismgraph.system.observations import Observations, Transitions
from metabolismgraph.system.tabulated_reactions import TabulatedReactions

if TYPE_CHECKING:
    import pandas as pd
from metabolismgraph.system.threads import in_single_thread
from metabolismgraph.system.units import Units

_SAME = 1e-4  # null directions of two analyses that differ by less are the same direction


@dataclasses.dataclass(frozen=True)
class Combination:
    """One linear combination of rate constants, sum of coefficient * k."""

    reactions: tuple[int, ...]
    coefficients: tuple[float, ...]

    def written(self, names: Sequence[str]) -> str:
        """As text, with the names of all reactions.

        Example:
            >>> Combination((0, 2), (1.0, -2.0)).written(["R1", "R2", "R3"])
            'k(R1) - 2 k(R3)'
        """
        text = ""
        for j, a in zip(self.reactions, self.coefficients, strict=True):
            sign = "-" if a < 0 else "+" if text else ""
            size = "" if abs(a) == 1 else f"{abs(a):g} "
            text += f" {sign} " if text else sign
            text += f"{size}k({names[j]})"
        return text


@dataclasses.dataclass(frozen=True, repr=False)
class Identifiability(Overview):
    """Which rate constants, and which combinations of them, the data determine.

    Attributes:
        identifiable: True where a rate constant is determined individually.
        null_space: orthonormal directions of k (unscaled) along which dc/dt does not change.
        eigenvalues: of the scaled normal matrix, ascending; of a large network only those of the null space, as zero,
            and the next one. The larger the gap above the null space, the clearer the verdict.
        groups: reactions that share null directions, as tuples of indices.
        combinations: the determined combinations of each group (may be empty).
        names: of the reactions; empty where they are not known.
    """

    identifiable: Bool[np.ndarray, " reactions"]
    null_space: Float[np.ndarray, "reactions directions"]
    eigenvalues: Float[np.ndarray, " eigenvalues"]
    groups: tuple[tuple[int, ...], ...]
    combinations: tuple[tuple[Combination, ...], ...]
    names: tuple[str, ...] = ()

    def _overview(self) -> tuple[str, Rows]:
        rows = [
            ("rate constants that are determined", f"{int(self.identifiable.sum())} of {len(self.identifiable)}"),
            ("directions that the data leave open", self.null_space.shape[1]),
            ("groups of reactions that share them", len(self.groups)),
            ("combinations that are determined", sum(map(len, self.combinations))),
            ("smallest eigenvalue of what is determined", f"{self.smallest_determined:.2g}"),
        ]
        return "identifiability", rows

    def _frame(self) -> pd.DataFrame | None:
        """What is not determined alone, if the reactions have names."""
        if not self.groups or not self.names:
            return None
        rows = [
            (", ".join(self.names[j] for j in group), ", ".join(one.written(self.names) for one in known) or "nothing")
            for group, known in zip(self.groups, self.combinations, strict=True)
        ]
        import pandas as pd  # noqa: PLC0415 (slow, and not for training)

        return pd.DataFrame(rows, columns=["not determined alone", "determined of these"])

    @classmethod
    def of(
        cls,
        identifiable: Bool[np.ndarray, " reactions"],
        null_space: Float[np.ndarray, "reactions directions"],
        eigenvalues: Float[np.ndarray, " eigenvalues"],
    ) -> Identifiability:
        """Find the groups and their determined combinations."""
        groups = _groups(null_space, ~identifiable)
        combinations = tuple(_determined(null_space[list(g)], g) for g in groups)
        return cls(identifiable, null_space, eigenvalues, groups, combinations)

    def joined(self, other: Identifiability) -> Identifiability:
        """What both analyses determine: the null space is the sum of the two null spaces."""
        if not (self.identifiable & ~other.identifiable).any():
            return self
        # Left singular vectors span the sum. A direction that is in both null spaces gives one small singular value.
        both, sizes, _ = np.linalg.svd(np.concatenate([self.null_space, other.null_space], axis=1))
        null_space = both[:, : len(sizes)][:, sizes > _SAME]
        identifiable = self.identifiable & other.identifiable
        return Identifiability.of(identifiable, null_space, other.eigenvalues)

    @property
    def smallest_determined(self) -> float:
        """Smallest eigenvalue outside the null space (NaN where there is none)."""
        rest = self.eigenvalues[self.null_space.shape[1] :]
        return float(rest[0]) if rest.size else float("nan")


def analyse(matrix: NormalMatrix, tolerance: float) -> Identifiability:
    """Split the space of rate constants into determined and undetermined directions.

    Args:
        matrix: the normal matrix.
        tolerance: eigenvalues of the scaled matrix below it count as zero.
    """
    hidden, m = matrix.undetermined(tolerance), len(matrix.scale)
    directions = [np.zeros((m, 0))]
    for one in hidden:
        unscaled = one.vectors / matrix.scale[one.reactions][:, None]
        filled = np.zeros((m, unscaled.shape[1]))
        filled[one.reactions] = scipy.linalg.orth(unscaled) if unscaled.size else unscaled
        directions.append(filled)
    # In scaled k: in unscaled k, a null vector has large components where k is large, and small components of other
    # reactions would fall below the threshold.
    identifiable = leverage(hidden, m) < LEVERAGE
    return Identifiability.of(identifiable, np.concatenate(directions, axis=1), matrix.eigenvalues(hidden))


def _groups(null_space: np.ndarray, hidden: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """Connected sets of reactions under the projector onto the null space."""
    members = np.flatnonzero(hidden)
    rows = null_space[members]
    linked = np.abs(rows @ rows.T) > LEVERAGE
    _, label = scipy.sparse.csgraph.connected_components(scipy.sparse.csr_array(linked), directed=False)
    return tuple(tuple(int(j) for j in members[label == g]) for g in range(label.max(initial=-1) + 1))


def _determined(rows: np.ndarray, group: tuple[int, ...]) -> tuple[Combination, ...]:
    """Row-reduced basis of the linear combinations of a group's k that vanish on its null directions."""
    # A combination a'k is determined if a'z = 0 for every null direction z, so these a are the null space of z'. Any
    # basis of it is valid. Row reduction (Gauss-Jordan with pivoting) gives the sparsest one to read, as k1 + k2.
    basis = scipy.linalg.null_space(rows.T, rcond=1e-8).T
    for row in range(len(basis)):
        column = int(np.argmax(np.abs(basis[row:]).max(axis=0) > LEVERAGE))
        best = row + int(np.argmax(np.abs(basis[row:, column])))
        basis[[row, best]] = basis[[best, row]]
        basis[row] /= basis[row, column]
        for other in range(len(basis)):
            if other != row:
                basis[other] -= basis[other, column] * basis[row]
    combinations = []
    for functional in basis:
        nonzero = np.flatnonzero(np.abs(functional) > LEVERAGE)
        combinations.append(
            Combination(tuple(group[i] for i in nonzero), tuple(float(round(functional[i], 6)) for i in nonzero))
        )
    return tuple(combinations)


@in_single_thread
def identify(
    network: ReactionNetwork,
    observations: Observations | None = None,
    *,
    aggregation: Aggregation = "mul",
    homeostasis: bool = True,
    tolerance: float = 1e-8,
) -> Identifiability:
    """Which rate constants can be determined, with mass action as the rate law.

    Args:
        network: the reactions.
        observations: the data; None: the identifiability that the network allows for ideal data (more random
            positive concentrations than any species has reactions).
        aggregation: "mul" for a product over substrates, "add" for a sum.
        homeostasis: whether every species may also have an unknown linear homeostasis, as `fit`
            assumes. A first-order loss A -> nothing is then indistinguishable from it.
        tolerance: eigenvalues of the scaled normal matrix below it count as zero.

    Returns:
        `identifiable` is True for each rate constant that is determined individually. `groups` are the sets of
        reactions that are determined only in combination, and `combinations` their determined combinations.

    Raises:
        InputError: the observations belong to another network.

    Source:
        Rate constants enter dc/dt linearly, so the determined combinations are the row space of the design matrix
        (Seber & Lee 2003, chapter 3).

    Example:
        >>> import metabolismgraph as mg
        >>> network = mg.simulate(mg.load_config("small")).observations.network
        >>> found = mg.identify(network)
        >>> int(found.identifiable.sum()), network.n_reactions
        (62, 72)
    """
    model = _regression(network, observations, aggregation)
    found = _analyse_with(model, homeostasis=homeostasis, tolerance=tolerance)
    return dataclasses.replace(found, names=network.reactions)


def identify_both(
    network: ReactionNetwork, observations: Observations | None, *, aggregation: Aggregation, tolerance: float
) -> tuple[Identifiability, Identifiability]:
    """The result of `identify` with homeostasis, and without; arguments as there."""
    model = _regression(network, observations, aggregation)
    return (
        _analyse_with(model, homeostasis=True, tolerance=tolerance),
        _analyse_with(model, homeostasis=False, tolerance=tolerance),
    )


def _analyse_with(model: LinearModel, *, homeostasis: bool, tolerance: float) -> Identifiability:
    """Identifiability under a regression, with its homeostasis or without."""
    if not homeostasis:
        model = dataclasses.replace(model, basis=np.zeros_like(model.basis))
    return analyse(model.matrix_of(model.columns()), tolerance)


def _regression(network: ReactionNetwork, observations: Observations | None, aggregation: Aggregation) -> LinearModel:
    """The regression of dc/dt on the rate constants of mass action and linear homeostasis; arguments of `identify`."""
    turned = isinstance(network, Observations)
    advice = "call mg.identify(observations.network, observations)" if turned else "read one with mg.read"
    check_argument("network", network, ReactionNetwork, advice)
    if observations is not None and observations.network.species != network.species:
        raise InputError(
            f"network {network.id}: the observations are of other species ({observations.network.id}); give the "
            "network that they were read with"
        )
    if observations is None:
        rng = np.random.default_rng(0)
        frames = 2 * int(np.diff(network.sparse_stoichiometry.indptr).max(initial=0)) + 64
        c = np.exp(rng.uniform(-2.0, 2.0, (frames, network.n_species)))
        transitions = Transitions(c, c, np.ones(frames), np.arange(frames))
    else:
        # In internal units, so that the verdict does not depend on the units of the data.
        units = Units.of(observations, GraphModel(aggr_type=aggregation))
        transitions = units.observations(observations).transitions()
    known = dataclasses.replace(network, mass_action=np.ones(network.n_reactions, dtype=bool))
    c = transitions.start
    table = TabulatedReactions.of(mass_action, np.ones(network.n_reactions), Structure.of(known), aggregation, c)
    v, stoichiometry = table.substrate_factors(c), network.sparse_stoichiometry
    used = np.where(follows_equation(transitions) & ~network.fixed, 1.0, 0.0)
    # Each species is weighted by 1 / mean square of its columns. With equal weights, the columns of species with small
    # fluxes would be of the size of rounding errors in those of species with large fluxes.
    square = stoichiometry**2 @ np.mean(v**2, axis=0)
    weight = used / np.where(square > 0, square, 1.0)
    return LinearModel(v, transitions.derivative, weight, orthonormal_basis(c, 1)[0], stoichiometry)
