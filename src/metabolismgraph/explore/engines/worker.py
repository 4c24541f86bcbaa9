"""A worker, `python -P -m metabolismgraph.explore.engines.worker`: it imports what jobs need, and forks for each job.

The imports of a job take longer than its evaluation. A server for the trainings of all jobs is forked before them
(`runs.training_server`). A line of standard input, as JSON, is the folder of a job; a line of standard output is the
exit code of its process. Nothing is sent meanwhile, so that the process of a job can wait for the end of standard input
(`processes.end_with_parent`), with which it and the worker end.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from metabolismgraph.explore.engines.base import NO_ROOM, STDOUT
from metabolismgraph.garbage import collect_seldom, share_with_forks, skip_last_collection
from metabolismgraph.processes import PIPE, Child, environment, keep_to_cores
from metabolismgraph.runs.training_server import fork_server

_COMMAND = (sys.executable, "-P", "-m", "metabolismgraph.explore.engines.worker")
# What a job imports. None of it starts threads, or looks for devices: neither would survive a fork.
_MODULES = (
    *("metabolismgraph.runs.pipeline", "metabolismgraph.runs.results", "metabolismgraph.runs.report_results"),
    *("metabolismgraph.runs.answer_files", "metabolismgraph.figures", "metabolismgraph.formats.network_and_table"),
    *("metabolismgraph.explore.engines.job", "metabolismgraph.explore.review.admission"),
    *("scipy.optimize", "scipy.stats", "scipy.interpolate", "h5netcdf"),
    *(
        "matplotlib.font_manager",
        "matplotlib.backends.backend_agg",
        "PIL.TiffImagePlugin",
        "safetensors.numpy",
        "pandas",
    ),
)
_LONGEST = 1 << 16  # bytes of a line


class Worker:
    """A process that does one job at a time, and starts with the first one.

    Args:
        place: variables of its environment, see `environment`.
    """

    def __init__(self, place: Mapping[str, str]):
        self._place = place
        self._process: Child | None = None

    def start(self, folder: Path) -> None:
        """Begin a job.

        Raises:
            OSError: its output cannot be written, or no process can be started.
        """
        if self._process is not None and self._process.poll() is not None:
            self.kill()
        with (folder / STDOUT).open("ab") as errors:
            if self._process is None:
                env = environment(**self._place)
                self._process = Child(_COMMAND, stdin=PIPE, stdout=PIPE, stderr=errors, env=env)
        os.write(self._process.stdin.fileno(), json.dumps(str(folder)).encode() + b"\n")

    def code(self) -> int | None:
        """The exit code of the job, or minus the number of the signal that ended it; None while it runs."""
        assert self._process is not None
        if not select.select([self._process.stdout], [], [], 0)[0]:
            return None
        answer = os.read(self._process.stdout.fileno(), _LONGEST)
        return int(answer) if answer else self._process.poll()  # without an answer the worker itself has ended

    def end(self, code: int | None) -> None:
        """Take note of the end of the job. Only one that ended in order leaves no processes behind."""
        if code != 0:
            self.kill()

    def kill(self) -> None:
        """End the process, with that of its job."""
        if self._process is not None:
            self._process.kill()
            self._process = None


def main() -> int:
    """Fork for every job; returns the exit code, of the worker or of a job."""
    collect_seldom()
    keep_to_cores()
    fork_server(runs_files=True)  # first: a training must hold nothing of jobs
    _load()
    share_with_forks()
    answers = os.dup(1)
    for folder in _requests():
        number = os.fork()
        if not number:
            os.close(answers)
            return _run(folder)
        code = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
        os.write(answers, f"{code}\n".encode())
    return 0


def _load() -> None:
    for name in _MODULES:
        importlib.import_module(name)
    import xarray  # noqa: PLC0415

    xarray.Dataset({"a": ("x", [0.0])})  # the first one imports dask, where that is installed


def _requests() -> Iterator[Path]:
    # Without a buffer, which the process of a job would inherit.
    while line := os.read(0, _LONGEST):
        yield Path(json.loads(line))


def _run(folder: Path) -> int:
    try:
        output = os.open(folder / STDOUT, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    except OSError:
        return NO_ROOM
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.close(output)
    from metabolismgraph.explore.engines import job  # noqa: PLC0415 (after the server was forked, which must not hold it)

    code = job.main(folder)
    skip_last_collection()
    return code


if __name__ == "__main__":
    sys.exit(main())
