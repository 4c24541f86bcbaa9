"""The job of an explorer, `python -P -m metabolismgraph.cli.explorer_job FOLDER`, see `in_job`."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from metabolismgraph.cli import main as command_line
from metabolismgraph.cli.in_job import LATER, VARIABLE, Plan
from metabolismgraph.cli.options import say
from metabolismgraph.errors import InputError
from metabolismgraph.explore.journal import JOURNAL
from metabolismgraph.schedulers.base import SilentError

T = TypeVar("T")
_CUT_OFF = 3  # jobs in a row that may be cut off


def main(path: Path) -> int:
    """Work on an exploration until its explorer ends, or its time is over; returns the exit code.

    Args:
        path: of the exploration.
    """
    plan = Plan.read(path)
    own = os.environ.get("SLURM_JOB_ID") or os.environ.get("LSB_JOBID") or ""
    if plan is None or not own:
        raise InputError(f"{path}: no explorer was submitted here; `explore resume --in-job` submits one")
    machine = plan.cluster

    def answered(ask: Callable[[], T]) -> T:
        """Ask until the scheduler answers."""
        while True:
            try:
                return ask()
            except SilentError as error:
                say(f"{machine.engine} does not answer ({error})")
                time.sleep(machine.poll_seconds)

    # A site may start a successor too early. Two would work where only one computer sees the lock of the journal.
    while any(int(seen.native) < int(own) and seen.state == "running" for seen in answered(plan.alive)):
        time.sleep(machine.poll_seconds)
    plan = Plan.read(path) or plan
    if plan.cut_off >= _CUT_OFF:
        say(f"{plan.cut_off} explorers in a row were cut off; `explore resume --in-job` begins again")
        return 1
    plan._replace(cut_off=plan.cut_off + 1).write(path)
    if all(int(seen.native) <= int(own) for seen in answered(plan.alive)):
        try:
            say(f"job {plan.submit(path, after=own)} follows")
        except (InputError, SilentError) as error:
            say(f"no job follows: {error}")
    code = _run(plan, (path / JOURNAL).exists())
    plan._replace(cut_off=0).write(path)
    if code != LATER:
        for seen in answered(plan.alive):
            if seen.native != own:
                with contextlib.suppress(SilentError):
                    plan.scheduler.cancel(seen.native)
    return 0 if code == LATER else code


def _run(plan: Plan, begun: bool) -> int:
    os.environ[VARIABLE] = plan.name
    os.chdir(plan.cwd)
    command = plan.next if begun else plan.first
    sys.argv = ["metabolismgraph", *command, "--quiet", "--minutes", f"{plan.cluster.explorer_minutes:g}"]
    try:
        command_line()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
