"""Engines run jobs. They report only the status of a job; its results are in its folder."""

from __future__ import annotations

import abc
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from metabolismgraph.processes import cores

JOB = (sys.executable, "-P", "-m", "metabolismgraph.explore.engines.job")  # program of a job, before its folder
STDOUT = "stdout.txt"  # output of a job, in its folder
NO_ROOM = os.EX_IOERR  # exit code of a job that could not write its outcome
UNFLUSHED = 120  # exit code of Python where it cannot write the rest of standard output


# Of a failure: the configuration or its strategy; or the machine, its disk or a limit of time.
Cause = Literal["idea", "machine"]
# How a cluster lost a job: with its node; preempted; at its walltime or memory limit; killed; not found any more; dead
# before it could work; without room on the disk; cancelled by somebody. Empty: not on a cluster.
Loss = Literal["", "node", "preempted", "walltime", "memory", "killed", "vanished", "died", "disk", "cancelled"]


class Ended(NamedTuple):
    """A job that has ended.

    Attributes:
        job: its number.
        reason: failure of its process; None without one.
        seconds: its duration.
        cause: of the failure, see `events.Failed`.
        kind: how a cluster lost it.
    """

    job: int
    reason: str | None
    seconds: float
    cause: Cause = "idea"
    kind: Loss = ""


class Engine(abc.ABC):
    """Runs jobs.

    Attributes:
        budgets: kind of loss -> number of further runs after such losses; others have `exploration.retries`.
    """

    budgets: Mapping[Loss, int] = {}

    @abc.abstractmethod
    def submit(self, job: int, folder: Path) -> None:
        """Submit a job, described in its folder; it starts when a worker is free.

        A job that a former explorer submitted to a cluster is followed from where it is.
        """

    @abc.abstractmethod
    def wait(self, timeout: float) -> list[Ended]:
        """Wait for jobs that ended since the last call: until there is one, or for `timeout` seconds."""

    @abc.abstractmethod
    def cancel(self, job: int) -> None:
        """Stop a job and its child processes at once."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of all jobs: those of this computer are stopped, those of a cluster go on."""


def say_nothing(line: str) -> None:
    """Do not report a line."""
    del line


def too_late(limit: float) -> str:
    """The reason of a job that was stopped after a time limit [s]."""
    return f"took longer than exploration.slot_minutes = {limit / 60:g} and was stopped"


def default_workers(n_parallel: int) -> int:
    """One process per available core, but not more than slots."""
    return min(n_parallel, len(cores()))
