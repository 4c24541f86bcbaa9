"""A reaction network: species, reactions, substrates with their orders, net stoichiometry; without rate constants."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int

from metabolismgraph.errors import InputError
from metabolismgraph.overview import Overview, Rows


@dataclasses.dataclass(frozen=True)
class Reaction:
    """A reaction by names of species.

    Substrates and net stoichiometry are separate: A + B -> 2 B has net -1 for A and +1 for B, and its rate depends on
    both A and B.

    Attributes:
        id: name of the reaction.
        substrates: order |s| in the rate law, by species.
        net: net stoichiometric coefficient, by species.
        mass_action: True if the rate is known to be k times the product of concentration^order over the
            substrates; otherwise the rate law is unknown and learned from data.
    """

    id: str
    substrates: Mapping[str, float]
    net: Mapping[str, float]
    mass_action: bool = False


@dataclasses.dataclass(frozen=True, repr=False)
class ReactionNetwork(Overview):
    """The reactions of a metabolism, with known stoichiometry and unknown rate constants.

    Attributes:
        id: name of the network.
        species: ids of the n species, in the order of every species axis.
        reactions: ids of the m reactions, in the order of every reaction axis.
        edge_species, edge_reaction, edge_order: one entry per (substrate, reaction) pair, sorted by
            reaction: index of the species, index of the reaction, order |s| (dimensionless).
        net_species, net_reaction, net_coefficient: net stoichiometric coefficients of the reaction equations (in
            amounts), sorted by reaction.
        mass_action: True for a reaction whose rate law is known to be mass action.
        volume: size of the compartment of each species; only ratios matter.
        fixed: True for a species whose concentration the reactions do not change (SBML boundary
            or constant species): rates depend on it, but it has no equation.

    Example:
        >>> import metabolismgraph as mg
        >>> network = mg.simulate(mg.load_config("small")).observations.network
        >>> network.n_species, network.n_reactions, network.stoichiometry.shape
        (30, 72, (30, 72))
    """

    id: str
    species: tuple[str, ...]
    reactions: tuple[str, ...]
    edge_species: Int[np.ndarray, " edges"]
    edge_reaction: Int[np.ndarray, " edges"]
    edge_order: Float[np.ndarray, " edges"]
    net_species: Int[np.ndarray, " entries"]
    net_reaction: Int[np.ndarray, " entries"]
    net_coefficient: Float[np.ndarray, " entries"]
    mass_action: Bool[np.ndarray, " reactions"]
    volume: Float[np.ndarray, " species"]
    fixed: Bool[np.ndarray, " species"]

    def _overview(self) -> tuple[str, Rows]:
        rows = [
            ("species", f"{self.n_species}, of which {int(self.fixed.sum())} fixed"),
            ("reactions", f"{self.n_reactions}, of which {int(self.mass_action.sum())} of mass action"),
        ]
        return f"network {self.id}", rows

    @property
    def n_species(self) -> int:
        return len(self.species)

    @property
    def n_reactions(self) -> int:
        return len(self.reactions)

    @property
    def stoichiometry(self) -> Float[np.ndarray, "species reactions"]:
        """Dense form of `sparse_stoichiometry`, for small networks."""
        return np.asarray(self.sparse_stoichiometry.toarray())

    @property
    def sparse_stoichiometry(self) -> scipy.sparse.csr_array:
        """Net stoichiometric matrix S (species x reactions): dc/dt = S v for rates v.

        The rate of a reaction is in concentration/time of its own compartment (`reaction_volume`). For a species
        in another compartment, the coefficient is multiplied by the ratio of the volumes. Rows of fixed species are
        empty.
        """
        ratio = self.reaction_volume[self.net_reaction] / self.volume[self.net_species]
        coefficient = np.where(self.fixed[self.net_species], 0.0, self.net_coefficient * ratio)
        shape = (self.n_species, self.n_reactions)
        matrix = scipy.sparse.csr_array((coefficient, (self.net_species, self.net_reaction)), shape=shape)
        matrix.eliminate_zeros()
        return matrix

    @property
    def reaction_volume(self) -> Float[np.ndarray, " reactions"]:
        """Volume of the compartment of each reaction: that of the first species consumed or, without one, produced."""
        volume = np.ones(self.n_reactions)
        for consumed in (False, True):  # in reverse order: the first species consumed overwrites all others
            entries = np.flatnonzero((self.net_coefficient < 0) == consumed)[::-1]
            volume[self.net_reaction[entries]] = self.volume[self.net_species[entries]]
        return volume

    @classmethod
    def from_reactions(
        cls,
        id: str,
        species: Sequence[str],
        reactions: Sequence[Reaction],
        fixed: Sequence[str] = (),
        volume: Mapping[str, float] | None = None,
    ) -> ReactionNetwork:
        """Build a network from reactions by names of species.

        Args:
            id: name of the network.
            species: ids of all species, in the order of every species axis.
            reactions: the reactions, in the order of every reaction axis.
            fixed: species whose concentration the reactions do not change.
            volume: size of the compartment by species; 1 for the others.

        Raises:
            InputError: an id is not unique; a reaction, `fixed` or `volume` contains a species that is not listed; or a
                volume is not a number > 0.
        """
        for what, ids in (("species", list(species)), ("reaction", [r.id for r in reactions])):
            seen: set[str] = set()
            for name in ids:
                if name in seen:
                    raise InputError(f"network {id}: {what} id {name!r} is used twice; ids must be unique")
                seen.add(name)
        index = {name: i for i, name in enumerate(species)}
        volume = volume or {}
        for what, names in (("fixed species", fixed), ("species with a volume,", volume)):
            absent = [name for name in names if name not in index]
            if absent:
                raise InputError(f"network {id}: {what} {absent[0]!r} is not listed among the species")
        empty = [name for name, size in volume.items() if not 0 < size < float("inf")]
        if empty:
            raise InputError(f"network {id}: the volume of {empty[0]} is {volume[empty[0]]:g}; it must be a number > 0")
        edges: list[tuple[int, int, float]] = []
        net: list[tuple[int, int, float]] = []
        for j, reaction in enumerate(reactions):
            unknown = [s for s in (*reaction.substrates, *reaction.net) if s not in index]
            if unknown:
                raise InputError(
                    f"network {id}: reaction {reaction.id} names species {unknown[0]!r}, which is not listed"
                )
            edges += [(index[s], j, float(order)) for s, order in reaction.substrates.items() if order]
            net += [(index[s], j, float(coeff)) for s, coeff in reaction.net.items() if coeff]
        return cls(
            id=id,
            species=tuple(species),
            reactions=tuple(r.id for r in reactions),
            edge_species=np.array([e[0] for e in edges], dtype=np.int64),
            edge_reaction=np.array([e[1] for e in edges], dtype=np.int64),
            edge_order=np.array([e[2] for e in edges], dtype=np.float64),
            net_species=np.array([e[0] for e in net], dtype=np.int64),
            net_reaction=np.array([e[1] for e in net], dtype=np.int64),
            net_coefficient=np.array([e[2] for e in net], dtype=np.float64),
            mass_action=np.array([r.mass_action for r in reactions], dtype=bool),
            volume=np.array([volume.get(s, 1.0) for s in species], dtype=np.float64),
            fixed=np.isin(np.array(species, dtype=object), np.array(list(fixed), dtype=object)),
        )

    def to_reactions(self) -> list[Reaction]:
        """The reactions by names of species, in order; the inverse of `from_reactions`."""
        substrates: list[dict[str, float]] = [{} for _ in self.reactions]
        net: list[dict[str, float]] = [{} for _ in self.reactions]
        for i, j, order in zip(self.edge_species, self.edge_reaction, self.edge_order, strict=True):
            substrates[j][self.species[i]] = float(order)
        for i, j, coeff in zip(self.net_species, self.net_reaction, self.net_coefficient, strict=True):
            net[j][self.species[i]] = float(coeff)
        return [
            Reaction(r, s, d, bool(known))
            for r, s, d, known in zip(self.reactions, substrates, net, self.mass_action, strict=True)
        ]

    def to_json(self) -> str:
        """The network as a JSON object."""
        return json.dumps(
            {
                "id": self.id,
                "species": list(self.species),
                "fixed": [s for s, f in zip(self.species, self.fixed, strict=True) if f],
                "volume": {s: float(v) for s, v in zip(self.species, self.volume, strict=True) if v != 1},
                "reactions": [dataclasses.asdict(r) for r in self.to_reactions()],
            }
        )

    @classmethod
    def from_json(cls, text: str) -> ReactionNetwork:
        """The network of a JSON object; the inverse of `to_json`."""
        raw: dict[str, Any] = json.loads(text)
        reactions = [Reaction(**r) for r in raw["reactions"]]
        return cls.from_reactions(raw["id"], raw["species"], reactions, raw["fixed"], raw.get("volume"))
