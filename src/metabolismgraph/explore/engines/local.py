"""Jobs as processes of this machine."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from metabolismgraph import processes
from metabolismgraph.explore.engines.attempts import check_not_elsewhere
from metabolismgraph.explore.engines.base import JOB, NO_ROOM, STDOUT, UNFLUSHED, Ended, Engine, too_late
from metabolismgraph.processes import Child, describe_exit, environment, killed_from_outside, last_line
from metabolismgraph.text import one_line

_POLL = 0.02  # seconds
_PATIENCE = 20.0  # seconds until nvidia-smi must have answered


@dataclasses.dataclass
class _Running:
    process: Child
    folder: Path
    started: float
    worker: int


class ProcessEngine(Engine):
    """One child process per job, at most `n_workers` at the same time, each with its own share of the cores.

    Each works on one GPU, where this computer has some.

    A job ends with its child processes, and also when this process has ended (`processes.end_with_parent`).

    Attributes:
        limit: time limit of a job [s].
        command: program and arguments before the folder.
    """

    def __init__(self, n_workers: int, limit: float, command: Sequence[str] = JOB):
        self.n_workers, self.limit, self.command = n_workers, limit, tuple(command)
        self._waiting: deque[tuple[int, Path]] = deque()
        self._running: dict[int, _Running] = {}
        self._ended: list[Ended] = []
        self._shares, self._gpus = _shares(n_workers), gpus()

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
            self._running.pop(job).process.kill()

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
                    process = Child(
                        [*self.command, str(folder)],
                        stdin=processes.PIPE,
                        stdout=out,
                        stderr=processes.STDOUT,
                        env=environment(**self._place(worker)),
                    )
            except OSError as error:
                reason = f"could not be started ({error.strerror}: {error.filename or folder})"
                self._ended.append(Ended(job, reason, 0.0, "machine"))
                continue
            self._running[job] = _Running(process, folder, started, worker)

    def _place(self, worker: int) -> dict[str, str]:
        """Variables that give a worker its share of the cores, and its GPU."""
        cores = {"METABOLISMGRAPH_CORES": ",".join(map(str, self._shares[worker]))}
        if not self._gpus:
            return cores
        shared = self.n_workers > len(self._gpus) and "XLA_PYTHON_CLIENT_PREALLOCATE" not in os.environ
        # The first process on a GPU would claim most of its memory.
        memory = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} if shared else {}
        return {"CUDA_VISIBLE_DEVICES": self._gpus[worker % len(self._gpus)]} | cores | memory

    def _collect(self) -> None:
        for job, running in list(self._running.items()):
            seconds = time.monotonic() - running.started
            code = running.process.poll()
            if code is None and seconds <= self.limit:
                continue
            running.process.kill()
            del self._running[job]
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
