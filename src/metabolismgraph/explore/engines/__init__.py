"""Where the jobs of an exploration run, one file each."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from metabolismgraph.errors import InputError
from metabolismgraph.explore.engines.base import Engine

# Name -> module and class; an engine is called with the number of jobs at the same time and the time limit of one [s].
ENGINES: Mapping[str, tuple[str, str]] = {
    "local": ("metabolismgraph.explore.engines.local", "ProcessEngine"),
}


def make_engine(name: str, n_workers: int, limit: float) -> Engine:
    """The engine of that name; what others need is not loaded.

    Args:
        n_workers: jobs at the same time.
        limit: seconds after which a job is stopped.

    Raises:
        InputError: there is none.
    """
    if name not in ENGINES:
        raise InputError(f"engine {name}: there is none of that name (all: {', '.join(ENGINES)})")
    module, kind = ENGINES[name]
    engine: Engine = getattr(importlib.import_module(module), kind)(n_workers, limit)
    return engine
