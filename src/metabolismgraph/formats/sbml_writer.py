"""Writing of reaction networks as SBML Level 3 Version 2."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np

from metabolismgraph.files import write_bytes
from metabolismgraph.formats import mathml
from metabolismgraph.formats.decimals import add
from metabolismgraph.system.network import Reaction, ReactionNetwork


def write_sbml(network: ReactionNetwork, path: Path, initial: Mapping[str, float | None] | None = None) -> None:
    """Write a network as SBML Level 3 Version 2.

    `read_sbml` restores the same network. The stoichiometry of reactants is the order of the substrates, that of
    products is order + net. A reaction with mass action as a known law has a kinetic law, with a rate
    constant without a value. Fixed species are boundary species; there is one compartment for each volume. Invalid
    characters in the id of the network are replaced by underscores.

    Args:
        network: the network.
        path: the file; an existing one is replaced.
        initial: known initial concentrations.

    Raises:
        ValueError: an id is not a valid SBML id, or a reaction with an unknown rate law consumes a species beyond its
            order, which SBML cannot express without a kinetic law.
    """
    write_bytes(path, sbml_text(network, initial or {}).encode())


def sbml_text(network: ReactionNetwork, initial: Mapping[str, float | None], *, strict: bool = True) -> str:
    """The document of `write_sbml`.

    Args:
        network, initial: as for `write_sbml`.
        strict: True: a reaction that cannot be expressed without a kinetic law is an error; False: its orders are
            not preserved.

    Raises:
        ValueError: as for `write_sbml`.
    """
    for name in (*network.species, *network.reactions):
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(f"{name!r} is not an SBML id: letters, digits and underscores only, no digit first")
    model_id = re.sub(r"^(?=\d)|\W", "_", network.id, flags=re.ASCII) or "network"
    cells = _cells(network)
    cell_of = {s: cells[float(v)] for s, v in zip(network.species, network.volume, strict=True)}
    compartments = [
        f'      <compartment id="{cell}" spatialDimensions="3" size="{number_text(size)}" constant="true"/>'
        for size, cell in cells.items()
    ]
    species = [
        species_line(name, cell_of[name], bool(fixed), initial.get(name))
        for name, fixed in zip(network.species, network.fixed, strict=True)
    ]
    reactions = [
        line
        for reaction, volume in zip(network.to_reactions(), network.reaction_volume, strict=True)
        for line in _reaction(reaction, cells.get(float(volume)), strict=strict)
    ]
    return document(model_id, {"Compartments": compartments, "Species": species, "Reactions": reactions})


def document(model_id: str, lists: Mapping[str, Sequence[str]]) -> str:
    """A document of Level 3 Version 2.

    Args:
        model_id: id of the model.
        lists: lines of the elements by kind, in the order that SBML prescribes.
    """
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<sbml xmlns="http://www.sbml.org/sbml/level3/version2/core" level="3" version="2">',
        f'  <model id="{model_id}">',
    ]
    for kind, elements in lists.items():
        lines += [f"    <listOf{kind}>", *elements, f"    </listOf{kind}>"]
    return "\n".join([*lines, "  </model>", "</sbml>", ""])


def species_line(name: str, cell: str, fixed: bool, initial: float | None = None) -> str:
    """A species in a compartment; its initial concentration may be unknown."""
    start = "" if initial is None else f" initialConcentration={quoteattr(number_text(initial))}"
    return (
        f'      <species id="{name}" compartment="{cell}"{start} hasOnlySubstanceUnits="false" '
        f'boundaryCondition="{"true" if fixed else "false"}" constant="false"/>'
    )


def reaction_lines(id: str, left: Mapping[str, float], right: Mapping[str, float], law: Sequence[str]) -> list[str]:
    """An irreversible reaction with its stoichiometry on both sides and the lines of its kinetic law."""
    lines: list[str] = []
    for tag, side in (("listOfReactants", left), ("listOfProducts", right)):
        references = [
            f'          <speciesReference species="{name}" stoichiometry="{number_text(value)}" constant="true"/>'
            for name, value in side.items()
            if value
        ]
        if references:
            lines += [f"        <{tag}>", *references, f"        </{tag}>"]
    lines += law
    head = f'      <reaction id="{id}" reversible="false"'
    return [f"{head}>", *lines, "      </reaction>"] if lines else [f"{head}/>"]


def _cells(network: ReactionNetwork) -> dict[float, str]:
    """Ids of compartments, one for each volume, different from all other ids."""
    taken = {*network.species, *network.reactions}
    cells: dict[float, str] = {}
    for volume in dict.fromkeys(float(v) for v in network.volume) or {1.0: None}:
        cells[volume] = free_id(f"cell_{len(cells) + 1}" if cells else "cell", taken)
        taken.add(cells[volume])
    return cells


def _reaction(reaction: Reaction, cell: str | None, *, strict: bool) -> list[str]:
    left: dict[str, float] = {}
    right: dict[str, float] = {}
    for name in dict.fromkeys((*reaction.substrates, *reaction.net)):
        order, net = reaction.substrates.get(name, 0.0), reaction.net.get(name, 0.0)
        if (order < 0 or add(net, order) < 0) and strict and not reaction.mass_action:
            raise ValueError(
                f"reaction {reaction.id}: {name} has order {order:g} and net coefficient "
                f"{net:g}, which SBML without a kinetic law cannot express"
            )
        left[name] = max(order, -net, 0.0)
        right[name] = add(net, left[name])
    return reaction_lines(reaction.id, left, right, _law_lines(reaction, cell) if reaction.mass_action else [])


def _law_lines(reaction: Reaction, cell: str | None) -> list[str]:
    k = free_id(f"k_{reaction.id}", {*reaction.substrates, *({cell} if cell else ())})
    concentrations = {s: mathml.name(s) for s in reaction.substrates}
    law = mathml.math(mathml.mass_action(k, concentrations, reaction.substrates, cell))
    return [
        "        <kineticLaw>",
        f"          {law}",
        f'          <listOfLocalParameters><localParameter id="{k}"/></listOfLocalParameters>',
        "        </kineticLaw>",
    ]


def free_id(wanted: str, taken: set[str]) -> str:
    """The wanted id, with underscores appended until it is not among those taken."""
    while wanted in taken:
        wanted += "_"
    return wanted


def number_text(value: float | np.floating) -> str:
    """The shortest decimal with exactly this value; integers without a decimal point."""
    return repr(float(value)).removesuffix(".0")
