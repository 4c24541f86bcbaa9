"""Answers of proposers: a proposal for one slot, a reading of finished iterations, a strategy file for review.

Answers of language models and other programs are validated against these schemas; the prompt shows them the
descriptions of the fields.
"""

from __future__ import annotations

import difflib
import hashlib
from functools import partial
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from metabolismgraph.text import one_line, printable

MEMORY_LINES = 300  # at most, in the working memory
_LINE = 500  # characters at most in a line that a proposer writes


def _few_lines(text: str) -> str:
    if text.count("\n") > MEMORY_LINES:
        raise ValueError(f"has {text.count(chr(10))} lines, expected at most {MEMORY_LINES}; shorten it")
    return text


# With line breaks, an answer could add lines to the log.
Line = Annotated[str, AfterValidator(partial(one_line, limit=_LINE))]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Mutation(_Answer):
    """One change of the configuration."""

    param: Line = Field(description="configuration key, such as training.batch_size, lr_node_homeo or strategies")
    old: Any = Field(description="its value in the parent")
    new: Any = Field(description="its new value")

    def __str__(self) -> str:
        return f"{self.param}: {shown(self.old)} -> {shown(self.new)}"


class Proposal(_Answer):
    """The next configuration of one slot."""

    parent: int | None = Field(description="id of the node whose configuration is changed; null: root")
    mode: Line = Field(description="move of the table of moves; replicate: the parent with another seed")
    mutations: tuple[Mutation, ...] = Field((), description="changes of the parent's configuration; none to replicate")
    strategy: Line = Field(
        "", description="strategies that train, by number or name, or hyperparameter-only; empty: as the mutations say"
    )
    hypothesis: Line = Field(description="what this should show, in one line")


class IterationReading(_Answer):
    """The reading of the results of one iteration."""

    iteration: int
    visual: Line = Field(
        description="MLP_node=active|inactive: slopes seen, Embeddings=separated|clustered|collapsed: clusters seen"
    )
    observation: Line = Field(description="what the iteration teaches, in one line")


class Reading(_Answer):
    """The readings of a batch, and the rewritten working memory."""

    iterations: tuple[IterationReading, ...] = Field(description="one for every iteration of the batch")
    memory: Annotated[str, AfterValidator(_few_lines)] = Field(
        description=f"the whole working memory, markdown, at most {MEMORY_LINES} lines"
    )


class StrategyFile(_Answer):
    """A new or changed strategy, as the source of a Python file."""

    name: Line = Field(
        description="name of the strategy, as training.strategies will name it", pattern=r"^[a-z][a-z0-9_]{1,40}$"
    )
    source: str = Field(description="the whole file: imports and one subclass of Strategy", max_length=20_000)
    rationale: Line = Field(description="why it should work")
    reference: Line = Field(description="the paper that it follows, or the number of a strategy of the list")

    @property
    def digest(self) -> str:
        """SHA-256 digest of the source."""
        return hashlib.sha256(self.source.encode()).hexdigest()


def difference(former: StrategyFile | None, file: StrategyFile | None, names: tuple[str, str] = ("", "")) -> str:
    """The difference of two versions of a strategy file, in the unified format; None stands for an empty file.

    Args:
        names: of the two sides, before the names of the files.
    """
    old, new = (printable(each.source, "?").splitlines() if each else [] for each in (former, file))
    sides = zip(names, (former, file), strict=True)
    before, after = (f"{side} {each.name}.py".lstrip() if each else "/dev/null" for side, each in sides)
    return "\n".join(difflib.unified_diff(old, new, before, after, lineterm=""))


class Submission(_Answer):
    """Changes between two blocks."""

    start: tuple[Mutation, ...] = Field(
        (), description="changes of the configuration that the next block starts from (its root)"
    )
    file: StrategyFile | None = Field(None, description="a strategy file for review; null: no code")
    rationale: Line = Field(description="why, in one line")
    reference: Line = Field("", description="literature behind it")


class Slot(NamedTuple):
    """A place for one iteration of a batch.

    Attributes:
        number: from 0.
        time_step: training.homeostasis_time_step of new nodes in this slot.
    """

    number: int
    time_step: int


def shown(value: object) -> str:
    """A value on one line, in the format of a Mutation line."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(shown(entry) for entry in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {shown(entry)}" for key, entry in value.items()) + "}"
    return "null" if value is None else one_line(value)
