"""Answers from a journal: repeats an exploration without external programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from metabolismgraph.config import Exploration
from metabolismgraph.errors import InputError
from metabolismgraph.explore.events import (
    Answered,
    Event,
    Failed,
    Finished,
    Kind,
    Opened,
    Proposed,
    Remembered,
    Reviewed,
)
from metabolismgraph.explore.journal import JOURNAL, Journal
from metabolismgraph.explore.proposal import Proposal, Reading, Slot, Submission
from metabolismgraph.explore.proposers.asking import parsed_proposal, parsed_reading, parsed_submission
from metabolismgraph.explore.proposers.base import Answer, Exchange, Proposer, UnavailableError
from metabolismgraph.explore.state import State

T = TypeVar("T")


class ReplayProposer(Proposer):
    """Repeats the recorded answer to every attempt at every question, and the order in which iterations ended.

    Answers of external programs are parsed again; other answers are taken from the record. Tokens and cost are those of
    the record.

    Attributes:
        name: of the proposer of the latest answer in the record.

    Args:
        events: the record. If a question was sent twice, after a crash in between, the later answer is used.
    """

    def __init__(self, events: Sequence[Event]):
        self._answered = {(e.kind, e.iteration, e.attempt): e for e in events if isinstance(e, Answered)}
        self._proposed = {e.iteration: e for e in events if isinstance(e, Proposed)}
        self._remembered = {e.iteration: e for e in events if isinstance(e, Remembered)}
        self._reviewed = {e.block: e for e in events if isinstance(e, Reviewed)}
        self.ends = tuple(e.iteration for e in events if isinstance(e, (Finished, Failed)))
        opened = next((e for e in events if isinstance(e, Opened)), None)
        self.name = opened.proposer if opened is not None else "replay"

    def propose(self, state: State, iteration: int, slot: Slot, refusals: Sequence[str]) -> Answer[Proposal]:
        del state, slot
        event = self._proposed.get(iteration)
        value = None if event is None else (event.proposal, event.by)
        return self._answer("proposal", iteration, refusals, parsed_proposal, value)

    def read(self, state: State, batch: Sequence[int], refusals: Sequence[str]) -> Answer[Reading]:
        del state
        event = self._remembered.get(batch[-1])
        value = None if event is None else (Reading(iterations=event.readings, memory=event.memory), event.by)
        return self._answer("reading", batch[0], refusals, lambda exchange: parsed_reading(exchange, batch), value)

    def review(self, state: State, block: int, refusals: Sequence[str]) -> Answer[Submission]:
        event = self._reviewed.get(block)
        value = None if event is None else (event.submission, event.by)
        return self._answer("submission", state.first_of(block), refusals, parsed_submission, value)

    def _answer(
        self,
        kind: Kind,
        iteration: int,
        refusals: Sequence[str],
        parse: Callable[[Exchange], T],
        value: tuple[T, str] | None,
    ) -> Answer[T]:
        event = self._answered.get((kind, iteration, len(refusals)))
        if event is None:
            if value is None:
                reason = f"the record holds no {kind} for iteration {iteration}, attempt {len(refusals) + 1}"
                raise UnavailableError(reason, Exchange(None, reason))
            self.name = value[1]
            return Answer(value[0])
        self.name = event.by
        exchange = Exchange(
            event.answer, event.error, event.input_tokens, event.output_tokens, event.cost, invalid=event.invalid
        )
        if event.answer is None:
            raise UnavailableError(event.error or "no answer", exchange)
        return Answer(parse(exchange), exchange)


def make(settings: Exploration, folder: Path, record: Path | None) -> ReplayProposer:
    """Make the proposer for the registry.

    Raises:
        InputError: no exploration is given, or its journal is damaged.
    """
    del settings, folder
    if record is None:
        raise InputError("proposer replay needs --record DIR, the exploration whose answers are repeated")
    return ReplayProposer(Journal(record / JOURNAL).read())
