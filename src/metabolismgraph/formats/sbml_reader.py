"""From an SBML model to a reaction network: recognition of mass action, and substrates of other rate laws."""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from metabolismgraph.errors import InputError
from metabolismgraph.formats import mass_action
from metabolismgraph.formats.decimals import add
from metabolismgraph.formats.formula import FormulaError
from metabolismgraph.formats.probe import Probe
from metabolismgraph.formats.quantities import ModelIndex
from metabolismgraph.formats.sbml_notes import converts, model_notes
from metabolismgraph.system.network import Reaction, ReactionNetwork

FORWARD, BACKWARD = "_fwd", "_rev"
# SBO:0000020 (inhibitor) and its subclasses in the ontology
INHIBITORS = {20, 206, 207, 536, 537, 597, 639, 640}


@dataclasses.dataclass
class Reader:
    """Reads one model once, and collects notes.

    Attributes:
        source: name of the file, for messages.
        stem: name of the network if the model has no id.
        index: the model.
        rate_constants: known k of the reactions of the network, in concentration^(1-order)/time.
    """

    source: str
    stem: str
    index: ModelIndex
    resolving: set[str] = dataclasses.field(default_factory=set)
    noted: dict[str, list[str]] = dataclasses.field(default_factory=lambda: collections.defaultdict(list))
    terms: dict[str, mass_action.Term] = dataclasses.field(default_factory=dict)
    rate_constants: dict[str, float] = dataclasses.field(default_factory=dict)
    _computed: dict[str, mass_action.Polynomial] = dataclasses.field(default_factory=dict, init=False)

    def read(self) -> ReactionNetwork:
        """The network.

        Raises:
            InputError: a stoichiometry is not a constant >= 0, or ids are not unique.
        """
        reactions = [r for written in self.index.model.getListOfReactions() for r in self._reaction(written)]
        self._check_ids()
        species = [s.getId() for s in self.index.model.getListOfSpecies()]
        try:
            network = ReactionNetwork.from_reactions(
                self.index.model.getId() or self.stem,
                species,
                reactions,
                self.index.fixed,
                {name: self.index.size_of(name) for name in species},
            )
        except InputError as error:
            raise InputError(f"{self.source}: {error}") from None
        if not converts(self.index):
            self._read_constants(network)
        return network

    def notes(self) -> tuple[str, ...]:
        """Notes on assumptions, changes and omissions."""
        return model_notes(self.index, self.noted)

    # -- reactions

    def _reaction(self, written: Any) -> list[Reaction]:
        """A reaction of the file as one or two irreversible reactions."""
        name = written.getId()
        if written.isSetFast() and written.getFast():
            self.noted["fast"].append(name)
        left = self._side(written, written.getListOfReactants())
        right = self._side(written, written.getListOfProducts())
        net = {s: add(right.get(s, 0.0), -left.get(s, 0.0)) for s in dict.fromkeys((*left, *right))}
        net = {s: coefficient for s, coefficient in net.items() if coefficient}
        law = self._law(written, [*right, *(m.getSpecies() for m in written.getListOfModifiers())])
        if law is None:
            return self._direct(name, net, *self._orders(written, left, right), mass_action=False)
        backward = None if law.backward is None else law.backward.orders
        used = {*left, *right, *law.forward.orders, *(backward or ())}
        idle = [m.getSpecies() for m in written.getListOfModifiers() if m.getSpecies() not in used]
        self.noted["none"] += [f"{species} in {name}" for species in idle]
        sides = ((law.forward.orders, left), (backward, right))
        if any(orders is not None and dict(orders) != side for orders, side in sides):
            self.noted["orders"].append(name)
        reactions = self._direct(name, net, law.forward.orders, backward, mass_action=True)
        for reaction, term in zip(reactions, (law.forward, law.backward), strict=False):
            if term is not None:
                self.terms[reaction.id] = term
        return reactions

    def _direct(
        self,
        name: str,
        net: Mapping[str, float],
        forward: Mapping[str, float],
        backward: Mapping[str, float] | None,
        *,
        mass_action: bool,
    ) -> list[Reaction]:
        if backward is None:
            return [Reaction(name, forward, net, mass_action)]
        self.noted["split"].append(name)
        reverse = {s: -coefficient for s, coefficient in net.items()}
        return [
            Reaction(name + FORWARD, forward, net, mass_action),
            Reaction(name + BACKWARD, backward, reverse, mass_action),
        ]

    def _side(self, written: Any, references: Any) -> dict[str, float]:
        """Stoichiometry per species of one side; repeated species are added."""
        side: dict[str, float] = {}
        for reference in references:
            name = reference.getSpecies()
            value = self._stoichiometry(reference)
            if value is None or not math.isfinite(value) or value < 0:
                raise InputError(
                    f"{self.source}: reaction {written.getId()}: the stoichiometry of {name} is not a constant number "
                    ">= 0; write it as one"
                )
            side[name] = add(side.get(name, 0.0), value)
        return {name: value for name, value in side.items() if value}

    def _stoichiometry(self, reference: Any) -> float | None:
        """The stoichiometry as a number; None if it depends on time or cannot be computed."""
        index = self.index
        name = reference.getId()
        if reference.isSetStoichiometryMath():
            formula = reference.getStoichiometryMath().getMath()
            if not index.is_constant(formula):
                return None
        elif name and index.varies(name):
            return None
        else:
            formula = index.assigned.get(name, index.initially.get(name))
        if not formula:
            return float(reference.getStoichiometry())
        try:
            return float(index.start.evaluate(formula))
        except FormulaError:
            return None

    # -- reactions whose rate law is not known

    def _orders(
        self, written: Any, left: Mapping[str, float], right: Mapping[str, float]
    ) -> tuple[Mapping[str, float], Mapping[str, float] | None]:
        """Orders of the forward and (None if irreversible) backward reaction, for laws other than mass action."""
        law = written.getKineticLaw() if written.isSetKineticLaw() else None
        probe = Probe(self.index, written) if law is not None and law.isSetMath() else None
        two_way = self._runs_backward(written, probe, left, right)
        helpers = self._helpers(written, probe, {**left, **right} if two_way else left, one_way=not two_way)
        return {**helpers, **left}, {**helpers, **right} if two_way else None

    def _runs_backward(self, written: Any, probe: Probe | None, left: Iterable[str], right: Iterable[str]) -> bool:
        name = written.getId()
        can = probe is None or probe.runs_backward(left, right)
        if not written.getReversible():
            if probe is not None and can:
                self.noted["backward"].append(name)
            return False
        if not can:
            self.noted["one way"].append(name)
        elif not re.match(r"<reaction[^>]*\sreversible=", written.toSBML()):  # for libsbml, a default counts as set
            self.noted["default"].append(name)
        return can

    def _helpers(
        self, written: Any, probe: Probe | None, reactants: Iterable[str], *, one_way: bool
    ) -> dict[str, float]:
        """Further substrates of the rate law: modifiers, and other species on which the law depends."""
        modifiers = {m.getSpecies(): m.getSBOTerm() for m in written.getListOfModifiers()}
        mentioned = set() if probe is None else probe.mentioned
        others = [s for s in self.index.species if s in mentioned and s not in modifiers]
        helpers = {}
        for species in (*modifiers, *others):
            if species in reactants:
                continue
            influence: str | None = None if probe is None else probe.influence(species, one_way=one_way)
            if species in others and influence in {None, "none"}:
                continue
            if influence is None:
                influence = "down" if modifiers[species] in INHIBITORS else "catalyst"
            self.noted[influence].append(f"{species} in {written.getId()}")
            if influence in {"up", "catalyst"}:
                helpers[species] = 1.0
        return helpers

    # -- kinetic laws that are mass action

    def _law(self, written: Any, backward: Sequence[str]) -> mass_action.MassAction | None:
        """The kinetic law as mass action; None if there is no law or another one."""
        if not written.isSetKineticLaw() or not written.getKineticLaw().isSetMath():
            return None
        law = written.getKineticLaw()
        local = {
            p.getId(): _value(p, f"{written.getId()}.{p.getId()}")
            for p in (*law.getListOfParameters(), *law.getListOfLocalParameters())
        }
        try:
            polynomial = mass_action.expand(
                law.getMath(), lambda name: local[name] if name in local else self._lookup(name), self.index.functions
            )
            result = mass_action.mass_action(polynomial, backward)
        except mass_action.NotPolynomialError:
            result = None
        if result is None:
            self.noted["law"].append(written.getId())
        return result

    def _lookup(self, name: str) -> mass_action.Polynomial:
        """The polynomial of an id in a formula."""
        index = self.index
        if name in index.species:
            # In formulas, the id of such a species is its amount; networks use concentrations.
            amount = index.species[name].getHasOnlySubstanceUnits()
            concentration = mass_action.symbol(name)
            if not amount:
                return concentration
            return mass_action.product(concentration, self._size(index.species[name].getCompartment()))
        if name in index.compartments:
            return self._size(name)
        if name in index.rated or name in index.events or name in self.resolving:
            raise mass_action.NotPolynomialError
        formula = index.assigned.get(name, index.initially.get(name))
        if formula is None:
            if name not in index.parameters:  # time, the rate of a reaction, or undefined
                raise mass_action.NotPolynomialError
            return _value(index.parameters[name], name)
        # Rules that have the next one twice would double the work each time.
        if name in self._computed:
            return self._computed[name]
        self.resolving.add(name)
        try:
            value = mass_action.expand(formula, self._lookup, index.functions)
        finally:
            self.resolving.discard(name)
        if name not in index.assigned and mass_action.number(value) is None:
            value = mass_action.symbol(mass_action.UNKNOWN + name)  # constant, but a function of initial values
        self._computed[name] = value
        return value

    def _size(self, compartment: str) -> mass_action.Polynomial:
        """Size of a compartment in a law; an unknown constant if it depends on time."""
        if self.index.varies(compartment):
            return mass_action.symbol(mass_action.UNKNOWN + compartment)
        return mass_action.constant(self.index.size(compartment))

    def _read_constants(self, network: ReactionNetwork) -> None:
        """Convert k from amount/time (SBML) to concentration/time in the volume of the reaction."""
        for reaction, volume in zip(network.to_reactions(), network.reaction_volume, strict=True):
            term = self.terms.get(reaction.id)
            if term is None:
                continue
            cells = {self.index.species[s].getCompartment() for s in (*reaction.substrates, *reaction.net)}
            if any(self.index.varies(cell) for cell in cells):
                self.noted["varying size"].append(reaction.id)
            elif term.k is None:
                self.noted["unknown k"].append(reaction.id)
            else:
                self.rate_constants[reaction.id] = term.k / float(volume)

    def _check_ids(self) -> None:
        written = {r.getId() for r in self.index.model.getListOfReactions()}
        for name in self.noted["split"]:
            clash = [new for new in (name + FORWARD, name + BACKWARD) if new in written]
            if clash:
                raise InputError(
                    f"{self.source}: reaction {name} is split into {name + FORWARD} and {name + BACKWARD}, but another "
                    f"reaction is called {clash[0]}; rename one of them"
                )


def _value(parameter: Any, name: str) -> mass_action.Polynomial:
    """The value of a parameter; without a value, a symbol, so that the orders of the law can be determined."""
    value = parameter.getValue()
    if not parameter.isSetValue() or math.isnan(value):
        return mass_action.symbol(mass_action.UNKNOWN + name)
    return {(): value}  # can be infinite, such as 1/Keq of an irreversible reaction
