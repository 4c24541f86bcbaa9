"""A new exploration that starts from the best node of another one, such as an imported log.

Rewards of the other exploration are not mixed with new ones: they may be of another program, other data or another
metric.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from metabolismgraph.config import Config
from metabolismgraph.config.yaml_text import parse_yaml
from metabolismgraph.errors import InputError
from metabolismgraph.explore.events import Changes, Event, Imported
from metabolismgraph.explore.folder import ExplorationFolder
from metabolismgraph.explore.search_space import SearchSpace, parse_space
from metabolismgraph.explore.state import State
from metabolismgraph.explore.tree import best, candidate
from metabolismgraph.text import counted

_PAIR = re.compile(r"(\w+)=([^,]+)")


def start_from(config: Config, other: Path) -> tuple[Config, str]:
    """A configuration with the settings of the best node of another exploration, and where they come from.

    The best node is the one with enough replicates, otherwise the one with the highest reward. Settings that are not
    parameters of the search space stay as they are.

    Args:
        config: a result of `start.prepared`.
        other: folder of the other exploration.

    Raises:
        InputError: there is no exploration, it has no reward, or its settings are not in the search space.
    """
    events = ExplorationFolder(other).journal.read()
    state, (space, _) = State.of(events), parse_space(config.exploration.space)
    node = best(state) or candidate(state)
    if node is None or node.mean is None:
        raise InputError(f"{other}: no iteration has a reward above zero to start from")
    found = _of_log(events, node.id, space) if state.imported else state.node_changes(node.id, state.block_of(node.id))
    known = {key: value for key, value in found.items() if key in space.names}
    if state.imported and not known:
        raise InputError(
            f"{other}: the line Config of iteration {node.id} names none of the parameters of the search space "
            f"({', '.join(space.by_name)}); choose another exploration.space"
        )
    number = len(node.rewards)
    runs = counted(number, "run")
    where = f"starts from node {node.id} of {other.name} (reward {node.mean:.3f} there, {runs})"
    return config.replace(known), where


def _of_log(events: Iterable[Event], iteration: int, space: SearchSpace) -> Changes:
    """The settings in the line Config of an iteration of an imported log."""
    lines = (e.fields.get("Config", "") for e in events if isinstance(e, Imported) and e.iteration == iteration)
    values: dict[str, Any] = {name: parse_yaml(text, name) for name, text in _PAIR.findall(next(lines, ""))}
    return {space.by_name[name].key: value for name, value in values.items() if name in space.by_name}
