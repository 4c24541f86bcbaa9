"""Kernels without Landlock: strategy files are not executed, unless the user says so."""

import json
import subprocess
import sys

import explorer_lives
import journals
import pytest
from command_line import call
from explorer_lives import Asked, explorer, opened

from metabolismgraph.errors import InputError, TrainingLostError
from metabolismgraph.explore.engines.local import ProcessEngine
from metabolismgraph.explore.events import Approved
from metabolismgraph.explore.folder import ExplorationFolder
from metabolismgraph.explore.inbox import Inbox, new_id
from metabolismgraph.explore.loop import Explorer
from metabolismgraph.explore.planning import own_strategies
from metabolismgraph.explore.proposers.prompt import Context, for_submission
from metabolismgraph.explore.proposers.rules import RulesProposer
from metabolismgraph.explore.repeat import repeat
from metabolismgraph.explore.state import State
from metabolismgraph.explore.validation import validate
from metabolismgraph.runs import pipeline, train_process
from metabolismgraph.sandbox import landlock

SAFE = {"unsafe_strategies": False}


@pytest.fixture
def old_kernel(monkeypatch):
    monkeypatch.setattr(landlock, "available", lambda: False)


def state_of(path):
    return State.of(ExplorationFolder(path).journal.read())


def with_file(path, monkeypatch, **changes):
    """An exploration whose file landed, or is held, on a machine with Landlock."""
    opened(path, "asked", **changes)
    with monkeypatch.context() as patch:
        patch.setattr(landlock, "available", lambda: True)
        explorer(path, Asked(path)).run(8)
    return state_of(path)


def test_a_file_is_refused_with_the_reason_before_its_review(tmp_path, old_kernel):
    path = tmp_path / "x"
    opened(path, "asked", **SAFE)
    explorer(path, Asked(path), review=lambda *_: pytest.fail("it was executed")).run(7)
    state = state_of(path)
    refused = [event.reason for event in state.refused if event.kind == "submission"]
    assert refused
    assert set(refused) == {landlock.MISSING}
    assert "Linux 5.13" in landlock.MISSING
    assert "--unsafe-strategies" in landlock.MISSING
    assert [review.landed for review in state.reviews] == [None]


@pytest.mark.parametrize("how", ["setting", "option"])
def test_the_user_may_say_that_files_are_executed_all_the_same(tmp_path, old_kernel, how):
    path = tmp_path / "x"
    opened(path, "asked", unsafe_strategies=how == "setting")
    folder = ExplorationFolder(path, unsafe_strategies=how == "option")
    engine = ProcessEngine(2, 60.0, explorer_lives.JOB)
    state = Explorer(folder, engine, Asked(path), review=explorer_lives.review).run(9)
    assert own_strategies(state).keys() == {"mine"}
    job = next(i.number for i in state.iterations if i.proposed.files)
    assert json.loads((folder.job(job) / "job.json").read_text())["unsafe_strategies"] is True


def test_a_language_model_is_not_asked_for_a_file(old_kernel):
    state = State.of(journals.exploration(8))
    assert "one Python file" in for_submission(state, 1, []).system
    assert "No strategy files are taken here" in for_submission(state, 1, [], Context(files=False)).system
    assert "one Python file" not in for_submission(state, 1, [], Context(files=False)).system


@pytest.mark.parametrize(("available", "asked_for"), [(True, True), (False, False)])
def test_a_proposer_knows_whether_files_are_taken(tmp_path, monkeypatch, available, asked_for):
    monkeypatch.setattr(landlock, "available", lambda: available)
    opened(tmp_path / "x", **SAFE)
    proposer = RulesProposer()
    explorer(tmp_path / "x", proposer).run(1)
    assert proposer.takes_files is asked_for


