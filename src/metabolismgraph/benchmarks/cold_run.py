"""Time and memory of the `run` command, with the processes that it starts."""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from metabolismgraph.benchmarks.recovery_report import MAIN
from metabolismgraph.processes import Child

_INTERVAL = 0.2  # between samples of memory [s]; one takes a tenth of this


class Measured(NamedTuple):
    """What a command took.

    Attributes:
        exit_code: of the command.
        seconds: wall time [s].
        cpu_seconds: processor time of all of its processes [s].
        peak_memory_gb: largest memory of all of its processes together [GB].
    """

    exit_code: int
    seconds: float
    cpu_seconds: float
    peak_memory_gb: float


def cold_run(overrides: Sequence[str]) -> dict[str, int | float]:
    """The `run` command from a cold process: wall time and peak memory of its processes together."""
    with tempfile.TemporaryDirectory() as scratch:
        # Compiled programs of earlier commands would make the start a warm one.
        found = measure_run(MAIN, overrides, Path(scratch) / "run", {"JAX_ENABLE_COMPILATION_CACHE": "false"})
    return {"exit_code": found.exit_code, "seconds": found.seconds, "peak_memory_gb": found.peak_memory_gb}


def measure_run(config: str, overrides: Sequence[str], out: Path, variables: dict[str, str]) -> Measured:
    """Run a configuration in a process of its own.

    Args:
        config: its name.
        overrides: as for --set.
        out: folder of the run.
        variables: of the environment, besides those of this process.
    """
    command = [sys.executable, "-P", "-m", "metabolismgraph", "run", config, "--out", str(out), "--quiet"]
    for override in overrides:
        command += ["--set", override]
    started, before = time.perf_counter(), _cpu_of_children()
    with Child(command, env={**os.environ, **variables}) as child:
        peak = _PeakMemory(child.pid)
        code = child.wait()
    return Measured(code, time.perf_counter() - started, _cpu_of_children() - before, peak.stop() / 1e9)


def _cpu_of_children() -> float:
    """Processor time of all processes that have ended, which this one started [s]."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _memory(process: psutil.Process) -> int:
    """Resident memory of a process [bytes]; that which processes share, as after a fork, is divided among them."""
    found = process.memory_full_info()
    return int(getattr(found, "pss", found.rss))  # pss: on Linux only


class _PeakMemory:
    """Samples the memory of a process and its children."""

    def __init__(self, pid: int):
        self._pid = pid
        self._peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(_INTERVAL):
            try:
                root = psutil.Process(self._pid)
                processes = [root, *root.children(recursive=True)]
                self._peak = max(self._peak, sum(map(_memory, processes)))
            except psutil.Error:
                continue

    def stop(self) -> int:
        self._ended.set()
        self._thread.join()
        return self._peak
