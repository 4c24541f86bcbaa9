"""The researcher in the loop: suggestions, pauses, approval, hooks, cost, repeated runs, comparisons."""

import json
import sys
import threading
import time
from pathlib import Path

import explorer_lives
import journals
import pytest
import yaml
from command_line import call, refused
from explorer_lives import opened
from test_explore_display import text_of
from test_explorer_loop import DECLARED, Changed, with_file

from metabolismgraph.cli.explore_compare import comparison_page
from metabolismgraph.cli.explore_tables import iteration_page, repeated_page, status_table
from metabolismgraph.config import Config
from metabolismgraph.errors import TrainingFailedError
from metabolismgraph.explore.comparison import compare_explorations, compare_nodes
from metabolismgraph.explore.cost import by_kind, estimate, of_iteration
from metabolismgraph.explore.delivery import deliver
from metabolismgraph.explore.engines.local import ProcessEngine
from metabolismgraph.explore.events import Answered, Approved, Paused, Suggested, Warned
from metabolismgraph.explore.folder import ExplorationFolder
from metabolismgraph.explore.inbox import MOST_TEXT, Inbox, new_id
from metabolismgraph.explore.loop import Explorer
from metabolismgraph.explore.proposal import Proposal
from metabolismgraph.explore.proposers.prompt import for_proposal, for_reading
from metabolismgraph.explore.proposers.rules import RulesProposer
from metabolismgraph.explore.published_format import analysis
from metabolismgraph.explore.published_format.import_log import read_log
from metabolismgraph.explore.repeat import repeat
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
    assert "The researcher who runs this exploration may leave notes" in prompt.text
    assert (
        f"[data {prompt.text.split('[data ')[1][:20]}: notes of the researcher]\n- try amplification\n" in prompt.text
    )
    state = State.of([*events, note, *journals.exploration(8)[len(events) :]])
    assert "amplification" not in for_reading(state, [5, 6, 7, 8], ()).text.partition("notes of the")[2]
    assert state.notes == ()


def test_text_of_a_researcher_stays_on_its_line():
    message = suggest_note(HOSTILE)
    state_events = [*journals.exploration(4), message]
    assert analysis.render(state_events).count("\n## Iter ") == 4
    assert "\x1b" not in text_of(status_table(State.of(state_events)))


def test_a_message_after_an_entry_leaves_its_line_next_readable(tmp_path):
    message = Suggested(id="1", by="ada", text="look at node 2")
    events = journals.exploration(8)
    cut = next(k for k, event in enumerate(events) if event.event == "remembered") + 1
    log = analysis.render([*events[:cut], message])
    assert log.endswith("\n> Suggested by ada: note: look at node 2\n")
    whole = analysis.render([*events[:cut], message, *events[cut:]])
    assert whole.startswith(log)
    for name, text in {"with": whole, "without": analysis.render(events)}.items():
        (tmp_path / name).write_text(text)
    ours, theirs = (read_log(tmp_path / name) for name in ("with", "without"))
    assert [entry.next_parent for entry in ours] == [entry.next_parent for entry in theirs]


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


# Cost


def asked(events, *answers):
    """A journal with answers, each (kind, iteration, cost), before its end."""
    made = [
        Answered(
            kind=kind,
            iteration=i,
            attempt=0,
            by="llm",
            answer="{}",
            error=None,
            input_tokens=100,
            output_tokens=10,
            cost=cost,
            seconds=1.0,
        )
        for kind, i, cost in answers
    ]
    return State.of([*events, *made])


def test_cost_by_kind_iteration_and_node():
    answers = [("proposal", 1, 0.5), ("proposal", 1, 0.25), ("proposal", 2, 1.0), ("reading", 1, 4.0)]
    state = asked(journals.exploration(8, replicates={6: 1}), *answers, ("submission", 9, 2.0), ("reading", 5, 8.0))
    assert by_kind(state) == {"proposal": (3, 1.75), "reading": (2, 12.0), "submission": (1, 2.0)}
    first, sixth = (state.iterations[k] for k in (0, 5))
    assert of_iteration(state, first) == (0.75, 1.0)
    assert of_iteration(state, sixth) == (0.0, 2.0)
    whole = sum(sum(of_iteration(state, iteration)) for iteration in state.iterations)
    assert whole + 2.0 == state.cost
    assert "3 proposals 1.75 US$, 2 readings 12 US$, 1 submission 2 US$" in text_of(status_table(state), 120)
    page = text_of(iteration_page(state, 1, Path()), 120)
    assert "1.75 US$: proposal 0.75, share of the reading 1; node 3.75 US$" in page


