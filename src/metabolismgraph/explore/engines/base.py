"""Engines run jobs. They report only the status of a job; its results are in its folder."""

from __future__ import annotations

import abc
import os
from pathlib import Path
from typing import Literal, NamedTuple

from metabolismgraph.processes import cores

STDOUT = "stdout.txt"  # output of a job, in its folder
NO_ROOM = os.EX_IOERR  # exit code of a job that could not write its outcome
UNFLUSHED = 120  # exit code of Python where it cannot write the rest of standard output


# Of a failure: the configuration or its strategy; or the machine, its disk or a limit of time.
Cause = Literal["idea", "machine"]


class Ended(NamedTuple):
    """A job that has ended.

    Attributes:
        job: its number.
        reason: failure of its process; None without one.
        seconds: its duration.
        cause: of the failure, see `events.Failed`.
    """

    job: int
    reason: str | None
    seconds: float
    cause: Cause = "idea"


class Engine(abc.ABC):
    """Runs jobs."""

    @abc.abstractmethod
    def submit(self, job: int, folder: Path) -> None:
        """Submit a job, described in its folder; it starts when a worker is free."""

    @abc.abstractmethod
    def wait(self, timeout: float) -> list[Ended]:
        """Wait for jobs that ended since the last call: until there is one, or for `timeout` seconds."""

    @abc.abstractmethod
    def cancel(self, job: int) -> None:
        """Stop a job and its child processes at once."""

    @abc.abstractmethod
    def close(self) -> None:
        """Stop all running jobs."""


def default_workers(n_parallel: int) -> int:
    """One process per available core, but not more than slots."""
    return min(n_parallel, len(cores()))
