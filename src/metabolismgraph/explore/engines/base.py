"""Engines run jobs. They carry status only: what a job found lies in its folder."""

from __future__ import annotations

import abc
import os
from pathlib import Path
from typing import NamedTuple

STDOUT = "stdout.txt"  # what a job prints, in its folder
NO_ROOM = os.EX_IOERR  # exit code of a job that could not write what came of it


class Ended(NamedTuple):
    """A job that is over.

    Attributes:
        job: its number.
        reason: what went wrong with its process; None if nothing.
        seconds: how long it ran.
    """

    job: int
    reason: str | None
    seconds: float


class Engine(abc.ABC):
    """Where jobs run."""

    @abc.abstractmethod
    def submit(self, job: int, folder: Path) -> None:
        """Hand over a job, described in its folder; it starts when there is room."""

    @abc.abstractmethod
    def wait(self, timeout: float) -> list[Ended]:
        """Jobs that ended since the last call; returns when there is one, or after `timeout` seconds."""

    @abc.abstractmethod
    def cancel(self, job: int) -> None:
        """Stop a job at once, with all that it started."""

    @abc.abstractmethod
    def close(self) -> None:
        """Stop whatever still runs."""


def default_workers(n_parallel: int) -> int:
    """One process per core that we may use, but no more than there are slots."""
    return min(n_parallel, len(cores()))


def cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
