"""The events of an exploration, one per line of its journal.

`time` and the fields called seconds are all that may differ between two explorations with the same seed.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from metabolismgraph.explore.proposal import IterationReading, Proposal, StrategyFile, Submission

Metrics = dict[str, float | int | str | None]
Changes = dict[str, Any]
Primary = Literal["avg_slope_ratio", "validation"]
ScoreState = Literal["scored", "negative", "nan", "failed"]
Kind = Literal["proposal", "reading", "submission"]


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")

    time: str = Field("", description="UTC, set when it is written")


class Opened(_Event):
    """An exploration begins.

    Attributes:
        name: of the configuration; the views are called after it.
        config: the whole configuration that iterations change.
        oracle: whether the primary metric uses the truth.
        proposer: who proposes.
        version: of this package.
        data: where base run and data come from, in words.
    """

    event: Literal["opened"] = "opened"
    format: Literal[1] = 1
    name: str
    config: dict[str, Any]
    primary: Primary
    oracle: bool
    proposer: str
    version: str
    data: str


class Answered(_Event):
    """A proposer was asked.

    Attributes:
        iteration: first that the answer is about; for a submission, first of the block.
        attempt: from 0.
        answer: what came back, word for word; None where nothing did.
        error: why nothing came back.
        cost: in US dollars, as far as known.
    """

    event: Literal["answered"] = "answered"
    kind: Kind
    iteration: int
    attempt: int
    by: str
    answer: str | None
    error: str | None
    input_tokens: int
    output_tokens: int
    cost: float
    seconds: float


class Refused(_Event):
    """An answer was not accepted, and why."""

    event: Literal["refused"] = "refused"
    kind: Kind
    iteration: int
    attempt: int
    by: str
    reason: str


class Proposed(_Event):
    """What an iteration is going to run.

    Attributes:
        slot: where, from 0.
        node: id of configuration and code: the first iteration that ran them.
        parent: id of the node that it comes from; None: the root of the block.
        changes: everything in which the configuration differs from the opened one, by dotted key, seed apart.
        seed: training.seed.
        code: digest of package version and strategy files that the configuration names.
        files: those strategy files, name -> sha256 of the source.
        by: who proposed it; note: why that was not who should have.
    """

    event: Literal["proposed"] = "proposed"
    iteration: int
    slot: int
    time_step: int
    node: int
    parent: int | None
    changes: Changes
    seed: int
    code: str
    files: dict[str, str] = {}
    proposal: Proposal
    by: str
    note: str = ""


class Started(_Event):
    """An iteration was handed to a slot."""

    event: Literal["started"] = "started"
    iteration: int
    folder: str


class Finished(_Event):
    """An iteration ended with metrics."""

    event: Literal["finished"] = "finished"
    iteration: int
    metrics: Metrics
    seconds: float


class Failed(_Event):
    """An iteration ended without metrics, and why."""

    event: Literal["failed"] = "failed"
    iteration: int
    reason: str
    seconds: float


class Scored(_Event):
    """The verdict on an iteration.

    Attributes:
        reward: in [0, 1]; 0 for every state but `scored`, save that a type of negative ratio counts 0 by itself.
        parts: of every type, or of the validation.
        classification: as in the published requirement, from the average.
    """

    event: Literal["scored"] = "scored"
    iteration: int
    state: ScoreState
    reward: float
    parts: tuple[float, ...]
    classification: Literal["converged", "partial", "failed"]


class Remembered(_Event):
    """A batch was read, and the working memory rewritten.

    Attributes:
        iteration: the last of the batch.
    """

    event: Literal["remembered"] = "remembered"
    iteration: int
    readings: tuple[IterationReading, ...]
    memory: str
    by: str
    note: str = ""


class Reviewed(_Event):
    """A block boundary was passed.

    Attributes:
        block: that begins, from 1.
        iteration: its first.
        changes: configuration of its root, as differences from the opened one.
        rolled_back: strategies that did not train: name -> digest of the version in force again; None: none is.
        landed: digest of the strategy file that was accepted; None: none was.
        reasons: why the file was refused.
    """

    event: Literal["reviewed"] = "reviewed"
    block: int
    iteration: int
    changes: Changes
    submission: Submission
    rolled_back: dict[str, str | None] = {}
    landed: str | None
    declaration: dict[str, Any] | None = None
    reasons: tuple[str, ...]
    by: str
    note: str = ""

    @property
    def file(self) -> StrategyFile | None:
        """The strategy file that was submitted."""
        return self.submission.file


class Imported(_Event):
    """An iteration of a log in the published format.

    Attributes:
        next_parent: of its `Next:` line; 0 where that says root or nothing.
        fields: every other line of the entry, by its label.
    """

    event: Literal["imported"] = "imported"
    iteration: int
    status: str
    node: int
    parent: int | None
    next_parent: int | None
    metrics: Metrics
    fields: dict[str, str]


Event = Annotated[
    Opened | Answered | Refused | Proposed | Started | Finished | Failed | Scored | Remembered | Reviewed | Imported,
    Field(discriminator="event"),
]
EVENT: TypeAdapter[Event] = TypeAdapter(Event)
