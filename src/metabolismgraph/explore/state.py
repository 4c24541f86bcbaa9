"""The state of an exploration after the events of its journal, read-only."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from metabolismgraph.config import Config, Exploration
from metabolismgraph.config.messages import explain
from metabolismgraph.errors import InputError
from metabolismgraph.explore.engines.base import default_workers
from metabolismgraph.explore.events import (
    Answered,
    Approved,
    Changes,
    Event,
    Failed,
    Finished,
    Imported,
    Lost,
    Opened,
    Paused,
    Proposed,
    Refused,
    Remembered,
    Reviewed,
    Scored,
    Started,
    Suggested,
    Validated,
)
from metabolismgraph.explore.proposal import IterationReading, Mutation, Proposal, Slot
from metabolismgraph.explore.reward import score, score_by
from metabolismgraph.explore.search_space import DEFAULT, SearchSpace, shipped_space, space_of
from metabolismgraph.metrics import from_log_name
from metabolismgraph.overview import Overview, Rows
from metabolismgraph.text import one_line, printable

_BY_LOG = "imported log"
_SLOT = re.compile(r"slot_(?P<slot>\d+) \(time_step=(?P<T>\d+)\)")
_MUTATION = re.compile(r"(?P<param>[^:]+): (?P<old>.+?) -> (?P<new>.+)$")


@dataclasses.dataclass(frozen=True)
class Iteration:
    """One iteration with its events.

    Attributes:
        losses: runs that were lost with their machine, and made again.
        outcome: None before the job has ended.
    """

    proposed: Proposed
    started: Started | None = None
    losses: tuple[Lost, ...] = ()
    outcome: Finished | Failed | None = None
    scored: Scored | None = None
    reading: IterationReading | None = None

    @property
    def number(self) -> int:
        return self.proposed.iteration

    @property
    def node(self) -> int:
        return self.proposed.node

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics of its run; empty without metrics."""
        return dict(self.outcome.metrics) if isinstance(self.outcome, Finished) else {}

    @property
    def has_reward(self) -> bool:
        """Whether its run has a reward of its own; a failed run, or NaN, counts as zero."""
        return self.scored is not None and self.scored.state not in {"failed", "nan", "lost"}

    @property
    def counts(self) -> bool:
        """Whether its verdict says something about its configuration: not if it was lost with its machine."""
        return self.scored is not None and self.scored.state != "lost"


