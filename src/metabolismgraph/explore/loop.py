"""The closed loop: propose, run, score, read, and review between blocks.

Every step is one event of the journal, and the journal decides on the next step. An explorer that was killed therefore
continues where it stopped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from metabolismgraph.errors import InputError
from metabolismgraph.explore.engines.base import Ended, Engine
from metabolismgraph.explore.engines.outcome import read_outcome
from metabolismgraph.explore.events import (
    Answered,
    Event,
    Failed,
    Finished,
    Kind,
    Lost,
    Proposed,
    Refused,
    Remembered,
    Reviewed,
    Started,
)
from metabolismgraph.explore.failing_files import failing_files
from metabolismgraph.explore.folder import ExplorationFolder
from metabolismgraph.explore.keys import STRATEGY
from metabolismgraph.explore.proposal import Reading, Submission
from metabolismgraph.explore.proposers.base import Answer, ExchangeError, InvalidAnswerError, Proposer, UnavailableError
from metabolismgraph.explore.proposers.replay import ReplayProposer
from metabolismgraph.explore.proposers.rules import RulesProposer
from metabolismgraph.explore.published_format import write_views
from metabolismgraph.explore.review.admission import Verdict
from metabolismgraph.explore.review.admission import review as review_file
from metabolismgraph.explore.review.history import StrategyHistory, digest_of
from metabolismgraph.explore.reward import score
from metabolismgraph.explore.search_space import RefusedError, changed, configuration, own_strategies, plan
from metabolismgraph.explore.state import State
from metabolismgraph.explore.tree import settled
from metabolismgraph.homeostasis.strategies import names
from metabolismgraph.text import one_line

_log = logging.getLogger(__name__)

_REASON = 2000  # characters at most of the reason of a refusal
_LONG_MEMORY, _KEPT_MEMORY = 20, 0.25  # lines that are worth keeping; share of them that a new memory must have
_TICK = 0.5  # seconds between two checks for interrupts

T = TypeVar("T")
Ask = Callable[[Proposer, Sequence[str]], Answer[T]]
Watch = Callable[[State, frozenset[int]], None]


def no_watch(state: State, running: frozenset[int]) -> None:
    """Do nothing."""
    del state, running


def _lost_memory(former: str, new: str) -> str:
    """Why a new working memory is not taken: it drops nearly all of the former one; empty if it is."""
    before, after = (len([line for line in text.splitlines() if line.strip()]) for text in (former, new))
    if before < _LONG_MEMORY or after > before * _KEPT_MEMORY:
        return ""
    return f"the new memory has {after} lines, the former {before}: the former is kept"


class Explorer:
    """One exploration, from the current end of its journal on.

    Args:
        folder: of an opened exploration, see `start.open_exploration`.
        engine: runs the jobs.
        proposer: answers first; the rules stand in where it fails.
        stopping: number of interrupts by the user: one ends after the running batch, two at once.
        watch: called after every event with the state and the running iterations.
        review: judges strategy files.
    """

    def __init__(
        self,
        folder: ExplorationFolder,
        engine: Engine,
        proposer: Proposer,
        *,
        stopping: Callable[[], int] = lambda: 0,
        watch: Watch = no_watch,
        review: Callable[[str, str, Path, Path], Verdict] = review_file,
    ):
        self._folder, self._engine, self._proposer = folder, engine, proposer
        self._stopping, self._watch, self._review = stopping, watch, review
        self._rules = RulesProposer()
        self._events: list[Event] = []
        self._running: frozenset[int] = frozenset()

    def run(self, iterations: int) -> State:
        """Continue to the number of iterations, the end of the time, an interrupt, or a best node beyond improvement.

        Args:
            iterations: their total number, finished ones included.

        Raises:
            InputError: the journal is damaged, held by another explorer or cannot be written.
            KeyboardInterrupt: after a second interrupt; all jobs have ended.
        """
        self._proposer.iterations = iterations
        with self._folder.journal.held():
            self._events = list(self._folder.journal.read())
            self._state = State.of(self._events)
            if self._state.imported:
                raise InputError(f"{self._folder.path}: an imported log cannot be continued; start an exploration")
            self._folder.tidy()
            try:
                while (batch := self._batch(iterations)) and not self._spent(batch):
                    self._step(batch)
            except BaseException:
                # Report the first error, not a further one from writing the views.
                self._engine.close()
                with contextlib.suppress(InputError):
                    write_views(self._folder.path, self._events)
                raise
            self._engine.close()
            write_views(self._folder.path, self._events)
        return self._state

    @functools.cached_property
    def _history(self) -> StrategyHistory:
        # Only while the journal is held: it removes incomplete files, which only the writer may do.
        return StrategyHistory(self._folder.strategies)

    def _batch(self, iterations: int) -> range:
        """The iterations of the current batch; empty when all are finished."""
        state, settings = self._state, self._state.settings
        first = state.memories[-1].iteration + 1 if state.memories else 1
        last = first
        while last % settings.n_iter_block and state.slot(last).number < settings.n_parallel - 1:
            last += 1
        last = max(min(last, iterations), len(state.iterations))
        return range(first, last + 1)

    def _spent(self, batch: range) -> bool:
        """Whether to start no new batch: the time is over, the user interrupts, or nothing is left to find.

        A started batch is finished, unless the user interrupts twice.
        """
        begun = len(self._state.iterations) >= batch.start
        hours = self._state.settings.max_hours
        late = hours is not None and self._state.hours >= hours
        done = self._state.settings.until_settled and settled(self._state) is not None
        return self._stopping() > (1 if begun else 0) or ((late or done) and not begun)

    def _step(self, batch: range) -> None:
        state = self._state
        block = state.block_of(batch.start)
        if block > max((review.block for review in state.reviews), default=0):
            self._review_block(block, batch.start)
            write_views(self._folder.path, self._events)
        elif len(state.iterations) < batch[-1]:
            self._propose(len(state.iterations) + 1)
        elif any(state.iterations[i - 1].scored is None for i in batch):
            self._run_batch(batch)
        else:
            self._read(batch)
            write_views(self._folder.path, self._events)

    def _record(self, event: Event) -> None:
        _log.info("%s: %s", self._folder.path, type(event).__name__)
        self._events.append(self._folder.journal.append(event))
        self._state = self._state.after(self._events[-1])
        self._watch(self._state, self._running)

    # Answers of proposers

    def _ask(self, kind: Kind, iteration: int, ask: Ask[T], accept: Callable[[T, str, str], Event]) -> None:
        """Request answers until one is accepted; after too many refusals, or without an answer, the rules answer.

        The event of the accepted answer is recorded.

        Args:
            ask: sends the question to a proposer, with the reasons for earlier refusals.
            accept: makes an event of (value, by, note), or raises RefusedError.
        """
        note = ""
        while not note:
            refusals = self._state.refusals(kind, iteration)
            question: dict[str, Any] = {"kind": kind, "iteration": iteration, "attempt": len(refusals)}
            proposer = self._answering(**question)
            limit = self._state.settings.max_cost
            paid = proposer is self._proposer and proposer.name != self._rules.name
            if limit is not None and self._state.cost >= limit and paid:
                note = f"exploration.max_cost = {limit:g} is spent"
                break
            if len(refusals) >= self._state.settings.attempts:
                note = f"{len(refusals)} answers of {proposer.name} were refused"
                break
            try:
                value = self._answer(question, proposer, ask, refusals)
                return self._record(accept(value, proposer.name, ""))
            except (InvalidAnswerError, RefusedError) as error:
                self._record(Refused(**question, by=proposer.name, reason=one_line(error, _REASON)))
            except UnavailableError as error:
                note = f"{proposer.name} gave no answer: {error}"
        return self._record(accept(ask(self._rules, ()).value, self._rules.name, note))

    def _answering(self, kind: Kind, iteration: int, attempt: int) -> Proposer:
        """The proposer for a question: an answer recorded before a crash is replayed, not paid for twice."""
        known = (kind, iteration, attempt)
        recorded = any((a.kind, a.iteration, a.attempt) == known for a in self._state.answered)
        return ReplayProposer(self._events) if recorded else self._proposer

    def _answer(self, question: dict[str, Any], proposer: Proposer, ask: Ask[T], refusals: Sequence[str]) -> T:
        """The answer to a question; an exchange with an external program is recorded, valid or not."""
        exchange = None
        try:
            answer = ask(proposer, refusals)
            exchange = answer.exchange
        except ExchangeError as error:
            exchange = error.exchange
            raise
        finally:
            if exchange is not None and proposer is self._proposer:
                self._record(Answered(**question, by=proposer.name, **dataclasses.asdict(exchange)))
        return answer.value

    def _propose(self, iteration: int) -> None:
        state, slot = self._state, self._state.slot(iteration)
        self._ask(
            "proposal",
            iteration,
            lambda proposer, refusals: proposer.propose(self._state, iteration, slot, refusals),
            lambda value, by, note: plan(value, state, iteration, by=by, note=note),
        )

    def _read(self, batch: range) -> None:
        state = self._state

        def accept(value: Reading, by: str, note: str) -> Remembered:
            if [r.iteration for r in value.iterations] != list(batch):
                raise RefusedError(f"iterations must be those of the batch, in order: {', '.join(map(str, batch))}")
            memory, lost = value.memory, _lost_memory(state.memory, value.memory)
            if lost:
                memory, note = state.memory, "; ".join(filter(None, (note, lost)))
            return Remembered(iteration=batch[-1], readings=value.iterations, memory=memory, by=by, note=note)

        self._ask(
            "reading", batch.start, lambda proposer, refusals: proposer.read(self._state, batch, refusals), accept
        )

    def _review_block(self, block: int, first: int) -> None:
        state, rolled_back = self._state, self._roll_back()

        def accept(value: Submission, by: str, note: str) -> Reviewed:
            landed = declaration = None
            if (file := value.file) is not None:
                scratch = self._folder.path / "review"
                verdict = self._review(file.name, file.source, self._folder.base / "training", scratch)
                if not verdict.accepted:
                    raise RefusedError("; ".join(verdict.reasons))
                landed, declaration = digest_of(file.source), verdict.declaration and verdict.declaration.as_dict()
            reviewed = Reviewed(
                block=block,
                iteration=first,
                changes={},
                submission=value,
                rolled_back=rolled_back,
                landed=landed,
                declaration=declaration,
                reasons=self._state.refusals("submission", first),
                by=by,
                note=note,
            )
            # The next block may start with the file, which may replace one that was rolled back.
            with_file = state.after(reviewed)
            changes = changed(state.root(block), value.start, with_file)
            gone = rolled_back.keys() - {file.name if file is not None else ""}
            if not gone.isdisjoint(names(configuration(with_file, changes).training)):
                changes.pop(STRATEGY)
            if file is not None:
                self._history.land(file.name, file.source, file.rationale, file.reference)
            return reviewed.model_copy(update={"changes": changes})

        self._ask("submission", first, lambda proposer, refusals: proposer.review(self._state, block, refusals), accept)

    def _roll_back(self) -> dict[str, str | None]:
        """Roll back strategy files in force whose trainings all failed."""
        found: dict[str, str | None] = {}
        for name in failing_files(self._state):
            # After a crash between commit and journal, the file is rolled back already.
            current = self._history.sources().get(name)
            if current is not None and digest_of(current) == own_strategies(self._state)[name].landed:
                self._history.rollback(name)
            earlier = self._history.sources().get(name)
            found[name] = earlier and digest_of(earlier)
        return found

    # Running

    def _run_batch(self, batch: range) -> None:
        """Start unfinished iterations, and record outcomes in the order of iterations, not of their ends."""
        ended: dict[int, Finished | Failed | None] = {}
        for i in batch:
            if self._state.iterations[i - 1].outcome is None:
                ended[i] = self._begin(i)
        for i in batch:
            while i in ended and ended[i] is None:
                for job in self._engine.wait(_TICK):
                    self._running -= {job.job}
                    ended[job.job] = self._end(job)
                    self._watch(self._state, self._running)
                if self._stopping() > 1:
                    self._engine.close()
                    raise KeyboardInterrupt
            if (outcome := ended.get(i)) is not None:
                self._record(outcome)
            found = self._state.iterations[i - 1]
            if found.scored is None and found.outcome is not None:
                self._record(score(found.outcome, self._state.opened.primary))

    def _begin(self, i: int) -> Finished | Failed | None:
        """Submit the job of an iteration; returns the outcome of one that has ended before, or cannot run."""
        if self._state.iterations[i - 1].started is None:
            where = (self._folder.job(i) / "run").relative_to(self._folder.path)
            self._record(Started(iteration=i, folder=str(where)))
        found = self._outcome(i, 0.0)  # of a job that ended while no explorer ran
        return self._submit(i) if found is None else self._kept(found)

    def _submit(self, i: int) -> Failed | None:
        proposed = self._state.iterations[i - 1].proposed
        try:
            self._folder.describe(proposed, self._state, self._sources(proposed))
        except OSError as error:
            reason = f"{error.filename or self._folder.job(i)}: {error.strerror}"
            return Failed(iteration=i, reason=reason, seconds=0.0, cause="machine")
        self._running |= {i}
        self._engine.submit(i, self._folder.job(i))
        return None

    def _end(self, job: Ended) -> Finished | Failed | None:
        """The outcome of a job that has ended; None if it was lost, and is run again."""
        found = self._outcome(job.job, job.seconds)
        if found is None:
            reason, cause = (job.reason, job.cause) if job.reason else ("ended without a result", "machine")
            found = Failed(iteration=job.job, reason=reason, seconds=job.seconds, cause=cause)
        return self._kept(found)

    def _kept(self, outcome: Finished | Failed) -> Finished | Failed | None:
        """The outcome, unless the run was lost and may be repeated: then it is."""
        i = outcome.iteration
        if isinstance(outcome, Finished) or outcome.cause == "idea":
            return outcome
        if len(self._state.iterations[i - 1].losses) >= self._state.settings.retries:
            return outcome
        self._folder.discard_outcome(i)
        self._record(Lost(iteration=i, reason=outcome.reason, seconds=outcome.seconds))
        return self._submit(i)

    def _sources(self, proposed: Proposed) -> dict[str, str]:
        """The strategy files in the proposal of an iteration."""
        found = {
            r.file.name: r.file.source for r in self._state.reviews if r.file and r.landed in proposed.files.values()
        }
        return {name: found[name] for name in proposed.files}

    def _outcome(self, iteration: int, seconds: float) -> Finished | Failed | None:
        """The outcome in the folder of a job; None without one.

        Args:
            seconds: duration of the job, in case the outcome is damaged.
        """
        try:
            found = read_outcome(self._folder.job(iteration))
        except ValueError as error:
            return Failed(iteration=iteration, reason=str(error), seconds=seconds, cause="machine")
        if found is None:
            return None
        if found.metrics is None:
            return Failed(iteration=iteration, reason=str(found.reason), seconds=found.seconds, cause=found.cause)
        return Finished(iteration=iteration, metrics=found.metrics, seconds=found.seconds)
