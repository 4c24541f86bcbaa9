"""Interpretation of column names: time, run, species (by id, display name or in brackets), or not needed."""

from __future__ import annotations

import collections
import dataclasses
import difflib
import re
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metabolismgraph.errors import InputError
from metabolismgraph.formats.units import bare_unit, is_amount, same_unit, split_unit
from metabolismgraph.formats.wording import some
from metabolismgraph.system.network import ReactionNetwork

RUN_NAMES = ("run", "replicate", "rep", "experiment", "condition", "sample")
_ROLES = {
    "time": "time",
    **dict.fromkeys(RUN_NAMES, "run"),
    **dict.fromkeys(("species", "variable", "metabolite"), "species"),
    **dict.fromkeys(("concentration", "value", "conc"), "concentration"),
}
# Columns of simulators (COPASI, Tellurium) other than concentrations, with the id in parentheses.
_DERIVED = (
    r"(?:Values|Compartments|Flux)\[(.+)\](?:\.InitialValue|\.Rate)?",
    r"\((.+)\)\.Flux",
    r"Flux\((.+)\)",
    r"\[([^][]+)\](?:_0|\.Rate)",
    r"([^][]+)(?:'|\.Rate|\.ParticleNumber|\.ParticleNumberRate)",
)
_SUFFIX = r"(.+?)[ _.](?:conc|concentration)"
_HOW = {
    "brackets": "Names in brackets are read as concentrations: {}.",
    "suffix": "Read as concentrations: {}.",
    "name": "Read by the display name of a species: {}.",
    "case": "Matched regardless of case: {}.",
}


def clean(name: object) -> str:
    """A column name without surrounding spaces and comment sign."""
    return re.sub(r"^[#%]+\s*(?=\S)", "", " ".join(str(name).split()))


def time_unit(name: object) -> str | None:
    """The unit in the name of the time column: `time (s)`, `time_s`."""
    text = clean(name)
    return split_unit(text)[1] or (bare_unit(text[5:]) if text[:5].casefold() == "time_" else None)


def role_of(name: object) -> str | None:
    """The role of a column by its name: time (also `t`), run, species or concentration; None for other names."""
    text = clean(name)
    base = split_unit(text)[0]
    if base == "t" or (text[:5].casefold() == "time_" and time_unit(text)):
        return "time"
    return _ROLES.get(base.casefold())


@dataclasses.dataclass(frozen=True)
class Meaning:
    """The interpretation of a name.

    Attributes:
        species: id of a species; None for another id of the model.
        how: relation between name and id: id, brackets, suffix, name or case.
        unit: unit behind the name.
        amount: True if the numbers are amounts, False if they are concentrations.
    """

    species: str | None
    how: str = "id"
    unit: str | None = None
    amount: bool = False


class Vocabulary:
    """The names that a model defines, and those of observables, which count as species."""

    def __init__(
        self,
        network: ReactionNetwork,
        names: Mapping[str, str] | None = None,
        other_ids: Collection[str] = (),
        amounts: Collection[str] = (),
        observables: Collection[str] = (),
    ) -> None:
        self.network = network
        self.species = frozenset(network.species) | frozenset(observables)
        self.others = (frozenset(other_ids) | frozenset(network.reactions)) - self.species
        self.amounts = frozenset(amounts)
        shown = {key: clean(name) for key, name in (names or {}).items() if clean(name)}
        self.by_name = _unique((name, key) for key, name in shown.items())
        self.by_case = _unique(
            (name.casefold(), key) for key in (*self.species, *self.others) for name in {key, shown.get(key, key)}
        )
        counts = collections.Counter(name for key, name in shown.items() if key in self.species)
        self.shared = {name for name, count in counts.items() if count > 1}

    def meaning(self, text: str, unit: str | None = None) -> Meaning | None:
        """The interpretation of a name; None for an unknown name.

        Args:
            text: the name, which can include a unit.
            unit: unit from another source, such as a row of units.
        """
        found = self._named(text) or self._derived(text)
        if found is None:
            base, own = split_unit(text)
            unit = own or unit
            found = self._named(base) or self._by_case(text) or self._by_case(base)
        if found is None or found.species is None:
            return found
        # In SBML, the id of a species in amounts (hasOnlySubstanceUnits) is its amount; [id] is the concentration.
        amount = is_amount(unit) if unit else found.species in self.amounts
        return dataclasses.replace(found, unit=unit, amount=amount and found.how not in {"brackets", "suffix"})

    def _named(self, text: str) -> Meaning | None:
        if text in self.species:
            return Meaning(text)
        if text in self.others:
            return Meaning(None)
        if text in self.by_name:
            return self._of(self.by_name[text], "name")
        brackets = re.fullmatch(r"\[([^][]+)\]", text)
        if brackets:
            inner = brackets[1].strip()
            key = inner if inner in self.species else self.by_name.get(inner, "")
            return Meaning(key, "brackets") if key in self.species else None
        suffix = re.fullmatch(_SUFFIX, text, re.IGNORECASE)
        return Meaning(suffix[1], "suffix") if suffix and suffix[1] in self.species else None

    def _by_case(self, text: str) -> Meaning | None:
        key = self.by_case.get(text.casefold())
        return None if key is None else self._of(key, "case")

    def _derived(self, text: str) -> Meaning | None:
        for pattern in _DERIVED:
            match = re.fullmatch(pattern, text)
            if match and (match[1] in self.species | self.others or match[1] in self.by_name):
                return Meaning(None)
        return None

    def _of(self, key: str, how: str) -> Meaning:
        return Meaning(key, how) if key in self.species else Meaning(None)


