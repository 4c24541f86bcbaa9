"""Proposers, which decide on the next step of an exploration, one file each.

A proposer is a module with `make(settings, folder, record)`, and a line in `PROPOSERS`.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from metabolismgraph.config import Exploration, nearest_name
from metabolismgraph.errors import InputError
from metabolismgraph.explore.proposers.base import Proposer

# Name -> module, imported only if chosen: a proposer may need packages that others do not.
PROPOSERS = {
    "rules": "rules",
    "llm": "llm",
    "command": "command",
    "replay": "replay",
}


def make_proposer(name: str, settings: Exploration, folder: Path, record: Path | None = None) -> Proposer:
    """Make the proposer of that name.

    Args:
        folder: of the exploration.
        record: folder of the exploration whose answers `replay` repeats.

    Raises:
        InputError: there is no proposer of that name, or its settings are incomplete.
    """
    if name not in PROPOSERS:
        near = nearest_name(name, PROPOSERS)
        raise InputError(f"proposer {name}: unknown; did you mean {near}? (all: {', '.join(PROPOSERS)})")
    proposer: Proposer = importlib.import_module(f"{__name__}.{PROPOSERS[name]}").make(settings, folder, record)
    return proposer
