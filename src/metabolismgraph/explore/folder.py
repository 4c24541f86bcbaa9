"""The folder of an exploration: its layout, and the description of an iteration for its job."""

from __future__ import annotations

import json
import os
from pathlib import Path

from metabolismgraph.explore.engines.outcome import OUTCOME
from metabolismgraph.explore.events import Proposed
from metabolismgraph.explore.inbox import INBOX, Inbox
from metabolismgraph.explore.journal import JOURNAL, Journal
from metabolismgraph.explore.search_space import configuration
from metabolismgraph.explore.state import State
from metabolismgraph.files import write_bytes


class ExplorationFolder:
    """Layout: `journal.jsonl`, its views, `base/` (a run with data and Phase 1, which all iterations share),
    `runs/NNNN/` (one per iteration), `strategies/` (accepted strategy files, under git), `cache/` (compiled programs),
    `inbox/` (messages of researchers that the explorer has not taken yet).
    """

    def __init__(self, path: Path):
        self.path = path
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

    def tidy(self) -> None:
        """Remove views that a crash left incomplete."""
        for part in self.path.glob(".*.part"):
            part.unlink(missing_ok=True)

    def discard_outcome(self, iteration: int) -> None:
        """Remove the outcome of a run that was lost; the next run of the iteration continues from its checkpoints."""
        (self.job(iteration) / OUTCOME).unlink(missing_ok=True)

    def describe(self, proposed: Proposed, state: State, folder: Path | None = None) -> None:
        """Write the description of the job of an iteration.

        Args:
            folder: of the job; None: that of the iteration.

        Raises:
            OSError: it cannot be written.
        """
        folder = folder or self.job(proposed.iteration)
        sources = {r.landed: r.file.source for r in state.reviews if r.file and r.landed}
        config = configuration(state, proposed.changes).replace({"training.seed": proposed.seed})
        content = {
            "config": config.model_dump(mode="json"),
            "base": os.path.relpath(self.base, folder),
            "strategies": {name: sources[digest] for name, digest in proposed.files.items()},
            # Strategy files may write to this folder, so that each version of the code has its own.
            "cache": os.path.relpath(self.path / "cache" / proposed.code, folder),
            "truth": state.opened.oracle,
        }
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / "job.json", json.dumps(content, indent=1).encode())
