"""Notes on an SBML file: assumptions, changes and omissions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from metabolismgraph.formats.quantities import ModelIndex
from metabolismgraph.formats.wording import counted

# Notes on [one|several] reactions or species.
_NOTES = {
    "split": "reversible [reaction was|reactions were] split into forward and backward",
    "default": "[reaction does|reactions do] not state whether [it is|they are] reversible, and [is|are] so "
    "by default (SBML Level 2)",
    "one way": "[reaction is|reactions are] marked as reversible, but [its kinetic law is|their kinetic laws are] "
    "never negative: [it is|they are] taken as irreversible",
    "backward": "[reaction is|reactions are] not marked as reversible, but [its kinetic law|their kinetic laws] can be "
    "negative: [it is|they are] taken as irreversible",
    "fast": "[reaction is|reactions are] marked as fast: [it is treated as an ordinary reaction with a finite rate|"
    "they are treated as ordinary reactions with finite rates]; if [it is|they are] at equilibrium at all times, only "
    "the [ratio of its|ratios of their] forward and backward k can be determined",
    "law": "kinetic [law is not mass action and was|laws are not mass action and were] not read: [its|their] rate law "
    "is learned from the data, with [its|their] reactants as substrates",
    "down": "species besides the reactants [reduces the rate (an inhibitor)|reduce the rates (inhibitors)]: f(c)^order "
    "cannot represent that, so [it was|they were] left out",
    "none": "[modifier has no influence on its kinetic law: it was|modifiers have no influence on their kinetic laws: "
    "they were] left out",
    "up": "species besides the reactants [increases the rate: it is taken as a substrate|increase the rates: they are "
    "taken as substrates] of order 1",
    "catalyst": "[modifier is taken as a catalyst, a substrate|modifiers are taken as catalysts, substrates] of "
    "order 1, since the file does not state [its|their] influence",
    "orders": "mass action [law has other orders than the reaction equation|laws have other orders than the reaction "
    "equations]: those of the [law|laws] are used",
    "unknown k": "rate [constant is|constants are] unknown, since [a parameter has|parameters have] no value",
    "varying size": "[reaction is in a compartment whose size changes: its rate constant was|reactions are in "
    "compartments whose sizes change: their rate constants were] not read",
}
_NAMED = 3  # names in a note
_KNOWN_PACKAGES = {"layout", "render", "comp", "groups"}  # drawings, submodels (an error if there are any), lists
_RULES = {
    "assigned": "species [is set by an assignment rule: it is|are set by assignment rules: they are] taken as fixed",
    "rated": "species [follows a rate rule, which was|follow rate rules, which were] not read: [it is|they are] taken "
    "as fixed, and [needs a column|need columns] in the table",
    "parameters": "[parameter changes by a rate rule, which was|parameters change by rate rules, which were] not read: "
    "kinetic laws with [it|them] are not mass action",
    "sizes": "[compartment changes its|compartments change their] size: [it is taken as constant, at its|they are "
    "taken as constant, at their] size at the start",
    "without size": "[compartment has|compartments have] no size > 0: [it is|they are] taken as 1",
    "algebraic": "algebraic [rule was|rules were] not read",
    "events": "[event was not read: it changes its|events were not read: they change their] variables abruptly, which "
    "no reaction explains",
}


def model_notes(index: ModelIndex, noted: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """All notes on a model.

    Args:
        index: the model.
        noted: ids by kind of note, a key of `_NOTES`.
    """
    notes = [counted(_NOTES[key], noted[key], limit=_NAMED) for key in _NOTES if noted.get(key)]
    notes += [counted(_RULES[key], names, count, _NAMED) for key, (names, count) in _unread(index).items() if count]
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
