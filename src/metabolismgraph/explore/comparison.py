"""Two nodes or two explorations side by side: settings that differ, rewards, time, cost, strategy files."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from metabolismgraph.errors import InputError
from metabolismgraph.explore.cost import of_iteration
from metabolismgraph.explore.evidence import PAIRS, Effect, effects, paired
from metabolismgraph.explore.folder import ExplorationFolder
from metabolismgraph.explore.planning import own_strategies, settings_of
from metabolismgraph.explore.proposal import StrategyFile, difference, shown
from metabolismgraph.explore.state import State
from metabolismgraph.explore.tree import Node, best, candidate, nodes, standard_error
from metabolismgraph.runs.folder import MANIFEST

_Files = Mapping[str, StrategyFile]  # by name of the strategy
_WITHOUT_RESULTS = ("description", "dataset", "plotting")  # parts of a configuration that results do not depend on


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of a comparison."""

    what: str
    first: str
    second: str


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two nodes or explorations side by side.

    Attributes:
        names: of the two.
        rows: in order; of settings, those that differ.
        pairs: the difference of the first from the second, seed by seed; or why there is none.
        evidence: lines on what the best node of each exploration rests on.
        differences: of strategy files, in the unified format.
    """

    names: tuple[str, str]
    rows: tuple[Row, ...]
    pairs: Effect | str
    evidence: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()

    @property
    def difference(self) -> str:
        """The difference of the rewards, seed by seed, in words."""
        pairs = self.pairs
        if isinstance(pairs, str):
            return pairs
        first, second = self.names
        count = f"{pairs.pairs} of runs with equal seeds"
        if pairs.interval is None:
            return f"{first} - {second}: {pairs.mean:+.4f} ({count}; an interval needs {PAIRS})"
        low, high = pairs.interval
        return f"{first} - {second}: {pairs.mean:+.4f}, {low:+.4f} to {high:+.4f} with 95 % ({count})"


def compare_nodes(state: State, first: int, second: int) -> Comparison:
    """Compare two nodes of an exploration.

    Raises:
        InputError: there is no such node.
    """
    a, b = ((state, _node(state, number)) for number in (first, second))
    names = (f"node {first}", f"node {second}")
    files = (_files_of(*side) for side in (a, b))
    rows = (*_rows_of_nodes(a, b), *_settings(_settings_of(*a), _settings_of(*b)))
    return Comparison(names, rows, paired(a[1], b[1]) or "no seed that both ran", (), _differences(names, *files))


def compare_explorations(first: Path, second: Path) -> Comparison:
    """Compare two explorations, and their best nodes.

    Raises:
        InputError: one of the folders holds no exploration.
    """
    folders = (ExplorationFolder(first), ExplorationFolder(second))
    one, other = (State.of(folder.journal.read()) for folder in folders)
    rows = [
        Row("scored by", *(s.opened.metric or s.opened.primary for s in (one, other))),
        Row("data", one.opened.data, other.opened.data),
        Row("proposer", one.opened.proposer, other.opened.proposer),
        Row("version", one.opened.version, other.opened.version),
        Row("iterations", _count(one), _count(other)),
        Row("time", f"{one.hours:.2f} h", f"{other.hours:.2f} h"),
        Row("cost", f"{one.cost:.2f} US$", f"{other.cost:.2f} US$"),
        *_settings(_configured(one), _configured(other)),
    ]
    names = (str(first), str(second))
    found = tuple(best(state) or candidate(state) for state in (one, other))
    pairs: Effect | str = "one of them has no best node yet"
    a, b = found
    if a is not None and b is not None:
        rows.append(Row("best", _standing(one, a), _standing(other, b)))
        rows += _rows_of_nodes((one, a), (other, b))
        rows += _settings(_settings_of(one, a), _settings_of(other, b))
        pairs = _why_no_pairs(folders, one, other) or paired(a, b) or "no seed that both best nodes ran"
    evidence = (*_evidence(one, a, names[0]), *_evidence(other, b, names[1]))
    files = ({name: r.file for name, r in own_strategies(state).items() if r.file} for state in (one, other))
    return Comparison(names, tuple(rows), pairs, evidence, _differences(names, *files))


def _node(state: State, number: int) -> Node:
    every = nodes(state)
    found = next((node for node in every if node.id == number), None)
    if found is None:
        of = next((iteration.node for iteration in state.iterations if iteration.number == number), None)
        known = f"the nodes are {', '.join(str(node.id) for node in every) or 'none'}"
        advice = f"iteration {number} is a run of node {of}" if of is not None else known
        raise InputError(f"{state.opened.name}: there is no node {number}; {advice}")
    return found


def _rows_of_nodes(*sides: tuple[State, Node]) -> Iterator[Row]:
    """Yield the lines of two nodes, each with its exploration."""
    yield Row("reward", *(_reward(*side) for side in sides))
    yield Row("seed: reward", *(_by_seed(node) for _, node in sides))
    yield Row("parent", *("root" if node.parent is None else f"node {node.parent}" for _, node in sides))
    yield Row("time of a run", *(_seconds(node) for _, node in sides))
    if any(state.answered for state, _ in sides):
        costs = (math.fsum(c for run in node.runs for c in of_iteration(state, run)) for state, node in sides)
        yield Row("cost", *(f"{cost:.4g} US$" for cost in costs))


def _reward(state: State, node: Node) -> str:
    if node.mean is None:
        return "none"
    error, number = standard_error(node, nodes(state)), len(node.rewards)
    how = ", error unknown" if error is None else f" ± {error:.4f}"
    return f"{node.mean:.4f}{how} ({number} {'run' if number == 1 else 'runs'})"


def _by_seed(node: Node) -> str:
    runs = ((run.proposed.seed, run.scored) for run in node.runs if run.counts)
    return ", ".join(f"{seed}: {scored.reward:.4f}" for seed, scored in runs if scored is not None) or "none"


def _seconds(node: Node) -> str:
    seconds = [run.outcome.seconds for run in node.runs if run.outcome is not None]
    return f"{sum(seconds) / len(seconds):.1f} s" if seconds else "none has ended"


def _standing(state: State, node: Node) -> str:
    few = f", not proven with fewer than {state.settings.replicates} runs"
    return f"node {node.id}{'' if best(state) == node else few}"


def _count(state: State) -> str:
    verdicts = [iteration.scored.state for iteration in state.iterations if iteration.scored is not None]
    bad = {name: verdicts.count(name) for name in ("failed", "nan", "lost")}
    return ", ".join([str(len(verdicts)), *(f"{number} {name}" for name, number in bad.items() if number)])


def _settings(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Row]:
    """Yield a line for every setting that differs."""
    for key in dict.fromkeys([*first, *second]):
        if first.get(key, ...) != second.get(key, ...):
            values = (shown(side[key]) if key in side else "without effect" for side in (first, second))
            yield Row(key.removeprefix("training."), *values)


def _settings_of(state: State, node: Node) -> Mapping[str, Any]:
    return settings_of(node.first, state)


def _configured(state: State) -> dict[str, Any]:
    """The configuration that an exploration began with, by dotted key."""
    sections = {name: found for name, found in state.opened.config.items() if name not in _WITHOUT_RESULTS}
    return {f"{section}.{key}": value for section, found in sections.items() for key, value in found.items()}


def _evidence(state: State, node: Node | None, name: str) -> Iterator[str]:
    """Yield the number of effects by class, and those that the best node takes part in."""
    found = effects(state)
    kinds = [effect.evidence for effect in found]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("established", "tentative", "contradicted"))
    yield f"{name}: effects of changes on the reward: {counts}"
    for effect in found:
        if node is not None and node.id in {effect.treated.id, effect.control.id}:
            yield f"{name}: {effect.evidence}: {effect}"


def _why_no_pairs(folders: Iterable[ExplorationFolder], one: State, other: State) -> str:
    """Why the best nodes of two explorations cannot be compared seed by seed; empty if they can."""
    if (one.opened.primary, one.opened.metric) != (other.opened.primary, other.opened.metric):
        return "rewards are not compared: they are of different metrics"
    digests = []
    for folder in folders:
        try:
            digests.append(json.loads((folder.base / MANIFEST).read_text())["observations"])
        except (OSError, ValueError, KeyError, TypeError):
            return f"rewards are not compared seed by seed: the data in {folder.base} are missing"
    return "" if digests[0] == digests[1] else "rewards are not compared seed by seed: the data differ"


def _files_of(state: State, node: Node) -> _Files:
    """The strategy files of a node, by name."""
    known = {review.landed: review.file for review in state.reviews if review.landed and review.file}
    return {name: known[digest] for name, digest in node.first.files.items() if digest in known}


def _differences(names: tuple[str, str], first: _Files, second: _Files) -> tuple[str, ...]:
    """The differences of the strategy files of two sides."""
    found = (difference(first.get(name), second.get(name), names) for name in sorted({*first, *second}))
    return tuple(filter(None, found))
