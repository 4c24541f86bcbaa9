"""Reaction networks as SBML: Level 2 and 3 are read, Level 3 Version 2 is written."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import libsbml
import numpy as np
from jaxtyping import Float

from metabolismgraph.errors import InputError
from metabolismgraph.files import read_bytes
from metabolismgraph.formats import fixed
from metabolismgraph.formats.fixed import FixedValue
from metabolismgraph.formats.quantities import ModelIndex
from metabolismgraph.formats.sbml_reader import BACKWARD, FORWARD, Reader
from metabolismgraph.formats.sbml_writer import write_sbml
from metabolismgraph.system.network import ReactionNetwork
from metabolismgraph.text import one_line

__all__ = ["BACKWARD", "FORWARD", "FixedValue", "SbmlModel", "parse", "read_sbml", "write_sbml"]

_MAX_DEPTH = 2000  # libsbml recurses, and ends the process where the stack does


@dataclasses.dataclass(frozen=True)
class SbmlModel:
    """What an SBML file says.

    Attributes:
        network: species and reactions; reversible ones split in two, ID_fwd and ID_rev.
        initial: initial concentration per species, None where the file gives none.
        rate_constants: k per reaction id (of the network) whose kinetic law is mass action with a known k, in
            concentration^(1-order)/time, the concentration being that in the reaction's volume.
        notes: plain sentences on what was done and what was left out.
        fixed_values: what the file says of the concentrations of fixed species. A fixed species that is not among
            them needs a column in the table.
    """

    network: ReactionNetwork
    initial: dict[str, float | None]
    rate_constants: dict[str, float]
    notes: tuple[str, ...]
    fixed_values: Mapping[str, FixedValue]
    index: ModelIndex = dataclasses.field(repr=False, compare=False)

    @property
    def names(self) -> dict[str, str]:
        """Display names of species, where the file gives them."""
        return {name: s.getName() for name, s in self.index.species.items() if s.isSetName()}

    @property
    def other_ids(self) -> frozenset[str]:
        """Ids of what a simulator may print beside species: compartments, parameters, reactions."""
        return frozenset((*self.index.compartments, *self.index.parameters, *self.index.reactions))

    @property
    def amounts(self) -> frozenset[str]:
        """Species whose id stands for an amount in formulas (hasOnlySubstanceUnits)."""
        return frozenset(name for name, s in self.index.species.items() if s.getHasOnlySubstanceUnits())

    def fill_fixed(
        self, time: Float[np.ndarray, " frames"], known: Mapping[str, Float[np.ndarray, " frames"]]
    ) -> tuple[dict[str, Float[np.ndarray, " frames"]], tuple[str, ...]]:
        """Concentrations of the fixed species that are not known, from the constants and rules of the file.

        Args:
            time: of the frames, in the file's unit, from its start.
            known: concentrations of other species.

        Returns:
            Concentrations of all that can be known, finite but not necessarily positive, and notes on what was
            taken. A species whose rule needs something that is not known is not among them.
        """
        return fixed.fill_fixed(self.index, self.fixed_values, np.asarray(time, float), known)


def read_sbml(path: Path) -> SbmlModel:
    """Read a network from an SBML file of Level 2 or 3, .gz too.

    Where the kinetic law of a reaction is mass action, k * Π c^order, it gives the substrates and their orders; a
    difference of two such terms is split into ID_fwd and ID_rev. Elsewhere, the substrates are the reactants, with
    their stoichiometry as order, and with order 1 all else that speeds the reaction up, as far as the law tells, or
    else the modifiers that are not called inhibitors. Such a reaction is split if it is marked reversible and its law,
    if there is one, can run backward. Boundary and constant species, and those set by rules, are `fixed`.

    Raises:
        InputError: the file is missing or no valid SBML, it has no species or no reactions, a stoichiometry is
            no constant >= 0, or a reaction cannot be split because its new id is taken.
    """
    document = parse(read_bytes(path), str(path))
    index = ModelIndex(document)
    try:
        reader = Reader(str(path), path.name.split(".")[0], index)
        network = reader.read()
        return SbmlModel(
            network, reader.initial(), reader.rate_constants, reader.notes(), fixed.fixed_values(index), index
        )
    except RecursionError:
        raise InputError(f"{path}: a formula is nested too deeply to be read; write it with fewer brackets") from None


def parse(content: bytes, source: str) -> Any:
    """The libsbml document of a file's content, checked for what stands in the way of reading it.

    Args:
        source: name of the file, for messages.

    Raises:
        InputError: it is no valid SBML or nested too deeply, or has no species or reactions of its own.
    """
    text = _text(content, source)
    if _depth(text) > _MAX_DEPTH:
        raise InputError(
            f"{source}: elements are nested more than {_MAX_DEPTH} deep; write formulas with fewer brackets"
        )
    document = libsbml.readSBMLFromString(text)
    if document.getLevel() == 1:
        raise InputError(f"{source}: SBML Level 1 is not supported; convert it to Level 2 or 3")
    for i in range(document.getNumErrors()):
        error = document.getError(i)
        if error.getSeverity() >= libsbml.LIBSBML_SEV_ERROR:
            raise InputError(
                f"{source}: not valid SBML: line {error.getLine()}: {one_line(error.getMessage())}; "
                "correct it with an SBML validator"
            )
    model = document.getModel()
    if model is None or not model.getNumSpecies():
        raise InputError(f"{source}: the model has no species; give a file with a reaction network")
    if not model.getNumReactions():
        raise InputError(f"{source}: the model has no reactions; give a file with a reaction network")
    hierarchy = model.getPlugin("comp")
    if hierarchy is not None and hierarchy.getNumSubmodels():
        raise InputError(f"{source}: the model is made of submodels; flatten it first (SBML package comp)")
    return document


def _depth(text: str) -> int:
    """How deep elements are nested."""
    depth = deepest = 0
    for tag in re.finditer(r"<(/?)[A-Za-z_][^<>]*?(/?)>", text):
        if not tag[2]:
            depth += -1 if tag[1] else 1
            deepest = max(deepest, depth)
    return deepest


def _text(content: bytes, source: str) -> str:
    """A file's text, with an XML declaration: libsbml wants one, and with an encoding.

    A file without one is as good, and is UTF-8 by the XML standard.
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
    text = text.removeprefix("\ufeff").replace("\0", "\ufffd")  # a NUL would end the text for libsbml
    head = re.match(r"\s*(<\?xml[^>]*\?>)?", text)
    assert head is not None
    lines = head[0].count("\n")  # kept, so that errors name the right line
    return f'<?xml version="1.0" encoding="UTF-8"?>{chr(10) * lines}{text[head.end() :]}'
