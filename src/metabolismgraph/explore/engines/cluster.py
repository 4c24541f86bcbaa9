"""Jobs on a cluster, through the commands of its scheduler.

The outcome file of an attempt decides; the scheduler is asked only whether a job still lives, and if not, why. While it
does not answer nothing is known, and nothing is submitted. Jobs go on when the explorer ends, and the next explorer
follows them: by their numbers, or by their names where it died before it could note a number.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import queue
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metabolismgraph.errors import InputError
from metabolismgraph.explore.engines.attempts import (
    ATTEMPT,
    NATIVE,
    Attempt,
    Lost,
    Submission,
    check_not_elsewhere,
    in_force,
    lost_to,
    retire,
)
from metabolismgraph.explore.engines.base import JOB, NO_ROOM, STDOUT, UNFLUSHED, Ended, Engine, Loss, say_nothing
from metabolismgraph.explore.engines.outcome import read_outcome, read_start
from metabolismgraph.files import write_bytes
from metabolismgraph.processes import describe_exit, killed_from_outside, last_line
from metabolismgraph.schedulers import make_scheduler
from metabolismgraph.schedulers.base import Job, RejectedError, Scheduler, Seen, SilentError, ran_out_of_memory
from metabolismgraph.schedulers.settings import ClusterSettings
from metabolismgraph.text import one_line, printable

SCRIPT = "job.sh"
_IN_A_ROW = 5  # jobs lost without an outcome between them, after which nothing more is submitted
_MORE_MEMORY = 1.5  # after every job that had used too much
_PREEMPTIONS = 10
_MORE_MINUTES = 10  # of walltime than slot_minutes, which the job itself watches
_LONGEST_SILENCE = 300.0  # seconds between two questions to a scheduler that does not answer
# Reasons for which a job may wait for ever.
_HOPELESS = ("PartitionConfig", "PartitionTimeLimit", "BadConstraints", "Assoc", "PartitionNodeLimit")


@dataclasses.dataclass
class _Followed:
    """A job that has not ended.

    Attributes:
        native: number at the scheduler; empty if it is not known.
        sought: whether it may have been submitted, and is looked for by its name.
        asked: whether a command for it is under way.
        words: the last ones of the scheduler.
        running, missing, ended: when it was first seen running, not known, or completed [s]; None: never.
    """

    job: int
    attempt: Attempt
    native: str = ""
    sought: bool = False
    asked: bool = False
    words: str = ""
    running: float | None = None
    missing: float | None = None
    ended: float | None = None

    @property
    def is_new(self) -> bool:
        return not (self.native or self.sought or self.asked)


class ClusterEngine(Engine):
    """Jobs of a scheduler, each in a folder for every attempt (`attempts`).

    Args:
        limit: time limit of a job [s], which the job itself watches.
        command: program and arguments before the folder.
        report: called with every line for the user.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        settings: ClusterSettings,
        limit: float,
        command: Sequence[str] = JOB,
        report: Callable[[str], None] = say_nothing,
    ):
        self._scheduler, self._settings, self._limit, self._command = scheduler, settings, limit, tuple(command)
        self._report = report
        usual: tuple[Loss, ...] = ("node", "walltime", "memory", "killed", "vanished", "disk")
        self.budgets: Mapping[Loss, int] = {
            **dict.fromkeys(usual, settings.retries),
            "preempted": max(_PREEMPTIONS, settings.retries),
            "died": min(1, settings.retries),
            "cancelled": 0,
        }
        self._id = secrets.token_hex(4)
        self._jobs: dict[int, _Followed] = {}
        self._ended: list[Ended] = []
        self._answers: queue.SimpleQueue[tuple[Callable[[Any], None], _Followed | None, Any]] = queue.SimpleQueue()
        self._busy = self._closed = self._heard = False  # heard: the last question was answered
        self._lost_in_a_row = 0
        self._next_look = self._next_files = self._next_question = 0.0
        self._silences = 0

    def submit(self, job: int, folder: Path) -> None:
        folder = folder.absolute()  # jobs begin in another one
        check_not_elsewhere(folder, self._scheduler.name)
        attempt = in_force(folder) or Attempt(folder, 1)
        if attempt.loss is not None:
            return self._end(job, attempt.loss)
        submitted = attempt.submission is not None
        native = attempt.native if submitted else ""
        self._jobs[job] = _Followed(job, attempt, native, sought=submitted and not native)
        self._take_outcomes()
        return self._ask_next()

    def wait(self, timeout: float) -> list[Ended]:
        until = time.monotonic() + timeout
        while True:
            now = time.monotonic()
            if now >= self._next_files:
                self._next_files = now + self._settings.poll_seconds
                self._take_outcomes()
            self._ask_next()
            if self._ended or now >= until:
                ended, self._ended = self._ended, []
                return ended
            moment = min(until, self._next_files, self._next_command)
            with contextlib.suppress(queue.Empty):
                self._take_answer(*self._answers.get(timeout=max(0.0, moment - time.monotonic())))

    def cancel(self, job: int) -> None:
        followed = self._jobs.pop(job, None)
        if followed is not None:
            cancel(followed.attempt.folder, self._scheduler)

    def close(self) -> None:
        self._closed = True
        # Some may have ended since the last look.
        if going := sum(not (followed.is_new or followed.attempt.has_ended) for followed in self._jobs.values()):
            self._report(f"jobs that continue on {self._scheduler.name}: {going}; `explore cancel` ends them")
        self._jobs.clear()

    # Questions to the scheduler, one at a time and beside the explorer, which must notice interrupts

    @property
    def _next_command(self) -> float:
        """When something is to be asked next."""
        if self._busy or not self._jobs:
            return math.inf
        waiting = any(f.sought or (f.is_new and self._has_place) for f in self._jobs.values())
        return max(self._next_question, 0.0 if waiting else self._next_look)

    @property
    def _has_place(self) -> bool:
        return sum(not f.is_new for f in self._jobs.values()) < self._settings.max_jobs

    def _ask_next(self) -> None:
        """Ask what is to be asked now: for jobs without a number, then for all others, then for a new one."""
        now = time.monotonic()
        if self._busy or self._closed or now < self._next_question:
            return None
        jobs = self._jobs.values()
        sought = next((f for f in jobs if f.sought), None)
        if sought is not None:
            submission = sought.attempt.submission
            assert submission is not None
            return self._ask(lambda: self._scheduler.find(submission.name), self._found, sought)
        natives = frozenset(f.native for f in jobs if f.native)
        if natives and (now >= self._next_look or not self._heard):
            return self._ask(lambda: self._scheduler.look(natives), self._looked)
        new = next((f for f in jobs if f.is_new), None)
        if new is not None and self._has_place:
            # Only a scheduler that answers gets a job: otherwise nobody could say whether it has arrived.
            return self._submit(new) if self._heard else self._ask(lambda: self._scheduler.find(self._id), _ignore)
        return None

    def _submit(self, followed: _Followed) -> None:
        """Submit a job; what is about to happen is on the disk before.

        Raises:
            InputError: too many jobs were lost.
            OSError: the folder cannot be written.
        """
        if self._lost_in_a_row >= _IN_A_ROW:
            raise InputError(
                f"{self._scheduler.name}: {self._lost_in_a_row} jobs in a row were lost, and none had an outcome; see "
                "`explore show`, or their folders, for the reasons, then `explore resume`, or the same command"
            )
        attempt = followed.attempt
        name = f"mg-{self._id}-{followed.job}-{attempt.number}"
        attempt.prepare(Submission(self._scheduler.name, name, self._scheduler.address))
        script = self._scheduler.script(self._job(attempt, name))
        write_bytes(attempt.path / SCRIPT, script.encode())
        followed.asked = True
        self._ask(lambda: self._scheduler.submit(script), self._submitted, followed)

    def _job(self, attempt: Attempt, name: str) -> Job:
        memory = self._settings.memory_gb * _MORE_MEMORY ** lost_to(attempt.folder, "memory")
        return Job(
            name,
            attempt.path,
            attempt.path / STDOUT,
            self._settings.minutes or math.ceil(self._limit / 60) + _MORE_MINUTES,
            (*self._command, str(attempt.path), f"{self._limit:g}"),
            self._settings.model_copy(update={"memory_gb": memory}),
            guard=f'[ "$(cat ../{ATTEMPT})" = {attempt.number} ] && echo "{self._scheduler.number}" > {NATIVE}',
        )

    def _ask(self, ask: Callable[[], Any], take: Callable[..., None], followed: _Followed | None = None) -> None:
        self._busy = True

        def answer() -> None:
            try:
                found: Any = ask()
            except Exception as error:
                found = error
            self._answers.put((take, followed, found))

        threading.Thread(target=answer, daemon=True).start()

    def _take_answer(self, take: Callable[..., None], followed: _Followed | None, found: Any) -> None:
        """Take an answer of the scheduler, or its silence.

        Raises:
            InputError: it refuses a job, or there is no such scheduler here.
        """
        self._busy = False
        if isinstance(found, SilentError):
            if followed is not None:
                followed.asked, followed.sought = False, True  # it may have been submitted nevertheless
            if not self._silences:
                self._report(f"{self._scheduler.name} does not answer ({found}); nothing is submitted until it does")
            self._silences, self._heard = self._silences + 1, False
            pause = min(self._settings.poll_seconds * 2 ** min(self._silences, 20), _LONGEST_SILENCE)
            self._next_question = time.monotonic() + pause
            return
        if isinstance(found, RejectedError) and followed is not None:
            retire(followed.attempt.folder)  # it was not submitted: the next explorer need not look for it
            self._jobs.pop(followed.job, None)
        if isinstance(found, Exception):
            raise found
        if self._silences:
            self._report(f"{self._scheduler.name} answers again")
        self._silences, self._next_question, self._heard = 0, 0.0, True
        take(*((followed, found) if followed is not None else (found,)))

    def _submitted(self, followed: _Followed, native: str) -> None:
        followed.attempt.note_native(native)
        followed.native, followed.asked = native, False

    def _found(self, followed: _Followed, seen: Sequence[Seen]) -> None:
        """Follow a job that was found by its name; submit one that was not, as another attempt."""
        followed.sought = False
        native = seen[0].native if seen else followed.attempt.native  # which the job writes when it begins
        if native:
            followed.attempt.note_native(native)
            followed.native = native
            if doubles := [double.native for double in seen[1:]]:
                self._ask(lambda: [self._scheduler.cancel(double) for double in doubles], _ignore)
        elif not self._finish_if_ended(followed):
            retire(followed.attempt.folder)
            following = in_force(followed.attempt.folder)
            assert following is not None
            self._jobs[followed.job] = _Followed(followed.job, following)

    # What has become of jobs

    def _take_outcomes(self) -> None:
        """Report the jobs whose outcome is there, whatever the scheduler says."""
        for followed in [f for f in self._jobs.values() if not f.is_new]:
            self._finish_if_ended(followed, even_damaged=False)

    def _finish_if_ended(self, followed: _Followed, *, even_damaged: bool = True) -> bool:
        """Report a job if its outcome is there; returns whether it is.

        Args:
            even_damaged: whether the job has ended, so that a damaged outcome is all that it leaves.
        """
        with contextlib.suppress(OSError):
            list(followed.attempt.path.iterdir())  # renews what a network file system remembers of the folder
        try:
            if read_outcome(followed.attempt.path) is None:
                return False
            self._lost_in_a_row = 0
        except ValueError:
            if not even_damaged:
                return False
            self._lost_in_a_row += 1
        followed.attempt.publish()
        self._jobs.pop(followed.job, None)
        self._ended.append(Ended(followed.job, None, _seconds(followed)))
        return True

    def _looked(self, seen: Mapping[str, Seen]) -> None:
        # From the answer on: a slow scheduler would be asked about its jobs only, and get no new ones.
        self._next_look = time.monotonic() + self._settings.poll_seconds
        for followed in [f for f in self._jobs.values() if f.native]:
            found, submission = seen.get(followed.native), followed.attempt.submission
            # Another name: a scheduler that lost its state gives the same number again.
            ours = found is not None and submission is not None and found.name == submission.name
            self._judge(followed, found if ours else None)

    def _judge(self, followed: _Followed, seen: Seen | None) -> None:
        now = time.monotonic()
        if seen is not None and not seen.has_ended:
            followed.missing = None
            if seen.state == "running":
                followed.running = followed.running or now
            if seen.words != followed.words and any(word in seen.words for word in _HOPELESS):
                self._report(f"job {seen.native} may wait for ever: {seen.words}")
            followed.words = seen.words
            return
        if self._finish_if_ended(followed, even_damaged=seen is not None):
            return
        if seen is None:
            followed.missing = followed.missing or now
            late = now > followed.missing and now - followed.missing >= self._settings.grace_seconds
            if late and not self._finish_if_ended(followed):
                self._lose(followed, "vanished", f"{self._scheduler.name} does not know it any more")
        elif seen.state == "completed":
            followed.ended = followed.ended or now
            if now - followed.ended >= self._settings.grace_seconds:
                self._lose(followed, "vanished", "ended without a result")
        elif _went_wrong_by_itself(seen):
            del self._jobs[followed.job]
            reason = f"{describe_exit(seen.code or 0)} ({self._last_words(followed)})"
            self._ended.append(Ended(followed.job, one_line(reason), _seconds(followed)))
        else:
            self._lose(followed, _kind(seen, followed.attempt.path), seen.words)

    def _lose(self, followed: _Followed, kind: Loss, how: str) -> None:
        reason = one_line(f"{_LOST[kind]}: job {followed.native}, {how} ({self._last_words(followed)})", 300)
        lost = Lost(kind, reason, _seconds(followed))
        followed.attempt.note_loss(lost)
        del self._jobs[followed.job]
        self._lost_in_a_row += 1  # only here: what a former explorer saw does not stop this one
        self._end(followed.job, lost)

    def _end(self, job: int, lost: Lost) -> None:
        self._ended.append(Ended(job, lost.reason, lost.seconds, "machine", lost.kind))

    def _last_words(self, followed: _Followed) -> str:
        return printable(last_line(followed.attempt.path / STDOUT)) or "no message"


