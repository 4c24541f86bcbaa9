"""Engines run jobs. They carry status only: what a job found lies in its folder."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from metabolismgraph.text import one_line

STDOUT = "stdout.txt"
JOB = (sys.executable, "-P", "-m", "metabolismgraph.explore.engines.job")
NO_ROOM = os.EX_IOERR  # exit code of a job that could not write what came of it
_POLL = 0.02  # seconds
_LAST = 20_000  # bytes of what a job printed in which its last line is looked for


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


@dataclasses.dataclass
class _Running:
    process: subprocess.Popen[bytes]
    folder: Path
    started: float
    worker: int


class ProcessEngine(Engine):
    """One child process per job, at most `n_workers` at the same time, each with its own share of the cores.

    Children lead a process group each, so that everything they start goes with them; they hold the other end of a
    pipe and end by themselves when this process is gone.

    Attributes:
        limit: seconds after which a job is stopped.
        command: program and arguments before the folder.
    """

    def __init__(self, n_workers: int, limit: float, command: Sequence[str] = JOB):
        self.n_workers, self.limit, self.command = n_workers, limit, tuple(command)
        self._waiting: deque[tuple[int, Path]] = deque()
        self._running: dict[int, _Running] = {}
        self._ended: list[Ended] = []
        self._shares = _shares(n_workers)

    def submit(self, job: int, folder: Path) -> None:
        self._waiting.append((job, folder))
        self._start()

    def wait(self, timeout: float) -> list[Ended]:
        until = time.monotonic() + timeout
        while True:
            self._collect()
            self._start()
            if self._ended or time.monotonic() >= until:
                ended, self._ended = self._ended, []
                return ended
            time.sleep(_POLL)

    def cancel(self, job: int) -> None:
        self._waiting = deque(entry for entry in self._waiting if entry[0] != job)
        if job in self._running:
            _stop(self._running.pop(job).process)

    def close(self) -> None:
        self._waiting.clear()
        for job in list(self._running):
            self.cancel(job)

    def _start(self) -> None:
        while self._waiting and len(self._running) < self.n_workers:
            job, folder = self._waiting.popleft()
            taken = {running.worker for running in self._running.values()}
            worker = next(w for w in range(self.n_workers) if w not in taken)
            started = time.monotonic()
            try:
                with (folder / STDOUT).open("ab") as out:
                    process = subprocess.Popen(
                        [*self.command, str(folder)],
                        stdin=subprocess.PIPE,
                        stdout=out,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                        env={**os.environ, "METABOLISMGRAPH_CORES": ",".join(map(str, self._shares[worker]))},
                    )
            except OSError as error:
                self._ended.append(
                    Ended(job, f"could not be started ({error.strerror}: {error.filename or folder})", 0.0)
                )
                continue
            self._running[job] = _Running(process, folder, started, worker)

    def _collect(self) -> None:
        for job, running in list(self._running.items()):
            seconds = time.monotonic() - running.started
            code = running.process.poll()
            if code is None and seconds <= self.limit:
                continue
            _stop(running.process)
            del self._running[job]
            late = f"took longer than exploration.slot_minutes = {self.limit / 60:g} and was stopped"
            reason = late if code is None else _reason(code, running.folder)
            self._ended.append(Ended(job, reason, seconds))


class InlineEngine(Engine):
    """Runs every job in this process when it is waited for; for debugging."""

    def __init__(self, run: Callable[[Path], None]):
        self._run = run
        self._waiting: deque[tuple[int, Path]] = deque()

    def submit(self, job: int, folder: Path) -> None:
        self._waiting.append((job, folder))

    def wait(self, timeout: float) -> list[Ended]:
        del timeout
        if not self._waiting:
            return []
        job, folder = self._waiting.popleft()
        started = time.monotonic()
        try:
            self._run(folder)
        except Exception as error:
            return [Ended(job, one_line(f"{type(error).__name__}: {error}"), time.monotonic() - started)]
        return [Ended(job, None, time.monotonic() - started)]

    def cancel(self, job: int) -> None:
        self._waiting = deque(entry for entry in self._waiting if entry[0] != job)

    def close(self) -> None:
        self._waiting.clear()


def default_workers(n_parallel: int) -> int:
    """One process per core that we may use, but no more than there are slots."""
    return min(n_parallel, len(_cores()))


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _shares(n_workers: int) -> list[list[int]]:
    """The cores in equal shares, one for each worker; where there are more workers than cores, some share one."""
    cores = _cores()
    each = max(1, len(cores) // n_workers)
    return [[cores[(w * each + i) % len(cores)] for i in range(each)] for w in range(n_workers)]


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a process group for good; its leader may have ended before."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _reason(code: int, folder: Path) -> str | None:
    if code == 0:
        return None
    if code == NO_ROOM:
        how = "could not write its result; is there room on the disk?"
    elif code < 0:
        named = {member.value: member.name for member in signal.Signals}
        how = f"was killed by {named.get(-code, f'signal {-code}')}"
    else:
        how = f"ended with code {code}"
    try:
        with (folder / STDOUT).open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _LAST))
            lines = stream.read().decode(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return one_line(f"{how} ({lines[-1] if lines else 'no message'})")
