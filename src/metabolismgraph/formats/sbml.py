"""Reaction networks as SBML: reading of Levels 2 and 3, writing of Level 3 Version 2."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.parsers import expat

import libsbml
import numpy as np
from jaxtyping import Float

from metabolismgraph.errors import InputError
from metabolismgraph.files import read_bytes
from metabolismgraph.formats import antimony, fixed
from metabolismgraph.formats.fixed import FixedValue
from metabolismgraph.formats.formula import FormulaError, check_size
from metabolismgraph.formats.quantities import ModelIndex
from metabolismgraph.formats.sbml_reader import BACKWARD, FORWARD, Reader
from metabolismgraph.formats.sbml_writer import write_sbml
from metabolismgraph.system.network import ReactionNetwork
from metabolismgraph.text import one_line, printable

__all__ = [
    "BACKWARD",
    "FORWARD",
    "FixedValue",
    "SbmlModel",
    "parse",
    "read_content",
    "read_document",
    "read_sbml",
    "write_sbml",
]

_NESTED = "a formula is nested too deeply to be read; write it with fewer brackets"
_MOST_OPERATIONS = 100_000  # of a formula, with the functions that it calls
_MAX_DEPTH = 2000  # of nested elements; libsbml is recursive, and a stack overflow would end the process


@dataclasses.dataclass(frozen=True)
class SbmlModel:
    """The content of an SBML file.

    Attributes:
        network: species and reactions; a reversible reaction is split into ID_fwd and ID_rev.
        initial: initial concentration per species; None if the file does not give it.
        rate_constants: k per reaction of the network whose kinetic law is mass action with a known k, in
            concentration^(1-order)/time, with concentrations in the volume of the reaction.
        notes: plain sentences on assumptions and omissions.
        fixed_values: concentrations of fixed species in the file. Any other fixed species needs a column in the table.
        index: the elements of the model by id.
    """

    network: ReactionNetwork
    initial: dict[str, float | None]
    rate_constants: dict[str, float]
    notes: tuple[str, ...]
    fixed_values: Mapping[str, FixedValue]
    index: ModelIndex = dataclasses.field(repr=False, compare=False)

    @property
    def names(self) -> dict[str, str]:
        """Display names of species, if the file gives them."""
        return {name: s.getName() for name, s in self.index.species.items() if s.isSetName()}

    @property
    def other_ids(self) -> frozenset[str]:
        """Ids that the output of simulators can contain besides species: compartments, parameters, reactions."""
        return frozenset((*self.index.compartments, *self.index.parameters, *self.index.reactions))

    @property
    def amounts(self) -> frozenset[str]:
        """Species whose id is an amount in formulas (hasOnlySubstanceUnits)."""
        return frozenset(name for name, s in self.index.species.items() if s.getHasOnlySubstanceUnits())

    def fill_fixed(
        self, time: Float[np.ndarray, " frames"], known: Mapping[str, Float[np.ndarray, " frames"]]
    ) -> tuple[dict[str, Float[np.ndarray, " frames"]], tuple[str, ...]]:
        """Concentrations of fixed species that are not known, from the constants and rules of the file.

        Args:
            time: times of the frames, in the unit of the file.
            known: concentrations of other species.

        Returns:
            Concentrations, finite but not necessarily positive, and notes. A species whose rule depends on an
            unknown quantity is missing.
        """
        return fixed.fill_fixed(self.index, self.fixed_values, np.asarray(time, float), known)


def read_sbml(path: Path) -> SbmlModel:
    """Read a network from an SBML file of Level 2 or 3, or an Antimony file (.ant, .antimony), also compressed by gzip.

    A kinetic law of mass action, k * Π c^order, determines the substrates and their orders; a difference of two such
    terms is split into ID_fwd and ID_rev. For other reactions, the substrates are the reactants, with their
    stoichiometry as order, and, with order 1, all other species that increase the rate according to the kinetic law
    (without a law: the modifiers that are not inhibitors). Such a reaction is split if it is marked as reversible and
    its law, if there is one, can be negative. Boundary species, constant species and variables of rules are `fixed`.

    Raises:
        InputError: the file is missing or not valid SBML or Antimony, it has no species or no reactions, a
            stoichiometry is not a constant >= 0, or a reaction cannot be split because the new id exists.
    """
    document = read_document(path)
    index = ModelIndex(document)
    try:
        reader = Reader(str(path), path.name.split(".")[0], index)
        network = reader.read()
        initial = {name: index.initial(name) for name in index.species}
        return SbmlModel(network, initial, reader.rate_constants, reader.notes(), fixed.fixed_values(index), index)
    except RecursionError:
        raise InputError(f"{path}: {_NESTED}") from None


def read_content(path: Path) -> bytes:
    """The SBML of a model file, which may be written in Antimony.

    Raises:
        InputError: the file is missing or not valid Antimony. SBML is not checked.
    """
    content = read_bytes(path)
    return antimony.sbml_of(content, str(path)) if antimony.is_antimony(path) else content


def read_document(path: Path, *, needs_network: bool = True) -> Any:
    """The libsbml document of a model file, after the checks of `parse`.

    Raises:
        InputError: as for `read_content` and `parse`.
    """
    return parse(read_content(path), str(path), needs_network=needs_network)


def convert_document(document: Any, option: str) -> None:
    """Change a document by one of libsbml's conversions, such as `promoteLocalParameters`."""
    properties = libsbml.ConversionProperties()
    properties.addOption(option, True)
    document.convert(properties)


