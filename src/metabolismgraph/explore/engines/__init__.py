"""Engines, which run the jobs of an exploration, one file each."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from metabolismgraph.errors import InputError
from metabolismgraph.explore.engines.base import Engine

# Name -> module and class; the class takes the number of simultaneous jobs and the time limit of a job [s].
ENGINES: Mapping[str, tuple[str, str]] = {
    "local": ("metabolismgraph.explore.engines.local", "ProcessEngine"),
}


def make_engine(name: str, n_workers: int, limit: float) -> Engine:
    """Make the engine of that name; modules of other engines are not loaded.

    Args:
        n_workers: number of simultaneous jobs.
        limit: time limit of a job [s].

    Raises:
        InputError: there is no engine of that name.
    """
    if name not in ENGINES:
        raise InputError(f"engine {name}: there is none of that name (all: {', '.join(ENGINES)})")
    module, kind = ENGINES[name]
    engine: Engine = getattr(importlib.import_module(module), kind)(n_workers, limit)
    return engine
