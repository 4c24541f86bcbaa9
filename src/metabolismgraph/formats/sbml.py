"""Reaction networks as SBML: Level 2 and 3 are read, Level 3 Version 2 is written."""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import libsbml

from metabolismgraph.errors import InputError
from metabolismgraph.files import one_line, read_bytes, write_bytes
from metabolismgraph.formats import massaction
from metabolismgraph.network import Reaction, ReactionNetwork

FORWARD, BACKWARD = "_fwd", "_rev"

# what is said about one reaction, and about several
_NOTES = {
    "split": (
        "reversible reaction was split into forward and backward",
        "reversible reactions were split into forward and backward",
    ),
    "law": (
        "kinetic law is not mass action and was not read: its reactants are taken as substrates",
        "kinetic laws are not mass action and were not read: their reactants are taken as substrates",
    ),
    "orders": (
        "mass action law has other orders than the written reaction: the law's are used",
        "mass action laws have other orders than the written reactions: the laws' are used",
    ),
    "unknown k": (
        "rate constant is unknown, since a parameter has no value",
        "rate constants are unknown, since parameters have no value",
    ),
    "sizes": (
        "reaction's compartments differ in size, or change it: its rate constant was not read, "
        "and all compartments are taken as equal",
        "reactions' compartments differ in size, or change it: their rate constants were not read, "
        "and all compartments are taken as equal",
    ),
}


@dataclasses.dataclass(frozen=True)
class SbmlModel:
    """What an SBML file says.

    Attributes:
        network: species and reactions; reversible ones split in two, ID_fwd and ID_rev.
        initial: initial concentration per species, None where the file gives none.
        rate_constants: k per reaction id (of the network) whose kinetic law is mass action with a known k, in
            concentration^(1-order)/time.
        notes: plain sentences on what was done and what was left out.
    """

    network: ReactionNetwork
    initial: dict[str, float | None]
    rate_constants: dict[str, float]
    notes: tuple[str, ...]


def read_sbml(path: Path) -> SbmlModel:
    """Read a network from an SBML file of Level 2 or 3, .gz too.

    The substrates of a reaction are its reactants, with their stoichiometry as order, and its modifiers, with
    order 1; where the kinetic law is mass action, k * Π c^order, the law decides instead. A reaction whose law
    is the difference of two such terms is split into ID_fwd and ID_rev, and so is one marked reversible whose
    law is missing or not mass action. Boundary and constant species, and those set by rules, are `fixed`.

    Raises:
        InputError: the file is missing or no valid SBML, it has no species or no reactions, a stoichiometry is
            no constant >= 0, or a reaction cannot be split because its new id is taken.
    """
    document = _parse(path)
    if document.getLevel() == 1:
        raise InputError(f"{path}: SBML Level 1 is not supported; convert it to Level 2 or 3")
    for i in range(document.getNumErrors()):
        error = document.getError(i)
        if error.getSeverity() >= libsbml.LIBSBML_SEV_ERROR:
            raise InputError(
                f"{path}: not valid SBML: line {error.getLine()}: {one_line(error.getMessage())}; "
                "correct it with an SBML validator"
            )
    model = document.getModel()
    if model is None or not model.getNumSpecies():
        raise InputError(f"{path}: the model has no species; give a file with a reaction network")
    if not model.getNumReactions():
        raise InputError(f"{path}: the model has no reactions; give a file with a reaction network")
    hierarchy = model.getPlugin("comp")
    if hierarchy is not None and hierarchy.getNumSubmodels():
        raise InputError(f"{path}: the model is made of submodels; flatten it first (SBML package comp)")
    return _Reader(path, model).read()


def _parse(path: Path) -> Any:
    """The document, errors included.

    libsbml wants an XML declaration with an encoding; a file without one is as good, and is UTF-8 by the XML standard.
    """
    content = read_bytes(path)
    declaration = re.match(rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*\?>)?", content)
    assert declaration is not None
    if b"encoding" in (declaration[2] or b"") or content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return libsbml.readSBMLFromFile(str(path))
    lines = declaration[0].count(b"\n")  # kept, so that errors name the right line
    body = content[declaration.end() :].decode(errors="replace")
    return libsbml.readSBMLFromString(f'<?xml version="1.0" encoding="UTF-8"?>{chr(10) * lines}{body}')