def test_an_estimate_counts_the_questions():
    state = State(journals.opened(price=(2.0, 10.0), proposer="llm"))
    found = estimate(state, 20)
    assert found.questions == {"proposal": 20, "reading": 5, "submission": 2}
    assert found.cost == pytest.approx((2 * found.input_tokens + 10 * found.output_tokens) / 1e6)
    assert found.input_tokens < estimate(state, 40).input_tokens
    assert estimate(State(journals.opened()), 20).cost is None


def test_a_dry_run_prints_the_estimate_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "120")
    start = ("explore", "start", "small", "--dry-run", "--out", tmp_path / "x")
    assert call(monkeypatch, *start, "--proposer", "command", "--set", "exploration.command=[cat]") == 0
    printed = capsys.readouterr().out
    assert "questions: 16 proposals, 4 readings, 1 submission" in printed
    assert "the price is not known" in printed
    assert call(monkeypatch, *start) == 0
    assert "questions" not in capsys.readouterr().out
    assert not (tmp_path / "x").exists()


# Repeated runs


def test_a_run_is_repeated_alone_with_its_strategy_files(tmp_path, monkeypatch, capsys):
    path = tmp_path / "x"
    opened(path, n_parallel=2, n_iter_block=2)
    state = explored(path, 4, Changed(review=with_file))
    folder, before = ExplorationFolder(path), journal_of(path)
    again = repeat(folder, state, 3, tmp_path / "again", ProcessEngine(1, 60.0, explorer_lives.JOB))
    assert again == state.iterations[2].metrics
    theirs, ours = (json.loads((p / "job.json").read_text()) for p in (path / "runs" / "0003", tmp_path / "again"))
    for name in ("base", "cache", "trial"):
        assert (path / "runs" / "0003" / theirs.pop(name)).resolve() == (tmp_path / "again" / ours.pop(name)).resolve()
    assert ours == theirs
    assert ours["strategies"] == {"mine": "# mine\n"}
    assert journal_of(path) == before
    page = text_of(repeated_page(state.iterations[2], again, tmp_path / "again"))
    assert "to the last digit" in page
    page = text_of(repeated_page(state.iterations[2], again | {"avg_slope_ratio": None}, tmp_path / "again"))
    assert row(page, "avg_slope_ratio") == [repr(again["avg_slope_ratio"]), "nan"]
    assert "not empty" in refused(monkeypatch, capsys, "explore", "repeat", path, 3, "--out", tmp_path / "again")
    assert "no iteration 9" in refused(monkeypatch, capsys, "explore", "repeat", path, 9)


def journal_of(path):
    return (path / "journal.jsonl").read_bytes()


def row(text, name):
    """The values in the line of a table that begins with a name."""
    return next(line for line in text.splitlines() if line.strip().startswith(f"{name} ")).split()[-2:]


def test_a_repeated_run_that_fails_says_why(tmp_path):
    path = tmp_path / "x"
    opened(path, n_parallel=2, n_iter_block=2)
    state = explored(path, 1)
    (tmp_path / "faults.json").write_text(json.dumps({"1": "broken"}))
    (tmp_path / "runs").mkdir()
    engine = ProcessEngine(1, 60.0, explorer_lives.JOB)
    with pytest.raises(TrainingFailedError, match="ZeroDivisionError"):
        repeat(ExplorationFolder(path), state, 1, tmp_path / "runs" / "0001", engine)


# Comparisons


def three_seeds():
    """Nodes 1 and 2 with three seeds each; node 2 is better by 0.2 on each."""
    rewards = {1: 0.5, 2: 0.7, 3: 0.52, 4: 0.72, 5: 0.54, 6: 0.74}
    return journals.exploration(
        8,
        replicates={3: 1, 4: 2, 5: 1, 6: 2},
        parents={2: 1},
        ratios=lambda i: (rewards.get(i, 0.1),) * 2,
    )


