"""The folder of an exploration: its layout, and the description of an iteration for its job."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from metabolismgraph.errors import InputError
from metabolismgraph.explore.engines.attempts import SUBMISSION, place_of, retire
from metabolismgraph.explore.engines.job import JOB, LOCK
from metabolismgraph.explore.engines.outcome import OUTCOME, START, read_start
from metabolismgraph.explore.events import Proposed
from metabolismgraph.explore.inbox import INBOX, Inbox
from metabolismgraph.explore.journal import JOURNAL, Journal
from metabolismgraph.explore.planning import configuration, node_digest
from metabolismgraph.explore.state import State
from metabolismgraph.files import is_locked, write_bytes
from metabolismgraph.sandbox import landlock


class Begin(NamedTuple):
    """The begin of a run.

    Attributes:
        started: UTC; empty if it has not begun.
        waited: seconds since its submission.
        queued: the same for a job of a cluster.
    """

    started: str
    waited: float = 0.0
    queued: float = 0.0


class ExplorationFolder:
    """Layout: `journal.jsonl`, its views, `base/` (a run with data and Phase 1, which all iterations share),
    `bases/` (the same for replicates with other data, see `exploration.replicates_vary`), `runs/NNNN/` (one per
    iteration), `strategies/` (accepted strategy files, under git), `trials/` (results of the trials of these files with
    the settings of runs), `cache/` (compiled programs), `inbox/` (messages of researchers that the explorer has not
    taken yet).

    Args:
        unsafe_strategies: as exploration.unsafe_strategies, whatever the exploration began with.
    """

    def __init__(self, path: Path, *, unsafe_strategies: bool = False):
        self.path, self._unsafe = path, unsafe_strategies
        self.journal = Journal(path / JOURNAL)
        self.inbox = Inbox(path / INBOX)

    @property
    def base(self) -> Path:
        return self.path / "base"

    @property
    def strategies(self) -> Path:
        return self.path / "strategies"

    def job(self, iteration: int) -> Path:
        """The folder of an iteration's job; the run folder is `run` in it."""
        return self.path / "runs" / f"{iteration:04d}"

    def takes_files(self, state: State) -> bool:
        """Whether strategy files are executed here."""
        return self._allows_unsafe(state) or landlock.available()

    def _allows_unsafe(self, state: State) -> bool:
        return self._unsafe or state.settings.unsafe_strategies

    def tidy(self) -> None:
        """Remove views that a crash left incomplete."""
        for part in self.path.glob(".*.part"):
            part.unlink(missing_ok=True)

    def discard_outcome(self, iteration: int) -> None:
        """Remove the outcome of a run that was lost; the next run of the iteration continues from its checkpoints."""
        with contextlib.suppress(OSError):  # then the next run reports the same
            retire(self.job(iteration))
            (self.job(iteration) / OUTCOME).unlink()

    def begin(self, iteration: int) -> Begin:
        """When the last run of an iteration began, and how long it had waited for a worker, or in a queue."""
        place = place_of(self.job(iteration))
        started = read_start(place)
        if started is None:
            return Begin("")
        on_cluster = place != self.job(iteration)
        since = (place / (SUBMISSION if on_cluster else JOB)).stat().st_mtime
        waited = max(0.0, round(started.timestamp() - since, 3))
        return Begin(started.isoformat(timespec="milliseconds"), **{"queued" if on_cluster else "waited": waited})

    def running(self, state: State) -> dict[int, str]:
        """The iterations whose process runs now, each with the time of its start (UTC).

        Locks do not tell of other computers: a job of a cluster runs from its start to its outcome.
        """
        submitted = [i.number for i in state.iterations if i.started is not None and i.outcome is None]
        return {i: self.begin(i).started for i in submitted if _is_at_work(place_of(self.job(i)), self.job(i))}

    def describe(self, proposed: Proposed, state: State, folder: Path | None = None) -> None:
        """Write the description of the job of an iteration.

        Args:
            folder: of the job; None: that of the iteration.

        Raises:
            OSError: it cannot be written.
            InputError: it has strategy files, which are not executed here.
        """
        if proposed.files and not self.takes_files(state):
            raise InputError(f"iteration {proposed.iteration}: {landlock.MISSING}")
        folder = folder or self.job(proposed.iteration)
        sources = {r.landed: r.file.source for r in state.reviews if r.file and r.landed}
        given = {"training.seed": proposed.seed, **proposed.variation}
        # A run does not need the programs of the explorer, whose arguments may be private.
        private: dict[str, Any] = {"exploration.command": (), "exploration.hooks": {}}
        config = configuration(state, proposed.changes).replace({**given, **private})
        content = {
            "config": config.model_dump(mode="json"),
            "base": os.path.relpath(self.base, folder),
            "variation": dict(proposed.variation),
            "strategies": {name: sources[digest] for name, digest in proposed.files.items()},
            "trial": os.path.relpath(self.path / "trials" / f"{node_digest(proposed)}.json", folder),
            "unsafe_strategies": self._allows_unsafe(state),
            # Strategy files may write to this folder, so that each version of the code has its own.
            "cache": os.path.relpath(self.path / "cache" / proposed.code, folder),
            "truth": state.opened.oracle,
            "trains": state.space.trains,
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / START).unlink(missing_ok=True)  # of a run that was lost, or killed with the explorer
        write_bytes(folder / JOB, json.dumps(content, indent=1).encode())


def _is_at_work(place: Path, folder: Path) -> bool:
    """Whether a process works in a place, which is the folder of a job or of an attempt on a cluster."""
    if place == folder:
        return is_locked(place / LOCK)
    return (place / START).exists() and not (place / OUTCOME).exists()
