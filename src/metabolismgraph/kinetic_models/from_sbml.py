"""From an SBML model to its differential equations, by its kinetic laws and rules."""

from __future__ import annotations

import dataclasses
import graphlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import libsbml
import numpy as np

from metabolismgraph.config.messages import nearest_name
from metabolismgraph.errors import InputError
from metabolismgraph.formats.formula import TIME, Compiled, FormulaError, Operations, Values, children, compiled, names
from metabolismgraph.formats.quantities import ModelIndex, local_parameters
from metabolismgraph.formats.sbml import read_document
from metabolismgraph.kinetic_models.model import Environment, KineticModel, state_key
from metabolismgraph.kinetic_models.scheduled_events import ScheduledEvents

_Term = tuple[float, Any, str]  # sign of a side of a reaction, reference to a species, reaction
_Formulas = dict[str, tuple[set[str], Compiled]]  # names that are needed, and the formula, by id


class ModelFile:
    """An SBML or Antimony file, also compressed by gzip: read once, for models with several values.

    Attributes:
        quantities: ids of its parameters, compartments and species.
        ids: these, and ids of reactions and of references to species.

    Raises:
        InputError: the file is missing or not valid SBML or Antimony.
    """

    def __init__(self, path: Path):
        self._path, self._index = path, ModelIndex(read_document(path, needs_network=False))
        index = self._index
        self.quantities = frozenset({*index.parameters, *index.compartments, *index.species})
        self.ids = self.quantities.union(index.reactions, index.references)

    def model(
        self,
        values: Mapping[str, Values] | None = None,
        operations: Operations | None = None,
        begin: float = 0.0,
    ) -> KineticModel:
        """The equations of the model.

        Args:
            values: other values of parameters, compartments and species at the start, as formulas see them; those that
                depend on them by initial assignments or rules follow.
            operations: see `operations_of`; values may then be symbols.
            begin: time of the initial state.

        Raises:
            InputError: the file has delays, algebraic rules, fast reactions, rates of change in formulas, or events
                that `ScheduledEvents` refuses; a quantity has no value, or depends on itself; a given value is of no
                quantity of the model, or of one that a rule computes.
        """
        path = self._path
        try:
            return _Builder(str(path), path.name.split(".")[0], self._index, values or {}, operations, begin).build()
        except RecursionError:
            raise InputError(
                f"{path}: a formula is nested too deeply to be read; write it with fewer brackets"
            ) from None


