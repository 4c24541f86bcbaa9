"""Jobs as processes of this machine."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from metabolismgraph import processes
from metabolismgraph.explore.engines.attempts import check_not_elsewhere
from metabolismgraph.explore.engines.base import JOB, NO_ROOM, STDOUT, UNFLUSHED, Ended, Engine, too_late
from metabolismgraph.explore.engines.worker import Worker
from metabolismgraph.processes import Child, describe_exit, environment, killed_from_outside, last_line
from metabolismgraph.text import one_line

_POLL = 0.02  # seconds
_PATIENCE = 20.0  # seconds until nvidia-smi must have answered


class _Program:
    """Starts a process for every job; the methods are those of a `Worker`."""

    def __init__(self, place: Mapping[str, str], command: Sequence[str]):
        self._place, self._command = place, command
        self._process: Child | None = None

    def start(self, folder: Path) -> None:
        with (folder / STDOUT).open("ab") as out:
            command = [*self._command, str(folder)]
            env = environment(**self._place)
            self._process = Child(command, stdin=processes.PIPE, stdout=out, stderr=processes.STDOUT, env=env)

    def code(self) -> int | None:
        assert self._process is not None
        return self._process.poll()

    def end(self, code: int | None) -> None:
        del code
        self.kill()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process = None


@dataclasses.dataclass
class _Running:
    worker: Worker | _Program
    folder: Path
    started: float


class ProcessEngine(Engine):
    """One process per job, at most `n_workers` at the same time, each with its own share of the cores.

    Each works on one GPU, where this computer has some.

    A job ends with its child processes, and also when this process has ended (`processes.end_with_parent`).

    Attributes:
        limit: time limit of a job [s].

    Args:
        command: program and arguments before the folder, started for every job; None: jobs of explorations, for which
            workers fork where that is safe.
    """

    def __init__(self, n_workers: int, limit: float, command: Sequence[str] | None = None):
        self.n_workers, self.limit = n_workers, limit
        self._waiting: deque[tuple[int, Path]] = deque()
        self._running: dict[int, _Running] = {}
        self._ended: list[Ended] = []
        # On macOS, libraries do not survive a fork.
        forks = command is None and sys.platform == "linux"
        self._free: list[Worker | _Program] = [
            Worker(place) if forks else _Program(place, command or JOB) for place in _places(n_workers)
        ]

    def submit(self, job: int, folder: Path) -> None:
        check_not_elsewhere(folder, "process")
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
            self._end(job, None)

    def close(self) -> None:
        self._waiting.clear()
        for job in list(self._running):
            self.cancel(job)
        for worker in self._free:
            worker.kill()

    def _start(self) -> None:
        while self._waiting and self._free:
            job, folder = self._waiting.popleft()
            started = time.monotonic()
            try:
                self._free[0].start(folder)
            except OSError as error:
                self._free[0].kill()
                reason = f"could not be started ({error.strerror}: {error.filename or folder})"
                self._ended.append(Ended(job, reason, 0.0, "machine"))
                continue
            self._running[job] = _Running(self._free.pop(0), folder, started)

    def _end(self, job: int, code: int | None) -> None:
        worker = self._running.pop(job).worker
        worker.end(code)
        self._free.insert(0, worker)  # before those that have not started yet

    def _collect(self) -> None:
        for job, running in list(self._running.items()):
            seconds = time.monotonic() - running.started
            code = running.worker.code()
            if code is None and seconds <= self.limit:
                continue
            self._end(job, code)
            reason = too_late(self.limit) if code is None else _reason(code, running.folder)
            lost = code is None or code in {NO_ROOM, UNFLUSHED} or killed_from_outside(code)
            self._ended.append(Ended(job, reason, seconds, "machine" if lost else "idea"))


def gpus() -> list[str]:
    """The GPUs that this process may use, by number or by name; those of CUDA_VISIBLE_DEVICES, if that is set."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        named = [name.strip() for name in given.split(",")]
        # As CUDA reads it: the first name that is none ends the list.
        return named[: next((i for i, name in enumerate(named) if not name or name.startswith("-")), len(named))]
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        listed = processes.run(["nvidia-smi", "-L"], seconds=_PATIENCE, output=1 << 16).stdout
    except OSError:
        return []
    # By name: numbers may have another order there.
    return re.findall(r"^GPU .*\(UUID: (GPU-[\w-]+)\)", listed.decode(errors="replace"), re.MULTILINE)


def _places(n_workers: int) -> list[dict[str, str]]:
    """Variables that give each worker its share of the cores, and its GPU."""
    found = gpus()
    return [
        {"METABOLISMGRAPH_CORES": ",".join(map(str, share))} | _of_gpu(worker, n_workers, found)
        for worker, share in enumerate(_shares(n_workers))
    ]


def _of_gpu(worker: int, n_workers: int, found: Sequence[str]) -> dict[str, str]:
    if not found:
        return {}
    shared = n_workers > len(found) and "XLA_PYTHON_CLIENT_PREALLOCATE" not in os.environ
    # The first process on a GPU would claim most of its memory.
    memory = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} if shared else {}
    return {"CUDA_VISIBLE_DEVICES": found[worker % len(found)]} | memory


def _shares(n_workers: int) -> list[list[int]]:
    """The cores in equal shares, one for each worker; where there are more workers than cores, some share one."""
    known = processes.cores()
    each = max(1, len(known) // n_workers)
    return [[known[(w * each + i) % len(known)] for i in range(each)] for w in range(n_workers)]


def _reason(code: int, folder: Path) -> str | None:
    if code == 0:
        return None
    full = code in {NO_ROOM, UNFLUSHED}
    how = "could not write its result; check the space on the disk" if full else describe_exit(code)
    return one_line(f"{how} ({last_line(folder / STDOUT) or 'no message'})")
