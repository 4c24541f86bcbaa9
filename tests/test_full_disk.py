"""Full disks: whatever they hit, no iteration fails for good, and the explorer ends in one line or runs it again."""

import errno
import os
import resource
from collections import Counter

import explorer_lives
import h5py
import pytest
from explorer_lives import Asked, explorer, opened
from test_explorer_crashes import completions, faulty, of_kind, outcomes, untimed

from metabolismgraph.errors import FirewallError, InputError, TrainingFailedError, TrainingLostError
from metabolismgraph.explore import loop
from metabolismgraph.explore.engines import job
from metabolismgraph.explore.engines.base import UNFLUSHED
from metabolismgraph.explore.engines.local import ProcessEngine
from metabolismgraph.explore.engines.outcome import OUTCOME, Outcome, read_outcome, write_outcome
from metabolismgraph.explore.folder import ExplorationFolder
from metabolismgraph.explore.proposers import asking, command
from metabolismgraph.explore.review.admission import Verdict
from metabolismgraph.explore.state import State
from metabolismgraph.explore.validation import validate
from metabolismgraph.files import is_fault_of_disk, lack_of_room, write_bytes
from metabolismgraph.ground_truth.simulator import simulate
from metabolismgraph.runs import train_process, training
from metabolismgraph.runs.checkpoint import save_observations
from metabolismgraph.runs.folder import RunFolder

FULL = os.strerror(errno.ENOSPC)


def full(*_, **__):
    raise OSError(errno.ENOSPC, FULL)


# What tells a full disk


