"""Schedulers of clusters, one file each: jobs are submitted, looked for and cancelled by the scheduler's own commands.

A scheduler knows whether a job waits, runs or has ended, and nothing of its results. Its silence is no answer: a job is
called ended only when the scheduler says so.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from metabolismgraph.errors import InputError
from metabolismgraph.schedulers.base import Scheduler

# Name -> module and class.
SCHEDULERS: Mapping[str, tuple[str, str]] = {
    "slurm": ("metabolismgraph.schedulers.slurm", "Slurm"),
    "lsf": ("metabolismgraph.schedulers.lsf", "LSF"),
    "dask": ("metabolismgraph.schedulers.dask", "Dask"),
}


def make_scheduler(name: str, address: str = "") -> Scheduler:
    """Make the scheduler of that name.

    Args:
        address: see `Scheduler`.

    Raises:
        InputError: there is none.
    """
    if name not in SCHEDULERS:
        raise InputError(f"scheduler {name}: there is none of that name (all: {', '.join(SCHEDULERS)})")
    module, kind = SCHEDULERS[name]
    scheduler: Scheduler = getattr(importlib.import_module(module), kind)(address)
    return scheduler
