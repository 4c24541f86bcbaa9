"""Whether jobs of this program run on a cluster: what a group tries once at its own site."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from metabolismgraph.errors import InputError
from metabolismgraph.files import write_bytes
from metabolismgraph.processes import last_line
from metabolismgraph.schedulers.base import Job, Scheduler, Seen, SilentError
from metabolismgraph.schedulers.check_job import OUTCOME
from metabolismgraph.schedulers.settings import ClusterSettings
from metabolismgraph.text import one_line, printable

_MINUTES = 10  # walltime
_LONG = 300.0  # seconds for which the second job would run
_GRACE = 60.0  # seconds until a file of another computer is seen


@dataclasses.dataclass
class ClusterCheck:
    """One short job, and one that is cancelled.

    Args:
        folder: for script, output and outcome; on a disk that all nodes share.
        report: called with every line for the user.
        poll: seconds between two looks.
        patience: seconds until a job must have started, and until it must have ended.
    """

    scheduler: Scheduler
    settings: ClusterSettings
    folder: Path
    report: Callable[[str], None]
    poll: float = 2.0
    patience: float = 600.0

    def run(self) -> None:
        """Submit both jobs, and follow them.

        Raises:
            InputError: the scheduler refuses a job or does not answer, or a job does not do what it should.
        """
        try:
            self._short_job()
            self._cancelled_job()
        except SilentError as error:
            raise InputError(f"{self.scheduler.name} does not answer ({error}); try again later") from None

    def _short_job(self) -> None:
        native = self._submit("a", 0.0)
        ended = self._follow(native, lambda seen: seen.has_ended)
        outcome = self.folder / "a" / OUTCOME
        until = time.monotonic() + _GRACE
        while not outcome.exists() and ended.state == "completed" and time.monotonic() < until:
            list(outcome.parent.iterdir())  # renews what a network file system remembers of the folder
            time.sleep(self.poll)
        if not outcome.exists():
            last = last_line(outcome.parent / "output.txt") or "no message"
            raise InputError(f"job {native} ended without an outcome: {ended.words} ({one_line(printable(last), 200)})")
        found = json.loads(outcome.read_bytes())
        self.report("outcome: " + ", ".join(f"{name} {value}" for name, value in found.items()))

    def _cancelled_job(self) -> None:
        native = self._submit("b", _LONG)
        self._follow(native, lambda seen: seen.state != "waiting")
        self.scheduler.cancel(native)
        self.report(f"job {native}: cancelled")
        ended = self._follow(native, lambda seen: seen.has_ended)
        if ended.state != "cancelled":
            raise InputError(f"job {native} was cancelled, but {self.scheduler.name} says {ended.words}")

    def _submit(self, name: str, seconds: float) -> str:
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        command = (sys.executable, "-P", "-m", "metabolismgraph.schedulers.check_job", str(folder), str(seconds))
        identity = f"mg-check-{time.time_ns() % 10**8:08d}-{name}"
        job = Job(identity, folder, folder / "output.txt", _MINUTES, command, self.settings)
        script = self.scheduler.script(job)
        write_bytes(folder / "job.sh", script.encode())
        if seconds == 0.0:
            self.report(script.rstrip())
        native = self.scheduler.submit(script)
        self.report(f"job {native}: submitted")
        if [seen.native for seen in self.scheduler.find(identity)] != [native]:
            raise InputError(f"job {native} is not found by its name; jobs would be submitted twice after a crash")
        return native

    def _follow(self, native: str, until: Callable[[Seen], bool]) -> Seen:
        """Report every change of a job until a condition holds."""
        words, begun = "", time.monotonic()
        while True:
            seen = self.scheduler.look([native]).get(native)
            if seen is None:
                raise InputError(
                    f"{self.scheduler.name} does not know job {native} any more; ask for its outcome by hand"
                )
            if seen.words != words:
                words = seen.words
                self.report(f"job {native}: {words} after {time.monotonic() - begun:.1f} s")
            if until(seen):
                return seen
            if time.monotonic() > begun + self.patience:
                raise InputError(f"job {native} is {words} after {self.patience:g} s; see its script in {self.folder}")
            time.sleep(self.poll)
