"""Conversion of models between SBML and Antimony, with a comparison of both files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import libsbml
import numpy as np

from metabolismgraph.errors import InputError
from metabolismgraph.files import write_bytes
from metabolismgraph.formats.antimony import antimony_of, is_antimony, sbml_of
from metabolismgraph.formats.formula import FormulaError, evaluate, names
from metabolismgraph.formats.quantities import ModelIndex
from metabolismgraph.formats.sbml import convert_document, parse, read_content
from metabolismgraph.formats.sbml_reader import INHIBITORS
from metabolismgraph.formats.wording import some

_TOLERANCE, _FORMULA_TOLERANCE = 1e-12, 1e-10  # relative; libAntimony writes 15 significant digits
_RENAMED = {"default": "default_compartment"}  # other reserved words get an underscore at the end
_USUAL_UNITS = ("volume", "area", "length")  # of compartments: those of the model
_POINTS = 5  # number of points at which formulas are compared that are not written alike


def convert_model(source: Path, target: Path) -> tuple[str, ...]:
    """Write an SBML model in Antimony, or an Antimony model as SBML Level 3 Version 2.

    The Antimony file is read again, and its species, reactions, rate laws, values, rules, events and constraints are
    compared with those of the SBML file. Parameters of the law of one reaction become parameters of the model, called
    REACTION_PARAMETER.

    Returns:
        Notes on what is not kept; from Antimony, on names without a value, such as misspelt ones.

    Raises:
        InputError: the model is missing or invalid, or Antimony cannot express it.
    """
    content = read_content(source)
    document = parse(content, str(source), needs_network=False)
    if is_antimony(source):
        index = ModelIndex(document)
        unset = [name for name in (*index.species, *index.parameters) if _initial(index, name) is None]
        write_bytes(target, content)
        return (f"Without a value: {some(unset)}.",) if unset else ()
    convert_document(document, "promoteLocalParameters")
    content = antimony_of(libsbml.writeSBMLToString(document).encode(), str(source))
    try:
        written = parse(sbml_of(content, str(target)), str(target), needs_network=False)
    except InputError as error:  # such as two minus signs in a row, which libAntimony writes and does not read
        raise InputError(f"{source}: Antimony cannot express the model; keep it in SBML ({error})") from None
    notes = _follow_renaming(document, written)
    labels, kept = dict(_labels(document)), dict(_labels(written))
    meaning, other = dict(_meaning(document)), dict(_meaning(written))
    lost = [what for what in meaning | other if what not in meaning or not _same(meaning[what], other.get(what))]
    if lost:
        raise InputError(f"{source}: Antimony cannot express {some(lost)}; keep the model in SBML")
    write_bytes(target, content)
    unlabelled = [what for what, label in labels.items() if label != kept.get(what)]
    return (*notes, *([f"Antimony does not keep {some(unlabelled)}."] if unlabelled else []))


def _follow_renaming(document: Any, written: Any) -> list[str]:
    """Rename in a document what libAntimony has renamed, since the name is a reserved word; returns notes."""
    ids = {element.getIdAttribute() for element in written.getModel().getListOfAllElements()}
    notes = []
    elements = list(document.getModel().getListOfAllElements())
    for element in elements:
        name = element.getIdAttribute()
        new = _RENAMED.get(name, f"{name}_")
        if name and name not in ids and new in ids:
            element.setIdAttribute(new)
            for other in elements:
                other.renameSIdRefs(name, new)
            notes.append(f"{name} is a reserved word of Antimony: it is called {new} there.")
    return notes


def _labels(document: Any) -> Iterator[tuple[str, str]]:
    """What a document says apart from the mathematics: names, units, comments and drawings."""
    model = document.getModel()
    lists = (model.getListOfCompartments(), model.getListOfSpecies(), model.getListOfParameters())
    for element in (*lists[0], *lists[1], *lists[2], *model.getListOfReactions()):
        name = element.getId()
        if element.isSetName() and element.getName() != name:
            yield f"the name of {name}", element.getName()
        if element.isSetSBOTerm():
            yield f"the SBO term of {name}", element.getSBOTermID()
    modifiers = ((r.getId(), m) for r in model.getListOfReactions() for m in r.getListOfModifiers())
    for reaction, modifier in modifiers:
        if modifier.isSetSBOTerm():
            yield f"the SBO term of {modifier.getSpecies()} in {reaction}", modifier.getSBOTermID()
    for element in (*lists[0], *lists[2]):
        if element.isSetUnits() and element.getUnits() not in _USUAL_UNITS:
            yield f"the unit of {element.getId()}", element.getUnits()
    for compartment in lists[0]:
        if compartment.isSetSpatialDimensions():
            yield f"the dimensions of {compartment.getId()}", str(compartment.getSpatialDimensionsAsDouble())
    yield from _additions([model, *model.getListOfAllElements()])


def _additions(elements: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """Whether there are comments, annotations and elements of packages, such as drawings."""
    if any(element.isSetNotes() for element in elements):
        yield "notes", "some"
    if any(element.isSetAnnotation() for element in elements):
        yield "annotations", "some"
    for package in sorted({element.getPackageName() for element in elements} - {"core"}):
        yield f"the SBML package {package}", "some"


def _meaning(document: Any) -> Iterator[tuple[str, Any]]:
    """The mathematics of a model: texts, numbers and formulas, by a description of each."""
    convert_document(document, "expandFunctionDefinitions")
    index = ModelIndex(document)
    model = index.model
    for name in (*index.compartments, *index.parameters, *index.species):
        yield f"the initial value of {name}", _initial(index, name)
        based = names(index.initially.get(name)) - set(index.compartments)
        if based:
            yield f"the initial assignment of {name}", sorted(based)
    for name, compartment in index.compartments.items():
        yield f"whether {name} has a volume", compartment.getSpatialDimensionsAsDouble() != 0
    for name, species in index.species.items():
        yield f"the compartment of {name}", species.getCompartment()
        yield f"whether {name} is an amount", species.getHasOnlySubstanceUnits()
        yield f"whether reactions change {name}", not (species.getBoundaryCondition() or species.getConstant())
        yield f"the conversion factor of {name}", species.getConversionFactor() or model.getConversionFactor()
    for name, reaction in index.reactions.items():
        yield f"whether {name} is reversible", reaction.getReversible()
        yield f"whether {name} is fast", reaction.isSetFast() and reaction.getFast()
        yield f"the reactants of {name}", _side(index, reaction.getListOfReactants())
        yield f"the products of {name}", _side(index, reaction.getListOfProducts())
        law = reaction.getKineticLaw()
        yield f"the rate law of {name}", None if law is None else law.getMath()
        if law is None:  # a law implies the modifiers
            modifiers = reaction.getListOfModifiers()
            yield f"the modifiers of {name}", sorted((m.getSpecies(), m.getSBOTerm() in INHIBITORS) for m in modifiers)
    for i, rule in enumerate(model.getListOfRules()):
        yield f"the rule of {rule.getVariable()}" if rule.getVariable() else f"algebraic rule {i}", rule.getMath()
    for i, event in enumerate(model.getListOfEvents()):
        trigger = event.getTrigger()
        for part, formula in (("trigger", trigger), ("delay", event.getDelay()), ("priority", event.getPriority())):
            yield f"the {part} of event {i}", None if formula is None else formula.getMath()
        yield (
            f"when event {i} fires",
            [
                trigger is not None and trigger.getPersistent(),
                trigger is not None and trigger.getInitialValue(),
                event.getUseValuesFromTriggerTime(),
            ],
        )
        for assignment in event.getListOfEventAssignments():
            yield f"the value of {assignment.getVariable()} after event {i}", assignment.getMath()
    for i, constraint in enumerate(model.getListOfConstraints()):
        yield f"constraint {i}", constraint.getMath()


def _initial(index: ModelIndex, name: str) -> float | None:
    try:
        value = index.start.concentration(name) if name in index.species else index.start.declared(name)
    except FormulaError:
        return None
    return float(value)


def _side(index: ModelIndex, references: Iterable[Any]) -> dict[str, float | None]:
    """Stoichiometry by species; None for one that is computed."""
    found: dict[str, float | None] = {}
    for reference in references:
        name, species = reference.getId(), reference.getSpecies()
        before = found.get(species, 0.0)
        try:
            value = index.start.declared(name) if name else reference.getStoichiometry()
        except FormulaError:
            value = None
        if value is None or before is None or reference.isSetStoichiometryMath() or index.varies(name):
            found[species] = None
        else:
            found[species] = before + float(value)
    return found


def _same(one: Any, other: Any) -> bool:
    """Whether two statements agree, numbers and values of formulas up to rounding."""
    if isinstance(one, libsbml.ASTNode) and isinstance(other, libsbml.ASTNode):
        return _same_formula(one, other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_TOLERANCE) or (math.isnan(one) and math.isnan(other))
    return bool(one == other)


def _same_formula(one: Any, other: Any) -> bool:
    if libsbml.formulaToL3String(one) == libsbml.formulaToL3String(other):
        return True
    mentioned = sorted(names(one))
    if mentioned != sorted(names(other)):
        return False
    rng = np.random.default_rng(0)
    values = dict(zip(mentioned, rng.uniform(0.1, 10.0, (len(mentioned), _POINTS)), strict=True))
    try:
        a, b = (np.asarray(evaluate(formula, values.__getitem__, {}), float) for formula in (one, other))
    except FormulaError:
        return False
    return np.allclose(a, b, rtol=_FORMULA_TOLERANCE, atol=0.0, equal_nan=True)
