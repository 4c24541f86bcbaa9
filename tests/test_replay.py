import json

import pytest
from questions import Scripted, SmallLoop, Steady, metrics, opened, proposal, reading, submission

from metabolismgraph.explore.events import EVENT, Answered, Proposed, Reviewed
from metabolismgraph.explore.proposal import Slot
from metabolismgraph.explore.proposers.asking import AskingProposer
from metabolismgraph.explore.proposers.base import Exchange, InvalidAnswerError, UnavailableError
from metabolismgraph.explore.proposers.replay import ReplayProposer
from metabolismgraph.explore.state import State

LR = {"param": "lr_node_homeo", "old": 0.01}


def made(iteration):
    return "ran out of memory" if iteration == 4 else metrics(0.1 * iteration)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Eight iterations with all that can happen: answers, refused ones, none at all, the rules standing in."""
    answers = [
        proposal(),
        f"Sure!\n```json\n{json.dumps(proposal(mutations=[LR | {'new': 0.03}]))}\n```",
        reading([1, 2]),
        "not JSON \x1b[31m",
        proposal(parent=7),
        proposal(parent=2, mode="replicate"),
        UnavailableError("HTTP 503", Exchange(None, "HTTP 503", 1, 2, 0.5, 3.0)),
        reading([3]),
        reading([3, 4]),
        submission(start=[LR | {"new": 0.02}]),
        proposal(parent=2, mutations=[{"param": "dataset", "old": "", "new": "x"}]),
        "{}",
        "I will not.",
        proposal(parent=2, mode="replicate"),
        RuntimeError("boom"),
        proposal(),
        proposal(mutations=[LR | {"old": 0.02, "new": 0.05}]),
        reading([7, 8]),
    ]
    transport = Scripted(answers)
    loop = SmallLoop(opened(), AskingProposer(transport, tmp_path_factory.mktemp("recorded")), made).run(8)
    loop.assert_sound(8)
    assert transport.answers == []
    return loop


def timeless(events):
    return [event.model_dump(exclude={"seconds", "time"}) for event in events]


def test_a_replay_gives_the_same_journal(recorded):
    read_back = [EVENT.validate_json(event.model_dump_json()) for event in recorded.events]
    again = SmallLoop(read_back[0], ReplayProposer(read_back), made).run(8)
    assert timeless(again.events) == timeless(recorded.events)
    assert all(event.seconds == 0 for event in again.of(Answered))
    assert again.state.cost == recorded.state.cost > 4
    assert {p.by for p in again.of(Proposed)} == {"scripted", "steady"}


def test_a_replay_of_a_replay_is_the_same_too(recorded):
    first = SmallLoop(recorded.events[0], ReplayProposer(recorded.events), made).run(8)
    second = SmallLoop(recorded.events[0], ReplayProposer(first.events), made).run(8)
    assert [e.model_dump_json() for e in second.events] == [e.model_dump_json() for e in first.events]


def test_what_the_rules_made_is_given_as_it_is():
    loop = SmallLoop(opened(), Steady(), made).run(6)
    again = SmallLoop(opened(), ReplayProposer(loop.events), made).run(6)
    assert again.events == loop.events
    assert not again.of(Answered)
    assert [r.by for r in again.of(Reviewed)] == ["steady"]


def test_beyond_the_record_there_is_no_answer(recorded):
    state = State.of(recorded.events)
    replay = ReplayProposer(recorded.events)
    assert replay.name == "test"
    for ask in (
        lambda: replay.propose(state, 9, Slot(0, 4), ()),
        lambda: replay.read(state, (9, 10), ()),
        lambda: replay.review(state, 2, ()),
    ):
        with pytest.raises(UnavailableError, match="the record holds no .* for iteration 9, attempt 1") as error:
            ask()
        assert error.value.exchange.error == str(error.value)


def test_the_name_is_that_of_the_record(recorded):
    state = State.of(recorded.events[:1])
    events = [e.model_copy(update={"by": "llm (m)"}) if isinstance(e, Answered) else e for e in recorded.events]
    replay = ReplayProposer(events)
    assert replay.propose(state, 1, Slot(0, 4), ()).value.mode == "explore"
    assert replay.name == "llm (m)"


def test_a_changed_answer_is_parsed_anew(recorded):
    events = [e.model_copy(update={"answer": "{}"}) if isinstance(e, Answered) else e for e in recorded.events]
    with pytest.raises(InvalidAnswerError, match="parent is missing; mode is missing") as error:
        ReplayProposer(events).propose(State.of(events[:1]), 1, Slot(0, 4), ())
    assert error.value.exchange.cost == 0.25


def test_of_two_answers_to_one_question_the_later_holds(recorded):
    first = recorded.of(Answered)[0]
    later = first.model_copy(update={"answer": json.dumps(proposal(hypothesis="later"))})
    replay = ReplayProposer([*recorded.events, later])
    answer = replay.propose(State.of(recorded.events[:1]), 1, Slot(0, 4), ())
    assert answer.value.hypothesis == "later"