def write_sbml(network: ReactionNetwork, path: Path, initial: Mapping[str, float | None] | None = None) -> None:
    """Write a network as SBML Level 3 Version 2, without kinetic laws.

    The orders of the substrates become the reactants' stoichiometry, order + net that of the products; so what
    `read_sbml` returns is the same network. Fixed species become boundary species. The network's id is made
    a valid SBML id by underscores.

    Args:
        network: what to write.
        path: the file; an existing one is replaced.
        initial: initial concentrations, where known.

    Raises:
        ValueError: an id is no SBML id, or a reaction consumes a species beyond its order in the rate law,
            which SBML without a kinetic law cannot express.
    """
    for name in (*network.species, *network.reactions):
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(f"{name!r} is no SBML id: letters, digits and underscores only, no digit first")
    initial = initial or {}
    model_id = re.sub(r"^(?=\d)|\W", "_", network.id, flags=re.ASCII) or "network"
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<sbml xmlns="http://www.sbml.org/sbml/level3/version2/core" level="3" version="2">',
        f'  <model id="{model_id}">',
        "    <listOfCompartments>",
        '      <compartment id="cell" spatialDimensions="3" size="1" constant="true"/>',
        "    </listOfCompartments>",
        "    <listOfSpecies>",
    ]
    for name, fixed in zip(network.species, network.fixed, strict=True):
        value = initial.get(name)
        start = "" if value is None else f" initialConcentration={quoteattr(_text(value))}"
        lines.append(
            f'      <species id="{name}" compartment="cell"{start} hasOnlySubstanceUnits="false" '
            f'boundaryCondition="{"true" if fixed else "false"}" constant="false"/>'
        )
    lines += ["    </listOfSpecies>", "    <listOfReactions>"]
    for reaction in network.to_reactions():
        lines += _reaction_lines(reaction)
    lines += ["    </listOfReactions>", "  </model>", "</sbml>", ""]
    write_bytes(path, "\n".join(lines).encode())


def _reaction_lines(reaction: Reaction) -> list[str]:
    products: dict[str, float] = {}
    for name in dict.fromkeys((*reaction.substrates, *reaction.net)):
        order = reaction.substrates.get(name, 0.0)
        coefficient = _add(reaction.net.get(name, 0.0), order)
        if coefficient < 0 or order < 0:
            raise ValueError(
                f"reaction {reaction.id}: {name} has order {order:g} and net coefficient "
                f"{reaction.net.get(name, 0.0):g}, which SBML without a kinetic law cannot express"
            )
        if coefficient:
            products[name] = coefficient
    lines = []
    for tag, side in (("listOfReactants", reaction.substrates), ("listOfProducts", products)):
        if side:
            lines += [f"        <{tag}>"]
            lines += [
                f'          <speciesReference species="{name}" stoichiometry="{_text(value)}" constant="true"/>'
                for name, value in side.items()
            ]
            lines += [f"        </{tag}>"]
    head = f'      <reaction id="{reaction.id}" reversible="false"'
    return [f"{head}>", *lines, "      </reaction>"] if lines else [f"{head}/>"]


def _text(value: float) -> str:
    """The shortest decimal that reads back as the same number; whole numbers without a point."""
    return repr(float(value)).removesuffix(".0")


def _add(a: float, b: float) -> float:
    """a + b in decimal, so that 0.4 - 0.3 is 0.1: coefficients are written by people."""
    return float(Decimal(repr(float(a))) + Decimal(repr(float(b))))


