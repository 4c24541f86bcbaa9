"""Commands for clusters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metabolismgraph.cli.options import console
from metabolismgraph.errors import InputError

_EXAMPLE = "Example: metabolismgraph explore check-cluster slurm --setting queue=short --setting memory_gb=2"


def add_cluster_commands(explore: typer.Typer) -> None:
    """Add the commands to those of the explorer."""
    explore.command(epilog=_EXAMPLE)(check_cluster)


def check_cluster(
    scheduler: Annotated[str, typer.Argument(help="slurm or lsf")],
    out: Annotated[
        Path, typer.Option(help="new folder for scripts and outputs, on a disk that all computers of the cluster share")
    ] = Path("cluster-check"),
    cluster: Annotated[Path | None, typer.Option(help="YAML file with the settings of the cluster")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--setting", metavar="KEY=VALUE", help="a setting, such as queue=short; repeatable"),
    ] = None,
    poll: Annotated[float, typer.Option(min=0.1, help="seconds between two looks at the queue")] = 2.0,
    minutes: Annotated[float, typer.Option(min=0.1, help="patience with a job that waits or runs")] = 10.0,
) -> None:
    """Try whether jobs run on this cluster: one short job, and one that is cancelled."""
    from metabolismgraph.schedulers import make_scheduler
    from metabolismgraph.schedulers.check import ClusterCheck
    from metabolismgraph.schedulers.settings import read_settings

    made, settings = make_scheduler(scheduler), read_settings(cluster, setting or [])
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: not empty; choose another --out")

    def show(line: str) -> None:
        console().print(line, markup=False, highlight=False, soft_wrap=True)

    ClusterCheck(made, settings, out.absolute(), show, poll, 60.0 * minutes).run()
    show(f"jobs run, are found by name and can be cancelled; scripts and outputs are in {out}")
