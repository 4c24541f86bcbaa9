"""The explorer as a job of the cluster, which hands over to another one before its walltime.

`explorer/` in the folder of the exploration holds the plan, script and output of these jobs. All have one name. Each
submits its successor when it begins, to start after its own end, whatever that is; the last one cancels it.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from metabolismgraph.cli.options import say
from metabolismgraph.errors import InputError

if TYPE_CHECKING:
    from metabolismgraph.schedulers.base import Scheduler, Seen
    from metabolismgraph.schedulers.settings import ClusterSettings

LATER = os.EX_TEMPFAIL  # exit code of a command whose time was over; another one continues
VARIABLE = "METABOLISMGRAPH_EXPLORER"  # in such a job: its name
CANCELLED = "cancelled"  # with this file no such job begins
_JOB = (sys.executable, "-P", "-m", "metabolismgraph.cli.explorer_job")
_PLACE = "explorer"
_MORE_MINUTES = 10  # of walltime than the explorer works
_PATIENCE, _POLL = 120.0, 0.5  # seconds for the end of a job that is cancelled, between two looks


class Plan(NamedTuple):
    """What the jobs do.

    Attributes:
        name: of the jobs.
        settings: of the cluster.
        cwd: working directory of the commands.
        first, next: arguments of the command before there is a journal, and with one.
        cut_off: jobs in a row that began, and did not end in order.
    """

    name: str
    settings: dict[str, Any]
    cwd: str
    first: list[str]
    next: list[str]
    cut_off: int = 0

    @classmethod
    def read(cls, path: Path) -> Plan | None:
        """The plan of an exploration; None if its explorer was never a job.

        Raises:
            InputError: the file is damaged.
        """
        file = path / _PLACE / "plan.json"
        try:
            return cls(**json.loads(file.read_bytes()))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, TypeError) as error:
            raise InputError(f"{file}: damaged ({error}); remove its folder") from None

    def write(self, path: Path) -> None:
        from metabolismgraph.files import write_bytes

        (path / _PLACE).mkdir(parents=True, exist_ok=True)
        write_bytes(path / _PLACE / "plan.json", json.dumps(self._asdict(), indent=1).encode())

    @property
    def cluster(self) -> ClusterSettings:
        from metabolismgraph.schedulers.settings import ClusterSettings

        return ClusterSettings(**self.settings)

    @property
    def scheduler(self) -> Scheduler:
        from metabolismgraph.schedulers import make_scheduler

        return make_scheduler(self.cluster.engine, self.cluster.address)

    def alive(self) -> list[Seen]:
        """The jobs that wait or run, the oldest first.

        Raises:
            SilentError: the scheduler does not answer.
        """
        return [seen for seen in self.scheduler.find(self.name) if not seen.has_ended]

    def submit(self, path: Path, after: str = "") -> str:
        """Submit a job; returns its number.

        Args:
            path: of the exploration.
            after: number of the job that must have ended before.

        Raises:
            InputError: the scheduler refuses it.
            SilentError: no answer; it may have been submitted.
        """
        from metabolismgraph.files import write_bytes
        from metabolismgraph.schedulers.base import Job

        wanted, scheduler, folder = self.cluster, self.scheduler, path.absolute() / _PLACE
        later = (scheduler.after.format(after),) if after else ()
        changes = {
            "gpus": 0,
            "queue": wanted.explorer_queue or wanted.queue,
            "setup": (*wanted.setup, *wanted.explorer_setup),
            "directives": (*wanted.directives, *later),
        }
        job = Job(
            self.name,
            folder,
            folder / "output.txt",
            math.ceil(wanted.explorer_minutes) + _MORE_MINUTES,
            (*_JOB, str(folder.parent)),
            wanted.model_copy(update=changes),
            guard=f"[ ! -e {CANCELLED} ]",
        )
        script = scheduler.script(job)
        write_bytes(folder / "job.sh", script.encode())
        return scheduler.submit(script)


def begin_job(path: Path, settings: ClusterSettings, arguments: list[str], following: list[str] | None = None) -> None:
    """Submit the explorer of an exploration as a job.

    Args:
        arguments: of the command that it runs.
        following: of the command once there is a journal, if that is another one.

    Raises:
        InputError: the scheduler has no such jobs, refuses this one or does not answer, or the explorer is a job.
    """
    from metabolismgraph.schedulers import SCHEDULERS, make_scheduler
    from metabolismgraph.schedulers.base import SilentError

    if settings.engine not in SCHEDULERS or not make_scheduler(settings.engine, settings.address).after:
        raise InputError(f"--in-job: an explorer cannot be a job of engine {settings.engine}; take slurm or lsf")
    check_no_job(path)
    former = Plan.read(path)
    name = former.name if former is not None else f"mg-{secrets.token_hex(4)}-explorer"
    plan = Plan(name, settings.model_dump(mode="json"), str(Path.cwd()), arguments, following or arguments)
    try:
        plan.write(path)
        (path / _PLACE / CANCELLED).unlink(missing_ok=True)
        native = plan.submit(path)
    except OSError as error:
        raise InputError(f"{error.filename or path}: cannot be written ({error.strerror}); make room") from None
    except SilentError as error:
        raise InputError(f"{settings.engine} does not answer ({error}); try again later") from None
    say(f"the explorer is job {native} on {settings.engine}; it writes to {path / _PLACE / 'output.txt'}")
    say(f"`explore status {path} --watch` follows it, `explore cancel {path}` ends it")


def check_no_job(path: Path) -> None:
    """Check that the explorer of an exploration is not a job, other than this one.

    Raises:
        InputError: it is, or the scheduler does not answer.
    """
    from metabolismgraph.schedulers.base import SilentError

    plan = Plan.read(path)
    if plan is None or os.environ.get(VARIABLE) == plan.name:
        return
    try:
        found = plan.alive()
    except SilentError as error:
        where = f"{path}: its explorer may be a job on {plan.cluster.engine}"
        raise InputError(f"{where}, which does not answer ({error}); try again later") from None
    if found:
        raise InputError(
            f"{path}: its explorer is job {found[0].native} on {plan.cluster.engine}; `explore cancel` ends it"
        )


def end_job(path: Path) -> None:
    """End the explorer of an exploration, if it is a job, and wait until it has ended.

    Raises:
        InputError: the scheduler does not answer, or the job does not end.
    """
    from metabolismgraph.schedulers.base import SilentError

    plan = Plan.read(path)
    if plan is None:
        return
    (path / _PLACE / CANCELLED).touch()  # a job that begins meanwhile sees it
    until = time.monotonic() + _PATIENCE
    try:
        while found := plan.alive():
            for seen in reversed(found):
                plan.scheduler.cancel(seen.native)
            if time.monotonic() > until:
                raise InputError(f"{path}: the explorer, job {found[0].native}, does not end; cancel again later")
            time.sleep(_POLL)
    except SilentError as error:
        raise InputError(f"{plan.cluster.engine} does not answer ({error}); cancel again later") from None
