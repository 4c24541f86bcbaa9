"""The events of an exploration, one per line of its journal.

Two explorations with the same seed may differ only in `time` and in the fields for seconds.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from metabolismgraph.explore.engines.base import Cause
from metabolismgraph.explore.proposal import IterationReading, Mutation, Proposal, StrategyFile, Submission

Metrics = dict[str, float | int | str | None]
Changes = dict[str, Any]
Primary = Literal["avg_slope_ratio", "validation"]
ScoreState = Literal["scored", "negative", "nan", "failed", "lost"]
Kind = Literal["proposal", "reading", "submission"]


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")

    time: str = Field("", description="UTC, set when the event is written")


class Opened(_Event):
    """An exploration begins.

    Attributes:
        name: of the configuration; prefix of the file names of the views.
        config: the whole configuration that iterations change.
        oracle: whether the primary metric uses the truth.
        proposer: name of the proposer.
        version: of this package.
        data: description of the base run and its data.
        metric: of an imported log, the metric that is its reward; otherwise the reward follows from `primary`.
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
    metric: str | None = None


class Answered(_Event):
    """A proposer answered, or failed to answer.

    Attributes:
        iteration: the first iteration that the answer concerns; for a submission, the first of the block.
        attempt: from 0.
        answer: word for word; None without an answer.
        error: why there is no answer.
        cost: in US dollars, as far as known.
        invalid: earlier answers, word for word, which did not fit the schema and were sent back at once.
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
    invalid: tuple[str, ...] = ()


class Refused(_Event):
    """An answer was not accepted, with the reason."""

    event: Literal["refused"] = "refused"
    kind: Kind
    iteration: int
    attempt: int
    by: str
    reason: str


class Proposed(_Event):
    """The configuration of an iteration.

    Attributes:
        slot: from 0.
        node: id of configuration and code: the first iteration that ran them.
        parent: id of the parent node; None: the root of the block.
        changes: all differences from the opened configuration but the seed, by dotted key.
        settings: all settings of the search space with an effect on the run, by dotted key; strategies by name, those
            of the default included. Equal settings and code are one node.
        control: the settings of the parent's configuration at the same rollout length; empty without mutations.
        mutations: differences from the parent, the rollout length included where the slot changes it.
        strategy: what trains, by number and name.
        seed: training.seed.
        code: digest of the package version and the strategy files in the configuration.
        files: those strategy files, name -> sha256 of the source.
        by: name of the proposer; note: why the rules stood in for it.
    """

    event: Literal["proposed"] = "proposed"
    iteration: int
    slot: int
    time_step: int
    node: int
    parent: int | None
    changes: Changes
    settings: Changes = {}
    control: Changes = {}
    seed: int
    code: str
    files: dict[str, str] = {}
    proposal: Proposal
    mutations: tuple[Mutation, ...] = ()
    strategy: str = ""
    by: str
    note: str = ""


class Started(_Event):
    """The job of an iteration was submitted."""

    event: Literal["started"] = "started"
    iteration: int
    folder: str


class Finished(_Event):
    """An iteration ended with metrics."""

    event: Literal["finished"] = "finished"
    iteration: int
    metrics: Metrics
    seconds: float


class Lost(_Event):
    """The run of an iteration was lost with its machine, disk or time; the iteration is run again."""

    event: Literal["lost"] = "lost"
    iteration: int
    reason: str
    seconds: float


class Failed(_Event):
    """An iteration ended without metrics, with the reason.

    Attributes:
        cause: `idea`, the configuration or its strategy failed, and its reward is zero; `machine`, the run was lost
            again and again, and says nothing about the configuration.
    """

    event: Literal["failed"] = "failed"
    iteration: int
    reason: str
    seconds: float
    cause: Cause = "idea"


class Scored(_Event):
    """The verdict on an iteration.

    Attributes:
        state: `failed`, the idea failed; `lost`, the machine did: the run has no reward and is counted nowhere.
        reward: in [0, 1]; 0 for every state but `scored`. Within `scored`, a type of negative ratio contributes 0.
        parts: rewards of the types, or of the validation.
        classification: of the primary metric, with the bounds of the published design.
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
        block: the next block, from 1.
        iteration: its first iteration.
        changes: configuration of its root, as differences from the opened one.
        rolled_back: strategies whose trainings failed: name -> digest of the restored version; None without one.
        landed: digest of the accepted strategy file; None without one.
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
        next_parent: parent in its `Next:` line; 0 for root or an empty line.
        fields: all other lines of the entry, by label.
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
    Opened
    | Answered
    | Refused
    | Proposed
    | Started
    | Lost
    | Finished
    | Failed
    | Scored
    | Remembered
    | Reviewed
    | Imported,
    Field(discriminator="event"),
]
EVENT: TypeAdapter[Event] = TypeAdapter(Event)
