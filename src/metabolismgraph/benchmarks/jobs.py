"""Groups of cases as jobs of an engine, of this computer or of a cluster.

Each has a folder, `jobs/0007` in the folder of results, with a description. Its process appends a row for every case to
a file there (`job`), and this process takes the rows into the file of results. A job that is run again continues after
the rows that it has.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from metabolismgraph.benchmarks.job import DESCRIPTION, row_files, rows_in
from metabolismgraph.benchmarks.results_file import LINES_WITH_JOBS, ResultsFile, Row
from metabolismgraph.benchmarks.simulations import find_seeds
from metabolismgraph.benchmarks.workers import Group, environment, left
from metabolismgraph.errors import InputError
from metabolismgraph.explore.engines.attempts import in_force, retire
from metabolismgraph.explore.engines.base import Ended, Engine, say_nothing
from metabolismgraph.explore.engines.cluster import ClusterEngine, alive
from metabolismgraph.explore.engines.completion import completed
from metabolismgraph.explore.engines.local import ProcessEngine
from metabolismgraph.explore.journal import HeldError, Journal
from metabolismgraph.files import write_bytes
from metabolismgraph.schedulers import SCHEDULERS, make_scheduler
from metabolismgraph.schedulers.base import SilentError
from metabolismgraph.schedulers.settings import ClusterSettings

PLACE = "jobs"  # in the folder of results
JOB = (sys.executable, "-P", "-m", "metabolismgraph.benchmarks.job")  # program of a job, before its folder
_MINUTES = 120  # walltime of a job; it begins no further case after half of it
_LOOK = 2.0  # seconds between two looks for new rows


@runtime_checkable
class Watch(Protocol):
    """Receives the progress of a benchmark."""

    def begin(self, planned: Sequence[Row], done: Sequence[Row]) -> None:
        """Start, with all cases and those of an earlier call."""

    def add(self, row: Row) -> None:
        """Add a finished case."""


class Benchmark(NamedTuple):
    """A benchmark whose cases may be jobs.

    Its module has `Settings`, `Case`, `Group` and `results_of`, for the jobs.

    Attributes:
        name: of its module.
        results: its file of results.
        plan: the groups of cases, from settings and seeds per configuration, in the same order in every call.
        compiled: whether jobs share compiled programs; not where compilation is measured.
    """

    name: str
    results: Any
    plan: Callable[[Any, Mapping[str, Sequence[int]]], Sequence[Any]]
    compiled: bool


@contextlib.contextmanager
def all_cases(
    benchmark: Benchmark,
    settings: Any,
    out: Path,
    workers: int,
    watch: Watch,
    engine: Engine | None,
    *,
    overwrite: bool,
    keep: Callable[[], None],
) -> Iterator[Any]:
    """The file of results, after all cases that had no row have run; no other process may use it meanwhile.

    Args:
        settings: of the benchmark, a dataclass.
        out: folder of results.
        workers: number of parallel processes, each with its share of the cores.
        engine: where the cases run, see `engine_for`; None: in processes of this computer.
        overwrite: replace existing results.
        keep: called once the folder of results is open.

    Raises:
        InputError: as `opened` and `run_groups`, or the settings are not valid or give no data.
        TrainingFailedError: a simulation process was killed.
    """
    with opened(benchmark.results, out, settings.header(), overwrite=overwrite) as stored:
        keep()
        with environment(max(1, (os.cpu_count() or 1) // workers), out / "compiled"):
            find_seeds(settings, workers, stored)
        groups = benchmark.plan(settings, stored.seeds)
        watch.begin([case.row() for group in groups for case in group.cases], stored.cases)
        run_groups(
            benchmark, settings, groups, stored, out, engine or engine_for(ClusterSettings(), workers), watch.add
        )
        shutil.rmtree(out / "compiled", ignore_errors=True)
        yield stored


def engine_for(settings: ClusterSettings, workers: int, report: Callable[[str], None] = say_nothing) -> Engine:
    """The engine for the jobs of a benchmark.

    Args:
        workers: number of simultaneous jobs on this computer.
        report: called with every line for the user.

    Raises:
        InputError: the commands of the scheduler are missing, or its address is not one.
    """
    if settings.engine not in SCHEDULERS:
        return ProcessEngine(workers, math.inf, JOB)
    scheduler = make_scheduler(settings.engine, settings.address)
    scheduler.check()
    with contextlib.suppress(SilentError):
        scheduler.find("mg-benchmark")  # before anything is written: whether there are such commands here
    minutes = settings.minutes or _MINUTES
    timed = settings.model_copy(update={"minutes": minutes})
    return ClusterEngine(scheduler, timed, 30.0 * minutes, JOB, report)


@contextlib.contextmanager
def opened(kind: type[ResultsFile], out: Path, header: Row, *, overwrite: bool) -> Iterator[ResultsFile]:
    """The file of results, which no other process may use meanwhile.

    Raises:
        InputError: another process uses it, the folder holds results of another benchmark, jobs of it are on a cluster
            that `overwrite` would forget, or as `ResultsFile.open`.
    """
    if others := [name for name in LINES_WITH_JOBS if name != kind.lines and (out / name).exists()]:
        raise InputError(f"{out}: holds results of another benchmark ({others[0]}); choose another --out")
    with contextlib.ExitStack() as stack:
        try:
            out.mkdir(parents=True, exist_ok=True)
            stack.enter_context(Journal(out / kind.lines).held())
        except HeldError:
            raise InputError(f"{out}: another benchmark is running there; wait for it, or stop it first") from None
        except OSError as error:
            raise InputError(f"{out}: cannot be written ({error.strerror}); choose another --out") from None
        if overwrite:
            if going := alive(out / PLACE):
                raise InputError(
                    f"{out}: {len(going)} jobs are on {going[0][1].engine}; end them with `explore cancel`"
                )
            for part in (PLACE, "checkpoints", "compiled"):
                shutil.rmtree(out / part, ignore_errors=True)
        yield kind.open(out, header, overwrite=overwrite)


def run_groups(
    benchmark: Benchmark,
    settings: Any,
    groups: Sequence[Any],
    stored: ResultsFile,
    out: Path,
    engine: Engine,
    done: Callable[[Row], None],
) -> None:
    """Run all cases that have no row yet.

    Args:
        settings: of the benchmark, a dataclass.
        groups: in an order that is the same in every call.
        out: folder of results.
        done: called with every new row.

    Raises:
        InputError: a scheduler refuses a job, or loses too many.
    """
    common = {
        "benchmark": benchmark.name,
        "compiled": benchmark.compiled,
        "settings": dataclasses.asdict(settings),
        "out": str(out.absolute()),
    }
    places = [out.absolute() / PLACE / f"{number:04d}" for number in range(len(groups))]
    jobs = [_Job(group, place, common, stored, done) for group, place in zip(groups, places, strict=True)]
    for job in jobs:
        job.take()
    waiting = {number: job for number, job in enumerate(jobs) if job.missing.cases}
    for job in waiting.values():
        job.prepare()
    next_look = time.monotonic()

    def tick() -> None:
        nonlocal next_look
        if time.monotonic() >= next_look:
            for job in waiting.values():
                job.take()
            next_look = time.monotonic() + _LOOK

    folders = {number: job.folder for number, job in waiting.items()}
    with closing(
        completed(engine, folders, goes_on=lambda ended: waiting[ended.job].goes_on(ended), tick=tick)
    ) as ends:
        for ended in ends:
            del waiting[ended.job]
    if all("lost" not in row for row in stored.cases):
        shutil.rmtree(out / PLACE, ignore_errors=True)


class _Job:
    """The job of a group."""

    def __init__(self, group: Group, folder: Path, common: Row, stored: ResultsFile, done: Callable[[Row], None]):
        self._group, self.folder, self._common, self._stored, self._done = group, folder, common, stored, done
        self._own = {stored.identity(case.row()) for case in group.cases}
        self._sizes: dict[Path, int] = {}
        self._before = len(group.cases)  # cases that were missing when it was submitted last
        self._again = False  # whether its process has ended once since, without a row

    @property
    def missing(self) -> Any:
        return left(self._group, self._stored)

    def prepare(self) -> None:
        """Describe the job, whose last attempt goes on if it lives.

        Raises:
            InputError: the folder cannot be written.
        """
        attempt = in_force(self.folder)
        if attempt is not None and attempt.has_ended:
            retire(self.folder)
        self._describe()

    def _describe(self) -> None:
        group = self.missing
        self._before = len(group.cases)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_bytes(self.folder / DESCRIPTION, json.dumps(self._common | {"group": group}).encode())
        except OSError as error:
            raise InputError(f"{self.folder}: cannot be written ({error.strerror}); make room or give access") from None

    def take(self) -> None:
        """Take the rows that have come, of all attempts."""
        for path in row_files(self.folder):
            size = path.stat().st_size if path.exists() else 0
            if size != self._sizes.get(path, 0):
                self._sizes[path] = size
                for row in rows_in(path):
                    if self._stored.identity(row) in self._own and not self._stored.has(row):
                        self._add(row)

    def _add(self, row: Row) -> None:
        self._stored.append(row)
        self._done(row)

    def goes_on(self, ended: Ended) -> bool:
        """Whether the job is to be run again after its end: with the rest of its cases.

        A case at which a job ends again and again has none but a reason; one that is lost with its machine is run again
        by the next command. A job that cannot even begin, or that somebody cancels, loses all of its cases.
        """
        self.take()
        cases = self.missing.cases
        stuck = len(cases) == self._before
        if cases and stuck and (ended.kind or self._again):
            reason = ended.reason or "ended without a result"
            lost = {"lost": ended.kind or "machine"} if ended.cause == "machine" or not ended.reason else {}
            for case in cases if ended.kind in {"died", "cancelled"} else cases[:1]:
                self._add(case.row() | {"error": reason} | lost)
            stuck = False
        self._again = stuck
        if not self.missing.cases:
            return False
        self._describe()
        return True
