"""The engines by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping

from metabolismgraph.errors import InputError
from metabolismgraph.explore.engines.base import Engine, say_nothing
from metabolismgraph.schedulers import SCHEDULERS, make_scheduler
from metabolismgraph.schedulers.settings import ClusterSettings

# Engines of this computer, name -> module and class; the class takes the number of simultaneous jobs and the time limit
# of a job [s]. Every scheduler is an engine as well.
ENGINES: Mapping[str, tuple[str, str]] = {
    "process": ("metabolismgraph.explore.engines.local", "ProcessEngine"),
}


def make_engine(
    settings: ClusterSettings, n_workers: int, limit: float, report: Callable[[str], None] = say_nothing
) -> Engine:
    """Make the engine that settings name; modules of other engines are not loaded.

    Args:
        n_workers: number of simultaneous jobs on this computer.
        limit: time limit of a job [s].
        report: called with every line for the user.

    Raises:
        InputError: the name is unknown.
    """
    name = settings.engine
    if name in SCHEDULERS:
        from metabolismgraph.explore.engines.cluster import ClusterEngine  # noqa: PLC0415 (only where it is used)

        return ClusterEngine(make_scheduler(name, settings.address), settings, limit, report=report)
    check_engine(name)
    module, kind = ENGINES[name]
    engine: Engine = getattr(importlib.import_module(module), kind)(n_workers, limit)
    return engine


def check_engine(name: str) -> None:
    """Check that an engine exists.

    Raises:
        InputError: the name is unknown.
    """
    every = (*ENGINES, *SCHEDULERS)
    if name not in every:
        raise InputError(f"engine {name}: there is none of that name (all: {', '.join(every)})")