@dataclasses.dataclass(frozen=True, repr=False)
class State(Overview):
    """The exploration so far, by iteration.

    Attributes:
        opened: the first event.
        iterations: in order; number i is at index i - 1, except in an imported log, which may lack some.
        memories: readings and working memory after every batch.
        reviews: all block boundaries so far.
        validations: runs of nodes with fresh seeds, outside the tree.
        answered, refused: every exchange with a proposer, and every answer that was not accepted.
        suggested: proposals of researchers that no iteration has followed yet, and notes that no reading has seen yet.
        paused: the pause that a researcher made; None while the exploration continues.
    """

    opened: Opened
    iterations: tuple[Iteration, ...] = ()
    memories: tuple[Remembered, ...] = ()
    reviews: tuple[Reviewed, ...] = ()
    validations: tuple[Validated, ...] = ()
    answered: tuple[Answered, ...] = ()
    refused: tuple[Refused, ...] = ()
    suggested: tuple[Suggested, ...] = ()
    paused: Paused | None = None

    @classmethod
    def of(cls, events: Sequence[Event]) -> State:
        """The state after these events.

        Raises:
            InputError: they do not begin with a valid `opened`.
        """
        if not events or not isinstance(events[0], Opened):
            raise InputError("the journal does not begin with the event `opened`; restore its first line to continue")
        first = cls(events[0])
        first.check_opened()
        return functools.reduce(State.after, events[1:], first)

    def _overview(self) -> tuple[str, Rows]:
        rewards = [i.scored.reward for i in self.iterations if i.scored is not None and i.counts]
        rows = [
            ("scored by", self.opened.metric or self.opened.primary),
            ("iterations with a verdict", len(rewards)),
            ("highest reward of a run", f"{max(rewards):.3f}" if rewards else "none"),
            ("proposer", self.opened.proposer),
            ("time", f"{self.hours:.2f} h"),
            ("cost", f"{self.cost:.2f} US$"),
        ]
        return f"exploration {self.opened.name}", rows

    def check_opened(self) -> None:
        """Check the configuration and the reward that the exploration began with.

        Raises:
            InputError: the journal has been changed, or is of another version.
        """
        try:
            _ = self.config
        except ValidationError as error:
            found = error.errors(include_url=False)[0]
            raise InputError(
                f"the journal, line 1: config: {one_line(printable(explain(found['loc'], found)))}; restore the line"
            ) from None
        if self.opened.metric is None:
            self.space.primary(self.opened.primary)

    def after(self, event: Event) -> State:
        """The state with one more event."""
        state = self
        match event:
            case Proposed():
                others = self._suggested_without(event.suggestion)
                state = dataclasses.replace(self, iterations=(*self.iterations, Iteration(event)), suggested=others)
            case Imported():
                state = dataclasses.replace(self, iterations=(*self.iterations, _of_log(event, self.opened.metric)))
            case Started():
                state = self._knowing(event.iteration, started=event)
            case Lost():
                before = self.iterations[event.iteration - 1].losses if event.iteration <= len(self.iterations) else ()
                state = self._knowing(event.iteration, losses=(*before, event))
            case Finished() | Failed():
                state = self._knowing(event.iteration, outcome=event)
            case Scored():
                state = self._knowing(event.iteration, scored=event)
            case Remembered():
                proposals = tuple(each for each in self.suggested if each.proposal)
                state = dataclasses.replace(self, memories=(*self.memories, event), suggested=proposals)
                for reading in event.readings:
                    state = State._knowing(state, reading.iteration, reading=reading)
            case Reviewed():
                state = dataclasses.replace(self, reviews=(*self.reviews, event))
            case Answered():
                state = dataclasses.replace(self, answered=(*self.answered, event))
            case Refused():
                others = self._suggested_without(event.suggestion)
                state = dataclasses.replace(self, refused=(*self.refused, event), suggested=others)
            case Suggested() | Paused() | Approved() | Validated():
                state = self._told(event)
        return state

    def _told(self, message: Suggested | Paused | Approved | Validated) -> State:
        """The state with a message of a researcher, or a run that one asked for."""
        match message:
            case Validated():
                return dataclasses.replace(self, validations=(*self.validations, message))
            case Suggested():
                return dataclasses.replace(self, suggested=(*self.suggested, message))
            case Paused():
                return dataclasses.replace(self, paused=message if message.on else None)
            case Approved():
                return self._decided(message)

    def _suggested_without(self, id_: str | None) -> tuple[Suggested, ...]:
        return tuple(each for each in self.suggested if each.id != id_)

    def _decided(self, event: Approved) -> State:
        """The state in which a strategy file that waited is accepted or refused, by a review of its own."""
        held = next((review for review in self.held if review.held == event.digest), None)
        if held is None:
            return self
        verdict = {"landed": event.digest} if event.accepted else {"reasons": (f"{event.by}: {event.reason}",)}
        # At the place of the last review, so that the root of its block remains as it is.
        place = {"block": self.reviews[-1].block, "changes": self.reviews[-1].changes, "rolled_back": {}}
        decided = held.model_copy(update={"held": None, **place, **verdict})
        others = tuple(
            _without_file(review) if review.held and review.file and review.file.name == event.name else review
            for review in self.reviews
        )
        return dataclasses.replace(self, reviews=(*others, decided))

    def _knowing(self, number: int, **known: Any) -> State:
        if not 1 <= number <= len(self.iterations):
            raise InputError(f"the journal names iteration {number}, which was never proposed; restore the file")
        at = number - 1
        changed = dataclasses.replace(self.iterations[at], **known)
        return dataclasses.replace(self, iterations=(*self.iterations[:at], changed, *self.iterations[at + 1 :]))

    @functools.cached_property
    def config(self) -> Config:
        """The configuration that the exploration began with."""
        return Config.model_validate(self.opened.config)

    @functools.cached_property
    def space(self) -> SearchSpace:
        """What the exploration may change, and how it judges."""
        given = self.opened.space
        return shipped_space(DEFAULT) if given is None else space_of(given, "the journal")

    @property
    def settings(self) -> Exploration:
        return self.config.exploration

    @property
    def imported(self) -> bool:
        """Whether this is an imported log."""
        return any(iteration.proposed.by == _BY_LOG for iteration in self.iterations)

    @property
    def memory(self) -> str:
        """The working memory."""
        return self.memories[-1].memory if self.memories else ""

    @property
    def notes(self) -> tuple[Suggested, ...]:
        """Notes of researchers for the next prompts."""
        return tuple(each for each in self.suggested if each.proposal is None)

    @property
    def held(self) -> tuple[Reviewed, ...]:
        """Reviews whose strategy file waits for approval; of several files of a name, the latest."""
        return tuple({review.file.name: review for review in self.reviews if review.file and review.held}.values())

    @property
    def cost(self) -> float:
        """Cost of the proposers so far, in US dollars."""
        return sum((event.cost for event in self.answered), 0.0)

    @property
    def workers(self) -> int:
        """Number of runs at the same time."""
        return self.settings.n_workers or default_workers(self.settings.n_parallel)

    @property
    def losses(self) -> Counter[str]:
        """Number of runs that were lost and made again, by what a cluster says, or `machine`."""
        return Counter(loss.kind or "machine" for iteration in self.iterations for loss in iteration.losses)

    @property
    def ends(self) -> tuple[Lost | Finished | Failed, ...]:
        """The ends of all runs, those that were made again included."""
        return tuple(end for i in self.iterations for end in (*i.losses, i.outcome) if end is not None)

    @property
    def hours(self) -> float:
        """Time from submissions to ends of runs and for answers [h].

        Breaks after interruptions, and the queue of a cluster, do not count.

        Where a journal does not say when runs began, the time of the runs is divided by the number of workers.
        """
        ends, answered = self.ends, self.answered
        if not all((*(end.started for end in ends if end.seconds), *(event.time for event in answered))):
            runs = sum((end.seconds for end in ends), 0.0)
            return (runs / self.workers + sum((event.seconds for event in answered), 0.0)) / 3600
        spans = [(_timestamp(end.started) - end.waited, end.waited + end.seconds) for end in ends if end.started]
        spans += [(_timestamp(event.time) - event.seconds, event.seconds) for event in answered]
        return _covered(spans) / 3600

    @property
    def busy(self) -> float | None:
        """Share of the time of the workers that runs took; None without a run, or without the times of runs."""
        seconds = sum((end.seconds for end in self.ends), 0.0)
        known = bool(seconds) and all(end.started for end in self.ends if end.seconds)
        return seconds / (self.workers * self.hours * 3600) if known else None

    def block_of(self, iteration: int) -> int:
        """Number of the block of an iteration, from 0."""
        return (iteration - 1) // self.settings.n_iter_block

    def first_of(self, block: int) -> int:
        """The first iteration of a block."""
        return block * self.settings.n_iter_block + 1

    def in_block(self, block: int) -> tuple[Iteration, ...]:
        """The iterations of a block."""
        return tuple(i for i in self.iterations if self.block_of(i.number) == block)

    @property
    def free_slots(self) -> tuple[int, ...]:
        """Slots without an iteration in flight; those with the fewest iterations in the block come first."""
        taken = {i.proposed.slot for i in self.iterations if i.scored is None}
        used = Counter(i.proposed.slot for i in self.in_block(self.block_of(len(self.iterations) + 1)))
        return tuple(sorted(set(range(self.settings.n_parallel)) - taken, key=lambda slot: (used[slot], slot)))

    def slot(self, iteration: int) -> Slot:
        """The slot of an iteration, or the one that the next iteration takes.

        Slots of synchronous batches are filled in order, from the first of every block. An asynchronous iteration
        takes the first of `free_slots`, if any.
        """
        number = (iteration - 1) % self.settings.n_iter_block % self.settings.n_parallel
        if iteration <= len(self.iterations):
            number = self.iterations[iteration - 1].proposed.slot
        elif self.settings.batches == "asynchronous" and self.free_slots:
            number = self.free_slots[0]
        steps = self.settings.time_steps
        return Slot(number, steps[number % len(steps)])

    def root(self, block: int) -> Changes:
        """Differences of the configuration at the root of a block from the opened one."""
        found = [review.changes for review in self.reviews if review.block <= block]
        return found[-1] if found else {}

    def node_changes(self, node: int | None, block: int) -> Changes:
        """Differences of the configuration of a node, or of the root of a block, from the opened one.

        Raises:
            KeyError: there is no such node.
        """
        if node is None:
            return self.root(block)
        for iteration in self.iterations:
            if iteration.node == node:
                return iteration.proposed.changes
        raise KeyError(node)

    def refusals(self, kind: str, iteration: int) -> tuple[str, ...]:
        """Reasons of the refusals of answers to a question so far."""
        return tuple(r.reason for r in self.refused if (r.kind, r.iteration, r.suggestion) == (kind, iteration, None))