_LOST: Mapping[Loss, str] = {
    "node": "its node was lost",
    "preempted": "was preempted",
    "walltime": "reached its walltime",
    "memory": "used too much memory",
    "killed": "was killed",
    "vanished": "vanished",
    "died": "died before it could work",
    "disk": "could not write its result; check the space on the disk",
    "cancelled": "was cancelled from outside",
}


def _ignore(answer: object) -> None:
    """Do nothing with an answer."""
    del answer


def cancel(folder: Path, scheduler: Scheduler) -> list[str]:
    """End what was submitted for a job, and cut it off; returns the numbers of the jobs.

    Raises:
        SilentError: the scheduler does not answer; nothing has changed.
    """
    attempt = in_force(folder)
    submission = attempt and attempt.submission
    if attempt is None or submission is None:
        return []
    natives = [attempt.native] if attempt.native else [seen.native for seen in scheduler.find(submission.name)]
    for native in natives:
        scheduler.cancel(native)
    retire(folder)
    return natives


def alive(runs: Path) -> list[tuple[Path, Submission]]:
    """The folders of jobs that may still wait or run, in a folder of such folders, and what was submitted."""
    found = []
    for folder in sorted(path.parent for path in runs.glob(f"*/{ATTEMPT}")):
        attempt = in_force(folder)
        submission = attempt and attempt.submission
        if attempt is not None and submission is not None and not attempt.has_ended:
            found.append((folder, submission))
    return found


