"""Separate processes that run the cases of a benchmark, each with its share of the cores."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from metabolismgraph.benchmarks.results_file import ResultsFile, Row
from metabolismgraph.errors import TrainingLostError
from metabolismgraph.files import is_fault_of_disk
from metabolismgraph.processes import THREADS
from metabolismgraph.text import one_line


@runtime_checkable
class CaseOfGroup(Protocol):
    """One case; `row` gives the keys of its line in the results."""

    def row(self) -> Row: ...


@runtime_checkable
class Group(Protocol):
    """Cases that one process runs, since they share a simulation: a NamedTuple with the field `cases`."""

    @property
    def cases(self) -> tuple[CaseOfGroup, ...]: ...


AnyGroup = TypeVar("AnyGroup", bound=Group)
AnyCase = TypeVar("AnyCase", bound=CaseOfGroup)
Shared = TypeVar("Shared")


class Job(NamedTuple):
    """A generator of rows for a separate process; if its first argument is a group, these are the rows of its cases."""

    call: Callable[..., Iterator[Row]]
    arguments: tuple[Any, ...]
    attempt: int = 1


def left(group: AnyGroup, stored: ResultsFile) -> AnyGroup:
    """The group without the cases that have a row."""
    missing: AnyGroup = group._replace(cases=tuple(c for c in group.cases if not stored.has(c.row())))  # type: ignore[attr-defined]
    return missing


def rows_of(
    cases: Sequence[AnyCase], prepare: Callable[[], Shared], measure: Callable[[Shared, AnyCase], Row]
) -> Iterator[Row]:
    """The rows of cases; one that fails has its error in place of results.

    Args:
        prepare: makes what the cases share.
        measure: the results of a case, from what they share.

    Raises:
        TrainingLostError: as `failure`.
    """
    try:
        shared = prepare()
    except Exception as error:
        for case in cases:
            yield case.row() | failure(error)
        return
    for case in cases:
        try:
            found = measure(shared, case)
        except Exception as error:
            found = failure(error)
        yield case.row() | found


def failure(error: Exception) -> Row:
    """What a case has in place of results.

    Raises:
        TrainingLostError: the case is not to blame, but a full or damaged disk, or who killed its training. Its job
            then ends, and is run again.
    """
    if isinstance(error, TrainingLostError):
        raise error
    text = one_line(f"{type(error).__name__}: {error}")
    if is_fault_of_disk(error):
        raise TrainingLostError(text) from error
    return {"error": text}


def run_jobs(jobs: deque[Job], workers: int, stored: ResultsFile, done: Callable[[Row], None] = lambda _: None) -> None:
    """Run jobs in parallel; the parent process records every row."""
    running: dict[Connection, tuple[BaseProcess, Job]] = {}

    def take(row: Row) -> None:
        stored.append(row)
        done(row)

    try:
        while jobs or running:
            while jobs and len(running) < workers:
                job = jobs.popleft()
                process, pipe = _started(job)
                running[pipe] = process, job
            ready = wait(list(running))
            for pipe in [known for known in running if known in ready]:
                try:
                    row = pipe.recv()
                except (EOFError, OSError):
                    process, job = running.pop(pipe)
                    process.join()
                    _after(job, process.exitcode, jobs, stored, take)
                    continue
                take(row)
    finally:
        for process, _ in running.values():
            process.kill()
            process.join()


def _after(job: Job, exit_code: int | None, jobs: deque[Job], stored: ResultsFile, take: Callable[[Row], None]) -> None:
    """Retry unfinished cases of a killed process once, then record them as failed."""
    if exit_code == 0 or not isinstance(job.arguments[0], Group):
        return
    group: Any = left(job.arguments[0], stored)
    if job.attempt == 1:
        jobs.append(Job(job.call, (group, *job.arguments[1:]), attempt=2))
        return
    for case in group.cases:
        take(case.row() | {"error": f"the worker process ended twice, with exit code {exit_code}"})


def _started(job: Job) -> tuple[BaseProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(job, send), daemon=True)
    # Ctrl-C is for the parent, which ends its children; children inherit the ignored signal.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, before)
    send.close()
    return process, receive


def _work(job: Job, pipe: Connection) -> None:
    with contextlib.suppress(BrokenPipeError):  # the parent is gone
        for row in job.call(*job.arguments):
            pipe.send(row)


def library_variables(threads: int, compiled: Path | None) -> dict[str, str]:
    """Variables for JAX and BLAS, to be set before they are imported.

    Args:
        threads: number of threads.
        compiled: folder of compiled programs; None: they are not kept.
    """
    kept = {"JAX_COMPILATION_CACHE_DIR": str(compiled), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2"}
    flags = " --xla_cpu_multi_thread_eigen=false" if threads == 1 else ""
    return {
        **dict.fromkeys(THREADS, str(threads)),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "") + flags,
        # Several processes on one GPU would each claim most of its memory.
        "JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "cpu"),
        **(kept if compiled else {"JAX_ENABLE_COMPILATION_CACHE": "false"}),
    }


@contextlib.contextmanager
def environment(threads: int, compiled: Path) -> Iterator[None]:
    """Set variables for JAX and BLAS in the workers: share of the cores, common cache of compiled programs."""
    before = dict(os.environ)
    os.environ.update(library_variables(threads, compiled.absolute()))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
