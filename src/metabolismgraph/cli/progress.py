"""Progress bars of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from metabolismgraph.system.progress import Progress as Report
from metabolismgraph.system.progress import silent


@contextmanager
def progress_bars(console: Console, *, quiet: bool) -> Iterator[Report]:
    """One bar per stage, from its first report on."""
    if quiet:
        yield silent
        return
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: float, message: str) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=1.0, note="")
            bars.update(tasks[stage], completed=min(done, 1.0))
            if message:
                bars.update(tasks[stage], note=message)

        yield report