def cancel_all(runs: Path) -> list[str]:
    """End all jobs that may still wait or run, in the folder of the runs of an exploration.

    Raises:
        InputError: a scheduler does not answer.
    """
    ended = []
    for folder, submission in alive(runs):
        try:
            ended += cancel(folder, make_scheduler(submission.engine, submission.address))
        except SilentError as error:
            raise InputError(f"{submission.engine} does not answer ({error}); cancel again later") from None
    return ended


def _kind(seen: Seen, place: Path) -> Loss:
    """How a job that has ended without an outcome was lost."""
    if seen.code in {NO_ROOM, UNFLUSHED}:
        return "disk"
    # A job that was cancelled on its node, and has not begun: its node could not start it, and nobody wanted it to end.
    unbegun = seen.begun is not None and not (seen.begun and read_start(place))
    if seen.state == "failed" or (seen.state == "cancelled" and unbegun):
        return "died"
    if seen.state == "killed":
        with contextlib.suppress(OSError):
            if ran_out_of_memory((place / STDOUT).read_text(errors="replace")):
                return "memory"
        return "killed"
    assert seen.state in {"node", "preempted", "walltime", "memory", "cancelled"}
    return seen.state


def _went_wrong_by_itself(seen: Seen) -> bool:
    """Whether a job ended by a signal of its own, as for processes of this computer."""
    return seen.state == "killed" and seen.code is not None and seen.code < 0 and not killed_from_outside(seen.code)


def _seconds(followed: _Followed) -> float:
    """How long a job is known to have run."""
    if followed.running is None or read_start(followed.attempt.path) is None:
        return 0.0
    return time.monotonic() - followed.running
