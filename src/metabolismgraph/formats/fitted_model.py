"""Export of a fitted model as SBML for simulators."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import libsbml
import numpy as np
from jaxtyping import Float

from metabolismgraph.files import write_bytes
from metabolismgraph.formats import mathml
from metabolismgraph.formats.quantities import ModelIndex
from metabolismgraph.formats.sbml import BACKWARD, FORWARD, parse
from metabolismgraph.formats.sbml_notes import converts
from metabolismgraph.formats.sbml_writer import free_id, sbml_text
from metabolismgraph.formats.wording import some
from metabolismgraph.system.network import Reaction, ReactionNetwork

# log c at the knots, increasing, and log f at the knots
Table = tuple[Float[np.ndarray, " knots"], Float[np.ndarray, " knots"]]

_MAX_KNOTS = 24  # of a learned rate law, which is a power law between knots


@dataclasses.dataclass(frozen=True)
class _Term:
    """One direction of a reaction of the file, with the rate volume * k * V."""

    reaction: Reaction
    k: float | None
    volume: str | None


def write_fitted_sbml(
    source: bytes | None,
    network: ReactionNetwork,
    rate_constants: Mapping[str, float],
    homeostasis: Mapping[str, tuple[float, float]],
    rate_law: Mapping[float, Table],
    path: Path,
    *,
    aggregation: Literal["mul", "add"] = "mul",
    log_alpha: float | None = None,
    initial: Mapping[str, float | None] | None = None,
) -> tuple[str, ...]:
    """Write a model with estimated rate constants, rate law and homeostasis as kinetic laws.

    The kinetic law of a mass action reaction is volume * k * Π c^order, minus the same for its backward direction; for
    other reactions, the learned f replaces c^order. Homeostasis is written as reactions homeostasis_SPECIES with the
    rate volume * (slope * c + offset). Kinetic laws are replaced if rate law and rate constant are known. Conversion
    factors and the attribute `fast` are removed; function definitions and modifiers are added. The rest of the file
    does not change.

    Args:
        source: content of the SBML file from which the network was read; None: a new document is created.
        network: the network of this file.
        rate_constants: k per reaction of the network, in the units of the data; for others, k has no value.
        homeostasis: slope (1/time) and offset (concentration/time) per species.
        rate_law: the learned f per order.
        path: the file; an existing one is replaced.
        aggregation: "mul" for the product of f over substrates, "add" for the sum.
        log_alpha: for a model of the published program, whose flux has a softplus around the product, see
            `kinetics.aggregate_published`; None for all others.
        initial: initial concentrations, for `source` None.

    Returns:
        Notes on changes to the source, and on missing values.

    Raises:
        InputError: the source is not valid SBML.
        ValueError: the source has other reactions or species than the network, or (for `source` None) an id is not a
            valid SBML id.
    """
    content = sbml_text(network, initial or {}, strict=False).encode() if source is None else source
    document = parse(content, path.name if source is None else "the SBML file of the network")
    writer = _Writer(ModelIndex(document), network, rate_constants, rate_law, aggregation, log_alpha)
    writer.write(homeostasis)
    write_bytes(path, libsbml.writeSBMLToString(document).encode())
    return tuple(writer.notes)


@dataclasses.dataclass
class _Writer:
    """Modifies one document, and collects notes."""

    index: ModelIndex
    network: ReactionNetwork
    rate_constants: Mapping[str, float]
    rate_law: Mapping[float, Table]
    aggregation: str
    log_alpha: float | None
    functions: dict[float, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        index = self.index
        self.model = index.model
        self.level3 = index.document.getLevel() >= 3
        self.reactions = {r.id: r for r in self.network.to_reactions()}
        listed = (index.functions, index.species, index.compartments, index.parameters, index.reactions)
        units = [u.getId() for u in self.model.getListOfUnitDefinitions()]
        self.taken = {*units, *index.references}.union(*listed)
        self.concentrations = {s: self._concentration(s) for s in index.species}

    def write(self, homeostasis: Mapping[str, tuple[float, float]]) -> None:
        """Write all kinetic laws and homeostasis.

        Raises:
            ValueError: the document has other species or reactions than the network.
        """
        if set(self.index.species) != set(self.network.species):
            raise ValueError("the SBML file has other species than the network")
        self._drop_conversion()
        unwritten, valueless, slowed = [], [], []
        for written in self.model.getListOfReactions():
            terms = self._terms(written.getId())
            if written.isSetFast() and written.getFast():
                written.setFast(False)
                slowed.append(written.getId())
            if self._write_law(written, terms):
                valueless += [t.reaction.id for t in terms if t.k is None]
            else:
                unwritten.append(written.getId())
        for species, (slope, offset) in homeostasis.items():
            self._write_homeostasis(species, slope, offset)
        for names, what in (
            (unwritten, "not changed, since no rate law or no rate constant was learned"),
            (valueless, "written with a rate constant that has no value, since none was estimated"),
            (slowed, "no longer marked as fast, since they have finite rates"),
        ):
            if names:
                self.notes.append(f"Kinetic laws {what}: {len(names)} ({some(names, 3)}).")

    def _drop_conversion(self) -> None:
        """Remove conversion factors: estimates have a single unit of amount."""
        if converts(self.index):
            for part in (self.model, *self.index.species.values()):
                part.unsetConversionFactor()
            self.notes.append("Conversion factors were removed: estimated rate constants do not include them.")

    # -- laws

    def _terms(self, written: str) -> list[_Term]:
        """The one or two reactions of the network that correspond to a reaction of the file."""
        ids = [written] if written in self.reactions else [written + FORWARD, written + BACKWARD]
        if any(name not in self.reactions for name in ids):
            raise ValueError(f"reaction {written} of the SBML file is not in the network")
        return [_Term(self.reactions[r], self.rate_constants.get(r), self._volume(self.reactions[r])) for r in ids]

    def _volume(self, reaction: Reaction) -> str | None:
        """The compartment of the rate of a reaction, see `ReactionNetwork.reaction_volume`."""
        consumed = [s for s, coefficient in reaction.net.items() if coefficient < 0]
        first = next(iter((*consumed, *reaction.net)), None)
        return None if first is None else self._sized(first)

    def _sized(self, species: str) -> str | None:
        """Id of the compartment of a species; None if the file gives no size, so that it is 1."""
        cell = self.index.species[species].getCompartment()
        compartment = self.index.compartments.get(cell)
        given = cell in self.index.assigned or cell in self.index.initially
        if compartment is None or cell in self.index.without_size or not (compartment.isSetSize() or given):
            return None
        return str(cell)

    def _concentration(self, species: str) -> str:
        """The formula of the concentration of a species."""
        cell = self._sized(species)
        if not self.index.species[species].getHasOnlySubstanceUnits() or cell is None:
            return mathml.name(species)
        return mathml.apply("divide", mathml.name(species), mathml.name(cell))

    def _write_law(self, written: Any, terms: Sequence[_Term]) -> bool:
        """Replace the kinetic law; returns False if the form of a term is unknown."""
        if not all(t.reaction.mass_action or self._learned(t) for t in terms):
            return False
        law = written.getKineticLaw() or written.createKineticLaw()
        for old in (law.getListOfParameters(), law.getListOfLocalParameters()):
            while old.size():
                old.remove(0)
        parts = [self._part(term, self._parameter(law, f"k_{term.reaction.id}", term.k)) for term in terms]
        _set_math(law, parts[0] if len(parts) == 1 else mathml.apply("minus", *parts))
        named = {s for t in terms for s in t.reaction.substrates}
        sides = (written.getListOfReactants(), written.getListOfProducts(), written.getListOfModifiers())
        for species in sorted(named - {reference.getSpecies() for side in sides for reference in side}):
            written.createModifier().setSpecies(species)
        return True

    def _learned(self, term: _Term) -> bool:
        return term.k is not None and all(order in self.rate_law for order in term.reaction.substrates.values())

    def _part(self, term: _Term, k: str) -> str:
        """volume * k * V of one direction."""
        substrates = term.reaction.substrates
        known = term.reaction.mass_action
        values = [
            mathml.power(self.concentrations[s], order)
            if known
            else mathml.apply(self._function(order), self.concentrations[s])
            for s, order in substrates.items()
        ]
        if self.aggregation == "add" and len(values) > 1:
            values = [mathml.apply("plus", *values)]
        if self.log_alpha is not None:
            scale = mathml.number(math.exp(max(len(substrates), 1) * self.log_alpha))
            values = [mathml.apply("divide", _softplus(mathml.product([scale, *values] if values else [])), scale)]
        volume = [] if term.volume is None else [mathml.name(term.volume)]
        return mathml.product([*volume, mathml.name(k), *values])

    def _function(self, order: float) -> str:
        """Id of the learned f of one order; defined on first use."""
        if order not in self.functions:
            text = f"{order:g}".replace(".", "_").replace("-", "minus_").replace("+", "")
            name = free_id(f"f_order_{text}", self.taken)
            self.taken.add(name)
            definition = self.model.createFunctionDefinition()
            definition.setId(name)
            _set_math(definition, power_laws(*self.rate_law[order]))
            self.functions[order] = name
        return self.functions[order]

    def _parameter(self, law: Any, wanted: str, value: float | None) -> str:
        """Add a parameter to a law; returns its id, which is different from all others."""
        own = {p.getId() for p in (*law.getListOfParameters(), *law.getListOfLocalParameters())}
        name = free_id(wanted, self.taken | own)
        parameter = law.createLocalParameter() if self.level3 else law.createParameter()
        parameter.setId(name)
        if value is not None:
            parameter.setValue(float(value))
        return name

    # -- homeostasis

    def _write_homeostasis(self, species: str, slope: float, offset: float) -> None:
        fixed = self.index.species.get(species) is None or species in self.index.fixed
        if fixed or not (slope or offset) or not math.isfinite(slope + offset):
            return
        written = self.model.createReaction()
        reaction = free_id(f"homeostasis_{species}", self.taken)
        self.taken.add(reaction)
        written.setId(reaction)
        written.setReversible(True)
        if self.level3:
            written.setFast(False)
        product = written.createProduct()
        product.setSpecies(species)
        product.setStoichiometry(1.0)
        if self.level3:
            product.setConstant(True)
        law = written.createKineticLaw()
        names = [self._parameter(law, name, value) for name, value in (("slope", slope), ("offset", offset))]
        line = mathml.apply(
            "plus", mathml.apply("times", mathml.name(names[0]), self.concentrations[species]), mathml.name(names[1])
        )
        volume = self._sized(species)
        _set_math(law, line if volume is None else mathml.apply("times", mathml.name(volume), line))


def _softplus(x: str) -> str:
    """log(1 + e^x) of a formula that is not negative, without overflow."""
    decay = mathml.apply("exp", mathml.apply("minus", x))
    return mathml.apply("plus", x, mathml.apply("ln", mathml.apply("plus", mathml.number(1.0), decay)))


def power_laws(log_c: Float[np.ndarray, " knots"], log_f: Float[np.ndarray, " knots"]) -> str:
    """f(c) as a MathML function: a power law between neighbouring knots and beyond the outermost ones; 0 for c <= 0.

    Args:
        log_c: log concentrations of the knots, increasing.
        log_f: log f at the knots.
    """
    if len(log_c) > _MAX_KNOTS:
        knots = np.linspace(log_c[0], log_c[-1], _MAX_KNOTS)
        log_c, log_f = knots, np.interp(knots, log_c, log_f)
    slopes = np.diff(log_f) / np.diff(log_c)
    c = mathml.name("c")
    laws = [
        mathml.product([mathml.number(math.exp(f - slope * x)), mathml.power(c, float(slope))])
        for x, f, slope in zip(log_c[:-1], log_f[:-1], slopes, strict=True)
    ]
    pieces = [(mathml.number(0.0), mathml.apply("leq", c, mathml.number(0.0)))]
    pieces += [
        (law, mathml.apply("lt", c, mathml.number(math.exp(x)))) for law, x in zip(laws[:-1], log_c[1:-1], strict=True)
    ]
    return mathml.function(["c"], mathml.piecewise(pieces, laws[-1]))


def _set_math(part: Any, formula: str) -> None:
    tree = libsbml.readMathMLFromString(mathml.math(formula))
    if tree is None or part.setMath(tree) != libsbml.LIBSBML_OPERATION_SUCCESS:
        raise ValueError(f"libsbml rejects the formula {formula}")
