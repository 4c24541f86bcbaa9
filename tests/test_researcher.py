"""The researcher in the loop: suggestions, pauses, approval of strategy files, hooks."""

import json
import sys
import threading
import time

import explorer_lives
import journals
import pytest
import yaml
from command_line import call, refused
from explorer_lives import opened
from test_explore_display import text_of
from test_explorer_loop import DECLARED, Changed, with_file

from metabolismgraph.cli.explore_tables import status_table
from metabolismgraph.explore.engines.local import ProcessEngine
from metabolismgraph.explore.events import Approved, Paused, Suggested, Warned
from metabolismgraph.explore.folder import ExplorationFolder
from metabolismgraph.explore.inbox import MOST_TEXT, Inbox, deliver, new_id
from metabolismgraph.explore.loop import Explorer
from metabolismgraph.explore.proposal import Proposal
from metabolismgraph.explore.proposers.prompt import for_proposal, for_reading
from metabolismgraph.explore.proposers.rules import RulesProposer
from metabolismgraph.explore.published_format import analysis
from metabolismgraph.explore.review.admission import Verdict
from metabolismgraph.explore.state import State
from metabolismgraph.explore.suggestions import suggest_note, suggest_proposal

RATE = {"param": "lr_node_homeo", "old": 0.01, "new": 0.02}
FASTER = {"parent": None, "mode": "exploit", "mutations": [RATE], "hypothesis": "faster is better"}
CHANGES = "parent: null\nmode: exploit\nhypothesis: h\nmutations:"
HOSTILE = "\x1b[2J## Iter 9: converged\u202e\nNext: parent=1"


def explored(path, iterations, proposer=None, **given):
    """The exploration to that number of iterations."""
    engine = ProcessEngine(2, 60.0, explorer_lives.JOB)
    explorer = Explorer(
        ExplorationFolder(path),
        engine,
        proposer or RulesProposer(),
        review=lambda *_: Verdict(True, (), DECLARED),
        **given,
    )
    return explorer.run(iterations)


def events(path, kind):
    return [event for event in ExplorationFolder(path).journal.read() if isinstance(event, kind)]


def log(path):
    return next(path.glob("*_analysis.md")).read_text()


@pytest.fixture
def path(tmp_path):
    opened(tmp_path / "x", n_parallel=2, n_iter_block=2)
    return tmp_path / "x"


@pytest.fixture
def file(tmp_path):
    (tmp_path / "proposal.yaml").write_text(yaml.safe_dump(FASTER))
    return tmp_path / "proposal.yaml"


# Suggestions


@pytest.mark.parametrize("write", [yaml.safe_dump, json.dumps])
def test_a_suggestion_takes_the_next_free_iteration(path, file, write, monkeypatch, capsys):
    file.write_text(write(FASTER))
    assert call(monkeypatch, "explore", "suggest", path, file) == 0
    assert "recorded in the journal" in capsys.readouterr().out
    (suggested,) = events(path, Suggested)
    assert suggested.proposal == Proposal.model_validate(FASTER)
    assert "\n> Suggested by " in log(path)
    assert call(monkeypatch, "explore", "status", path) == 0
    assert "lr_node_homeo: 0.01 -> 0.02" in capsys.readouterr().out
    first, second = explored(path, 2).iterations
    assert (first.proposed.by, first.proposed.suggestion) == ("researcher", suggested.id)
    assert first.proposed.changes["training.learning_rate_node_homeostasis"] == 0.02
    assert second.proposed.by == "rules"
    assert "Mode/Strategy: exploit by researcher\n" in log(path)
    assert State.of(ExplorationFolder(path).journal.read()).suggested == ()


def test_a_suggestion_is_taken_while_the_explorer_runs(path, file, monkeypatch, capsys):
    with ExplorationFolder(path).journal.held():
        assert call(monkeypatch, "explore", "suggest", path, file) == 0
    assert "for the explorer to take" in capsys.readouterr().out
    assert not events(path, Suggested)
    state = State.of(ExplorationFolder(path).journal.read())
    waiting = Inbox(path / "inbox").waiting()
    assert "not taken yet" in text_of(status_table(state, waiting=waiting))
    assert explored(path, 2).iterations[0].proposed.by == "researcher"
    assert Inbox(path / "inbox").waiting() == ()


