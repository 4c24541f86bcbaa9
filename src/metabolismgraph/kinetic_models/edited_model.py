"""An SBML model with inputs, homeostasis and other rate laws."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import libsbml
import numpy as np
from jaxtyping import Float

from metabolismgraph.config.messages import nearest_name
from metabolismgraph.errors import InputError
from metabolismgraph.formats.formula import TIME, names
from metabolismgraph.formats.quantities import ModelIndex
from metabolismgraph.formats.sbml import convert_document, read_document
from metabolismgraph.formats.sbml_writer import free_id
from metabolismgraph.kinetic_models.experiments import Experiment, straight_lines, values_of
from metabolismgraph.kinetic_models.rate_laws import FROM_MODEL, LAWS, LOG10, REVERSIBLE, Argument, Law, Parameter

# Bounds and starts of a pull, in reciprocals of the length of the series; bounds of a baseline, relative to the values.
_WEAKEST, _STRONGEST, _PULLS = 1e-4, 100.0, (0.03, 3.0)
_BEYOND = 10.0
_UNKNOWN = np.array([0.3, 1.0, 3.0])  # concentrations that are expected, relative to the initial one


class EditedModel:
    """An SBML model with inputs, homeostasis and other rate laws.

    Attributes:
        path: of the model.
        document: libsbml's, in which parameters of laws are parameters of the model.
        index: the elements of the model as it is now.
        experiments: those that are fitted, and those that are held out.
        inputs: species that follow their measured values.
        number: id of the parameter that is the number of the experiment; empty if there is none.
        parameters: of the new laws.
        laws: by reaction.
        pulled: species with homeostasis.
    """

    def __init__(self, path: Path, experiments: Sequence[Experiment]):
        self.path, self.experiments = path, experiments
        self.document = read_document(path)
        convert_document(self.document, "promoteLocalParameters")
        self.index = ModelIndex(self.document)
        self.inputs: tuple[str, ...] = ()
        self.number = ""
        self.parameters: list[Parameter] = []
        self.laws = dict.fromkeys(self.index.reactions, FROM_MODEL)
        self.pulled: frozenset[str] = frozenset()

    @property
    def fitted(self) -> list[Experiment]:
        """Experiments that are fitted."""
        return [experiment for experiment in self.experiments if not experiment.held_out]

    @property
    def taken(self) -> set[str]:
        """Ids of the model as it is now."""
        index = self.index
        return {*index.parameters, *index.species, *index.compartments, *index.reactions, *index.functions}

    def _new(self, name: str) -> str:
        """The name, if the model does not have it yet."""
        if name in self.taken:
            raise InputError(f"{self.path}: {name} is needed as the id of a new parameter; rename that of the model")
        return name

    def concentration(self, species: str) -> str:
        """Formula of the concentration of a species."""
        written = self.index.species[species]
        return f"({species} / {written.getCompartment()})" if written.getHasOnlySubstanceUnits() else species

    def clamp(self, inputs: Sequence[str]) -> None:
        """Let species follow their measured values.

        Raises:
            InputError: a name is not a species, or has no value in an experiment; or something else than the inputs
                happens at given times, and an experiment does not begin at zero.
        """
        index, model = self.index, self.document.getModel()
        for name in inputs:
            if any(name in experiment.relative | experiment.offset for experiment in self.experiments):
                raise InputError(f"{self.path}: input {name} has relative values; an input needs concentrations")
            if any(experiment.side(name).any() for experiment in self.experiments):
                raise InputError(f"{self.path}: input {name} has limits; an input needs concentrations")
            if name not in index.species:
                raise InputError(
                    f"{self.path}: input {name} is not a species of the model; "
                    f"nearest: {nearest_name(name, set(index.species))}"
                )
            if name in index.events:
                raise InputError(f"{self.path}: input {name} is changed by an event; remove the event, or the input")
        self._check_times(inputs)
        if inputs and len(self.experiments) > 1:
            self.number = free_id("experiment", self.taken)
            self._add_parameter(self.number, 0.0)
        for name in inputs:
            formula, species = straight_lines(self.experiments, name, self.number), index.species[name]
            if species.getHasOnlySubstanceUnits():
                formula = f"({formula}) * {species.getCompartment()}"
            while model.removeRuleByVariable(name) is not None:
                pass
            model.removeInitialAssignment(name)
            species.unsetInitialAmount()
            species.unsetInitialConcentration()
            species.setBoundaryCondition(True)
            species.setConstant(False)
            rule = model.createAssignmentRule()
            rule.setVariable(name)
            _set_math(rule, formula)
        self.inputs = tuple(inputs)
        self.index = ModelIndex(self.document)

    def _check_times(self, inputs: Sequence[str]) -> None:
        """Raise an error where times of the model would not be those of a table."""
        index, model = self.index, self.document.getModel()
        formulas = {f"the rule of {name}": node for name, node in index.assigned.items() if name not in inputs}
        formulas |= {f"the rule of {r.getVariable()}": r.getMath() for r in model.getListOfRules() if r.isRate()}
        laws = {name: reaction.getKineticLaw() for name, reaction in index.reactions.items()}
        formulas |= {f"the law of {name}": law.getMath() for name, law in laws.items() if law is not None}
        timed = [what for what, node in formulas.items() if TIME in names(node)]
        timed += [f"event {event.getId()}" for event in model.getListOfEvents()]
        for experiment in self.experiments if timed else ():
            if experiment.first != 0:
                raise InputError(
                    f"{self.path}: {timed[0]} depends on the time, which is 0 at the initial state, but experiment "
                    f"{experiment.id} begins at {experiment.first:g}; let its times begin at 0"
                )

    def add_homeostasis(self, patterns: Sequence[str]) -> None:
        """Let species be pulled to a baseline: rate pull (baseline - c). Those of one pattern have the same pull.

        Raises:
            InputError: no species has a name, or one belongs to two patterns; none of a pattern is measured and changed
                by reactions; or there is no time course.
        """
        index, pulled = self.index, set[str]()
        span = max((float(experiment.time[-1]) for experiment in self.fitted), default=0.0)
        if patterns and not span > 0:
            raise InputError(f"{self.path}: homeostasis cannot be seen without measurements after the start")
        for pattern in patterns:
            found = fnmatch.filter(index.species, pattern)
            if not found:
                near = nearest_name(pattern, set(index.species))
                raise InputError(f"{self.path}: homeostasis: no species is named {pattern}; nearest: {near}")
            free = [name for name in found if name not in index.fixed]
            # A pattern stands for measured species; one without measurements has to be named.
            free = [name for name in free if name == pattern or values_of(self.fitted, name).any()]
            if not free:
                raise InputError(f"{self.path}: homeostasis of {pattern}: no such species is measured and changes")
            if pulled & set(free):
                raise InputError(f"{self.path}: homeostasis of {min(pulled & set(free))} is given twice")
            pulled |= set(free)
            ends = [share / span for share in (_WEAKEST, _STRONGEST, *_PULLS)]
            pull = Parameter(f"pull_{free[0]}", LOG10, ends[0], ends[1], (ends[2], ends[3]), given=ends[0])
            self._add(pull)
            for name in free:
                values = self._expected(index, name)
                low, high = float(values.min()), float(values.max())
                baseline = Parameter(f"baseline_{name}", LOG10, low / _BEYOND, high * _BEYOND, (low, high * 1.1))
                self._add(baseline)
                self._produce(name, f"{pull.id} * ({baseline.id} - {self.concentration(name)})")
        self.pulled = frozenset(pulled)
        self.index = ModelIndex(self.document)

    def _produce(self, species: str, rate: str) -> None:
        """Add the reaction of homeostasis, which produces a species, or consumes it, with a rate per volume."""
        reaction = self.document.getModel().createReaction()
        reaction.setId(self._new(f"homeostasis_{species}"))
        reaction.setReversible(True)
        reaction.setFast(False)
        product = reaction.createProduct()
        product.setSpecies(species)
        product.setStoichiometry(1.0)
        product.setConstant(True)
        _set_math(reaction.createKineticLaw(), f"{self.index.species[species].getCompartment()} * {rate}")

    def replace_laws(self, laws: Mapping[str, str]) -> None:
        """Give reactions other laws.

        Raises:
            InputError: no reaction has a name, a law is not known, or a reaction changes no species.
        """
        index, wanted = self.index, dict[str, str]()
        for pattern, law in laws.items():
            found = fnmatch.filter(index.reactions, pattern)
            if not found:
                near = nearest_name(pattern, set(index.reactions))
                raise InputError(f"{self.path}: no reaction is named {pattern}; nearest: {near}")
            if law not in {*LAWS, FROM_MODEL}:
                raise InputError(f"law {law!r} of {pattern} is not known; known: {', '.join([*LAWS, FROM_MODEL])}")
            wanted |= dict.fromkeys(found, law)
        self.laws |= wanted
        for name, law in wanted.items():
            if law != FROM_MODEL:
                written = index.reactions[name]
                self._replace(
                    index, written, LAWS[law](name, self._arguments(index, written, law), self._flux(written))
                )
        self.index = ModelIndex(self.document)

    def _arguments(self, index: ModelIndex, written: Any, law: str) -> tuple[Argument, ...]:
        """Species on which a rate depends: those in the law of the model; without one, reactants and modifiers.

        A reversible law depends on all reactants and products, too.
        """
        consumed, produced = (
            _orders(references) for references in (written.getListOfReactants(), written.getListOfProducts())
        )
        ends = [*consumed, *produced] if law in REVERSIBLE else []
        known = written.getKineticLaw()
        if known is not None and known.getMath() is not None:
            mentioned = index.mentioned(known.getMath()) | set(ends)
            names = [name for name in index.species if name in mentioned]
        else:
            names = [*consumed, *(modifier.getSpecies() for modifier in written.getListOfModifiers()), *ends]
        return tuple(
            Argument(
                name,
                self.concentration(name),
                consumed.get(name, 0.0),
                self._expected(index, name),
                produced.get(name, 0.0),
            )
            for name in dict.fromkeys(names)
        )

    def _expected(self, index: ModelIndex, species: str) -> Float[np.ndarray, " values"]:
        """Positive concentrations that a species has, or may have."""
        measured = values_of(self.fitted, species)
        if (measured > 0).any():
            return measured[measured > 0]
        return (index.initial(species) or 1.0) * _UNKNOWN

    def _flux(self, written: Any) -> float:
        """Order of magnitude of the flux of a reaction, from the rates of change of its species."""
        sizes = []
        for reference in (*written.getListOfReactants(), *written.getListOfProducts()):
            for experiment in self.fitted:
                time, values = experiment.means(reference.getSpecies())
                speed = np.sqrt(np.mean((np.diff(values) / np.diff(time)) ** 2)) if len(time) > 1 else 0.0
                if speed > 0 and reference.getStoichiometry() > 0:
                    sizes.append(float(speed) / float(reference.getStoichiometry()))
        return float(np.exp(np.mean(np.log(sizes)))) if sizes else 1.0

    def _replace(self, index: ModelIndex, written: Any, law: Law) -> None:
        references = [*written.getListOfReactants(), *written.getListOfProducts()]
        if not references:
            raise InputError(f"{self.path}: reaction {written.getId()} changes no species; it has no other law")
        cell = index.species[references[0].getSpecies()].getCompartment()
        for parameter in law.parameters:
            self._add(parameter)
        kinetic = written.getKineticLaw() or written.createKineticLaw()
        _set_math(kinetic, f"{cell} * {law.formula}")
        while written.getNumModifiers():
            written.removeModifier(0)
        beside = index.mentioned(kinetic.getMath()) & set(index.species) - {r.getSpecies() for r in references}
        for name in sorted(beside):
            written.createModifier().setSpecies(name)

    def _add(self, parameter: Parameter) -> None:
        self._add_parameter(parameter.id, parameter.nominal)
        self.parameters.append(parameter)

    def _add_parameter(self, name: str, value: float) -> None:
        parameter = self.document.getModel().createParameter()
        parameter.setId(self._new(name))
        parameter.setValue(value)
        parameter.setConstant(True)


def _orders(references: Any) -> dict[str, float]:
    """Stoichiometry by species."""
    orders: dict[str, float] = {}
    for reference in references:
        name = reference.getSpecies()
        orders[name] = orders.get(name, 0.0) + float(reference.getStoichiometry())
    return orders


def _set_math(part: Any, formula: str) -> None:
    tree = libsbml.parseL3Formula(formula)
    if tree is None or part.setMath(tree) != libsbml.LIBSBML_OPERATION_SUCCESS:
        raise ValueError(f"libsbml rejects the formula {formula}: {libsbml.getLastParseL3Error()}")
