"""Times in the journal: submission, start of the process, end; hours and the share of the workers."""

import journals
import pytest
from explorer_lives import explorer, opened

from metabolismgraph.config import Config
from metabolismgraph.errors import InputError
from metabolismgraph.explore.events import Answered, Lost, Started
from metabolismgraph.explore.folder import ExplorationFolder
from metabolismgraph.explore.state import State

TWO = Config().replace({"exploration.n_workers": 2})


def at(minute, second=0):
    return f"2026-11-26T10:{minute:02d}:{second:02d}.000+00:00"


def ran(iteration, started, seconds, waited=0.0):
    return journals.finished(iteration, 0.9, 0.9).model_copy(
        update={"started": started, "seconds": seconds, "waited": waited}
    )


def state_of(*ends, answers=()):
    numbers = sorted({end.iteration for end in ends})
    events = [journals.opened(TWO), *(journals.proposed(i) for i in numbers)]
    return State.of([*events, *(Started(iteration=i, folder="x") for i in numbers), *ends, *answers])


def test_runs_side_by_side_take_their_time_once():
    state = state_of(ran(1, at(0), 60.0), ran(2, at(0, 30), 60.0))
    assert state.hours * 3600 == pytest.approx(90)
    assert state.busy == pytest.approx(120 / (2 * 90))


def test_a_break_does_not_count_but_the_wait_for_a_worker_does():
    state = state_of(ran(1, at(0), 60.0), ran(2, at(50), 60.0, waited=30.0))
    assert state.hours * 3600 == pytest.approx(60 + 90)
    assert state.busy == pytest.approx(120 / (2 * 150))


def test_an_answer_counts_where_no_run_is_under_way():
    answer = {"kind": "proposal", "iteration": 1, "attempt": 0, "by": "llm", "answer": "{}", "error": None}
    answer |= {"input_tokens": 1, "output_tokens": 1, "cost": 0.0, "seconds": 40.0, "time": at(0, 50)}
    state = state_of(ran(1, at(0), 30.0), answers=[Answered(**answer)])
    assert state.hours * 3600 == pytest.approx(50)
    assert state.busy == pytest.approx(30 / (2 * 50))


def test_a_lost_run_was_work_too():
    lost = Lost(iteration=1, reason="was killed by SIGKILL", seconds=20.0, started=at(0))
    state = state_of(lost, ran(1, at(1), 20.0))
    assert state.busy == pytest.approx(40 / (2 * 40))


def test_a_journal_of_an_earlier_version_has_hours_and_no_share():
    state = state_of(journals.finished(1, 0.9, 0.9), journals.finished(2, 0.9, 0.9))
    assert state.hours * 3600 == pytest.approx(2 * 75.0 / 2)
    assert state.busy is None
    assert state_of().busy is None


def test_a_damaged_time_is_an_error_of_its_line(tmp_path):
    events = [journals.opened(TWO), journals.proposed(1), journals.begun(1), ran(1, at(0), 60.0)]
    journal = journals.journal(tmp_path / "x", events)
    journals.changed(journal, lambda lines: lines[3].update(started="soon"))
    with pytest.raises(InputError, match=r"line 4.*Invalid isoformat string: 'soon'"):
        journal.read()


def test_the_journal_has_the_start_of_the_process_and_the_time_in_the_queue(tmp_path):
    """One worker for two runs: the second is submitted with the first, and begins after it."""
    path = tmp_path / "x"
    opened(path, n_parallel=2, n_workers=1)
    explorer(path, workers=1).run(2)
    events = ExplorationFolder(path).journal.read()
    submitted = {event.iteration: event.time for event in events if event.event == "started"}
    first, second = (event for event in events if event.event == "finished")
    assert submitted[1] <= submitted[2] < first.started < second.started < second.time
    assert second.waited > first.waited + first.seconds > 0
    assert ExplorationFolder(path).running(State.of(events)) == {}


def test_only_a_run_whose_process_works_is_running(tmp_path):
    path, seen = tmp_path / "x", []
    opened(path, n_parallel=2, n_workers=1)
    explorer(path, workers=1, watch=lambda state, running: seen.append((dict(running), state))).run(2)
    assert all(len(running) <= 1 for running, _ in seen)
    for running, state in seen:
        for number, started in running.items():
            assert state.iterations[number - 1].started.time <= started