class _Builder:
    """Builds the equations of one model."""

    def __init__(
        self,
        source: str,
        stem: str,
        index: ModelIndex,
        given: Mapping[str, Values],
        operations: Operations | None,
        begin: float,
    ):
        self.source, self.index, self.given, self.operations = source, index, given, operations
        self.begin = begin
        self.model = index.model
        self.id = self.model.getId() or stem
        self.rules = {r.getVariable(): r.getMath() for r in self.model.getListOfRules() if r.isRate()}
        # Ids of references to species are quantities from Level 3 on.
        self.references: dict[str, Any] = dict(index.references) if self.model.getLevel() > 2 else {}
        self.jumping = index.events - set(self.rules)

    def build(self) -> KineticModel:
        self._refuse_unsupported()
        self._check_given()
        index, terms = self.index, self._terms()
        start = self._start()
        constants, formulas = self._quantities(start, terms)
        order = self._order({name: needed for name, (needed, _) in formulas.items()}, constants)
        moving = [name for name in index.species if name in terms]
        rates = [self._change(name, terms[name], constants, formulas) for name in moving]
        known = (*index.species, *index.compartments, *index.parameters, *self.references)
        resting = [name for name in known if name in self.jumping and name not in terms]
        rates += [_constant(0.0) for _ in resting]
        amounts = [name for name in (*moving, *resting) if name in index.species]
        for name, node in self.rules.items():
            self._check_known(name, node, constants, formulas)
            rates.append(self._formula(name, node)[1])
        factors = {name: self._factor(index.species[name], start) for name in amounts}
        states = (*moving, *resting, *self.rules)
        jumps = ScheduledEvents(self.source, index, start, self.begin, self._jump_formula(constants, formulas)).jumps
        model = KineticModel(
            id=self.id,
            states=states,
            start=tuple(start.get(name, np.nan) * factors.get(name, 1.0) for name in states),
            species=tuple(index.species),
            compartments={name: s.getCompartment() for name, s in index.species.items()},
            amounts=frozenset(name for name, s in index.species.items() if self._is_amount(s)),
            diluted=frozenset(
                name
                for name, s in index.species.items()
                if not self._is_amount(s) and name not in self.rules and name not in index.assigned
            ),
            constants=constants,
            computed=tuple((name, formulas[name][1]) for name in order),
            rates=tuple(rates),
            jumps=tuple(jump for jump in jumps if jump.instant > (self.begin, False)),
        )
        for jump in jumps[: len(jumps) - len(model.jumps)]:
            model = dataclasses.replace(model, start=tuple(model.after(jump, model.start)))
        return model

    def _jump_formula(self, constants: Environment, formulas: _Formulas) -> Callable[[str, Any], Compiled]:
        def formula(name: str, node: Any) -> Compiled:
            self._check_known(name, node, constants, formulas)
            return self._formula(name, node)[1]

        return formula

    def _terms(self) -> dict[str, list[_Term]]:
        """For every species that reactions change: sign, reference and reaction of every occurrence."""
        terms: dict[str, list[_Term]] = {}
        for reaction in self.index.reactions.values():
            for sign, references in ((-1.0, reaction.getListOfReactants()), (1.0, reaction.getListOfProducts())):
                for reference in references:
                    if reference.getSpecies() not in self.index.fixed:
                        terms.setdefault(reference.getSpecies(), []).append((sign, reference, reaction.getId()))
        return terms

    def _quantities(self, start: Environment, terms: Mapping[str, Any]) -> tuple[Environment, _Formulas]:
        """Constants, and formulas of all other quantities, from the values at the start."""
        index = self.index
        formulas: _Formulas = {}
        constants: Environment = {}
        for name in (*index.compartments, *index.parameters, *self.references, *index.species):
            if name in index.assigned:
                formulas[name] = self._formula(name, index.assigned[name])
            elif name in self.rules or (name in self.jumping and name not in index.species):
                formulas[name] = (set(), _getter(state_key(name)))
            elif name in index.species:
                species, key = index.species[name], state_key(name)
                changes = name in terms or name in self.jumping
                if not changes and name in start:
                    constants[key] = start[name] * self._factor(species, start)
                size = species.getCompartment()
                if changes or name in start:
                    formulas[name] = (set(), _getter(key)) if self._is_amount(species) else ({size}, _over(key, size))
            elif name in start:
                constants[name] = start[name]
        return constants, formulas | self._laws()

    def _laws(self) -> _Formulas:
        """The kinetic laws of all reactions that have one."""
        laws = {name: reaction.getKineticLaw() for name, reaction in self.index.reactions.items()}
        return {
            name: self._formula(name, law.getMath(), local_parameters(law))
            for name, law in laws.items()
            if law is not None and law.getMath() is not None
        }

    def _refuse_unsupported(self) -> None:
        model = self.model
        formulas = [*self.index.assigned.values(), *self.rules.values(), *self.index.initially.values()]
        formulas += [r.getKineticLaw().getMath() for r in self.index.reactions.values() if r.getKineticLaw()]
        formulas += [a.getMath() for e in model.getListOfEvents() for a in e.getListOfEventAssignments()]
        kinds = set[int]().union(*(_kinds(formula) for formula in formulas))
        for present, what in (
            (any(r.isAlgebraic() for r in model.getListOfRules()), "algebraic rules"),
            (any(r.isSetFast() and r.getFast() for r in self.index.reactions.values()), "fast reactions"),
            (libsbml.AST_FUNCTION_DELAY in kinds, "delays"),
            (libsbml.AST_FUNCTION_RATE_OF in kinds, "rates of change in formulas (rateOf)"),
        ):
            if present:
                raise InputError(f"{self.source}: the model has {what}, which are not simulated yet")
        for name in sorted(self.index.events & set(self.index.assigned)):
            raise InputError(f"{self.source}: {name} is computed by a rule; an event cannot change it, too")

    def _check_given(self) -> None:
        known = {*self.index.parameters, *self.index.compartments, *self.index.species}
        for name, value in self.given.items():
            if name not in known:
                raise InputError(f"{self.source}: no quantity {name} has a value; nearest: {nearest_name(name, known)}")
            if name in self.index.assigned:
                raise InputError(f"{self.source}: {name} is computed by a rule; it cannot be given a value")
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"{self.source}: the value of {name} must be finite, not {value:g}")

    def _is_amount(self, species: Any) -> bool:
        """Whether the id of a species is its amount: so stated, or its compartment has no volume."""
        compartment = self.index.compartments.get(species.getCompartment())
        pointlike = compartment is not None and compartment.getSpatialDimensionsAsDouble() == 0
        return bool(species.getHasOnlySubstanceUnits() or pointlike)

    def _factor(self, species: Any, start: Environment) -> Values:
        """What makes an amount of the value of a species at the start."""
        return 1.0 if self._is_amount(species) else start.get(species.getCompartment(), np.nan)

    def _formula(
        self, name: str, node: Any, local: Mapping[str, float | None] | None = None
    ) -> tuple[set[str], Compiled]:
        """The names that a formula needs, and the formula as a function of an environment."""
        local = local or {}
        for key in sorted(names(node) & set(local)):
            if local[key] is None:
                raise InputError(f"{self.source}: parameter {key} of reaction {name} has no value")

        def lookup(key: str) -> Compiled:
            if key in local:
                value = np.float64(local[key])
                return lambda _: value
            return _getter(key)

        try:
            return names(node) - set(local) - {TIME}, compiled(
                node, lookup, self.index.functions, operations=self.operations
            )
        except FormulaError:
            raise InputError(f"{self.source}: the formula of {name} cannot be evaluated") from None

    def _start(self) -> Environment:
        """Values at the start of every id that has one, as formulas see them."""
        index = self.index
        formulas: _Formulas = {}
        for name in (*index.compartments, *index.parameters, *self.references, *index.species):
            if name in self.given:
                formulas[name] = (set(), _constant(self.given[name]))
                continue
            node = index.assigned.get(name, index.initially.get(name))
            if node is not None:
                formulas[name] = self._formula(name, node)
                continue
            declared = self._declared(name)
            if declared is not None:
                formulas[name] = declared
        formulas |= self._laws()
        environment: Environment = {TIME: np.float64(self.begin)}
        for name in self._order({key: needed for key, (needed, _) in formulas.items()}, {}, known_only=True):
            if formulas[name][0] <= set(environment):
                with np.errstate(all="ignore"):
                    try:
                        environment[name] = formulas[name][1](environment)
                    except FormulaError:
                        raise InputError(f"{self.source}: the formula of {name} cannot be evaluated") from None
        del environment[TIME]
        return environment

    def _declared(self, name: str) -> tuple[set[str], Compiled] | None:
        """The value that the file gives an id, with the compartment that it needs; None for no value."""
        index = self.index
        if name in index.species:
            species, size = index.species[name], index.species[name].getCompartment()
            amount = self._is_amount(species)
            if species.isSetInitialAmount():
                value = species.getInitialAmount()
                made = (set(), _constant(value)) if amount else ({size}, _scaled(value, size, -1))
            else:
                value = species.getInitialConcentration() if species.isSetInitialConcentration() else math.nan
                made = ({size}, _scaled(value, size, 1)) if amount else (set(), _constant(value))
            return None if math.isnan(value) else made
        if name in index.parameters:
            value = index.parameters[name].getValue() if index.parameters[name].isSetValue() else math.nan
        elif name in index.compartments:
            value = self._plain_size(name)
        else:
            value = self.references[name].getStoichiometry()
        return None if math.isnan(value) else (set(), _constant(value))

    def _plain_size(self, name: str) -> float:
        compartment = self.index.compartments.get(name)
        if compartment is None:
            return math.nan
        if not compartment.isSetSize():
            return 1.0 if compartment.getLevel() < 3 or compartment.getSpatialDimensionsAsDouble() == 0 else math.nan
        return float(compartment.getSize())

    def _order(self, needs: Mapping[str, set[str]], constants: Environment, *, known_only: bool = False) -> list[str]:
        """The names so that each comes after those that it needs.

        Raises:
            InputError: a quantity depends on itself, or on one without a value.
        """
        graph = {name: {n for n in needed if n in needs} for name, needed in needs.items()}
        try:
            order = list(graphlib.TopologicalSorter(graph).static_order())
        except graphlib.CycleError as error:
            raise InputError(f"{self.source}: {error.args[1][0]} depends on itself; the rules have no order") from None
        if not known_only:
            for name, needed in needs.items():
                absent = sorted(n for n in needed if n not in needs and n not in constants)
                if absent:
                    raise InputError(f"{self.source}: {absent[0]}, on which {name} depends, has no value")
        return order

    def _check_known(self, name: str, node: Any, constants: Environment, formulas: _Formulas) -> None:
        absent = sorted(names(node) - {TIME} - set(constants) - set(formulas))
        if absent:
            raise InputError(f"{self.source}: {absent[0]}, on which {name} depends, has no value")

    def _change(
        self,
        name: str,
        terms: Sequence[_Term],
        constants: Environment,
        formulas: _Formulas,
    ) -> Compiled:
        """The rate of change of the amount of a species: stoichiometries times fluxes times a conversion factor."""
        parts: list[tuple[Compiled, str]] = []
        for sign, reference, reaction in terms:
            if reaction not in formulas:
                raise InputError(f"{self.source}: reaction {reaction} has no kinetic law")
            parts.append((self._stoichiometry(sign, reference, reaction, constants, formulas), reaction))
        species = self.index.species[name]
        factor = species.getConversionFactor() or self.model.getConversionFactor()
        if factor and factor not in constants and factor not in formulas:
            raise InputError(f"{self.source}: the conversion factor {factor} has no value")

        def change(environment: Environment) -> Values:
            total = sum((number(environment) * environment[reaction] for number, reaction in parts), np.float64(0.0))
            return total * environment[factor] if factor else total

        return change

    def _stoichiometry(
        self, sign: float, reference: Any, reaction: str, constants: Environment, formulas: _Formulas
    ) -> Compiled:
        if reference.isSetStoichiometryMath():
            node = reference.getStoichiometryMath().getMath()
            self._check_known(f"a stoichiometry of {reaction}", node, constants, formulas)
            formula = self._formula(f"a stoichiometry of {reaction}", node)[1]
            return lambda environment: sign * formula(environment)
        own = reference.getId()
        if own in formulas:
            return lambda environment: sign * environment[own]
        if own in constants:
            return _constant(sign * constants[own])
        value = float(reference.getStoichiometry())
        if math.isnan(value):
            raise InputError(
                f"{self.source}: reaction {reaction}: the stoichiometry of {reference.getSpecies()} has no value"
            )
        return _constant(sign * value)


def _getter(key: str) -> Compiled:
    return lambda environment: environment[key]


def _constant(value: Values) -> Compiled:
    number = np.float64(value) if isinstance(value, float | int) else value
    return lambda _: number


def _over(key: str, size: str) -> Compiled:
    return lambda environment: environment[key] / environment[size]


def _scaled(value: float, size: str, power: int) -> Compiled:
    """A value times a power, 1 or -1, of the size of a compartment."""
    number = np.float64(value)
    return lambda environment: number * environment[size] if power > 0 else number / environment[size]


def _kinds(node: Any) -> set[int]:
    """Types of the nodes of a formula."""
    return set() if node is None else {node.getType()}.union(*(_kinds(child) for child in children(node)))
