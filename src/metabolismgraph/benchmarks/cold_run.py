"""Time and memory of `run` from a cold process."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence

import psutil

from metabolismgraph.benchmarks.recovery_report import MAIN
from metabolismgraph.processes import Child


def cold_run(overrides: Sequence[str]) -> dict[str, int | float]:
    """The `run` command from a cold process: wall time and peak memory of its processes together."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-P", "-m", "metabolismgraph", "run", MAIN, "--out", f"{scratch}/run", "--quiet"]
        for override in overrides:
            command += ["--set", override]
        started = time.perf_counter()
        # Compiled programs of earlier commands would make the start a warm one.
        with Child(command, env={**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}) as child:
            peak = _PeakMemory(child.pid)
            code = child.wait()
        seconds = time.perf_counter() - started
        return {"exit_code": code, "seconds": seconds, "peak_memory_gb": peak.stop() / 1e9}


class _PeakMemory:
    """Samples the resident memory of a process and its children."""

    def __init__(self, pid: int):
        self._pid = pid
        self._peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            try:
                root = psutil.Process(self._pid)
                processes = [root, *root.children(recursive=True)]
                self._peak = max(self._peak, sum(p.memory_info().rss for p in processes))
            except psutil.Error:
                continue

    def stop(self) -> int:
        self._ended.set()
        self._thread.join()
        return self._peak