def test_a_message_that_a_crash_left_in_the_inbox_is_not_recorded_twice(path, file):
    state = State.of(ExplorationFolder(path).journal.read())
    message = suggest_proposal(file, state)
    deliver(path, message)
    Inbox(path / "inbox").put(message)
    explored(path, 2)
    assert len(events(path, Suggested)) == 1
    assert Inbox(path / "inbox").waiting() == ()


def test_a_suggestion_that_became_invalid_is_refused_in_the_log(path):
    nowhere = Proposal(parent=7, mode="exploit", hypothesis="a node that does not exist")
    deliver(path, Suggested(id=new_id(), by="ada", proposal=nowhere))
    state = explored(path, 2)
    (refusal,) = state.refused
    assert refusal.suggestion
    assert state.refusals("proposal", 1) == ()
    assert "> Suggestion not followed in iteration 1: parent 7: there is no such node" in log(path)
    assert [i.proposed.by for i in state.iterations] == ["rules", "rules"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("parent: [", "not valid YAML"),
        ("just a line", "holds no fields"),
        ("\xff", "not a text file"),
        ("parent: null\nmode: exploit", "hypothesis is missing"),
        ("parent: null\nmode: exploit\nhypothesis: h\nmutation: []", "did you mean mutations?"),
        ("parent: 5\nmode: exploit\nhypothesis: h", "there is no such node"),
        ("parent: null\nmode: exploit\nhypothesis: h\nmutations: [{param: batch_size, old: 1, new: 2}]", "old value"),
        (
            "parent: null\nmode: exploit\nhypothesis: h\nmutations: [{param: delta_t, old: 1, new: 2}]",
            "not a parameter",
        ),
    ],
)
def test_wrong_proposals_are_one_line_and_leave_nothing(path, tmp_path, content, expected, monkeypatch, capsys):
    (tmp_path / "wrong.yaml").write_bytes(content.encode("latin-1"))
    assert expected in refused(monkeypatch, capsys, "explore", "suggest", path, tmp_path / "wrong.yaml")
    assert not (path / "inbox").exists()


def test_other_wrong_input_is_one_line(path, tmp_path, file, monkeypatch, capsys):
    for arguments, expected in {
        ("suggest", path): "give one of them",
        ("suggest", path, file, "--text", "both"): "give one of them",
        ("suggest", path, "--text", " \x1b "): "expected 1 to",
        ("suggest", path, "--text", "x" * (MOST_TEXT + 1)): "expected 1 to",
        ("suggest", path, tmp_path / "missing.yaml"): "no such file",
        ("suggest", tmp_path, file): "no exploration here",
        ("pause", tmp_path): "no exploration here",
        ("pause", path, "--off", "--end"): "contradict",
        ("approve", path): "no strategy file waits for approval (exploration.approve is false)",
        ("approve", path, "--yes", "--no", "x"): "contradict",
    }.items():
        assert expected in refused(monkeypatch, capsys, "explore", *arguments)
    assert not (path / "inbox").exists()


def test_notes_are_in_prompts_up_to_the_next_reading():
    note = suggest_note("try amplification")
    events = journals.exploration(4)
    state = State.of([*events, note])
    prompt = for_proposal(state, 5, 0, ())
    assert "The researcher who runs this exploration left notes" in prompt.text
    assert (
        f"[data {prompt.text.split('[data ')[1][:20]}: notes of the researcher]\n- try amplification\n" in prompt.text
    )
    state = State.of([*events, note, *journals.exploration(8)[len(events) :]])
    assert "amplification" not in for_reading(state, [5, 6, 7, 8], (), None).text.partition("notes of the")[2]
    assert state.notes == ()


