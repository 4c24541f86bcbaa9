"""Asynchronous batches: a slot that is free begins the next iteration of the block."""

import json
import random
import re
from collections import Counter

import journals
import pytest
from explorer_lives import opened
from questions import Steady
from quick_job import metrics_of

from metabolismgraph.explore.engines.base import Ended, Engine
from metabolismgraph.explore.engines.outcome import Outcome, write_outcome, write_start
from metabolismgraph.explore.folder import ExplorationFolder
from metabolismgraph.explore.loop import Explorer
from metabolismgraph.explore.proposers.replay import ReplayProposer
from metabolismgraph.explore.proposers.rules import RulesProposer
from metabolismgraph.explore.state import State
from metabolismgraph.explore.views import render

N = 14  # iterations
ROLLOUTS = {"time_steps": (4, 16, 32, 64), "until_settled": False}


class VirtualEngine(Engine):
    """Jobs that take no time, on workers with a clock of their own: a run takes `seconds(its rollout length)`.

    Attributes:
        now: the time on that clock.
        busy: seconds that all runs took.
    """

    def __init__(self, workers, seconds):
        self._seconds, self._free, self._ends = seconds, [0.0] * workers, {}
        self.now = self.busy = 0.0

    def submit(self, job, folder):
        config = json.loads((folder / "job.json").read_text())["config"]
        seconds = self._seconds(config["training"]["homeostasis_time_step"])
        worker = self._free.index(min(self._free))
        self._free[worker] = self._ends[job] = max(self.now, self._free[worker]) + seconds
        self.busy += seconds
        write_start(folder)
        write_outcome(folder, Outcome(metrics_of(config)[0], None, seconds))

    def wait(self, timeout):
        job = min(self._ends, key=self._ends.get)
        self.now = self._ends.pop(job)
        return [Ended(job, None, 0.0)]

    def cancel(self, job):
        del self._ends[job]

    def close(self):
        self._ends.clear()

    @property
    def idle(self):
        """Share of the time of the workers that runs did not take."""
        return 1 - self.busy / (len(self._free) * self.now)


def explored(path, iterations, *, seconds=float, workers=4, proposer=None, stopping=lambda: 0, **settings):
    """A new exploration, run to the number of iterations: events and engine."""
    if not path.exists():
        opened(path, **({"batches": "asynchronous"} | ROLLOUTS | settings))
        # They use rollouts.
        journals.changed(
            ExplorationFolder(path).journal, lambda lines: lines[0]["config"]["training"].update(strategies=[])
        )
    engine = VirtualEngine(workers, seconds)
    Explorer(ExplorationFolder(path), engine, proposer or Steady(), stopping=stopping).run(iterations)
    return ExplorationFolder(path).journal.read(), engine


def iterations_of(events, *kinds):
    return [event.iteration for event in events if event.event in kinds]


def untimed(events):
    return [event.model_dump(exclude={"time", "seconds", "started", "waited"}) for event in events]


@pytest.fixture(scope="module", params=[(4, 9, 4), (3, 7, 2), (1, 3, 2)])
def uneven(request, tmp_path_factory):
    """Runs that take as long as their rollouts."""
    slots, block, workers = request.param
    path = tmp_path_factory.mktemp("uneven") / "x"
    events, _ = explored(path, N, workers=workers, n_parallel=slots, n_iter_block=block)
    return events


def test_every_iteration_is_proposed_run_and_read_once(uneven):
    numbers = list(range(1, N + 1))
    assert iterations_of(uneven, "proposed") == numbers
    assert sorted(iterations_of(uneven, "finished")) == numbers
    assert [each.iteration for event in uneven if event.event == "remembered" for each in event.readings] == numbers


def test_a_proposal_takes_a_slot_that_is_free_and_no_slot_stays_free_within_a_block(uneven):
    state = State.of(uneven[:1])
    size = state.settings.n_iter_block
    for event in uneven[1:]:
        if event.event == "proposed":
            assert event.slot in state.free_slots
            assert event.slot == state.slot(event.iteration).number
        if event.event == "finished" and len(state.iterations) < N and len(state.iterations) % size:
            assert state.free_slots == ()
        state = state.after(event)
        if event.event == "proposed":
            assert state.slot(event.iteration).number == event.slot


def test_a_block_ends_before_the_next_begins(uneven):
    state = State.of(uneven[:1])
    for event in uneven[1:]:
        if event.event == "reviewed":
            assert all(iteration.reading for iteration in state.iterations)
            assert len(state.iterations) == event.iteration - 1
        if event.event == "proposed" and state.block_of(event.iteration):
            assert state.reviews[-1].block == state.block_of(event.iteration)
        state = state.after(event)


