"""The base of an exploration: data and Phase 1, made in another process, since the explorer does not see the truth."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from metabolismgraph.cli.in_job import LATER
from metabolismgraph.cli.options import console, interruptible, say
from metabolismgraph.errors import InputError, TrainingFailedError
from metabolismgraph.processes import PIPE, Child, environment
from metabolismgraph.text import printable

if TYPE_CHECKING:
    from metabolismgraph.config import Config
    from metabolismgraph.explore.engines.base import Engine

JOB = (sys.executable, "-P", "-m", "metabolismgraph.cli.base_job")  # program of a job, before its folder
PLACE = "base-job"  # in the folder of the exploration: where the job is described, and its attempts are
COMMAND = "command.json"  # in that place: the arguments of the command that makes it
_REFUSED = 2  # exit code of a command whose input is wrong

# The program for data and Phase 1; it does not outlive a process that is killed.
_PROGRAM = """
from metabolismgraph.processes import end_with_parent
end_with_parent()
from metabolismgraph.cli import main
main()
"""


class BaseRun(NamedTuple):
    """How the base is made.

    Attributes:
        config: its configuration.
        network, timeseries, truth: of measured data.
        checkpoint, secret: as for `explore start`.
    """

    config: Config
    network: Path | None = None
    timeseries: Path | None = None
    truth: Path | None = None
    checkpoint: Path | None = None
    secret: Path | None = None

    @classmethod
    def of(cls, config: Config, *files: Path | None) -> BaseRun:
        """The base of an exploration with this configuration."""
        from metabolismgraph.config import Exploration
        from metabolismgraph.explore.search_space import parse_space

        changes: dict[str, object] = {"training.homeostasis_training": False, "training.skip_phase1": False}
        if parse_space(config.exploration.space)[0].trains == "everything":
            # Every run trains Phase 1 itself; that of the base, which tells what the data determine, is the quick one.
            changes |= {"training.phase1_method": "projection", "training.joint_training": False}
            changes |= {"training.phase1_stop_at_r2": None}
        # The base does not depend on the section `exploration`; it may exist from an earlier attempt.
        base = config.replace(changes).model_copy(update={"exploration": Exploration()})
        return cls(base, *files)

    @property
    def data(self) -> str:
        """The origin of the data, in words."""
        measured = f"{self.network} and {self.timeseries}"
        data = measured if self.network is not None else f"simulated, {self.config.dataset}"
        return data + (f", Phase 1 of {self.checkpoint}" if self.checkpoint else "")

    def arguments(self, written: Path) -> list[str]:
        """Arguments of the command that makes it, without its folder.

        Args:
            written: file of the configuration.
        """
        options = {"truth": self.truth, "checkpoint": self.checkpoint, "secret": self.secret}
        named = [f"--{name}={path}" for name, path in options.items() if path]
        if self.network is None:
            return ["run", str(written), *named]
        return ["fit", str(self.network), str(self.timeseries), f"--config={written}", *named]

    def make(self, path: Path, *, quiet: bool) -> None:
        """Make it on this computer, in `path`/base.

        Raises:
            InputError: its input is wrong, a file cannot be written, or a job of a cluster makes it.
            TrainingFailedError: it went wrong.
        """
        from metabolismgraph.explore.engines.attempts import check_not_elsewhere

        check_not_elsewhere(path / PLACE, "process")
        written = path / "base.yaml"
        arguments = [*self.arguments(written), *(["--quiet"] if quiet else [])]
        try:
            path.mkdir(parents=True, exist_ok=True)
            written.write_text(self.config.to_yaml())
            with interruptible(f"interrupted; the same command with --out {path} continues"):
                code, lines = run_command(arguments, path / "base")
        except OSError as error:
            raise InputError(f"{written}: cannot be written ({error.strerror}); make room or give access") from None
        finally:
            written.unlink(missing_ok=True)
            with suppress(OSError):  # only if nothing is in it
                path.rmdir()
        _tell(code, lines)

    def make_by_job(self, path: Path, engine: Engine, name: str, until: float = math.inf) -> None:
        """Make it by a job of a cluster, or follow the job that was submitted before.

        Args:
            path: of the exploration; the base comes into `path`/base.
            engine: of the program `JOB`.
            name: of the scheduler.
            until: when to end, and leave the job [s of `time.monotonic`]; the exit code is then that of `--minutes`.

        Raises:
            InputError: the input is wrong, a file cannot be written, the folder holds the base of other settings, or
                the scheduler refuses the job or loses too many.
            TrainingFailedError: it went wrong.
        """
        from metabolismgraph.explore.folder import ExplorationFolder

        folder = path.absolute() / PLACE
        advice = f"interrupted; the same command with --out {path} follows its job, `explore cancel {path}` ends it"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with ExplorationFolder(path).journal.held(), interruptible(advice):
                self._describe(folder)
                with console(stderr=True).status(f"data and Phase 1: a job on {name}"):
                    code, lines = _ended(folder, engine, until)
                if not code and (folder / "run").exists():
                    (folder / "run").replace(path / "base")
        except OSError as error:
            where = error.filename or folder
            raise InputError(f"{where}: cannot be written ({error.strerror}); make room or give access") from None
        _tell(code, lines)

    def _describe(self, folder: Path) -> None:
        from metabolismgraph.files import write_bytes

        config, command = folder / "base.yaml", folder / COMMAND
        # The job has another working directory.
        files = [file and file.absolute() for file in self[1:]]
        wanted = {config: self.config.to_yaml(), command: json.dumps(BaseRun(self.config, *files).arguments(config))}
        if command.exists() and any(file.read_text() != content for file, content in wanted.items()):
            raise InputError(f"{folder}: holds the base of other settings; choose another --out, or remove that folder")
        for file, content in wanted.items():
            write_bytes(file, content.encode())
        begun = folder.with_name("base")
        if begun.exists() and not (folder / "run").exists() and not any(folder.glob("a*/run")):
            begun.replace(folder / "run")  # the job continues it


def run_command(arguments: Sequence[str], out: Path) -> tuple[int, list[str]]:
    """Run a command of this program into a folder; its exit code, and the lines that it says."""
    command = [sys.executable, "-P", "-c", _PROGRAM, *arguments, f"--out={out}", "--resume"]
    with tempfile.TemporaryFile() as errors:
        with Child(command, stdin=PIPE, stderr=errors, env=environment()) as child:
            try:
                code = child.wait()
            except KeyboardInterrupt:
                os.kill(child.pid, signal.SIGINT)  # it ends in order
                child.wait()
                raise
        errors.seek(0)
        return code, errors.read().decode(errors="replace").splitlines()


def _tell(code: int, lines: list[str]) -> None:
    """Say what a command has said.

    Raises:
        InputError, TrainingFailedError: it went wrong.
    """
    for line in lines[: -1 if code else None]:
        say(printable(line))
    if code:
        reason = printable(lines[-1]).removeprefix("error: ") if lines else f"ended with code {code}"
        raise (InputError if code == _REFUSED else TrainingFailedError)(reason)


def _ended(folder: Path, engine: Engine, until: float) -> tuple[int, list[str]]:
    """Follow the job to its end, unless it has ended well before; its exit code, and what it says."""
    from metabolismgraph.explore.engines.attempts import retire
    from metabolismgraph.explore.engines.completion import completed
    from metabolismgraph.explore.engines.outcome import OUTCOME, read_outcome

    def told() -> tuple[int, list[str]] | None:
        with suppress(ValueError):  # damaged
            if (outcome := read_outcome(folder)) is not None and outcome.metrics is not None:
                return int(outcome.metrics["code"] or 0), str(outcome.metrics["said"]).splitlines()
        return None

    before = told()
    if before is not None and not before[0]:
        return before
    if (folder / OUTCOME).exists():
        retire(folder)
        (folder / OUTCOME).unlink()
    with closing(completed(engine, {0: folder}, until)) as ends:
        ended = next(ends, None)
    if ended is None:
        raise typer.Exit(LATER)
    found = told()
    if found is None:
        retire(folder)  # the next command tries again
        (folder / OUTCOME).unlink(missing_ok=True)
        raise TrainingFailedError(f"{folder}: {ended.reason or 'the outcome is damaged'}; the same command tries again")
    return found
