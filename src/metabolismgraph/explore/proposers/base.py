"""The interface of proposers: from a read-only state to an answer."""

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
    """An exchange with an external program.

    Attributes:
        answer: word for word; None without an answer.
        error: why there is no answer.
        invalid: earlier answers, word for word, which did not fit the schema and were sent back at once.
        input_tokens, output_tokens, cost, seconds: of all answers; cost in US dollars, as far as known.
    """

    answer: str | None
    error: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    seconds: float = 0.0
    invalid: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Answer(Generic[T]):
    """The answer of a proposer.

    Attributes:
        exchange: with an external program; None without one.
    """

    value: T
    exchange: Exchange | None = None


class ExchangeError(Exception):
    """An exchange without a valid answer."""

    def __init__(self, reason: str, exchange: Exchange):
        super().__init__(reason)
        self.exchange = exchange


class InvalidAnswerError(ExchangeError):
    """The answer does not fit its schema; to be requested again, with the reason."""


class UnavailableError(ExchangeError):
    """There was no answer, and another attempt now is of no use."""


class Proposer(abc.ABC):
    """Decides on the next step of an exploration.

    The three methods get the state, which they cannot change, and the reasons for refusals of earlier answers to the
    same question. They may raise `InvalidAnswerError` and `UnavailableError` only.

    Attributes:
        name: in the journal.
        ends: iterations in the order in which their ends are to be recorded, with asynchronous batches; empty: as they
            end.
        iterations: total number at the end of the exploration, for proposers that plan ahead; None if it is not known.
        takes_files: whether the exploration takes strategy files on this machine.
    """

    name: str
    ends: Sequence[int] = ()
    iterations: int | None = None
    takes_files: bool = True

    @abc.abstractmethod
    def propose(self, state: State, iteration: int, slot: Slot, refusals: Sequence[str]) -> Answer[Proposal]:
        """Propose iteration number `iteration`, in `slot`."""

    @abc.abstractmethod
    def read(self, state: State, batch: Sequence[int], refusals: Sequence[str]) -> Answer[Reading]:
        """Read the iterations of a finished batch, and rewrite the working memory."""

    @abc.abstractmethod
    def review(self, state: State, block: int, refusals: Sequence[str]) -> Answer[Submission]:
        """Submit changes before block number `block` (from 1) begins."""