def test_the_log_is_appended_to_in_the_order_of_iterations(uneven):
    before = ""
    for number in (n for n, event in enumerate(uneven, 1) if event.event in {"proposed", "remembered", "reviewed"}):
        log = render(uneven[:number])["explore_rank50_analysis.md"]
        assert log.startswith(before)
        before = log
    assert [int(number) for number in re.findall(r"^## Iter (\d+):", before, re.MULTILINE)] == list(range(1, N + 1))
    parents = [event.proposal.parent for event in uneven if event.event == "proposed"]
    size = State.of(uneven).settings.n_iter_block
    following = [None if number % size == 0 else parent for number, parent in enumerate(parents[1:], 1)]
    named = re.findall(r"^Next: parent=(\w+)", before, re.MULTILINE)
    assert named == ["root" if parent is None else str(parent) for parent in following] + ["root"] * (N % size == 0)


@pytest.mark.parametrize(
    ("workers", "batches", "idle", "by_slot"),
    [
        (4, "synchronous", 1 - 696 / (4 * 384), (6, 6, 6, 6)),
        (4, "asynchronous", 1 - 432 / (4 * 192), (12, 6, 3, 3)),
        (2, "synchronous", 1 - 696 / (2 * 480), (6, 6, 6, 6)),
        (2, "asynchronous", 1 - 516 / (2 * 264), (9, 6, 6, 3)),
    ],
)
def test_the_idle_share_of_workers_is_that_of_the_documentation(tmp_path, workers, batches, idle, by_slot):
    events, engine = explored(tmp_path / "x", 24, workers=workers, n_iter_block=8, batches=batches)
    assert engine.idle == pytest.approx(idle)
    slots = Counter(event.slot for event in events if event.event == "proposed")
    assert tuple(slots[slot] for slot in range(4)) == by_slot


def test_with_one_slot_the_order_is_that_of_synchronous_batches(tmp_path):
    one, other = (
        explored(tmp_path / batches, 6, n_parallel=1, n_iter_block=3, batches=batches)[0]
        for batches in ("synchronous", "asynchronous")
    )
    kinds = ("proposed", "finished")
    assert [(e.event, e.iteration, e.slot if e.event == "proposed" else 0) for e in one if e.event in kinds] == [
        (e.event, e.iteration, e.slot if e.event == "proposed" else 0) for e in other if e.event in kinds
    ]


@pytest.mark.parametrize("batches", ["synchronous", "asynchronous"])
def test_a_replay_gives_the_same_journal_whatever_the_runs_take_this_time(tmp_path, batches):
    record, _ = explored(tmp_path / "record", 10, proposer=RulesProposer(), batches=batches)
    drawn = random.Random(5)
    again, _ = explored(
        tmp_path / "again",
        10,
        seconds=lambda _: drawn.expovariate(1.0),
        proposer=ReplayProposer(record),
        batches=batches,
    )
    assert untimed(again)[1:] == untimed(record)[1:]


def test_equal_seeds_give_equal_synchronous_explorations_whatever_the_runs_take(tmp_path):
    drawn = random.Random(5)
    one, _ = explored(tmp_path / "one", 7, batches="synchronous")
    other, _ = explored(tmp_path / "other", 7, batches="synchronous", seconds=lambda _: drawn.expovariate(1.0))
    assert untimed(one) == untimed(other)


def test_an_interrupt_finishes_what_has_begun_and_reads_it(tmp_path):
    path = tmp_path / "x"

    def stopping():
        return int((path / "runs" / "0006").exists())

    events, _ = explored(path, 24, stopping=stopping)
    assert sorted(iterations_of(events, "finished")) == iterations_of(events, "proposed") == list(range(1, 7))
    assert iterations_of(events, "remembered") == [4, 6]
    events, _ = explored(path, 12)
    assert sorted(iterations_of(events, "finished")) == list(range(1, 13))
    assert iterations_of(events, "remembered")[-1] == 12


def test_a_journal_of_an_earlier_version_is_synchronous(tmp_path):
    events, _ = explored(tmp_path / "x", 4, batches="synchronous")
    line = json.loads(events[0].model_dump_json())
    del line["config"]["exploration"]["batches"]
    state = State.of([type(events[0]).model_validate(line), *events[1:]])
    assert state.settings.batches == "synchronous"
    assert Counter(state.slot(number).number for number in range(1, 9)) == {0: 3, 1: 3, 2: 1, 3: 1}  # blocks of six
