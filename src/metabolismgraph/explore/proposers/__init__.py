"""Who decides what an exploration does next, one file each.

A proposer is a module with `make(settings, folder, record)`, and a line in `PROPOSERS`.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from metabolismgraph.config import Exploration, nearest_name
from metabolismgraph.errors import InputError
from metabolismgraph.explore.proposers.base import Proposer

# Name -> module, imported when it is chosen: what one proposer needs is not asked of those who use another.
PROPOSERS = {
    "rules": "rules",
    "llm": "llm",
    "command": "command",
    "replay": "replay",
}


def make_proposer(name: str, settings: Exploration, folder: Path, record: Path | None = None) -> Proposer:
    """The proposer of that name.

    Args:
        folder: of the exploration.
        record: of the exploration whose answers `replay` gives again.

    Raises:
        InputError: there is none, or it lacks something.
    """
    if name not in PROPOSERS:
        near = nearest_name(name, PROPOSERS)
        raise InputError(f"proposer {name}: unknown; did you mean {near}? (all: {', '.join(PROPOSERS)})")
    proposer: Proposer = importlib.import_module(f"{__name__}.{PROPOSERS[name]}").make(settings, folder, record)
    return proposer