def _unique(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Names that belong to a single id."""
    ids: dict[str, set[str]] = collections.defaultdict(set)
    for name, key in pairs:
        ids[name].add(key)
    return {name: next(iter(found)) for name, found in ids.items() if len(found) == 1}


@dataclasses.dataclass(frozen=True)
class Assignment:
    """The interpretation of the names of a table.

    Attributes:
        species: name in the table by id.
        amounts: ids of species with amounts instead of concentrations.
        units: unit by name in the table.
        dropped: names that are not needed.
        notes: plain sentences on assumptions.
    """

    species: dict[str, Any]
    amounts: frozenset[str]
    units: dict[Any, str]
    dropped: list[Any]
    notes: list[str]


def assign(
    path: Path, what: str, names: Sequence[Hashable], vocabulary: Vocabulary, units: Mapping[str, str]
) -> Assignment:
    """Assign names of columns or rows to species.

    Args:
        path, what: file, and "column" or "species", for messages.
        names: the names.
        vocabulary: names of the model.
        units: units from a row of units, by name.

    Raises:
        InputError: a name is unknown, two names belong to the same species, or units contradict each other.
    """
    for name in names:
        own, below = split_unit(clean(name))[1], units.get(str(name))
        if own and below and same_unit(own) != same_unit(below):
            raise InputError(f"{path}: {what} {str(name)!r} has another unit in the row below, {below}; keep one")
    meanings = {name: vocabulary.meaning(clean(name), units.get(str(name))) for name in names}
    exact = {m.species for m in meanings.values() if m is not None and m.species is not None and m.how != "case"}
    _refuse_unknown(
        path, what, [clean(n) for n, m in meanings.items() if m is None or (m.how == "case" and m.species in exact)],
        vocabulary,
    )  # fmt: skip
    known = {name: m for name, m in meanings.items() if m is not None}
    dropped = [name for name, m in known.items() if m.species is None]
    notes = [f"Names that are not species were left out: {some(dropped)}."] if dropped else []
    of: dict[str, list[Any]] = collections.defaultdict(list)
    for name, m in known.items():
        if m.species is not None:
            of[m.species].append(name)
    amounts_beside = []
    for key, same in of.items():
        bracketed = [name for name in same if known[name].how == "brackets"]
        if len(same) == 2 and len(bracketed) == 1 and key in [clean(name) for name in same]:
            amounts_beside += [name for name in same if name not in bracketed]
            of[key] = bracketed
        elif len(same) > 1:
            raise InputError(f"{path}: {what} {str(same[0])!r} and {what} {str(same[1])!r} both mean {key}; keep one")
    if amounts_beside:
        notes.append(f"Left out, as amounts besides the concentrations in brackets: {some(amounts_beside)}.")
    species = {key: same[0] for key, same in of.items()}
    notes += _how(known, species)
    found_units = {name: unit for name in species.values() if (unit := known[name].unit)}
    return Assignment(
        species,
        frozenset(key for key, name in species.items() if known[name].amount),
        found_units,
        [*dropped, *amounts_beside],
        notes,
    )


def _how(known: Mapping[Any, Meaning], species: Mapping[str, Any]) -> list[str]:
    notes = []
    for how, sentence in _HOW.items():
        names = {key: clean(name) for key, name in species.items() if known[name].how == how}
        if names:
            pairs = [name if how == "brackets" else f"{name} as {key}" for key, name in names.items()]
            notes.append(sentence.format(some(pairs)))
    return notes


def _refuse_unknown(path: Path, what: str, unknown: Sequence[str], vocabulary: Vocabulary) -> None:
    if not unknown:
        return
    network, first = vocabulary.network, unknown[0]
    base = split_unit(first)[0]
    if base in vocabulary.shared:
        raise InputError(f"{path}: {what} {first!r} is the name of more than one species; use their ids")
    near = difflib.get_close_matches(base, network.species, n=1, cutoff=0.0)
    more = f"; {len(unknown) - 1} more such" if len(unknown) > 1 else ""
    nearest = f" (nearest: {near[0]}{more})" if near else ""
    raise InputError(
        f"{path}: {what} {first!r} is not a species of network {network.id}{nearest}; rename or remove it"
    )  # fmt: skip


def one_unit(path: Path, found: Assignment, divided: Sequence[str]) -> tuple[str | None, list[str]]:
    """The unit of the concentrations (None if there is none), and notes.

    Args:
        path: the file.
        found: the columns.
        divided: species with amounts that are different from concentrations.

    Raises:
        InputError: there are several units, or a column without a unit could contain amounts.
    """
    units = found.units
    names: dict[str, Any] = {}
    for name, unit in units.items():
        names.setdefault(same_unit(unit), name)
    if len(names) > 1:
        (first, second) = list(names.values())[:2]
        raise InputError(
            f"{path}: columns have different units ({clean(first)}: {units[first]}, {clean(second)}: {units[second]}); "
            "convert them to one"
        )
    if not units:
        return None, []
    unit = next(iter(units.values()))
    without = [key for key, name in found.species.items() if name not in units]
    doubtful = [key for key in without if key in divided and not is_amount(unit)]
    if doubtful:
        raise InputError(
            f"{path}: column {clean(found.species[doubtful[0]])!r} has no unit, and {doubtful[0]} is an amount in the "
            f"model; write [{doubtful[0]}] if it is a concentration, or its unit"
        )
    return unit, [f"No unit is given for {some(without)}: taken as {unit}, the unit of the others."] if without else []
