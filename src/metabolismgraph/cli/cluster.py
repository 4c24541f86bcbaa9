"""Commands for clusters."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metabolismgraph.cli.base_run import JOB, PLACE
from metabolismgraph.cli.in_job import end_job
from metabolismgraph.cli.options import console, say
from metabolismgraph.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from metabolismgraph.cli.base_run import BaseRun
    from metabolismgraph.explore.engines.base import Engine
    from metabolismgraph.explore.folder import ExplorationFolder
    from metabolismgraph.explore.state import State
    from metabolismgraph.schedulers.settings import ClusterSettings

_SETTINGS = "cluster.yaml"  # in the folder of an exploration: where its jobs ran last

EngineName = Annotated[
    str | None,
    typer.Option("--engine", help="where jobs run: process, slurm, lsf or dask; default: as before, else process"),
]
ClusterFile = Annotated[Path | None, typer.Option("--cluster", help="YAML file with the settings of the cluster")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--setting", metavar="KEY=VALUE", help="a setting of the cluster, such as queue=short; repeatable"),
]

_EXAMPLE = "Example: metabolismgraph explore check-cluster slurm --setting queue=short --setting memory_gb=2"


def add_cluster_commands(explore: typer.Typer) -> None:
    """Add the commands to those of the explorer."""
    explore.command(epilog=_EXAMPLE)(check_cluster)
    explore.command(epilog="Example: metabolismgraph explore cancel explorations/a")(cancel)


def machine_settings(
    folder: Path, engine: str | None, cluster: Path | None, setting: list[str] | None
) -> ClusterSettings:
    """Where the jobs of an exploration run: what is given, otherwise as before.

    Raises:
        InputError: a file cannot be read, a key or value is wrong, or the engine is unknown.
    """
    from metabolismgraph.explore.engines.registry import check_engine
    from metabolismgraph.schedulers.settings import read_settings

    stored = folder / _SETTINGS
    changes = [*(setting or []), *([f"engine={engine}"] if engine else [])]
    settings = read_settings(cluster or (stored if stored.exists() else None), changes)
    check_engine(settings.engine)
    return settings


def machine_engine(folder: Path, state: State, settings: ClusterSettings) -> Engine:
    """The engine of an exploration, whose settings are kept in its folder for the next time.

    Raises:
        InputError: there is no such engine, or the folder cannot be written.
    """
    engine = engine_of(settings, state)
    _keep(folder, settings)
    return engine


def _keep(folder: Path, settings: ClusterSettings) -> None:
    from metabolismgraph.files import write_bytes

    stored = folder / _SETTINGS
    if settings.engine != "process" or stored.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_bytes(stored, settings.model_dump_json(indent=1).encode())  # which is YAML, too
        except OSError as error:
            raise InputError(f"{stored}: cannot be written ({error.strerror}); make room or give access") from None


def benchmark_engine(
    out: Path, engine: str | None, cluster: Path | None, setting: list[str] | None, workers: int | None, number: int
) -> tuple[Engine, Callable[[], None]]:
    """The engine of a benchmark, and what keeps its settings in the folder of results for the next time.

    Args:
        workers: the option --workers, which is only for processes of this computer.
        number: of parallel processes there.

    Raises:
        InputError: as `machine_settings`, options do not fit the engine, or the scheduler is not here.
    """
    from metabolismgraph.benchmarks.jobs import engine_for

    settings = machine_settings(out, engine, cluster, setting)
    if settings.engine == "process" and (cluster or setting):
        raise InputError(
            "--cluster and --setting are for clusters; give --engine slurm, lsf or dask, or leave them out"
        )
    if settings.engine != "process" and workers is not None:
        raise InputError(f"--workers: processes of this computer; for {settings.engine} give --setting max_jobs=...")
    return engine_for(settings, number, say), lambda: _keep(out, settings)


def engine_of(settings: ClusterSettings, state: State) -> Engine:
    """The engine for the runs of an exploration.

    Raises:
        InputError: there is no such engine.
    """
    from metabolismgraph.explore.engines.registry import make_engine

    return make_engine(settings, state.workers, state.settings.slot_minutes * 60, say)


def make_base(
    base: BaseRun, path: Path, settings: ClusterSettings, slot_minutes: float, until: float, *, quiet: bool
) -> None:
    """Make the base of an exploration where its runs will be.

    Args:
        until: see `BaseRun.make_by_job`.

    Raises:
        InputError, TrainingFailedError: as `BaseRun.make` and `BaseRun.make_by_job`.
    """
    from metabolismgraph.explore.engines.cluster import ClusterEngine
    from metabolismgraph.schedulers import SCHEDULERS, make_scheduler

    if settings.engine not in SCHEDULERS:
        base.make(path, quiet=quiet)
        return
    scheduler = make_scheduler(settings.engine, settings.address)
    scheduler.check()
    engine = ClusterEngine(scheduler, settings, slot_minutes * 60, JOB, say)
    base.make_by_job(path, engine, settings.engine, until)


def second_interrupt(settings: ClusterSettings) -> str:
    """What a second interrupt of the explorer does."""
    from metabolismgraph.schedulers import SCHEDULERS

    if settings.engine not in SCHEDULERS:
        return "to stop at once"
    if sys.stdin.isatty():
        return f"to stop at once, and to say whether jobs on {settings.engine} continue"
    return f"to stop at once; jobs on {settings.engine} continue"


def offer_to_cancel(folder: ExplorationFolder) -> None:
    """Ask whether the jobs of an interrupted explorer are to end, if there are some and somebody can answer."""
    from metabolismgraph.explore.engines.cluster import alive, cancel_all

    runs, found = folder.path / "runs", alive(folder.path / "runs")
    if not found or not sys.stdin.isatty():
        return
    try:
        wanted = typer.confirm(f"end these jobs on {found[0][1].engine}?", default=False, err=True)
    except typer.Abort:  # a third interrupt
        say("")
        return
    if wanted:
        with folder.journal.held():
            say(f"jobs cancelled: {len(cancel_all(runs))}")


def cancel_job(folder: Path) -> None:
    """End the job of a folder, if a cluster has it."""
    from metabolismgraph.explore.engines.attempts import in_force
    from metabolismgraph.explore.engines.cluster import cancel
    from metabolismgraph.schedulers import make_scheduler
    from metabolismgraph.schedulers.base import SilentError

    attempt = in_force(folder)
    submission = attempt and attempt.submission
    if submission is None:
        return
    try:
        cancel(folder, make_scheduler(submission.engine, submission.address))
    except SilentError as error:
        say(f"{submission.engine} does not answer ({error}); its job {submission.name} continues")


def cancel(folder: Annotated[Path, typer.Argument(help="folder of the exploration, or of a benchmark")]) -> None:
    """End the jobs of an exploration on a cluster; `explore resume` runs their iterations again.

    So does an explorer that is a job itself; another one must have ended before. The jobs of a benchmark end as well,
    and the same command continues them.
    """
    from metabolismgraph.benchmarks.results_file import LINES_WITH_JOBS
    from metabolismgraph.explore.engines.cluster import cancel_all
    from metabolismgraph.explore.folder import ExplorationFolder
    from metabolismgraph.explore.journal import Journal

    if results := [folder / name for name in LINES_WITH_JOBS if (folder / name).exists()]:
        with Journal(results[0]).held():
            ended = cancel_all(folder / "jobs")
        console().print(f"jobs cancelled: {len(ended)}", markup=False, highlight=False, soft_wrap=True)
        return
    opened = ExplorationFolder(folder)
    end_job(folder)
    if not (folder / PLACE).exists():  # which is there before the journal
        opened.journal.read()
    with opened.journal.held():
        ended = [n for runs in (folder, folder / "runs", *folder.glob("validation/*")) for n in cancel_all(runs)]
    console().print(f"jobs cancelled: {len(ended)}", markup=False, highlight=False, soft_wrap=True)


def check_cluster(
    scheduler: Annotated[str, typer.Argument(help="slurm, lsf or dask")],
    out: Annotated[
        Path, typer.Option(help="new folder for scripts and outputs, on a disk that all computers of the cluster share")
    ] = Path("cluster-check"),
    cluster: ClusterFile = None,
    setting: Settings = None,
    poll: Annotated[float, typer.Option(min=0.1, help="seconds between two looks at the queue")] = 2.0,
    minutes: Annotated[float, typer.Option(min=0.1, help="patience with a job that waits or runs")] = 10.0,
) -> None:
    """Try whether jobs run on this cluster: one short job, and one that is cancelled."""
    from metabolismgraph.schedulers import make_scheduler
    from metabolismgraph.schedulers.check import ClusterCheck
    from metabolismgraph.schedulers.settings import read_settings

    settings = read_settings(cluster, setting or [])
    made = make_scheduler(scheduler, settings.address)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: not empty; choose another --out")

    def show(line: str) -> None:
        console().print(line, markup=False, highlight=False, soft_wrap=True)

    ClusterCheck(made, settings, out.absolute(), show, poll, 60.0 * minutes).run()
    show(f"jobs run, are found by name and can be cancelled; scripts and outputs are in {out}")