def _without_file(review: Reviewed) -> Reviewed:
    return review.model_copy(update={"held": None, "submission": review.submission.model_copy(update={"file": None})})


def _timestamp(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of time spans, each with its begin and its duration."""
    covered, until = 0.0, -math.inf
    for begin, duration in sorted(spans):
        covered += max(0.0, begin + duration - max(begin, until))
        until = max(until, begin + duration)
    return covered


def _of_log(event: Imported, metric: str | None) -> Iteration:
    """An iteration of an imported log.

    Args:
        metric: its reward, with the status of the log; None: both are computed as for a run of this package.
    """
    number, fields = event.iteration, event.fields
    metrics = {from_log_name(name): value for name, value in event.metrics.items()}
    outcome = (
        Finished(iteration=number, metrics=metrics, seconds=0.0)
        if metrics
        else Failed(iteration=number, reason=f"the log has status {event.status} and no metrics", seconds=0.0)
    )
    slot, mutation = _SLOT.search(fields.get("Slot", "")), _MUTATION.match(fields.get("Mutation", ""))
    time_step = int(slot["T"]) if slot else 1
    proposed = Proposed(
        iteration=number,
        slot=int(slot["slot"]) if slot else 0,
        time_step=time_step,
        node=event.node,
        parent=event.parent,
        changes={},
        seed=0,
        code="",
        proposal=Proposal(
            parent=event.parent,
            mode="exploit",
            hypothesis=fields.get("Mode/Strategy", ""),
        ),
        mutations=(Mutation(**mutation.groupdict()),) if mutation else (),
        strategy=fields.get("Strategy", ""),
        by=_BY_LOG,
    )
    reading = IterationReading(
        iteration=number, visual=fields.get("Visual", ""), observation=fields.get("Observation", "")
    )
    space = shipped_space(DEFAULT)
    scored = score(outcome, space, "avg_slope_ratio") if metric is None else score_by(outcome, metric, event.status)
    return Iteration(proposed, outcome=outcome, scored=scored, reading=reading)
