"""A reaction network: species, reactions, substrates with their orders, net stoichiometry. No rates."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from metabolismgraph.errors import InputError


@dataclasses.dataclass(frozen=True)
class Reaction:
    """One written reaction.

    `substrates` maps a species to its order |s| in the rate law; `net` maps a species to its net
    stoichiometric coefficient. The two are kept apart on purpose: A + B -> 2 B has net -1 for A and
    +1 for B, while its rate depends on both A and B.
    """

    id: str
    substrates: Mapping[str, float]
    net: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class ReactionNetwork:
    """What is known about a metabolism before any measurement.

    Attributes:
        id: name of the network.
        species: ids of the n species, in the order of every species axis.
        reactions: ids of the m reactions, in the order of every reaction axis.
        edge_species, edge_reaction, edge_order: one entry per (substrate, reaction) pair, sorted by
            reaction: index of the species, index of the reaction, order |s| (dimensionless).
        net_species, net_reaction, net_coefficient: the nonzero entries of the net stoichiometric
            matrix S (species x reactions), sorted by reaction.
        fixed: True for a species whose concentration the reactions do not change (SBML boundary
            or constant species): it drives rates but has no equation.
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
    fixed: Bool[np.ndarray, " species"]

    @property
    def n_species(self) -> int:
        return len(self.species)

    @property
    def n_reactions(self) -> int:
        return len(self.reactions)

    @property
    def stoichiometry(self) -> Float[np.ndarray, "species reactions"]:
        """Dense net stoichiometric matrix S; rows of fixed species are zero."""
        matrix = np.zeros((self.n_species, self.n_reactions))
        np.add.at(matrix, (self.net_species, self.net_reaction), self.net_coefficient)
        matrix[self.fixed] = 0.0
        return matrix

    @classmethod
    def from_reactions(
        cls,
        id: str,
        species: Sequence[str],
        reactions: Sequence[Reaction],
        fixed: Sequence[str] = (),
    ) -> ReactionNetwork:
        """Build a network from written reactions.

        Raises:
            InputError: an id is used twice, or a reaction or `fixed` names a species that is not listed.
        """
        for what, ids in (("species", list(species)), ("reaction", [r.id for r in reactions])):
            seen: set[str] = set()
            for name in ids:
                if name in seen:
                    raise InputError(f"network {id}: {what} id {name!r} is used twice; ids must be unique")
                seen.add(name)
        index = {name: i for i, name in enumerate(species)}
        absent = [name for name in fixed if name not in index]
        if absent:
            raise InputError(f"network {id}: fixed species {absent[0]!r} is not listed among the species")
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
            fixed=np.isin(np.array(species, dtype=object), np.array(list(fixed), dtype=object)),
        )

    def to_reactions(self) -> list[Reaction]:
        """The written reactions, in order: the inverse of `from_reactions`."""
        substrates: list[dict[str, float]] = [{} for _ in self.reactions]
        net: list[dict[str, float]] = [{} for _ in self.reactions]
        for i, j, order in zip(self.edge_species, self.edge_reaction, self.edge_order, strict=True):
            substrates[j][self.species[i]] = float(order)
        for i, j, coeff in zip(self.net_species, self.net_reaction, self.net_coefficient, strict=True):
            net[j][self.species[i]] = float(coeff)
        return [Reaction(r, s, d) for r, s, d in zip(self.reactions, substrates, net, strict=True)]

    def to_json(self) -> str:
        """The network as one JSON object, for storage beside observations."""
        return json.dumps(
            {
                "id": self.id,
                "species": list(self.species),
                "fixed": [s for s, f in zip(self.species, self.fixed, strict=True) if f],
                "reactions": [dataclasses.asdict(r) for r in self.to_reactions()],
            }
        )

    @classmethod
    def from_json(cls, text: str) -> ReactionNetwork:
        """The inverse of `to_json`."""
        raw: dict[str, Any] = json.loads(text)
        return cls.from_reactions(raw["id"], raw["species"], [Reaction(**r) for r in raw["reactions"]], raw["fixed"])