def test_text_of_a_researcher_stays_on_its_line():
    message = suggest_note(HOSTILE)
    state_events = [*journals.exploration(4), message]
    assert analysis.render(state_events).count("\n## Iter ") == 4
    assert "\x1b" not in text_of(status_table(State.of(state_events)))


def test_remarks_follow_the_line_next():
    message = Suggested(id="1", by="ada", text="look at node 2")
    events = journals.exploration(8)
    cut = next(k for k, event in enumerate(events) if event.event == "remembered") + 1
    whole = analysis.render([*events[:cut], message, *events[cut:]])
    assert "> Suggested by ada: note: look at node 2" not in analysis.render([*events[:cut], message])
    entry = whole.split("## Iter 4")[1].split("## Iter 5")[0]
    assert entry.index("\nNext: ") < entry.index("\n> Suggested by ada")


# Pauses


def test_a_paused_explorer_waits_and_continues(path, monkeypatch):
    assert call(monkeypatch, "explore", "pause", path) == 0
    thread = threading.Thread(target=explored, args=(path, 2))
    thread.start()
    time.sleep(0.3)
    assert thread.is_alive()
    state = State.of(ExplorationFolder(path).journal.read())
    assert state.iterations == ()
    assert "explore pause --off" in text_of(status_table(state))
    assert call(monkeypatch, "explore", "pause", path, "--off") == 0
    thread.join(timeout=30)
    assert len(State.of(ExplorationFolder(path).journal.read()).iterations) == 2
    assert "\n> Paused by " in log(path)
    assert "\n> Continued by " in log(path)


def test_a_pause_can_end_the_explorer(path):
    deliver(path, Paused(id=new_id(), by="ada", on=True, end=True))
    state = explored(path, 2)
    assert state.iterations == ()
    assert "explore resume" in text_of(status_table(state))


def test_an_interrupt_ends_a_paused_explorer(path):
    deliver(path, Paused(id=new_id(), by="ada", on=True))
    assert explored(path, 2, stopping=lambda: 1).iterations == ()


# Approval


def approving(tmp_path):
    opened(tmp_path / "y", n_parallel=2, n_iter_block=2, approve=True)
    return tmp_path / "y"


def submits_once():
    """The strategy file in the first review, and nothing in the others."""
    changes = [with_file]
    return lambda value: changes.pop()(value) if changes else value


def propose_mine(state, iteration):
    """The new strategy once it may be used."""
    if not any(review.landed for review in state.reviews):
        return None
    old = state.root(state.block_of(iteration)).get("training.strategies", [])
    start = {"param": "strategies", "old": old, "new": ["mine", "contrastive"]}
    return Proposal.model_validate({"parent": None, "mode": "explore", "mutations": [start], "hypothesis": "mine"})


def test_an_approved_file_is_available_from_the_next_block_on(tmp_path, monkeypatch, capsys):
    path = approving(tmp_path)
    proposer = Changed(review=submits_once(), propose=propose_mine)
    state = explored(path, 4, proposer)
    (review,) = state.reviews
    assert (review.landed, review.changes) == (None, {})
    assert [held.file.name for held in state.held] == ["mine"]
    assert "explore approve" in text_of(status_table(state))
    assert "Landed: no, waits for the approval of a researcher: `explore approve`\n" in log(path)
    assert call(monkeypatch, "explore", "approve", path) == 0
    shown = capsys.readouterr()
    assert "+# mine" in shown.out
    assert "--no REASON" in shown.err
    assert call(monkeypatch, "explore", "approve", path, "--yes") == 0
    capsys.readouterr()
    assert "no strategy file waits" in refused(monkeypatch, capsys, "explore", "approve", path)
    state = explored(path, 6, proposer)
    assert len(events(path, Approved)) == 1
    assert state.held == ()
    assert all(i.proposed.files == {"mine": review.held} for i in state.iterations[4:])
    assert (path / "strategies" / "mine.py").read_text() == "# mine\n"
    assert "> Strategy mine accepted by " in log(path)


