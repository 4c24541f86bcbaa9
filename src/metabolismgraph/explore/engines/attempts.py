"""The attempts of a job on a cluster: one folder for each, `a1`, `a2`, ... in the folder of the job.

The file `attempt` names the one in force. A job of another one does not begin, and nothing that it leaves is believed.
`submission.json` is written before a job is submitted, `native` is its number at the scheduler, and `loss.json` says
how it was lost. The results of an attempt that has ended are moved to the folder of the job.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from metabolismgraph.errors import InputError
from metabolismgraph.explore.engines.base import STDOUT, Loss
from metabolismgraph.explore.engines.outcome import OUTCOME, START
from metabolismgraph.files import write_bytes

ATTEMPT = "attempt"
SUBMISSION = "submission.json"
NATIVE = "native"
_LOSS = "loss.json"
_RUN = "run"


class Submission(NamedTuple):
    """What is written before a job is submitted.

    Attributes:
        engine: name of the scheduler.
        name: of the job.
        address: of the scheduler, see `Scheduler`.
    """

    engine: str
    name: str
    address: str = ""


class Lost(NamedTuple):
    """How a job was lost.

    Attributes:
        kind, reason: see `Ended`.
        seconds: that it is known to have run.
    """

    kind: Loss
    reason: str
    seconds: float


class Attempt(NamedTuple):
    """One attempt.

    Attributes:
        folder: of the job.
        number: from 1.
    """

    folder: Path
    number: int

    @property
    def path(self) -> Path:
        return self.folder / f"a{self.number}"

    @property
    def native(self) -> str:
        """Number of the job at the scheduler; empty if it is not known."""
        try:
            return (self.path / NATIVE).read_text().strip()
        except OSError:
            return ""

    @property
    def submission(self) -> Submission | None:
        """What was submitted; None if nothing was."""
        found = _read(self.path / SUBMISSION)
        return None if found is None else Submission(**found)

    @property
    def loss(self) -> Lost | None:
        """How it was lost; None if it was not."""
        found = _read(self.path / _LOSS)
        return None if found is None else Lost(**found)

    @property
    def has_ended(self) -> bool:
        """Whether it left an outcome, or was lost."""
        return (self.path / OUTCOME).exists() or self.loss is not None

    def prepare(self, submission: Submission) -> None:
        """Put this attempt in force, and note what is about to be submitted; training continues where a former one was.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        runs = (self.folder / f"a{self.number - 1}" / _RUN, self.folder / _RUN)
        former = next((run for run in runs if run.exists()), None)
        if former is not None and not (self.path / _RUN).exists():
            # A copy: a former job that is cut off may still write in its own folder.
            part = self.path / f".{_RUN}.part"
            shutil.rmtree(part, ignore_errors=True)
            try:
                shutil.copytree(former, part)
                part.replace(self.path / _RUN)
            except shutil.Error:  # files came and went
                shutil.rmtree(part, ignore_errors=True)
        # In this order: a submission of which nobody knows whether it arrived has an attempt that can be retired.
        write_bytes(self.folder / ATTEMPT, str(self.number).encode())
        _write(self.path / SUBMISSION, submission._asdict())

    def note_native(self, native: str) -> None:
        """Note the number of the job at the scheduler.

        Raises:
            OSError: it cannot be written.
        """
        write_bytes(self.path / NATIVE, native.encode())

    def note_loss(self, loss: Lost) -> None:
        """Note how the job was lost.

        Raises:
            OSError: it cannot be written.
        """
        _write(self.path / _LOSS, loss._asdict())

    def publish(self) -> None:
        """Move the results to the folder of the job; the outcome comes last. Again after a crash, it does the rest.

        Raises:
            OSError: they cannot be moved.
        """
        if (self.path / _RUN).exists():
            shutil.rmtree(self.folder / _RUN, ignore_errors=True)
            (self.path / _RUN).replace(self.folder / _RUN)
        for name in (START, STDOUT, OUTCOME):
            if (self.path / name).exists():
                write_bytes(self.folder / name, (self.path / name).read_bytes())


def in_force(folder: Path) -> Attempt | None:
    """The attempt of a job that is in force; None if the job was never submitted to a cluster.

    Raises:
        InputError: the file that names it is damaged.
    """
    try:
        return Attempt(folder, int((folder / ATTEMPT).read_text()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):
        advice = "write the number of the last folder a1, a2, ... into it"
        raise InputError(f"{folder / ATTEMPT}: damaged; {advice}") from None


def place_of(folder: Path) -> Path:
    """Where the last process of a job works: the folder of an attempt, or that of the job."""
    attempt = in_force(folder)
    return folder if attempt is None or attempt.submission is None else attempt.path


def retire(folder: Path) -> None:
    """Cut off the attempt of a job that is in force, if there is one: what it leaves is not believed any more.

    Raises:
        InputError, OSError: as `in_force`, or the file cannot be written.
    """
    attempt = in_force(folder)
    if attempt is not None and attempt.submission is not None:
        write_bytes(folder / ATTEMPT, str(attempt.number + 1).encode())


def is_retired(place: Path) -> bool:
    """Whether a folder is that of an attempt which is not in force."""
    try:
        return place.name != f"a{(place.parent / ATTEMPT).read_text()}"
    except OSError:
        return False


def check_not_elsewhere(folder: Path, engine: str) -> None:
    """Check that no job of another engine may still work on this one.

    Raises:
        InputError: one may.
    """
    attempt = in_force(folder)
    submission = attempt and attempt.submission
    if attempt is None or submission is None or submission.engine == engine or attempt.has_ended:
        return
    raise InputError(
        f"{folder}: was submitted to {submission.engine} (job {attempt.native or submission.name}); resume with "
        f"--engine {submission.engine}, or end it with `explore cancel`"
    )


def lost_to(folder: Path, kind: Loss) -> int:
    """Number of attempts of a job that were lost in some way."""
    return sum((found := _read(path)) is not None and found.get("kind") == kind for path in folder.glob(f"a*/{_LOSS}"))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); remove its folder") from None
    return found if isinstance(found, dict) else None


def _write(path: Path, content: dict[str, Any]) -> None:
    write_bytes(path, json.dumps(content).encode())