def test_room_is_what_a_file_finds(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        assert lack_of_room(tmp_path, 100_000) == ""
        assert lack_of_room(tmp_path, 100_001) == os.strerror(errno.EFBIG)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert lack_of_room(tmp_path / "missing") == os.strerror(errno.ENOENT)
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_the_place_of_another_says_the_same():
    def raised(number):
        try:
            try:
                raise OSError(number, os.strerror(number))
            except OSError as error:
                raise InputError(f"x: cannot be written ({error.strerror})") from None
        except InputError as error:
            return error

    assert is_fault_of_disk(raised(errno.ENOSPC))
    assert is_fault_of_disk(raised(errno.EDQUOT))
    assert not is_fault_of_disk(raised(errno.ENOENT))
    assert not is_fault_of_disk(ValueError("no"))
    assert not is_fault_of_disk(None)


# In the process of a job


def cause(tmp_path, monkeypatch, run_job):
    monkeypatch.setattr(job, "run_job", run_job)
    return job._outcome(tmp_path).cause


def no_run_folder(folder):
    return RunFolder.create(folder / "run", explorer_lives.load_config("small"), {"command": "run"})


def test_a_run_folder_that_cannot_be_made(tmp_path, monkeypatch):
    monkeypatch.setattr("metabolismgraph.runs.folder.write_bytes", full)
    with pytest.raises(InputError):
        no_run_folder(tmp_path)
    assert cause(tmp_path, monkeypatch, no_run_folder) == "machine"


def test_an_evaluation_whose_library_says_something_else(tmp_path, monkeypatch):
    """HDF5 raises a RuntimeError without a number when the rest of a file finds no room."""

    def evaluate(folder):
        raise RuntimeError("Can't decrement id ref count (unable to extend file properly)")

    assert cause(tmp_path, monkeypatch, evaluate) == "idea"
    monkeypatch.setattr(job, "lack_of_room", lambda folder: FULL)
    assert cause(tmp_path, monkeypatch, evaluate) == "machine"


def test_what_hdf5_says_on_a_full_disk(tmp_path, monkeypatch):
    def evaluate(folder):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        monkeypatch.setattr(job, "lack_of_room", lambda folder: lack_of_room(folder) and release(soft, hard))
        with h5py.File(folder / "evaluation.nc", "w") as file:
            file["x"] = bytes(1_000_000)

    def release(soft, hard):
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        return FULL

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        assert cause(tmp_path, monkeypatch, evaluate) == "machine"
    finally:
        release(soft, hard)


def test_an_idea_fails_by_itself_where_there_is_room(tmp_path, monkeypatch):
    def fails(error):
        def run(folder):
            raise error

        return run

    for error in (InputError("no"), TrainingFailedError("no"), ZeroDivisionError("no"), FirewallError("no")):
        assert cause(tmp_path, monkeypatch, fails(error)) == "idea"
    assert cause(tmp_path, monkeypatch, fails(TrainingLostError("no"))) == "machine"
    monkeypatch.setattr(job, "lack_of_room", lambda folder: FULL)
    assert cause(tmp_path, monkeypatch, fails(FirewallError("no"))) == "idea"


def test_a_traceback_that_cannot_be_written_hides_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(job.traceback, "print_exc", full)
    assert cause(tmp_path, monkeypatch, lambda folder: 1 / 0) == "idea"


def test_a_lock_that_cannot_be_made(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "end_with_parent", lambda: None)
    (tmp_path / "lock").mkdir()
    assert job.main(tmp_path) == job.NO_ROOM


@pytest.mark.parametrize("code", [job.NO_ROOM, UNFLUSHED])
def test_a_job_that_could_not_say_its_last_words(tmp_path, code):
    (tmp_path / "1").mkdir()
    engine = ProcessEngine(1, 60.0, ("sh", "-c", f"exit {code}"))
    engine.submit(1, tmp_path / "1")
    (ended,) = engine.wait(30.0)
    assert ended.cause == "machine"
    assert "check the space on the disk" in ended.reason


# In training


def test_training_that_finds_no_room_is_lost(tmp_path, monkeypatch):
    """Its exit code tells, also where the disk has room again a moment later."""
    monkeypatch.setattr(train_process.audit_hook, "seal", lambda *_, **__: True)
    monkeypatch.setattr(train_process.audit_hook, "activate", lambda **_: False)
    monkeypatch.setattr("metabolismgraph.runs.train_folder.train_folder", full)
    assert train_process.main(tmp_path) == train_process.NO_ROOM

    class Training:
        stdout = ()
        __init__ = __exit__ = lambda *_, **__: None

        def __enter__(self):
            return self

        def wait(self):
            return train_process.NO_ROOM

    config = explorer_lives.load_config("small")
    folder = RunFolder.create(tmp_path / "run", config, {"command": "run"})
    folder.training.mkdir()
    save_observations(folder.training / "observations", simulate(config).observations)
    monkeypatch.setattr(training, "start_training", Training)
    monkeypatch.setattr(training, "read_events", lambda stdout: ())
    with pytest.raises(TrainingLostError):
        training.train(folder, lambda *_: None)


# In the explorer


def room(monkeypatch, *lacks):
    """The room that the loop finds, each time it looks; afterwards there is some."""
    waiting = list(lacks)
    monkeypatch.setattr(loop, "lack_of_room", lambda folder: waiting.pop(0) if waiting else "")


def test_runs_on_a_full_disk_are_no_failures_and_are_made_again(tmp_path, monkeypatch):
    """Three of fourteen: the explorer ends at each one, and no attempt of it is used up."""
    path, undisturbed = tmp_path / "x", tmp_path / "y"
    for folder in (path, undisturbed):
        opened(folder)
    explorer(undisturbed).run(14)
    hits = (3, 8, 12)
    for hit in hits:
        faulty(path, **{f"i{hit}": "full"})
        for _ in range(4):
            room(monkeypatch, FULL)
            with pytest.raises(InputError, match=rf"^{path}: {FULL} \(iteration {hit} was lost\); make room [^\n]*$"):
                explorer(path).run(14)
            assert hit not in outcomes(path)
        (path / "faults.json").unlink()
    explorer(path).run(14)
    assert untimed(path) == untimed(undisturbed)
    noted = completions(path)
    # A neighbour of the lost job can be killed between its outcome and its note here.
    assert noted <= Counter(range(1, 15)) + Counter(hits * 4)
    assert {hit: noted[hit] for hit in hits} == dict.fromkeys(hits, 5)


def test_a_disk_that_has_room_again_costs_an_attempt(tmp_path, monkeypatch):
    path = tmp_path / "x"
    opened(path)
    faulty(path, i2="full once")
    explorer(path).run(4)
    assert [event.iteration for event in of_kind(path, "lost")] == [2]
    assert [event.event for event in outcomes(path)[2]] == ["finished"]


def test_a_job_that_cannot_be_described_is_tried_again(tmp_path, monkeypatch):
    path = tmp_path / "x"
    opened(path)
    describe, faults = ExplorationFolder.describe, [2, 2]

    def refuse(self, proposed, state, folder=None):
        if proposed.iteration in faults:
            faults.remove(proposed.iteration)
            full()
        describe(self, proposed, state, folder)

    monkeypatch.setattr(ExplorationFolder, "describe", refuse)
    explorer(path).run(4)
    assert [event.iteration for event in of_kind(path, "lost")] == [2, 2]
    assert [event.event for event in outcomes(path)[2]] == ["finished"]


def test_a_fault_that_was_left_behind_by_a_killed_explorer_is_no_failure_either(tmp_path, monkeypatch):
    path = tmp_path / "x"
    opened(path)
    folder = ExplorationFolder(path).job(1)
    folder.mkdir(parents=True)
    write_outcome(folder, Outcome(None, FULL, 1.0, "machine"))
    room(monkeypatch, FULL)
    with pytest.raises(InputError, match="iteration 1 was lost"):
        explorer(path).run(4)
    explorer(path).run(4)
    assert [event.iteration for event in of_kind(path, "finished")] == [1, 2, 3, 4]
    assert of_kind(path, "lost") == []


def test_a_review_on_a_full_disk_refuses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "x"
    opened(path, "asked")
    room(monkeypatch, FULL)
    with pytest.raises(InputError, match=r"the review of a strategy file ended\); make room"):
        explorer(path, Asked(path), review=lambda *_: Verdict.refused("ended with code 1")).run(8)
    with pytest.raises(InputError, match=rf"^{path}: {FULL}; make room [^\n]*$"):
        explorer(path, Asked(path), review=full).run(8)
    assert [event for event in of_kind(path, "refused") if event.kind == "submission"] == []
    assert len(of_kind(path, "reviewed")) == 0
    explorer(path, Asked(path)).run(8)
    assert [event.landed is not None for event in of_kind(path, "reviewed")] == [True]


def test_a_question_that_cannot_be_kept_is_not_answered_by_the_rules(tmp_path, monkeypatch):
    path = tmp_path / "x"
    opened(path, "command")
    settings = explorer_lives.load_config("small").exploration.model_copy(update={"command": ("cat",)})
    monkeypatch.setattr(asking, "write_bytes", full)
    with pytest.raises(InputError, match=rf"^{path}/questions: [^\n]*{FULL}; make room, then `explore resume`$"):
        explorer(path, command.make(settings, path, None)).run(2)
    assert of_kind(path, "proposed", "answered") == []


def test_fresh_seeds_whose_runs_were_lost_are_run_again(tmp_path):
    path = tmp_path / "x"
    opened(path)
    explorer(path).run(4)
    folder = ExplorationFolder(path)
    for number, content in enumerate((Outcome(None, FULL, 1.0, "machine"), None)):
        place = path / "validation" / "0001" / f"{number:04d}"
        place.mkdir(parents=True)
        if content is None:
            write_bytes(place / OUTCOME, b"{}")
        else:
            write_outcome(place, content)
    validate(folder, ProcessEngine(2, 60.0, explorer_lives.JOB), 1, 2)
    state = State.of(folder.journal.read())
    assert [run.state for run in state.validations] == ["scored", "scored"]
    assert read_outcome(path / "validation" / "0001" / "0000").metrics