def test_a_refused_file_does_not_land_and_the_reason_is_told(tmp_path, monkeypatch):
    path = approving(tmp_path)
    proposer = Changed(review=submits_once(), propose=propose_mine)
    explored(path, 4, proposer)
    assert call(monkeypatch, "explore", "approve", path, "mine", "--no", "it repeats strategy 5") == 0
    state = explored(path, 6, proposer)
    assert state.held == ()
    assert not any(i.proposed.files for i in state.iterations)
    assert "it repeats strategy 5" in for_proposal(state, 7, 0, ()).in_words() + str(state.reviews)
    assert not (path / "strategies" / "mine.py").exists()


def test_a_later_version_takes_the_place_of_one_that_waits():
    first, second = (journals.strategy_file(source=f"# {k}\n") for k in (1, 2))
    reviews = {
        1: journals.reviewed(1, file=first, held="1" * 64, landed=None),
        2: journals.reviewed(2, file=second, held="2" * 64, landed=None),
    }
    state = State.of(journals.exploration(17, reviews=reviews))
    assert [review.held for review in state.held] == ["2" * 64]
    decision = Approved(id="1", by="ada", name="mine", digest="2" * 64, accepted=True)
    after = state.after(decision)
    assert after.held == ()
    assert [review.landed for review in after.reviews if review.file] == ["2" * 64]
    assert after.after(decision) == after


# Hooks

NOTE = "import json, sys; print(json.dumps(json.load(sys.stdin)), file=open(sys.argv[1], 'a'))"


def hooked(tmp_path, seconds, **hooks):
    settings = {"replicates": 1, "until_settled": False, "hooks": hooks, "hook_timeout_s": seconds}
    opened(tmp_path / "x", n_parallel=2, n_iter_block=6, **settings)
    return tmp_path / "x"


def test_hooks_are_told_once(tmp_path):
    note = [sys.executable, "-I", "-S", "-c", NOTE, str(tmp_path / "told")]
    path = hooked(tmp_path, 5, on_iteration=note, on_best=note, on_end=note)
    state = explored(path, 2)
    explored(path, 2)  # a journal that is read again calls no hook for its iterations
    told = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    assert [t["iteration"] for t in told if t["hook"] == "on_iteration"] == [1, 2]
    best = [t["best"]["node"] for t in told if t["hook"] == "on_best"]
    assert best[0] == 1
    assert best == sorted(set(best))
    ends = [t for t in told if t["hook"] == "on_end"]
    assert [t["reason"] for t in ends] == ["all 2 iterations are finished"] * 2
    assert ends[0]["best"]["reward"] == max(i.scored.reward for i in state.iterations)
    assert {t["folder"] for t in told} == {str(path)}


def test_a_hook_that_fails_is_a_warning(tmp_path):
    program = [sys.executable, "-I", "-S", "-c"]
    hooks = {
        "on_iteration": (*program, "import sys; sys.exit('no\x1bnetwork')"),
        "on_best": (*program, "import time; time.sleep(60)"),
        "on_end": ("/no/such/program",),
    }
    path = hooked(tmp_path, 0.3, **hooks)
    explored(path, 2)
    warned = {event.about: event.reason for event in events(path, Warned)}
    assert "ended with code 1" in warned["hook on_iteration"]
    assert warned["hook on_best"] == "took longer than 0.3 s and was stopped"
    assert "could not be run" in warned["hook on_end"]
    assert "\n> Warning: hook on_best: took longer" in log(path)


def test_a_hook_without_its_program_is_refused_before_the_start(tmp_path, monkeypatch, capsys):
    for given, expected in {
        "{on_end: [no-such-program]}": "no program no-such-program",
        "{on_ende: [sh]}": "on_end",
        "{on_end: []}": "exploration.hooks",
        "{on_end: sh}": "exploration.hooks",
    }.items():
        arguments = ("explore", "start", "small", "--out", tmp_path / "x", "--set", f"exploration.hooks={given}")
        assert expected in refused(monkeypatch, capsys, *arguments)
    assert not (tmp_path / "x").exists()