def test_an_approval_is_refused_with_the_reason(tmp_path, monkeypatch, old_kernel):
    path = tmp_path / "x"
    state = with_file(path, monkeypatch, approve=True, **SAFE)
    (held,) = state.held
    accepted = Approved(id=new_id(), by="ada", name="mine", digest=held.held, accepted=True)
    Inbox(path / "inbox").put(accepted)
    explorer(path, Asked(path)).run(13)
    state = state_of(path)
    assert state.held == ()
    assert own_strategies(state) == {}
    assert f"> Strategy mine refused by ada: {landlock.MISSING}\n" in next(path.glob("*_analysis.md")).read_text()
    assert not (path / "strategies" / "mine.py").exists()


def test_a_run_with_a_file_is_not_begun_and_counts_against_nothing(tmp_path, monkeypatch, old_kernel):
    """The exploration came from a machine with Landlock, with its file in force."""
    path = tmp_path / "x"
    assert own_strategies(with_file(path, monkeypatch, **SAFE)).keys() == {"mine"}
    with pytest.raises(InputError, match=rf"^iteration 9: {landlock.MISSING}$"):
        explorer(path, Asked(path)).run(10)
    before = state_of(path)
    assert before.iterations[8].outcome is None
    monkeypatch.setattr(landlock, "available", lambda: True)
    state = explorer(path, Asked(path)).run(10)
    assert [i.scored.state for i in state.iterations] == ["scored"] * 10
    monkeypatch.setattr(landlock, "available", lambda: False)
    folder, engine = ExplorationFolder(path), ProcessEngine(1, 60.0, explorer_lives.JOB)
    with pytest.raises(InputError, match=landlock.MISSING):
        repeat(folder, state, 9, tmp_path / "again", engine)
    with pytest.raises(InputError, match=landlock.MISSING):
        validate(folder, engine, 9, 3)
    assert state_of(path).validations == ()


def test_a_run_of_a_job_is_lost_with_its_machine(tmp_path, old_kernel):
    with pytest.raises(TrainingLostError, match=landlock.MISSING):
        pipeline.run_phase2(explorer_lives.load_config("small"), tmp_path, tmp_path / "x", strategies={"mine": "# it"})


LOOKS_LIKE_IT = """
import sys
from pathlib import Path
from metabolismgraph.sandbox import landlock
landlock.confine = lambda allowed: False
from metabolismgraph.runs.train_process import main
sys.exit(main(Path(sys.argv[1]), kernel=sys.argv[2] == "True"))
"""


@pytest.mark.parametrize("kernel", [True, False])
def test_training_ends_where_the_kernel_has_landlock_but_does_not_confine(tmp_path, kernel):
    command = [sys.executable, "-P", "-c", LOOKS_LIKE_IT, str(tmp_path), str(kernel)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert '"kernel": false' in done.stdout
    assert (done.returncode == train_process.UNGUARDED) == kernel


@pytest.mark.parametrize(
    ("proposer", "available", "unsafe", "said"),
    [
        ("command", False, False, f"note: {landlock.MISSING}"),
        ("command", False, True, "warning: this kernel has no Landlock: Python's audit hook alone confines"),
        ("command", True, False, ""),
        ("rules", False, False, ""),
    ],
)
def test_a_start_says_so_in_one_line(monkeypatch, capsys, tmp_path, proposer, available, unsafe, said):
    monkeypatch.setattr(landlock, "available", lambda: available)
    words = ["start", "small", "--out", tmp_path / "x", "--proposer", proposer, "--dry-run", "--quiet"]
    words += ["--set", "exploration.command=[cat]", *(["--unsafe-strategies"] if unsafe else [])]
    assert call(monkeypatch, "explore", *words) == 0
    found = [line for line in capsys.readouterr().err.splitlines() if "Landlock" in line]
    assert len(found) == bool(said)
    assert "".join(found).startswith(said)


def test_a_resume_says_so_too(monkeypatch, capsys, tmp_path, old_kernel):
    opened(tmp_path / "x", "command", n_parallel=2, n_iter_block=2, command=("cat",), **SAFE)
    explorer(tmp_path / "x", RulesProposer()).run(2)
    assert call(monkeypatch, "explore", "resume", tmp_path / "x", "--iterations", 2, "--quiet") == 0
    assert capsys.readouterr().err == f"note: {landlock.MISSING}\n"