class _Reader:
    """One pass over one model; collects what becomes the notes on the way."""

    def __init__(self, path: Path, model: Any) -> None:
        self.path = path
        self.model = model
        self.functions = {f.getId(): f for f in model.getListOfFunctionDefinitions()}
        self.species = {s.getId(): s for s in model.getListOfSpecies()}
        self.assigned = {r.getVariable(): r.getMath() for r in model.getListOfRules() if r.isAssignment()}
        self.ruled = {r.getVariable() for r in model.getListOfRules() if not r.isAlgebraic()}
        self.initially = {a.getSymbol(): a.getMath() for a in model.getListOfInitialAssignments()}
        self.varying = self.ruled - set(self.assigned) | {
            a.getVariable() for e in model.getListOfEvents() for a in e.getListOfEventAssignments()
        }
        self.fixed = [
            name
            for name, s in self.species.items()
            if s.getBoundaryCondition() or s.getConstant() or name in self.ruled
        ]
        self.resolving: set[str] = set()
        self.noted: dict[str, list[str]] = collections.defaultdict(list)
        self.rate_constants: dict[str, float] = {}

    def read(self) -> SbmlModel:
        reactions: list[Reaction] = []
        for written in self.model.getListOfReactions():
            reactions += self._reaction(written)
        self._check_ids()
        if self._converts():
            self.rate_constants = {}
        try:
            network = ReactionNetwork.from_reactions(
                self.model.getId() or self.path.name.split(".")[0],
                [s.getId() for s in self.model.getListOfSpecies()],
                reactions,
                self.fixed,
            )
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from None
        initial = {name: self._initial(s) for name, s in self.species.items()}
        return SbmlModel(network, initial, self.rate_constants, tuple(self._notes()))

    # -- reactions

    def _reaction(self, written: Any) -> list[Reaction]:
        """One written reaction as one or two one-way reactions."""
        name = written.getId()
        left = self._side(written, written.getListOfReactants())
        right = self._side(written, written.getListOfProducts())
        modifiers = [m.getSpecies() for m in written.getListOfModifiers()]
        net = {s: _add(right.get(s, 0.0), -left.get(s, 0.0)) for s in dict.fromkeys((*left, *right))}
        net = {s: coefficient for s, coefficient in net.items() if coefficient}
        law = self._law(written, [*right, *modifiers])
        forward: Mapping[str, float]
        backward: Mapping[str, float] | None
        if law is not None:
            forward = law.forward.orders
            backward = None if law.backward is None else law.backward.orders
            self._note_orders(name, (forward, left), (backward, right))
        else:
            helpers = dict.fromkeys(modifiers, 1.0)
            forward = helpers | left
            backward = helpers | right if written.getReversible() else None
        if backward is None:
            one_way = [Reaction(name, forward, net)]
        else:
            self.noted["split"].append(name)
            reverse = {s: -coefficient for s, coefficient in net.items()}
            one_way = [Reaction(name + FORWARD, forward, net), Reaction(name + BACKWARD, backward, reverse)]
        if law is not None:
            self._keep_constants(name, one_way, [law.forward, law.backward])
        return one_way

    def _note_orders(self, name: str, *sides: tuple[Mapping[str, float] | None, Mapping[str, float]]) -> None:
        if any(orders is not None and dict(orders) != written for orders, written in sides):
            self.noted["orders"].append(name)

    def _keep_constants(self, name: str, one_way: Sequence[Reaction], terms: Sequence[massaction.Term | None]) -> None:
        """A law gives amount/time; divided by the compartment's size it changes concentrations."""
        moved = [s for s in one_way[0].net if s in self.species and s not in self.fixed]
        try:
            sizes = {self._size(self.species[s].getCompartment()) for s in moved} or {1.0}
        except massaction.NotPolynomialError:
            sizes = set()
        if len(sizes) != 1 or 0.0 in sizes:
            self.noted["sizes"].append(name)
            return
        (size,) = sizes
        for reaction, term in zip(one_way, terms, strict=False):
            if term is None or term.k is None:
                self.noted["unknown k"].append(reaction.id)
            else:
                self.rate_constants[reaction.id] = term.k / size

    def _side(self, written: Any, references: Any) -> dict[str, float]:
        """Stoichiometry per species of one side; a species written twice is added up."""
        side: dict[str, float] = {}
        for reference in references:
            name = reference.getSpecies()
            value = self._stoichiometry(reference)
            if value is None or not math.isfinite(value) or value < 0:
                raise InputError(
                    f"{self.path}: reaction {written.getId()}: the stoichiometry of {name} is not a constant number "
                    ">= 0; write it as one"
                )
            side[name] = _add(side.get(name, 0.0), value)
        return {name: value for name, value in side.items() if value}

    def _stoichiometry(self, reference: Any) -> float | None:
        if reference.isSetStoichiometryMath():
            return self._number(reference.getStoichiometryMath().getMath())
        name = reference.getId()
        if name and name in self.ruled | self.varying:
            return None
        if name and name in self.initially:
            return self._number(self.initially[name])
        return float(reference.getStoichiometry())

    # -- kinetic laws

    def _law(self, written: Any, backward: Sequence[str]) -> massaction.MassAction | None:
        """The kinetic law, if there is one and it is mass action."""
        if not written.isSetKineticLaw() or not written.getKineticLaw().isSetMath():
            return None
        law = written.getKineticLaw()
        local = {
            p.getId(): _value(p, f"{written.getId()}.{p.getId()}")
            for p in (*law.getListOfParameters(), *law.getListOfLocalParameters())
        }
        try:
            polynomial = massaction.expand(
                law.getMath(), lambda name: local[name] if name in local else self._lookup(name), self.functions
            )
            result = massaction.mass_action(polynomial, backward)
        except massaction.NotPolynomialError:
            result = None
        if result is None:
            self.noted["law"].append(written.getId())
        return result

    def _lookup(self, name: str) -> massaction.Polynomial:
        """What an id stands for in a formula."""
        if name in self.species:
            species = self.species[name]
            # a formula means the amount of such a species; networks are about concentrations
            amount = species.getHasOnlySubstanceUnits()
            return massaction.symbol(name, self._size(species.getCompartment()) if amount else 1.0)
        if name in self.varying or name in self.resolving:
            raise massaction.NotPolynomialError
        math_ = self.assigned.get(name, self.initially.get(name))
        if math_ is None:
            return self._declared(name)
        self.resolving.add(name)
        try:
            value = massaction.expand(math_, self._lookup, self.functions)
        finally:
            self.resolving.discard(name)
        if name not in self.assigned and massaction.number(value) is None:
            return massaction.symbol(massaction.UNKNOWN + name)  # of initial values: constant all the same
        return value

    def _declared(self, name: str) -> massaction.Polynomial:
        if self.model.getCompartment(name) is not None:
            return massaction.constant(self._size(name))
        parameter = self.model.getParameter(name)
        if parameter is None:  # time, a reaction's rate, or nothing at all
            raise massaction.NotPolynomialError
        return _value(parameter, name)

    def _number(self, formula: Any) -> float | None:
        """The value of a constant formula, otherwise None."""
        try:
            return massaction.number(massaction.expand(formula, self._lookup, self.functions))
        except massaction.NotPolynomialError:
            return None

    # -- species and compartments

    def _size(self, name: str) -> float:
        """Size of a compartment; 1 where none is given, as everybody does.

        Raises:
            NotPolynomialError: it is not a known constant.
        """
        if name in self.varying:
            raise massaction.NotPolynomialError
        if name in self.assigned or name in self.initially:
            size = massaction.number(self._lookup(name))
            if size is None:
                raise massaction.NotPolynomialError
            return size
        compartment = self.model.getCompartment(name)
        size = math.nan if compartment is None else float(compartment.getSize())
        return 1.0 if math.isnan(size) else size

    def _initial(self, species: Any) -> float | None:
        """Initial concentration, if the file gives one."""
        name = species.getId()
        if name in self.assigned or name in self.initially:
            value = self._number(self.assigned.get(name, self.initially.get(name)))
            amount = species.getHasOnlySubstanceUnits()
        elif species.isSetInitialConcentration():
            value, amount = float(species.getInitialConcentration()), False
        elif species.isSetInitialAmount():
            value, amount = float(species.getInitialAmount()), True
        else:
            return None
        if value is None or not amount:
            return value
        try:
            return value / self._size(species.getCompartment())
        except (massaction.NotPolynomialError, ZeroDivisionError):
            return None

    # -- checks and notes

    def _check_ids(self) -> None:
        written = {r.getId() for r in self.model.getListOfReactions()}
        for name in self.noted["split"]:
            clash = [new for new in (name + FORWARD, name + BACKWARD) if new in written]
            if clash:
                raise InputError(
                    f"{self.path}: reaction {name} is split into {name + FORWARD} and {name + BACKWARD}, but another "
                    f"reaction is called {clash[0]}; rename one of them"
                )

    def _converts(self) -> bool:
        """Whether amounts and extents are counted in different units (Level 3)."""
        return bool(self.model.isSetConversionFactor() or any(s.isSetConversionFactor() for s in self.species.values()))

    def _notes(self) -> list[str]:
        notes = []
        for key, wordings in _NOTES.items():
            names = self.noted[key]
            if names:
                notes.append(f"{len(names)} {wordings[len(names) > 1]} ({_some(names)}).")
        set_by_rules = [s for s in self.species if s in self.ruled]
        if set_by_rules:
            notes.append(f"{len(set_by_rules)} species set by rules taken as fixed ({_some(set_by_rules)}).")
        rules = sum(1 for r in self.model.getListOfRules() if r.isAlgebraic())
        for count, what in ((rules, "algebraic rule"), (self.model.getNumEvents(), "event")):
            if count:
                notes.append(f"{count} {what}{'s were' if count > 1 else ' was'} not read.")
        if self._converts():
            notes.append("Conversion factors are not supported: no rate constants were read.")
        return notes


def _value(parameter: Any, name: str) -> massaction.Polynomial:
    """A parameter's value; without one it stays a symbol, so that the law's orders are still known."""
    value = parameter.getValue()
    if not parameter.isSetValue() or math.isnan(value):
        return massaction.symbol(massaction.UNKNOWN + name)
    return {(): value}  # may be infinite: 1/Keq of a one-way reaction


def _some(names: Sequence[str], limit: int = 3) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
