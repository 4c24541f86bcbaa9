"""The closed loop: propose, run, score, read, and review between blocks.

Every step is one event of the journal, and the journal decides on the next step. An explorer that was killed therefore
continues where it stopped.

Synchronous batches are proposed as a whole, then run, then read. With asynchronous ones a free slot takes the next
iteration of the block at once. A batch is the same in both, iterations with consecutive numbers, and is read when all
of them have ended: log and memory are written in the order of iterations. What ended before the others of its batch is
in the state already, and known to proposers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from metabolismgraph.errors import InputError
from metabolismgraph.explore.engines.base import Cause, Engine, Loss
from metabolismgraph.explore.engines.outcome import read_outcome
from metabolismgraph.explore.events import (
    Answered,
    Approved,
    Event,
    Failed,
    Finished,
    Kind,
    Lost,
    Refused,
    Remembered,
    Reviewed,
    Started,
)
from metabolismgraph.explore.failing_files import failing_files
from metabolismgraph.explore.folder import ExplorationFolder
from metabolismgraph.explore.hooks import Hooks
from metabolismgraph.explore.inbox import RESEARCHER
from metabolismgraph.explore.keys import STRATEGY
from metabolismgraph.explore.planning import RefusedError, changed, configuration, own_strategies, plan
from metabolismgraph.explore.proposal import Reading, Submission
from metabolismgraph.explore.proposers.base import Answer, ExchangeError, InvalidAnswerError, Proposer, UnavailableError
from metabolismgraph.explore.proposers.replay import ReplayProposer
from metabolismgraph.explore.proposers.rules import RulesProposer
from metabolismgraph.explore.review.admission import Verdict
from metabolismgraph.explore.review.admission import review as review_file
from metabolismgraph.explore.review.history import StrategyHistory, digest_of
from metabolismgraph.explore.reward import score
from metabolismgraph.explore.state import State
from metabolismgraph.explore.tree import settled
from metabolismgraph.explore.views import write_views
from metabolismgraph.files import lack_of_room
from metabolismgraph.homeostasis.strategies import names
from metabolismgraph.sandbox import landlock
from metabolismgraph.text import one_line

_log = logging.getLogger(__name__)

_REASON = 2000  # characters at most of the reason of a refusal
_LONG_MEMORY, _KEPT_MEMORY = 20, 0.25  # lines that are worth keeping; share of them that a new memory must have
_TICK = 0.5  # seconds between two checks for interrupts

T = TypeVar("T")
Ask = Callable[[Proposer, Sequence[str]], Answer[T]]
Watch = Callable[[State, Mapping[int, str]], None]


def no_watch(state: State, running: Mapping[int, str]) -> None:
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
        stopping: number of interrupts by the user: one ends after the running batch, two at once. With asynchronous
            batches, one ends after the running iterations.
        watch: called after every event, and twice a second during runs, with the state and the running iterations, see
            `ExplorationFolder.running`.
        review: judges strategy files.
        until: when to let go of all jobs and end [s of `time.monotonic`].

    Attributes:
        ran_out: whether it has ended for that reason.
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
        until: float = math.inf,
    ):
        self._until, self.ran_out = until, False
        self._folder, self._engine, self._proposer = folder, engine, proposer
        self._stopping, self._watch, self._review = stopping, watch, review
        self._rules = RulesProposer()
        self._events: list[Event] = []
        self._submitted: frozenset[int] = frozenset()
        self._outcomes: dict[int, Finished | Failed] = {}  # not recorded yet

    def run(self, iterations: int) -> State:
        """Continue to the number of iterations, the end of the time, an interrupt, or a best node beyond improvement.

        Args:
            iterations: their total number, finished ones included.

        Raises:
            InputError: the journal is damaged or held by another explorer, or a file cannot be written.
            KeyboardInterrupt: after a second interrupt; all jobs have ended.
        """
        self._proposer.iterations = iterations
        with self._folder.journal.held():
            self._events = list(self._folder.journal.read())
            self._state = State.of(self._events)
            if self._state.imported:
                raise InputError(f"{self._folder.path}: an imported log cannot be continued; start an exploration")
            self._proposer.takes_files = self._folder.takes_files(self._state)
            self._folder.tidy()
            try:
                while not (reason := self._out_of_time() or self._step(iterations)):
                    if self._stopping() > 1:
                        raise KeyboardInterrupt
            except BaseException as error:
                # Report the first error, not a further one from writing the views.
                self._engine.close()
                with contextlib.suppress(InputError):
                    self._end_with(one_line(error) or "stopped at once")
                if isinstance(error, OSError):
                    where = error.filename or self._folder.path
                    raise InputError(
                        f"{where}: {error.strerror}; make room or give access, then `explore resume`"
                    ) from error
                raise
            self._engine.close()
            self._end_with(reason)
        return self._state

    def _out_of_time(self) -> str:
        self.ran_out = time.monotonic() > self._until
        return "the time of the explorer is over" if self.ran_out else ""

    def _end_with(self, reason: str) -> None:
        for warning in self._hooks.end(self._state, reason):
            self._record(warning)
        write_views(self._folder.path, self._events)

    @functools.cached_property
    def _hooks(self) -> Hooks:
        return Hooks(self._state.settings, self._folder.path)

    @functools.cached_property
    def _history(self) -> StrategyHistory:
        # Only while the journal is held: it removes incomplete files, which only the writer may do.
        return StrategyHistory(self._folder.strategies)

    @property
    def _asynchronous(self) -> bool:
        return self._state.settings.batches == "asynchronous"

    def _batch(self, iterations: int) -> range:
        """The iterations that are read together next; empty when all have been read."""
        state, settings = self._state, self._state.settings
        first = state.memories[-1].iteration + 1 if state.memories else 1
        within = (first - 1) % settings.n_iter_block
        slots, rest = settings.n_parallel - within % settings.n_parallel, settings.n_iter_block - within
        return range(first, min(first + min(slots, rest), max(iterations, len(state.iterations)) + 1))

    def _spent(self, batch: range) -> str:
        """Why nothing new begins: the time is over, the user interrupts, or nothing is left to find; "" if it does.

        A started batch is finished; with asynchronous batches, started iterations are.
        """
        if len(self._state.iterations) >= batch.start and not self._asynchronous:
            return ""
        hours = self._state.settings.max_hours
        late = hours is not None and self._state.hours >= hours
        done = self._state.settings.until_settled and settled(self._state) is not None
        interrupted = "interrupted" if self._stopping() else ""
        return interrupted or ("exploration.max_hours are over" if late else "nothing is left to find" if done else "")

    # Messages of researchers

    def _take_messages(self, *, decisions: bool = False) -> None:
        """Move messages from the inbox to the journal.

        Args:
            decisions: whether to take decisions on strategy files as well.
        """
        before = len(self._events)
        for event in self._folder.inbox.take(self._events, decisions=decisions):
            self._record(self._carried_out(event) if isinstance(event, Approved) else event)
        if len(self._events) > before:
            write_views(self._folder.path, self._events, live=True)

    def _carried_out(self, decision: Approved) -> Approved:
        """The decision on a strategy file, once an accepted one is committed; refused if none is executed here."""
        if decision.accepted and not self._folder.takes_files(self._state):
            return decision.model_copy(update={"accepted": False, "reason": landlock.MISSING})
        held = [review.file for review in self._state.held if review.held == decision.digest]
        for file in held if decision.accepted else ():
            assert file is not None
            self._history.land(file.name, file.source, file.rationale, file.reference)
        return decision

    def _follow_suggestion(self, iteration: int) -> bool:
        """Whether an iteration follows the proposal of a researcher; those that are not valid any more are refused."""
        if any((answer.kind, answer.iteration) == ("proposal", iteration) for answer in self._state.answered):
            return False  # an answer from before a crash, which is paid for, comes first
        for each in self._state.suggested:
            if each.proposal is None:
                continue
            try:
                planned = plan(each.proposal, self._state, iteration, by=RESEARCHER)
            except RefusedError as error:
                question: dict[str, Any] = {"kind": "proposal", "iteration": iteration, "attempt": 0, "by": RESEARCHER}
                self._record(Refused(**question, reason=one_line(error, _REASON), suggestion=each.id))
            else:
                self._record(planned.model_copy(update={"suggestion": each.id}))
                return True
        return False

    def _step(self, iterations: int) -> str:
        """Take the next step; returns why there is none, "" if there was one.

        Proposals and readings come before runs that have ended are recorded: they depend on the journal alone, not on
        what ends while a proposer answers. After a crash the same questions are asked. In a pause nothing begins.
        """
        self._take_messages()
        state, batch = self._state, self._batch(iterations)
        unread = state.iterations[batch.start - 1 :]
        of_batch = unread[: len(batch)]
        following = len(state.iterations) + 1
        block = state.block_of(following)
        spent = self._spent(batch) if following <= iterations else f"all {iterations} iterations are finished"
        more = not spent and state.paused is None
        passed = block <= max((review.block for review in state.reviews), default=0)
        free = more and passed and (bool(state.free_slots) if self._asynchronous else following in batch)
        known = self._submitted | self._outcomes.keys()
        waiting = [i.number for i in unread if i.outcome is None and i.number not in known]
        if waiting and state.paused is None and (self._asynchronous or not free):
            self._begin(waiting[0])
        elif free:
            self._propose(following)
        elif of_batch and all(i.scored for i in of_batch):
            self._read(range(batch.start, batch.start + len(of_batch)))
            write_views(self._folder.path, self._events, live=True)
        elif (ended := self._next_end()) is not None:
            self._conclude(ended)
        elif self._submitted:
            self._wait()
        elif state.paused is not None and (waiting or not spent):
            if state.paused.end or self._stopping():
                return f"paused by {state.paused.by}"
            time.sleep(_TICK)
        elif more and not passed:
            self._review_block(block, following)
            write_views(self._folder.path, self._events, live=True)
        else:
            return spent
        return ""

    def _record(self, event: Event) -> None:
        _log.info("%s: %s", self._folder.path, type(event).__name__)
        self._events.append(self._folder.journal.append(event))
        before, self._state = self._state, self._state.after(self._events[-1])
        self._watch(self._state, self._running)
        for warning in self._hooks.after(event, before, self._state):
            self._record(warning)

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
        try:
            accepted = accept(ask(self._rules, ()).value, self._rules.name, note)
        except RefusedError as error:  # the rules then answer with the start, unchanged, which is always possible
            accepted = accept(ask(self._rules, (str(error),)).value, self._rules.name, note)
        return self._record(accepted)

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
        if self._follow_suggestion(iteration):
            return
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
        self._take_messages(decisions=True)
        state, rolled_back = self._state, self._roll_back()
        approve = state.settings.approve

        def accept(value: Submission, by: str, note: str) -> Reviewed:
            landed = declaration = None
            if (file := value.file) is not None:
                if not state.space.strategies:
                    raise RefusedError("this search space has no strategies; leave file empty")
                if not self._folder.takes_files(state):
                    raise RefusedError(landlock.MISSING)
                scratch = self._folder.path / "review"
                verdict = self._review(file.name, file.source, self._folder.base / "training", scratch)
                if not verdict.accepted:
                    self._check_room("the review of a strategy file ended")
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
            if file is not None and approve:
                # The block begins without the file, and with the start only if that does not need the file.
                reviewed = reviewed.model_copy(update={"landed": None, "held": landed})
                with_file, changes = state.after(reviewed), state.root(block)
                with contextlib.suppress(RefusedError):
                    changes = changed(changes, value.start, with_file)
            gone = rolled_back.keys() - {file.name if file is not None else ""}
            if not gone.isdisjoint(names(configuration(with_file, changes).training)):
                changes.pop(STRATEGY)
            if file is not None and not approve:
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

    @property
    def _running(self) -> Mapping[int, str]:
        return self._folder.running(self._state)

    def _begin(self, i: int) -> None:
        """Submit the job of an iteration, unless it has ended before."""
        if self._state.iterations[i - 1].started is None:
            where = (self._folder.job(i) / "run").relative_to(self._folder.path)
            self._record(Started(iteration=i, folder=str(where)))
        found = self._outcome(i, 0.0)  # of a job that ended while no explorer ran
        if found is None:
            self._submit(i)
        else:
            self._keep(found)

    def _submit(self, i: int) -> None:
        proposed = self._state.iterations[i - 1].proposed
        try:
            self._folder.describe(proposed, self._state)
        except OSError as error:
            reason = f"{error.filename or self._folder.job(i)}: {error.strerror}"
            self._keep(Failed(iteration=i, reason=reason, seconds=0.0, cause="machine"))
            return
        self._submitted |= {i}
        self._engine.submit(i, self._folder.job(i))

    def _wait(self) -> None:
        """Wait a moment for jobs to end."""
        for job in self._engine.wait(_TICK):
            self._submitted -= {job.job}
            found = self._outcome(job.job, job.seconds)
            if found is None:
                reason, cause = (job.reason, job.cause) if job.reason else ("ended without a result", "machine")
                found = self._failed(job.job, reason, job.seconds, cause, job.kind)
            self._keep(found)
        self._watch(self._state, self._running)

    def _keep(self, outcome: Finished | Failed) -> None:
        """Keep the outcome, unless the run was lost and may be repeated: then it is.

        Raises:
            InputError: it was lost, and the disk is full: nothing is recorded, so that the next explorer runs it again.
        """
        i = outcome.iteration
        lost = isinstance(outcome, Failed) and outcome.cause == "machine"
        if lost:
            self._check_room(f"iteration {i} was lost", i)
        if not lost or not self._is_repeated(outcome):
            self._outcomes[i] = outcome
            return
        self._folder.discard_outcome(i)
        self._record(Lost(**outcome.model_dump(exclude={"event", "time", "cause"})))
        self._submit(i)

    def _is_repeated(self, outcome: Finished | Failed) -> bool:
        """Whether an iteration that was lost in this way is run again."""
        kind = outcome.kind if isinstance(outcome, Failed) else ""
        before = sum(loss.kind == kind for loss in self._state.iterations[outcome.iteration - 1].losses)
        return before < self._engine.budgets.get(kind, self._state.settings.retries)

    def _check_room(self, what: str, iteration: int | None = None) -> None:
        """Check, after a fault, that the disk has room.

        Args:
            what: happened.
            iteration: whose outcome, the fault, is to be forgotten otherwise.

        Raises:
            InputError: it has none.
        """
        lack = lack_of_room(self._folder.path)
        if lack:
            if iteration is not None:
                self._folder.discard_outcome(iteration)
            raise InputError(f"{self._folder.path}: {lack} ({what}); make room or give access, then `explore resume`")

    def _next_end(self) -> int | None:
        """The iteration whose end is recorded next; None if it has not ended yet.

        Synchronous batches are recorded in the order of iterations, a replay in the order of its record, others in the
        order in which they end.
        """
        open_ones = [i for i in self._state.iterations if i.scored is None]
        ended = [i.number for i in open_ones if i.outcome is not None] + [*self._outcomes]
        order: Sequence[int] = [i.number for i in open_ones]
        if self._asynchronous:
            order = [i for i in self._proposer.ends if i in order] or ended
        return next((i for i in ended if i == order[0]), None)

    def _conclude(self, i: int) -> None:
        """Record the outcome of an iteration, unless it is recorded, and the verdict."""
        if i in self._outcomes:
            self._record(self._outcomes.pop(i))
        outcome = self._state.iterations[i - 1].outcome
        assert outcome is not None
        self._record(score(outcome, self._state.space, self._state.opened.primary))

    def _outcome(self, iteration: int, seconds: float) -> Finished | Failed | None:
        """The outcome in the folder of a job; None without one.

        Args:
            seconds: duration of the job, in case the outcome is damaged.
        """
        try:
            found = read_outcome(self._folder.job(iteration))
        except ValueError as error:
            return self._failed(iteration, str(error), seconds, "machine")
        if found is None:
            return None
        if found.metrics is None:
            return self._failed(iteration, str(found.reason), found.seconds, found.cause)
        begin = self._folder.begin(iteration)
        return Finished(iteration=iteration, metrics=found.metrics, seconds=found.seconds, **begin._asdict())

    def _failed(self, iteration: int, reason: str, seconds: float, cause: Cause, kind: Loss = "") -> Failed:
        begin = self._folder.begin(iteration)._asdict()
        return Failed(iteration=iteration, reason=reason, seconds=seconds, cause=cause, kind=kind, **begin)