def test_two_nodes_are_compared_seed_by_seed():
    found = compare_nodes(State.of(three_seeds()), 2, 1)
    assert found.pairs.differences == pytest.approx([0.2] * 3)
    assert found.pairs.interval == pytest.approx((0.2, 0.2))
    page = text_of(comparison_page(found))
    assert row(page, "parent") == ["1", "root"]
    assert "node 2 - node 1: +0.2000" in page
    assert "(3 pairs of runs with equal seeds)" in " ".join(page.split())
    assert "42: 0.7000" in page
    other = compare_nodes(State.of(three_seeds()), 7, 1)
    assert [line.what for line in other.rows][-1] == "learning_rate_node_homeostasis"


def test_an_interval_of_a_comparison_is_that_of_student():
    rewards = {1: 0.5, 2: 0.6, 3: 0.5, 4: 0.8, 5: 0.5, 6: 0.7}
    events = journals.exploration(
        8, replicates={3: 1, 4: 2, 5: 1, 6: 2}, parents={2: 1}, ratios=lambda i: (rewards.get(i, 0.1),) * 2
    )
    low, high = compare_nodes(State.of(events), 2, 1).pairs.interval
    # Differences of 0.1, 0.3 and 0.2: standard error 0.1 / sqrt(3), and Student's t of two degrees of freedom.
    assert (high - low) / 2 == pytest.approx(4.302653 * 0.1 / 3**0.5)
    assert (high + low) / 2 == pytest.approx(0.2)


def test_two_explorations_are_compared_with_their_best_nodes(tmp_path, monkeypatch, capsys):
    file = journals.strategy_file(source="a = 1\n")
    journals.journal(tmp_path / "a", three_seeds())
    reviews = {1: journals.reviewed(1, file=file)}
    config = Config().replace({"exploration.ucb_c": 1.0})
    journals.journal(tmp_path / "b", journals.exploration(9, config=config, reviews=reviews))
    for name in "ab":
        (tmp_path / name / "base").mkdir()
        (tmp_path / name / "base" / "manifest.json").write_text(json.dumps({"observations": "0"}))
    monkeypatch.setenv("COLUMNS", "100")
    assert call(monkeypatch, "explore", "compare", tmp_path / "a", tmp_path / "b") == 0
    printed = capsys.readouterr().out
    assert row(printed, "exploration.ucb_c") == ["1.414", "1"]
    assert "pair of runs with equal seeds" in " ".join(printed.split())
    assert "+a = 1" in printed
    assert "effects of changes on the reward" in " ".join(printed.split())
    (tmp_path / "b" / "base" / "manifest.json").write_text(json.dumps({"observations": "1"}))
    assert compare_explorations(tmp_path / "a", tmp_path / "b").pairs.endswith("the data differ")
    (tmp_path / "b" / "base" / "manifest.json").unlink()
    assert compare_explorations(tmp_path / "a", tmp_path / "b").pairs.endswith("are missing")


def test_what_cannot_be_compared_is_one_line(tmp_path, monkeypatch, capsys):
    a = tmp_path / "a"
    journals.journal(a, three_seeds())
    for arguments, expected in {
        (a, 1, 9): "there is no node 9; the nodes are 1, 2, 7, 8",
        (a, 3, 1): "iteration 3 is a run of node 1",
        (a, 1): "one node alone",
        (a, "x", 1): "not the number of a node",
        (a, tmp_path): "no exploration here",
        (tmp_path, a): "no exploration here",
    }.items():
        assert expected in refused(monkeypatch, capsys, "explore", "compare", *arguments)


@pytest.mark.parametrize("width", [80, 160])
def test_comparisons_take_text_of_others_as_it_is_and_fit_the_width(tmp_path, width):
    journals.journal(tmp_path / "a", journals.exploration(4, data=HOSTILE, name="[red]x[/]"))
    journals.journal(tmp_path / "b", journals.exploration(4, data="x" * 200))
    page = text_of(comparison_page(compare_explorations(tmp_path / "a", tmp_path / "b")), width)
    assert "\x1b" not in page
    assert max(map(len, page.splitlines())) <= width
