"""Notes on an SBML file: assumptions, changes and omissions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from metabolismgraph.formats.quantities import ModelIndex

# Notes on one reaction or species, and on several.
_NOTES = {
    "split": (
        "reversible reaction was split into forward and backward",
        "reversible reactions were split into forward and backward",
    ),
    "default": (
        "reaction does not state whether it is reversible, and is so by default (SBML Level 2)",
        "reactions do not state whether they are reversible, and are so by default (SBML Level 2)",
    ),
    "one way": (
        "reaction is marked as reversible, but its kinetic law is never negative: it is taken as irreversible",
        "reactions are marked as reversible, but their kinetic laws are never negative: they are taken as irreversible",
    ),
    "backward": (
        "reaction is not marked as reversible, but its kinetic law can be negative: it is taken as irreversible",
        "reactions are not marked as reversible, but their kinetic laws can be negative: "
        "they are taken as irreversible",
    ),
    "fast": (
        "reaction is marked as fast: it is treated as an ordinary reaction with a finite rate; if it is at "
        "equilibrium at all times, only the ratio of its forward and backward k can be determined",
        "reactions are marked as fast: they are treated as ordinary reactions with finite rates; if they are at "
        "equilibrium at all times, only the ratios of their forward and backward k can be determined",
    ),
    "law": (
        "kinetic law is not mass action and was not read: "
        "its rate law is learned from the data, with its reactants as substrates",
        "kinetic laws are not mass action and were not read: "
        "their rate law is learned from the data, with their reactants as substrates",
    ),
    "down": (
        "species besides the reactants reduces the rate (an inhibitor): "
        "f(c)^order cannot represent that, so it was left out",
        "species besides the reactants reduce the rates (inhibitors): "
        "f(c)^order cannot represent that, so they were left out",
    ),
    "none": (
        "modifier has no influence on its kinetic law: it was left out",
        "modifiers have no influence on their kinetic laws: they were left out",
    ),
    "up": (
        "species besides the reactants increases the rate: it is taken as a substrate of order 1",
        "species besides the reactants increase the rates: they are taken as substrates of order 1",
    ),
    "catalyst": (
        "modifier is taken as a catalyst, a substrate of order 1, since the file does not state its influence",
        "modifiers are taken as catalysts, substrates of order 1, since the file does not state their influence",
    ),
    "orders": (
        "mass action law has other orders than the reaction equation: those of the law are used",
        "mass action laws have other orders than the reaction equations: those of the laws are used",
    ),
    "unknown k": (
        "rate constant is unknown, since a parameter has no value",
        "rate constants are unknown, since parameters have no value",
    ),
    "varying size": (
        "reaction is in a compartment whose size changes: its rate constant was not read",
        "reactions are in compartments whose sizes change: their rate constants were not read",
    ),
}
_KNOWN_PACKAGES = {"layout", "render", "comp", "groups"}  # drawings, submodels (an error if there are any), lists
_RULES = {
    "assigned": (
        "species is set by an assignment rule: it is taken as fixed",
        "species are set by assignment rules: they are taken as fixed",
    ),
    "rated": (
        "species follows a rate rule, which was not read: it is taken as fixed, and needs a column in the table",
        "species follow rate rules, which were not read: they are taken as fixed, and need columns in the table",
    ),
    "parameters": (
        "parameter changes by a rate rule, which was not read: kinetic laws with it are not mass action",
        "parameters change by rate rules, which were not read: kinetic laws with them are not mass action",
    ),
    "sizes": (
        "compartment changes its size: it is taken as constant, at its size at the start",
        "compartments change their size: they are taken as constant, at their size at the start",
    ),
    "without size": (
        "compartment has no size > 0: it is taken as 1",
        "compartments have no size > 0: they are taken as 1",
    ),
    "algebraic": ("algebraic rule was not read", "algebraic rules were not read"),
    "events": (
        "event was not read: it changes its variables abruptly, which no reaction explains",
        "events were not read: they change their variables abruptly, which no reaction explains",
    ),
}


def model_notes(index: ModelIndex, noted: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """All notes on a model.

    Args:
        index: the model.
        noted: ids by kind of note, a key of `_NOTES`.
    """
    notes = [_note(_NOTES[key], noted[key]) for key in _NOTES if noted.get(key)]
    notes += [_note(_RULES[key], names, count) for key, (names, count) in _unread(index).items() if count]
    if converts(index):
        notes.append("Conversion factors are not supported: no rate constants were read.")
    plugins = (index.model.getPlugin(i) for i in range(index.model.getNumPlugins()))
    packages = sorted({p.getPackageName() for p in plugins} - _KNOWN_PACKAGES)
    if packages:
        notes.append(f"Elements of SBML packages were not read ({', '.join(packages)}).")
    return tuple(notes)


def _unread(index: ModelIndex) -> dict[str, tuple[list[str], int]]:
    """Names and number of rules, events and sizes with a note, by key of `_RULES`."""
    algebraic = sum(1 for r in index.model.getListOfRules() if r.isAlgebraic())
    found = {
        "assigned": [s for s in index.species if s in index.assigned],
        "rated": [s for s in index.species if s in index.rated],
        "parameters": [p for p in index.parameters if p in index.rated],
        "sizes": [c for c in index.compartments if index.varies(c)],
        "without size": index.without_size,
    }
    return {key: (names, len(names)) for key, names in found.items()} | {
        "algebraic": ([], algebraic),
        "events": (sorted(index.events), index.model.getNumEvents()),
    }


def converts(index: ModelIndex) -> bool:
    """Whether there are conversion factors between the units of amount and extent (Level 3)."""
    species: list[Any] = list(index.species.values())
    return bool(index.model.isSetConversionFactor() or any(s.isSetConversionFactor() for s in species))


def _note(wordings: tuple[str, str], names: Sequence[str], count: int | None = None) -> str:
    count = len(names) if count is None else count
    return f"{count} {wordings[count > 1]}{f' ({some(names)})' if names else ''}."


def some(names: Sequence[str], limit: int = 3) -> str:
    """The first names, as text."""
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
