"""Numerical values of the ids of an SBML model, at its start and for given concentrations."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from metabolismgraph.formats.formula import TIME, FormulaError, Values, evaluate, names


class ModelIndex:
    """The elements of an SBML model by id.

    Attributes:
        document: a reference, since libsbml frees all parts of a document with it.
        assigned: formulas of assignment rules, by variable.
        rated: variables of rate rules.
        events: variables of event assignments.
        initially: formulas of initial assignments, by variable.
        fixed: species that reactions do not change: boundary species, constant species and variables of rules.
    """

    def __init__(self, document: Any) -> None:
        self.document = document
        self.model = model = document.getModel()
        self.functions = {f.getId(): f for f in model.getListOfFunctionDefinitions()}
        self.species = {s.getId(): s for s in model.getListOfSpecies()}
        self.compartments = {c.getId(): c for c in model.getListOfCompartments()}
        self.parameters = {p.getId(): p for p in model.getListOfParameters()}
        self.reactions = {r.getId(): r for r in model.getListOfReactions()}
        self.references = {
            reference.getId(): reference
            for r in self.reactions.values()
            for reference in (*r.getListOfReactants(), *r.getListOfProducts())
            if reference.getId()
        }
        self.assigned = {r.getVariable(): r.getMath() for r in model.getListOfRules() if r.isAssignment()}
        self.rated = {r.getVariable() for r in model.getListOfRules() if r.isRate()}
        self.events = {a.getVariable() for e in model.getListOfEvents() for a in e.getListOfEventAssignments()}
        self.initially = {a.getSymbol(): a.getMath() for a in model.getListOfInitialAssignments()}
        self._sizes: dict[str, float] = {}
        self.fixed = [
            name
            for name, s in self.species.items()
            if s.getBoundaryCondition() or s.getConstant() or name in self.assigned or name in self.rated
        ]

    @functools.cached_property
    def times_of_events(self) -> set[str]:
        """All names on which the times of events depend."""
        return set[str]().union(*map(self.times_of, self.model.getListOfEvents()))

    def times_of(self, event: Any) -> set[str]:
        """All names on which trigger, delay and priority of an event depend."""
        parts = (event.getTrigger(), event.getDelay(), event.getPriority())
        return set[str]().union(*(self.mentioned(part.getMath()) for part in parts if part is not None))

    @functools.cached_property
    def start(self) -> State:
        """The model at time zero."""
        return State(self)

    def initial(self, name: str) -> float | None:
        """Concentration of a species at time zero; None if the file does not give a finite one."""
        try:
            value = float(self.start.concentration(name))
        except FormulaError:
            return None
        return value if math.isfinite(value) else None

    def mentioned(self, node: Any, hidden: Collection[str] = ()) -> set[str]:
        """All names on which a formula depends, directly or through assignment rules.

        Args:
            node: the formula.
            hidden: names with a local meaning in it.
        """
        found: set[str] = set()
        new = names(node) - set(hidden)
        while new:
            found |= new
            rules = [self.assigned[name] for name in new if name in self.assigned]
            new = set[str]().union(*map(names, rules)) - found
        return found

    def varies(self, name: str) -> bool:
        """Whether a compartment, parameter or stoichiometry depends on time."""
        if name not in self.assigned:
            return name in self.rated or name in self.events
        return not self.is_constant(self.assigned[name])

    def is_constant(self, formula: Any) -> bool:
        """Whether a formula does not depend on time."""
        changing = {TIME, *self.species, *self.reactions, *self.rated, *self.events}
        return self.mentioned(formula).isdisjoint(changing)

    def size(self, compartment: str) -> float:
        """Size of a compartment at the start, > 0; 1 if the model does not give a valid size."""
        if compartment not in self._sizes:
            self._sizes[compartment] = 1.0  # ends the recursion of a size that depends on itself
            self._sizes[compartment] = self._given_size(compartment) or 1.0
        return self._sizes[compartment]

    @functools.cached_property
    def without_size(self) -> list[str]:
        """Compartments of dimension zero, and those with a size that is not a number > 0."""
        return [name for name in self.compartments if self._given_size(name) == 0]

    def _given_size(self, name: str) -> float | None:
        """Size at the start; None if it is not given, 0 if it is not valid."""
        compartment = self.compartments.get(name)
        if compartment is None:
            return None
        if compartment.getSpatialDimensionsAsDouble() == 0:
            return 0.0
        try:
            size = float(self.start.declared(name))
        except FormulaError:
            return None if name not in self.assigned and name not in self.initially else 0.0
        return size if 0 < size < math.inf else 0.0

    def size_of(self, species: str) -> float:
        """Size of the compartment of a species at the start."""
        return self.size(self.species[species].getCompartment())

    def volume_of(self, species: str) -> float:
        """Factor from the concentration of a species to the quantity of its id, which may be an amount."""
        return self.size_of(species) if self.species[species].getHasOnlySubstanceUnits() else 1.0


@dataclasses.dataclass
class State:
    """Values of the ids of a model.

    Attributes:
        index: the model.
        known: known concentrations of species; None: the start of the model, with initial values.
        time: times of the values.
        frozen: True: quantities that change by rate rules, events or reactions have their initial values.
    """

    index: ModelIndex
    known: Mapping[str, Values] | None = None
    time: Values = 0.0
    frozen: bool = dataclasses.field(default=False, kw_only=True)
    resolving: set[tuple[str, str]] = dataclasses.field(default_factory=set, init=False)
    _values: dict[tuple[str, str], Values] = dataclasses.field(default_factory=dict, init=False)

    @property
    def at_start(self) -> bool:
        return self.known is None

    def evaluate(self, node: Any, local: Mapping[str, float | None] | None = None) -> Values:
        """The value of a formula.

        Args:
            node: the formula.
            local: parameters of a kinetic law, which take precedence; None for a parameter without a value.

        Raises:
            FormulaError: the formula has no value.
        """
        local = local or {}

        def lookup(name: str) -> Values:
            if name not in local:
                return self.value(name)
            value = local[name]
            if value is None:
                raise FormulaError
            return np.float64(value)

        return evaluate(node, lookup, self.index.functions)

    def value(self, name: str) -> Values:
        """The value of a name in a formula; for a species with hasOnlySubstanceUnits, its amount.

        Raises:
            FormulaError: the value is not known.
        """
        if name == TIME:
            return self.time
        species = self.index.species.get(name)
        if species is not None:
            amount = species.getHasOnlySubstanceUnits()
            return self.concentration(name) * (self._size(species) if amount else 1.0)
        return self._guarded("value", name, self._set_value)

    def concentration(self, name: str) -> Values:
        """Concentration of a species.

        Raises:
            FormulaError: the concentration is not known.
        """
        if self.known is not None and name in self.known:
            return self.known[name]
        return self._guarded("concentration", name, self._concentration)

    def _guarded(self, kind: str, name: str, compute: Any) -> Values:
        """Compute a value once, with an error if it depends on itself."""
        if (kind, name) in self.resolving:
            raise FormulaError
        if (kind, name) not in self._values:
            self.resolving.add((kind, name))
            try:
                self._values[kind, name] = compute(name)
            finally:
                self.resolving.discard((kind, name))
        return self._values[kind, name]

    def _concentration(self, name: str) -> Values:
        species = self.index.species[name]
        rule = self.index.assigned.get(name)
        if rule is None and self.at_start:
            rule = self.index.initially.get(name)
        if rule is not None:
            return self.evaluate(rule) / (self._size(species) if species.getHasOnlySubstanceUnits() else 1.0)
        if not self.at_start:
            moves = name not in self.index.fixed or name in self.index.rated or name in self.index.events
            if moves and not self.frozen:
                raise FormulaError
            return self.index.start.concentration(name)
        if species.isSetInitialConcentration():
            return np.float64(species.getInitialConcentration())
        if species.isSetInitialAmount():
            return np.float64(species.getInitialAmount()) / self._size(species)
        raise FormulaError

    def _size(self, species: Any) -> Values:
        name = species.getCompartment()
        if self.at_start or not self.index.varies(name):
            return self.index.size(name)
        return self.value(name)

    def _set_value(self, name: str) -> Values:
        """The value of an id other than a species."""
        index = self.index
        if name in index.compartments and (self.at_start or name not in index.assigned):
            if not self.at_start and index.varies(name) and not self.frozen:
                raise FormulaError
            return np.float64(index.size(name))
        if name in index.reactions:
            law = index.reactions[name].getKineticLaw()
            if law is None:
                raise FormulaError
            return self.evaluate(law.getMath(), local_parameters(law))
        if not self.at_start and name not in index.assigned:
            if (name in index.rated or name in index.events) and not self.frozen:
                raise FormulaError
            return index.start.value(name)
        return self.declared(name)

    def declared(self, name: str) -> Values:
        """The value of a parameter, compartment or stoichiometry, by rule, initial assignment or attribute.

        Raises:
            FormulaError: there is none.
        """
        index = self.index
        formula = index.assigned.get(name)
        if formula is None and self.at_start:
            formula = index.initially.get(name)
        if formula is not None:
            return self.evaluate(formula)
        if name in index.parameters:
            number = index.parameters[name].getValue() if index.parameters[name].isSetValue() else math.nan
        elif name in index.compartments:
            number = index.compartments[name].getSize()
        elif name in index.references:
            number = index.references[name].getStoichiometry()
        else:
            number = math.nan
        if math.isnan(number):
            raise FormulaError
        return np.float64(number)


def local_parameters(law: Any) -> dict[str, float | None]:
    """Values of the parameters of a kinetic law; None for a parameter without a value."""
    return {
        p.getId(): p.getValue() if p.isSetValue() and not math.isnan(p.getValue()) else None
        for p in (*law.getListOfParameters(), *law.getListOfLocalParameters())
    }
