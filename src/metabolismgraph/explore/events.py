"""The events of an exploration, one per line of its journal.

Two explorations with the same seed and synchronous batches may differ only in fields for times and seconds.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter

from metabolismgraph.explore.engines.base import Cause, Loss
from metabolismgraph.explore.proposal import IterationReading, Mutation, Proposal, StrategyFile, Submission

Metrics = dict[str, float | int | str | None]
Changes = dict[str, Any]
ScoreState = Literal["scored", "negative", "nan", "failed", "lost"]
Kind = Literal["proposal", "reading", "submission"]


def _check_time(text: str) -> str:
    if text:
        datetime.fromisoformat(text)
    return text


Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Time = Annotated[str, AfterValidator(_check_time)]  # ISO 8601, UTC; empty where it is not known


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")

    time: Time = Field("", description="set when the event is written")


class Opened(_Event):
    """An exploration begins.

    Attributes:
        name: of the configuration; prefix of the file names of the views.
        config: the whole configuration that iterations change.
        primary: reward of the search space by which runs are judged.
        oracle: whether the primary metric uses the truth.
        proposer: name of the proposer.
        version: of this package.
        data: description of the base run and its data.
        space: content of the file of the search space; None: that of Phase 2.
        metric: of an imported log, the metric that is its reward; otherwise the reward follows from `primary`.
        price: of a million input and output tokens of the language model when it began, in US dollars, as far as known.
    """

    event: Literal["opened"] = "opened"
    format: Literal[1] = 1
    name: str
    config: dict[str, Any]
    primary: str
    oracle: bool
    proposer: str
    version: str
    data: str
    space: dict[str, Any] | None = None
    metric: str | None = None
    price: tuple[float, float] | None = None


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
    cost: Amount
    seconds: Amount
    invalid: tuple[str, ...] = ()


class Refused(_Event):
    """An answer, or the proposal of a researcher, was not accepted, with the reason.

    Attributes:
        suggestion: id of the researcher's suggestion; None for an answer of a proposer.
    """

    event: Literal["refused"] = "refused"
    kind: Kind
    iteration: int
    attempt: int
    by: str
    reason: str
    suggestion: str | None = None


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
        variation: other settings that differ between replicates, see `exploration.replicates_vary`.
        code: digest of the package version and the strategy files in the configuration.
        files: those strategy files, name -> sha256 of the source.
        by: name of the proposer; note: why the rules stood in for it.
        suggestion: id of the researcher's suggestion that the iteration follows.
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
    variation: dict[str, int] = {}
    code: Annotated[str, Field(pattern=r"^\w*$")]  # a name of a folder
    files: dict[str, str] = {}
    proposal: Proposal
    mutations: tuple[Mutation, ...] = ()
    strategy: str = ""
    by: str
    note: str = ""
    suggestion: str | None = None


class Started(_Event):
    """The job of an iteration was submitted. Its process starts when a worker is free."""

    event: Literal["started"] = "started"
    iteration: int
    folder: str


class _End(_Event):
    """The end of a run.

    Attributes:
        seconds: of the run.
        started: when its process began; empty if it did not, or in journals of earlier versions.
        waited: seconds between the submission of the job and `started`.
        queued: the same in the queue of a cluster, which no budget counts.
    """

    iteration: int
    seconds: Amount
    started: Time = ""
    waited: Amount = 0.0
    queued: Amount = 0.0


class Finished(_End):
    """An iteration ended with metrics."""

    event: Literal["finished"] = "finished"
    metrics: Metrics


class Lost(_End):
    """The run of an iteration was lost with its machine, disk or time; the iteration is run again.

    Attributes:
        kind: how a cluster lost it; empty elsewhere.
    """

    event: Literal["lost"] = "lost"
    reason: str
    kind: Loss = ""


class Failed(_End):
    """An iteration ended without metrics, with the reason.

    Attributes:
        cause: `idea`, the configuration or its strategy failed, and its reward is zero; `machine`, the run was lost
            again and again, and says nothing about the configuration.
    """

    event: Literal["failed"] = "failed"
    reason: str
    cause: Cause = "idea"
    kind: Loss = ""


class Scored(_Event):
    """The verdict on an iteration.

    Attributes:
        state: `failed`, the idea failed; `lost`, the machine did: the run has no reward and is counted nowhere.
        reward: in [0, 1]; 0 for every state but `scored`. Within `scored`, a type of negative ratio contributes 0.
        parts: rewards of the types, or of the validation.
        classification: converged, partial or failed by the search space, for some with a suffix, such as partial-k.
    """

    event: Literal["scored"] = "scored"
    iteration: int
    state: ScoreState
    reward: float
    parts: tuple[float, ...]
    classification: str

    @property
    def status(self) -> str:
        """The class without its suffix: converged, partial or failed."""
        return self.classification.partition("-")[0]


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


class Validated(_Event):
    """A run of a node with a seed that the search has not seen; it does not count in the tree.

    Attributes:
        number: of the run among those of the node, from 0.
        seed, variation: as in `Proposed`.
        metrics: empty for a run that failed, with the reason.
        state, reward, classification: as in `Scored`.
    """

    event: Literal["validated"] = "validated"
    node: int
    number: int
    seed: int
    variation: dict[str, int] = {}
    metrics: Metrics
    reason: str | None
    seconds: Amount
    state: ScoreState
    reward: float
    classification: str


class Reviewed(_Event):
    """A block boundary was passed.

    Attributes:
        block: the next block, from 1.
        iteration: its first iteration.
        changes: configuration of its root, as differences from the opened one.
        rolled_back: strategies whose trainings failed: name -> digest of the restored version; None without one.
        landed: digest of the accepted strategy file; None without one.
        held: digest of a file that passed the review, and waits for the approval of a researcher.
        reasons: why the file was refused.
    """

    event: Literal["reviewed"] = "reviewed"
    block: int
    iteration: int
    changes: Changes
    submission: Submission
    rolled_back: dict[str, str | None] = {}
    landed: str | None
    held: str | None = None
    declaration: dict[str, Any] | None = None
    reasons: tuple[str, ...]
    by: str
    note: str = ""

    @property
    def file(self) -> StrategyFile | None:
        """The strategy file that was submitted."""
        return self.submission.file

    @property
    def verdict(self) -> str:
        """On the strategy file."""
        return "accepted" if self.landed else "waits for the approval of a researcher" if self.held else "refused"


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


class Suggested(_Event):
    """A researcher proposes an iteration, or leaves a note for the next prompts.

    Attributes:
        id: of the message, here and below.
        by: name of the researcher, here and below.
        proposal: for the next iteration that is planned; None for a note.
        text: the note; empty with a proposal.
    """

    event: Literal["suggested"] = "suggested"
    id: str
    by: str
    proposal: Proposal | None = None
    text: str = ""


class Paused(_Event):
    """A researcher stops new runs, or lets the exploration continue.

    Attributes:
        on: whether it is paused from now on.
        end: whether the explorer ends instead of waiting.
    """

    event: Literal["paused"] = "paused"
    id: str
    by: str
    on: bool
    end: bool = False


class Approved(_Event):
    """A researcher decides on a strategy file that passed the review.

    Attributes:
        name, digest: of the strategy, and of its source.
        accepted: whether it may be used from the next block on.
        reason: of a refusal.
    """

    event: Literal["approved"] = "approved"
    id: str
    by: str
    name: str
    digest: str
    accepted: bool
    reason: str = ""


class Warned(_Event):
    """Something beside the exploration failed: a hook, or a message of a researcher. The exploration continues."""

    event: Literal["warned"] = "warned"
    about: str
    reason: str


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
    | Validated
    | Reviewed
    | Imported
    | Suggested
    | Paused
    | Approved
    | Warned,
    Field(discriminator="event"),
]
EVENT: TypeAdapter[Event] = TypeAdapter(Event)
