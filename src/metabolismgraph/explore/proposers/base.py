"""What every proposer does: read-only state in, an answer out."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Generic, TypeVar

from metabolismgraph.explore.proposal import Proposal, Reading, Slot, Submission
from metabolismgraph.explore.state import State

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Exchange:
    """What was said between us and a program that is not ours.

    Attributes:
        answer: word for word; None where nothing came.
        error: why nothing came.
        cost: in US dollars, as far as known.
    """

    answer: str | None
    error: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Answer(Generic[T]):
    """What a proposer said.

    Attributes:
        exchange: how it came about; None where nobody else was asked.
    """

    value: T
    exchange: Exchange | None = None


class InvalidAnswerError(Exception):
    """An answer came that does not fit its schema; to be asked for again, with the reason."""

    def __init__(self, reason: str, exchange: Exchange):
        super().__init__(reason)
        self.exchange = exchange


class UnavailableError(Exception):
    """No answer came, and asking again now is of no use."""

    def __init__(self, reason: str, exchange: Exchange):
        super().__init__(reason)
        self.exchange = exchange


class Proposer(abc.ABC):
    """Decides what an exploration does next.

    The three methods get the state, which they cannot change, and the reasons for which earlier answers to the same
    question were refused. They may raise `InvalidAnswerError` and `UnavailableError`; nothing else.
    """

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What it is called in the journal."""

    @abc.abstractmethod
    def propose(self, state: State, iteration: int, slot: Slot, refusals: Sequence[str]) -> Answer[Proposal]:
        """What iteration number `iteration`, in `slot`, is to run."""

    @abc.abstractmethod
    def read(self, state: State, batch: Sequence[int], refusals: Sequence[str]) -> Answer[Reading]:
        """What the iterations of a finished batch taught, and the working memory with that in it."""

    @abc.abstractmethod
    def review(self, state: State, block: int, refusals: Sequence[str]) -> Answer[Submission]:
        """What is to change before block number `block` (from 1) begins."""