def parse(content: bytes, source: str, *, needs_network: bool = True) -> Any:
    """The libsbml document of the content of a file, after checks.

    Args:
        content: content of the file.
        source: name of the file, for messages.
        needs_network: whether there must be species and reactions.

    Raises:
        InputError: the content is not valid SBML, is nested too deeply, or has no species or no reactions.
    """
    text = _text(content, source)
    _check_elements(text, source)
    document = libsbml.readSBMLFromString(text)
    if document.getLevel() == 1:
        raise InputError(f"{source}: SBML Level 1 is not supported; convert it to Level 2 or 3")
    for i in range(document.getNumErrors()):
        error = document.getError(i)
        if error.getSeverity() >= libsbml.LIBSBML_SEV_ERROR:
            _refuse_invalid(source, error.getLine(), error.getMessage())
    model = document.getModel()
    if model is None or (needs_network and not model.getNumSpecies()):
        raise InputError(f"{source}: the model has no species; give a file with a reaction network")
    if needs_network and not model.getNumReactions():
        raise InputError(f"{source}: the model has no reactions; give a file with a reaction network")
    functions = {f.getId(): f for f in model.getListOfFunctionDefinitions()}
    try:
        check_size(_formulas(model) if functions else (), functions, _MOST_OPERATIONS)
    except FormulaError as error:
        raise InputError(f"{source}: {error}; simplify the functions of the model") from None
    except RecursionError:
        raise InputError(f"{source}: {_NESTED}") from None
    hierarchy = model.getPlugin("comp")
    if hierarchy is not None and hierarchy.getNumSubmodels():
        raise InputError(f"{source}: the model consists of submodels; flatten it first (SBML package comp)")
    return document


def _formulas(model: Any) -> Iterator[Any]:
    """The kinetic laws, rules, initial assignments and parts of events of a model."""
    laws = (reaction.getKineticLaw() for reaction in model.getListOfReactions())
    parts = [*laws, *model.getListOfRules(), *model.getListOfInitialAssignments()]
    for event in model.getListOfEvents():
        parts += [event.getTrigger(), event.getDelay(), event.getPriority(), *event.getListOfEventAssignments()]
    return (part.getMath() for part in parts if part is not None)


def _check_elements(text: str, source: str) -> None:
    """Refuse what libsbml must not see: elements nested too deeply, and entities, which can grow without limit.

    Raises:
        InputError: for these, and for what is not XML.
    """
    parser, depth = expat.ParserCreate(), 0

    def begin(name: str, attributes: object) -> None:
        del name, attributes
        nonlocal depth
        depth += 1
        if depth > _MAX_DEPTH:
            raise InputError(
                f"{source}: elements are nested more than {_MAX_DEPTH} deep; write formulas with fewer brackets"
            )

    def end(name: str) -> None:
        del name
        nonlocal depth
        depth -= 1

    def refuse(*_: object) -> None:
        raise InputError(f"{source}: declares entities, which are not read; write their content instead")

    parser.StartElementHandler, parser.EndElementHandler, parser.EntityDeclHandler = begin, end, refuse
    try:
        parser.Parse(text.encode("utf-8", "replace"), True)
    except expat.ExpatError as error:
        _refuse_invalid(source, error.lineno, expat.ErrorString(error.code))


def _refuse_invalid(source: str, line: int, problem: str) -> None:
    raise InputError(
        f"{source}: not valid SBML: line {line}: {one_line(printable(problem))}; correct it with an SBML validator"
    )


def _text(content: bytes, source: str) -> str:
    """The text of a file, with an XML declaration with encoding, which libsbml requires.

    By the XML standard, a file without a declaration is valid, and its encoding is UTF-8.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    else:
        declared = re.match(rb"(?:\xef\xbb\xbf)?\s*<\?xml[^>]*encoding\s*=\s*[\"']([\w.:-]+)", content)
        encoding = "utf-8" if declared is None else declared[1].decode()
    try:
        text = content.decode(encoding, errors="replace")
    except (LookupError, UnicodeError):
        raise InputError(f"{source}: the encoding {encoding} is not known; save the file as UTF-8") from None
    text = text.removeprefix("\ufeff").replace("\0", "\ufffd")  # libsbml ends the text at a NUL character
    head = re.match(r"\s*(<\?xml[^>]*\?>)?", text)
    assert head is not None
    lines = head[0].count("\n")  # preserved for correct line numbers in errors
    return f'<?xml version="1.0" encoding="UTF-8"?>{chr(10) * lines}{text[head.end() :]}'
