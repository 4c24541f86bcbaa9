"""What schedulers have in common."""

from __future__ import annotations

import abc
import dataclasses
import re
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from metabolismgraph.errors import InputError
from metabolismgraph.processes import THREADS, Completed, describe_exit, environment, run
from metabolismgraph.schedulers.settings import ClusterSettings
from metabolismgraph.text import one_line, printable

# Of a job that has ended: completed; failed by itself; cancelled by somebody; or lost with its node, preempted, stopped
# at its walltime or memory limit, or killed by a signal.
State = Literal[
    "waiting", "running", "completed", "failed", "cancelled", "node", "preempted", "walltime", "memory", "killed"
]
LOST: frozenset[State] = frozenset({"node", "preempted", "walltime", "memory", "killed"})
_SECONDS = 30.0  # time limit of a command
_MOST = 1 << 24  # bytes of an answer
# Variables that commands of schedulers need. Those of a surrounding job are left out: they would change the new one. So
# is the folder for temporary files, which another computer may not have.
_VARIABLES = (
    "LSF_",
    "XLSF_",
    "EGO_",
    "LSB_DEFAULTQUEUE",
    "LSB_DEFAULTPROJECT",
    "SLURM_CONF",
    "USER",
    "LOGNAME",
    "SHELL",
)
_OUT_OF_MEMORY = ("oom-kill", "oom_kill", "exceeded memory limit", "out of memory")


class SilentError(Exception):
    """The scheduler did not answer: nothing is known, not even whether a submission has arrived."""


class RejectedError(InputError):
    """The scheduler refuses a job, in its own words."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A job to be submitted.

    Attributes:
        name: by which it is found again; letters, digits, - and _ only.
        folder: its working directory, on a disk that all nodes share.
        output: file for its output and errors.
        minutes: its walltime.
        command: program and arguments.
        settings: resources, and what the site requires.
        guard: a shell command before all others; the job ends at once if it fails.
    """

    name: str
    folder: Path
    output: Path
    minutes: int
    command: Sequence[str]
    settings: ClusterSettings
    guard: str = "true"

    def __post_init__(self) -> None:
        for path in (self.folder, self.output):
            if re.search(r'[%"\\]', str(path)) or not str(path).isprintable():
                raise InputError(f"{path}: schedulers give % and quotes in names a meaning; choose another folder")


class Seen(NamedTuple):
    """What a scheduler says of a job.

    Attributes:
        native: its number there.
        name: as in `Job`.
        state: see `State`.
        words: the scheduler's own words.
        code: exit code of a job that failed or was killed, or minus the number of the signal; None: not known.
        begun: of a cancelled job, whether it ran on its node for a second at least; None: it had none, or not known.
    """

    native: str
    name: str
    state: State
    words: str
    code: int | None = None
    begun: bool | None = None

    @property
    def has_ended(self) -> bool:
        return self.state not in {"waiting", "running"}


class Scheduler(abc.ABC):
    """A scheduler by its own commands.

    Args:
        address: where it is, if commands do not know that.

    Attributes:
        name: in settings and messages.
        unanswered: parts of error messages of a scheduler that does not answer.
        unknown: parts of error messages that are answers: a job is not known, or has ended.
        number: what stands for its number in the script of a job.
        after: the option of a job that waits for the end of another one, with {} for its number; empty: there is none.
    """

    name: ClassVar[str]
    unanswered: ClassVar[tuple[str, ...]]
    unknown: ClassVar[tuple[str, ...]] = ()
    number: ClassVar[str]
    after: ClassVar[str] = ""

    def __init__(self, address: str = ""):
        self.address = address

    def check(self) -> None:  # noqa: B027 (schedulers with commands know where they are)
        """Check what can be known without an answer.

        Raises:
            InputError: the address is not one, or a library is missing.
        """

    @abc.abstractmethod
    def directives(self, job: Job) -> list[str]:
        """The lines at the top of a script that ask for resources."""

    @abc.abstractmethod
    def submit(self, script: str) -> str:
        """Submit a script; returns the number of the job.

        Raises:
            RejectedError: the scheduler refuses it.
            SilentError: no answer; the job may have been submitted.
        """

    @abc.abstractmethod
    def look(self, natives: Collection[str]) -> dict[str, Seen]:
        """The jobs with these numbers; those that the scheduler does not know (any more) are missing.

        Raises:
            SilentError: no answer.
        """

    @abc.abstractmethod
    def find(self, name: str) -> list[Seen]:
        """The jobs of this user with exactly this name, the oldest first.

        Raises:
            SilentError: no answer.
        """

    @abc.abstractmethod
    def cancel(self, native: str) -> None:
        """End a job; one that has ended, or is not known, is not an error.

        Raises:
            SilentError: no answer.
        """

    def script(self, job: Job) -> str:
        """A shell script that runs a job with the threads of its cores."""
        threads = [f"export {name}={job.settings.cores}" for name in THREADS]
        lines = [
            "#!/bin/bash",
            *self.directives(job),
            f"cd {shlex.quote(str(job.folder))} || exit 1",
            f"{{ {job.guard}; }} || exit 0",
            *threads,
            *job.settings.setup,
            f"exec {shlex.join(job.command)} </dev/null",
        ]
        return "\n".join(lines) + "\n"

    def _ask(self, command: Sequence[str], stdin: str = "") -> Completed:
        """Run a command of the scheduler.

        Raises:
            InputError: there is no such command.
            SilentError: it takes too long, was killed, or says that the scheduler does not answer.
        """
        try:
            done = run(command, stdin=stdin.encode(), seconds=_SECONDS, output=_MOST, env=command_environment())
        except OSError as error:
            raise InputError(
                f"{command[0]}: cannot be started ({error.strerror}); is this a computer of a {self.name} cluster?"
            ) from None
        message = error_output(done)
        if done.limit == "time":
            raise SilentError(_brief(message) or f"{command[0]} has taken more than {_SECONDS:g} s")
        if done.code < 0 or any(part in message for part in self.unanswered):
            raise SilentError(_failure(command[0], done))
        return done

    def _ask_of_jobs(self, command: Sequence[str]) -> Completed:
        """Run a command that does not submit. One that goes wrong says nothing of jobs, whatever it has printed.

        Raises:
            InputError, SilentError: as `_ask`.
            SilentError: it fails, and not because a job is unknown or has ended.
        """
        done = self._ask(command)
        if done.code and not any(part in error_output(done) for part in self.unknown):
            raise SilentError(_failure(command[0], done))
        return done


def command_environment() -> dict[str, str]:
    """The environment of commands, which jobs inherit: without keys, and without variables of a surrounding job."""
    found = environment(*_VARIABLES, LC_ALL="C")
    found.pop("TMPDIR", None)
    return found


def ran_out_of_memory(output: str) -> bool:
    """Whether the output of a job that was killed tells that it had used too much memory."""
    return any(word in output.lower() for word in _OUT_OF_MEMORY)


def answer(done: Completed) -> str:
    """The standard output of a command."""
    return done.stdout.decode(errors="replace")


def rejection(command: str, done: Completed) -> RejectedError:
    """The refusal of a job."""
    return RejectedError(f"{command} refuses the job: {_brief(error_output(done)) or describe_exit(done.code)}")


def error_output(done: Completed) -> str:
    """The error output of a command."""
    return printable(done.stderr.decode(errors="replace"))


def _failure(command: str, done: Completed) -> str:
    return f"{command}: {_brief(error_output(done)) or describe_exit(done.code)}"


def _brief(message: str) -> str:
    return one_line(message, 300)
