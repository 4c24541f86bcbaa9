"""The loop under fire: explorers and jobs that are killed, results that are damaged, disks that are full."""

import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import explorer_lives
import psutil
import pytest
from explorer_lives import Asked, explorer, opened

from metabolismgraph.config import load_config
from metabolismgraph.errors import InputError
from metabolismgraph.explore import journal, loop
from metabolismgraph.explore import views as of_explorations
from metabolismgraph.explore.engines.local import ProcessEngine
from metabolismgraph.explore.folder import ExplorationFolder
from metabolismgraph.explore.journal import Journal
from metabolismgraph.explore.proposers.rules import RulesProposer
from metabolismgraph.explore.start import check_free, open_exploration, prepared
from metabolismgraph.explore.state import State
from metabolismgraph.explore.tree import nodes
from metabolismgraph.explore.views import render

TIMES = ("time", "seconds", "started", "waited")


def events_of(path):
    return ExplorationFolder(path).journal.read()


def untimed(path):
    """A journal without what may differ from one time to the next. Its digests do; they are checked when it is read."""
    lines = [json.loads(line) for line in (path / "journal.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    assert [line["event"] for line in lines if line.pop("chain")] == [event.event for event in events_of(path)]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def of_kind(path, *kinds):
    return [event for event in events_of(path) if event.event in kinds]


def views(path):
    """The views as they lie there, which must be those of the journal."""
    files = {name: (path / name).read_text(encoding="utf-8") for name in render(events_of(path))}
    assert files == render(events_of(path))
    return files


def left_behind(path, patience=10.0):
    """Command lines of processes that still work in a folder; those that are about to end are waited for."""
    until = time.monotonic() + patience
    while True:
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            line = " ".join(process.info["cmdline"] or ())
            if str(path) in line and process.pid != os.getpid() and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(line)
        if not found or time.monotonic() > until:
            return found
        time.sleep(0.05)


def outcomes(path):
    """Iteration -> every outcome of it in the journal."""
    found = {}
    for event in of_kind(path, "finished", "failed"):
        found.setdefault(event.iteration, []).append(event)
    return found


def completions(path):
    return Counter(int(line) for line in (path / "completions").read_text().split())


# -- the explorer is killed


def fire(tmp_path_factory, **plan):
    path = tmp_path_factory.mktemp("lives")
    plan = {"path": str(path), "iterations": 24, "changes": {}} | plan
    command = [sys.executable, "-P", explorer_lives.__file__, json.dumps(plan)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) | {"path": path, "said": done.stderr}


@pytest.fixture(scope="module")
def at_random_moments(tmp_path_factory):
    return fire(tmp_path_factory, proposer="asked", kills=50, seed=4)


@pytest.fixture(scope="module")
def at_every_event(tmp_path_factory):
    return fire(tmp_path_factory, proposer="asked", iterations=14, kills="events")


@pytest.fixture(params=["at_random_moments", "at_every_event"])
def fired(request):
    return request.getfixturevalue(request.param)


def test_every_life_but_the_last_was_a_violent_one(at_random_moments, at_every_event):
    for fired in (at_random_moments, at_every_event):
        assert fired["code"] == 0, fired["said"]
        assert fired["said"] == ""
    assert len(at_random_moments["kills"]) == 50
    assert len(at_every_event["kills"]) >= len(untimed(at_every_event["path"] / "undisturbed")) - 1


def test_random_moments_are_of_all_kinds(at_random_moments):
    places = {length for length, _ in at_random_moments["kills"]}
    kinds = {kind for _, kind in at_random_moments["kills"]}
    assert len(places) >= 15, at_random_moments["kills"]
    assert len(kinds) >= 3, at_random_moments["kills"]


def test_events_after_which_it_died_are_of_every_kind(at_every_event):
    kinds = {kind for _, kind in at_every_event["kills"]}
    wanted = {"proposed", "started", "finished", "scored", "remembered", "reviewed", "answered", "refused"}
    assert wanted <= kinds


def test_no_iteration_is_lost_and_the_journal_is_that_of_an_undisturbed_one(fired):
    path = fired["path"]
    assert untimed(path / "disturbed") == untimed(path / "undisturbed")
    assert [e.iteration for e in of_kind(path / "disturbed", "proposed")] == list(range(1, fired["iterations"] + 1))
    assert len(of_kind(path / "disturbed", "finished")) == fired["iterations"]


def test_nothing_runs_twice_to_its_end(fired):
    assert set(completions(fired["path"] / "disturbed").values()) == {1}
    assert set(completions(fired["path"] / "disturbed")) <= set(range(1, fired["iterations"] + 1))


def test_views_are_those_of_an_undisturbed_one(fired):
    assert views(fired["path"] / "disturbed") == views(fired["path"] / "undisturbed")


def test_orphans_end(fired):
    assert left_behind(fired["path"]) == []


def test_an_answer_that_was_written_down_is_not_asked_for_again(at_every_event):
    path = at_every_event["path"]
    asked = [json.loads(line) for line in (path / "disturbed" / "questions").read_text().splitlines()]
    assert asked
    assert not [question for question in asked if question[-1] == "again"]
    known = Counter((e.kind, e.iteration, e.attempt) for e in of_kind(path / "disturbed", "answered"))
    assert set(known.values()) == {1}
    assert set(known) == {tuple(question[:3]) for question in asked}


def test_the_recorded_exploration_had_everything_in_it(at_every_event):
    """Refusals of every kind, an answer that never came, rules that stood in, strategy files that landed."""
    path = at_every_event["path"] / "undisturbed"
    refused = " ".join(event.reason for event in of_kind(path, "refused"))
    for reason in ("simulation.seed", "no JSON object", "hostile"):
        assert reason in refused
    notes = " ".join(event.note for event in of_kind(path, "proposed"))
    assert "gone for lunch" in notes
    assert "answers of asked were refused" in notes
    assert [event.landed is not None for event in of_kind(path, "reviewed")] == [True, False]
    assert any(event.files for event in of_kind(path, "proposed"))


@pytest.fixture(scope="module")
def asynchronous(tmp_path_factory):
    return fire(
        tmp_path_factory, proposer="asked", iterations=12, kills=10, seed=6, changes={"batches": "asynchronous"}
    )


def test_of_asynchronous_iterations_none_is_lost_or_doubled(asynchronous):
    assert (asynchronous["code"], asynchronous["said"], len(asynchronous["kills"])) == (0, "", 10)
    path, every = asynchronous["path"] / "disturbed", list(range(1, asynchronous["iterations"] + 1))
    assert [event.iteration for event in of_kind(path, "proposed")] == every
    assert sorted(event.iteration for event in of_kind(path, "finished")) == every
    assert [reading.iteration for event in of_kind(path, "remembered") for reading in event.readings] == every
    assert completions(path) <= Counter(every)  # a job can be killed between its outcome and its note here
    log = views(path)["explore_rank50_analysis.md"]
    assert [log.count(f"\n## Iter {number}: ") for number in every] == [1] * len(every)
    asked = [line for line in (path / "questions").read_text().splitlines() if '"again"' in line]
    assert asked == []
    assert left_behind(path) == []


# -- jobs go wrong, each in its own way

FAULTS = {
    "killed": "was killed by SIGKILL (no message)",
    "nameless signal": f"was killed by signal {signal.SIGRTMIN + 1} (no message)",
    "crashed": "was killed by SIGSEGV (no message)",
    "silent": "ended without a result",
    "truncated": "outcome.json is damaged",
    "empty": "outcome.json is damaged",
    "garbled": "outcome.json is damaged (checksum)",
    "nested": "outcome.json is damaged",
    "other": "outcome.json is damaged ('sha256')",
    "chatty": "ended with code 3 (last words of it)",
    "mute": "ended with code 3 (no message)",
    "full": "No space left on device",
    "read-only": "/there/settings.json: Read-only file system",
    "no room": "could not write its result; check the space on the disk (no message)",
    "no room for the outcome": "could not write its result; check the space on the disk (File too large)",
    "broken": "ZeroDivisionError: a message of more than one line",
    "terminated": "was killed by SIGTERM (no message)",
    "training lost": "training was killed by SIGKILL",
    "training failed": "training ended with code 1",
    "refused": "the loss is not finite; lower the learning rates",
    "leak": "training tried to reach outside its folder (open /truth)",
}
# Of the idea; all others are faults of the machine, after which the iteration is run again.
OF_THE_IDEA = {"chatty", "mute", "broken", "crashed", "training failed", "refused", "leak"}


def faulty(path, **faults):
    (path / "faults.json").write_text(json.dumps({str(int(name[1:])): fault for name, fault in faults.items()}))


@pytest.fixture(scope="module")
def with_faults(tmp_path_factory):
    """One exploration in which every fault happens once, each between two iterations that go well."""
    path = tmp_path_factory.mktemp("faults") / "exploration"
    opened(path)
    last = 2 * len(FAULTS) + 2
    faulty(
        path, **{f"i{2 * place + 2}": fault for place, fault in enumerate(FAULTS)}, **{f"i{last}": "chatty but well"}
    )
    explorer(path).run(last)
    return path


@pytest.mark.parametrize(("place", "fault"), list(enumerate(FAULTS)), ids=list(FAULTS))
def test_a_fault_ends_as_one_entry_of_its_class_with_its_reason(with_faults, place, fault):
    (found,) = outcomes(with_faults)[2 * place + 2]
    lost = [event for event in of_kind(with_faults, "lost") if event.iteration == found.iteration]
    assert found.cause == ("idea" if fault in OF_THE_IDEA else "machine")
    assert len(lost) == (0 if fault in OF_THE_IDEA else 2)
    assert all(FAULTS[fault] in event.reason for event in lost)
    assert found.event == "failed"
    assert FAULTS[fault] in found.reason
    assert "\n" not in found.reason
    assert len(found.reason) <= 300
    scored = [event for event in of_kind(with_faults, "scored") if event.iteration == found.iteration]
    state = "failed" if fault in OF_THE_IDEA else "lost"
    assert [(event.state, event.reward, event.parts) for event in scored] == [(state, 0.0, ())]


def test_only_faults_of_the_idea_count_against_a_configuration(with_faults):
    state = State.of(events_of(with_faults))
    for iteration in state.iterations:
        node = next(node for node in nodes(state) if node.id == iteration.node)
        assert iteration.counts == (iteration.scored.state != "lost")
        assert len(node.rewards) == sum(run.counts for run in node.runs)


def test_a_run_that_is_lost_once_is_made_again(tmp_path):
    """The second time, the machine holds."""
    path = tmp_path / "exploration"
    opened(path)
    faulty(path, i2="killed once", i3="garbled once")
    explorer(path).run(4)
    assert [e.iteration for e in of_kind(path, "finished")] == [1, 2, 3, 4]
    lost = {e.iteration: e.reason for e in of_kind(path, "lost")}
    assert lost == {2: "was killed by SIGKILL (no message)", 3: "outcome.json is damaged (checksum)"}
    log = (path / "explore_rank50_analysis.md").read_text()
    assert log.count("lost") == log.count("\n> Iteration ") == 2  # remarks beside the entries


def test_no_run_is_made_again_where_that_is_not_wanted(tmp_path):
    path = tmp_path / "exploration"
    opened(path, retries=0)
    faulty(path, i2="killed")
    explorer(path).run(4)
    assert of_kind(path, "lost") == []
    assert outcomes(path)[2][0].cause == "machine"


def test_the_others_go_on(with_faults):
    found = outcomes(with_faults)
    assert set(found) == set(range(1, 2 * len(FAULTS) + 3))
    well = [i for i in found if i % 2 or i == 2 * len(FAULTS) + 2]
    assert [found[i][0].event for i in well] == ["finished"] * len(well)
    assert left_behind(with_faults) == []
    log = (with_faults / "explore_rank50_analysis.md").read_text()
    assert log.count(": failed\n") >= len(FAULTS)
    assert views(with_faults)


def test_every_entry_of_a_fault_is_read_back(with_faults):
    assert render(events_of(with_faults))
    assert all("\n" not in line for line in with_faults.joinpath("journal.jsonl").read_text().splitlines())


def test_a_job_past_its_time_goes_with_all_that_it_started(tmp_path):
    path = tmp_path / "exploration"
    opened(path, n_parallel=2, retries=0)
    faulty(path, i2="late")
    explorer(path, limit=3.0).run(2)
    (found,) = outcomes(path)[2]
    assert found.cause == "machine"
    assert found.reason == "took longer than exploration.slot_minutes = 0.05 and was stopped"
    assert found.seconds >= 3.0
    assert left_behind(path, patience=0.0) == []


def test_of_jobs_in_one_folder_one_works_and_the_others_wait(tmp_path):
    """An orphan that is about to end, and the job of the next life: whoever comes first, it is done once."""
    path = tmp_path / "exploration"
    opened(path, n_parallel=1)
    explorer(path).run(1)
    (path / "runs" / "0001" / "outcome.json").unlink()
    (path / "completions").unlink()
    engine = ProcessEngine(4, 60.0, explorer_lives.JOB)
    for number in range(4):
        engine.submit(number, path / "runs" / "0001")
    ended = []
    while len(ended) < 4:
        ended += engine.wait(1.0)
    engine.close()
    assert {job.reason for job in ended} == {None}
    assert completions(path) == {1: 1}


def test_a_damaged_result_that_was_left_behind_is_not_scored(tmp_path):
    """The explorer was killed before it read the result, and the disk lost some of it."""
    path = tmp_path / "exploration"
    opened(path, n_parallel=2)
    explorer(path).run(2)
    journal = path / "journal.jsonl"
    lines = journal.read_bytes().split(b"\n")
    started = max(n for n, line in enumerate(lines) if b'"event":"started"' in line)
    journal.write_bytes(b"\n".join(lines[: started + 1]) + b"\n")
    result = path / "runs" / "0002" / "outcome.json"
    result.write_bytes(result.read_bytes()[:-40])
    explorer(path).run(2)
    assert [outcomes(path)[i][0].event for i in (1, 2)] == ["finished", "finished"]
    (lost,) = of_kind(path, "lost")
    assert (lost.iteration, "outcome.json is damaged" in lost.reason) == (2, True)
    assert completions(path) == {1: 1, 2: 2}  # run again


def test_a_file_where_the_folder_of_a_job_should_be(tmp_path):
    path = tmp_path / "exploration"
    opened(path)
    (path / "runs").mkdir()
    (path / "runs" / "0002").write_text("")
    explorer(path).run(4)
    (found,) = outcomes(path)[2]
    assert found.event == "failed"
    assert found.reason == f"{path}/runs/0002: File exists"
    assert [outcomes(path)[i][0].event for i in (1, 3, 4)] == ["finished"] * 3


@pytest.mark.parametrize("error", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_a_job_cannot_be_described_in(tmp_path, monkeypatch, error):
    path = tmp_path / "exploration"
    opened(path)
    describe = ExplorationFolder.describe

    def refuse(self, proposed, state, folder=None):
        if proposed.iteration == 3:
            # Writing into an open file that finds no room does not name it.
            raise OSError(error, os.strerror(error))
        describe(self, proposed, state, folder)

    monkeypatch.setattr(ExplorationFolder, "describe", refuse)
    explorer(path).run(4)
    (found,) = outcomes(path)[3]
    assert found.event == "failed"
    assert found.reason == f"{path}/runs/0003: {os.strerror(error)}"
    assert [outcomes(path)[i][0].event for i in (1, 2, 4)] == ["finished"] * 3


def test_a_program_that_cannot_be_started(tmp_path, monkeypatch):
    path = tmp_path / "exploration"
    opened(path)
    monkeypatch.setattr(explorer_lives, "JOB", (str(tmp_path / "missing"),))
    explorer(path).run(4)
    for i in range(1, 5):
        (found,) = outcomes(path)[i]
        assert found.reason == f"could not be started (No such file or directory: {tmp_path / 'missing'})"


# -- the disk of the journal is full


def test_a_full_disk_stops_the_explorer_in_one_line_and_resume_goes_on(tmp_path, monkeypatch):
    """Wherever in the journal it happens. A limit for all files is a full disk for the one that is the longest."""
    # The page would be longer than the journal.
    monkeypatch.setattr(of_explorations, "render_report", lambda *_, **__: "")
    undisturbed, path = tmp_path / "undisturbed", tmp_path / "exploration"
    for folder in (undisturbed, path):
        opened(folder)
    explorer(undisturbed).run(10)
    sizes = sorted(file.stat().st_size for file in undisturbed.rglob("*") if file.is_file())
    rng = random.Random(7)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in sorted(rng.randrange(sizes[-2] + 100, sizes[-1]) for _ in range(8)):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(InputError) as error:
                explorer(path).run(10)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert str(error.value) == (
            f"{path}/journal.jsonl: cannot be written (File too large); make room or give access, then `explore resume`"
        )
        written = (path / "journal.jsonl").read_bytes()
        assert written.endswith(b"\n")
        assert limit - 3000 < len(written) <= limit
        assert left_behind(path) == []
    explorer(path).run(10)
    assert untimed(path) == untimed(undisturbed)
    assert set(completions(path).values()) == {1}


def test_a_disk_too_full_for_the_views_says_what_was_wrong_first(tmp_path, monkeypatch):
    path = tmp_path / "exploration"
    opened(path)
    explorer(path).run(4)

    def full(*arguments, **_):
        raise InputError(f"{arguments[0]}: no room")

    monkeypatch.setattr(Journal, "append", full)
    monkeypatch.setattr(loop, "write_views", full)
    with pytest.raises(InputError, match="Journal object"):
        explorer(path).run(8)


# -- the user stops it


LIFE = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from explorer_lives import explorer
count = []
signal.signal(signal.SIGINT, lambda *_: count.append(os.write(int(sys.argv[3]), b".")))
try:
    explorer(Path(sys.argv[2]), workers=4, stopping=lambda: len(count)).run(12)
except KeyboardInterrupt:
    sys.exit(130)
"""


def interrupted(path, times):
    """Exit code of an explorer that is interrupted as soon as the first job of its first batch has ended."""
    heard, tells = os.pipe()
    words = sys.executable, "-c", LIFE, str(Path(__file__).parent), str(path), str(tells)
    process = subprocess.Popen(words, pass_fds=[tells])
    os.close(tells)
    try:
        until = time.monotonic() + 60
        while not (path / "completions").exists() and time.monotonic() < until:
            time.sleep(0.01)
        for _ in range(times):
            process.send_signal(signal.SIGINT)
            os.read(heard, 1)  # two signals at once are one
        return process.wait(60)
    finally:
        os.close(heard)
        process.kill()
        process.wait()


def test_one_interrupt_finishes_the_batch(tmp_path):
    path = tmp_path / "exploration"
    opened(path)
    faulty(path, i2="slow", i3="slow", i4="slow")
    assert interrupted(path, 1) == 0
    assert sorted(outcomes(path)) == [1, 2, 3, 4]
    assert len(of_kind(path, "finished")) == 4
    assert len(of_kind(path, "remembered")) == 1
    assert len(of_kind(path, "proposed")) == 4
    assert left_behind(path, patience=0.0) == []
    (path / "faults.json").unlink()
    explorer(path).run(8)
    assert sorted(outcomes(path)) == list(range(1, 9))
    assert set(completions(path).values()) == {1}


def test_a_second_interrupt_stops_at_once(tmp_path):
    path = tmp_path / "exploration"
    opened(path)
    faulty(path, i2="late", i3="late", i4="late")
    assert interrupted(path, 2) == 130
    assert left_behind(path, patience=0.0) == []
    assert not of_kind(path, "remembered")
    assert 2 not in outcomes(path)
    assert views(path)
    (path / "faults.json").unlink()
    explorer(path).run(6)
    assert sorted(outcomes(path)) == list(range(1, 7))
    assert len(of_kind(path, "finished")) == 6
    assert set(completions(path).values()) == {1}


# -- one explorer at a time, more or fewer iterations


def test_a_second_explorer_is_refused_and_does_no_harm(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "_LOCK_PATIENCE", 0.0)  # the first is done within it
    path = tmp_path / "exploration"
    opened(path)
    first = threading.Thread(target=lambda: explorer(path, Asked(path)).run(8))
    first.start()
    until = time.monotonic() + 60
    while len(events_of(path)) < 3 and time.monotonic() < until:
        time.sleep(0.005)
    said = []
    while first.is_alive():
        try:
            explorer(path, Asked(path)).run(8)
        except InputError as error:
            said.append(str(error))
        time.sleep(0.02)
    first.join()
    assert set(said) == {f"{path}: another explorer is running there; wait for it, or stop it first"}
    assert sorted(outcomes(path)) == list(range(1, 9))
    assert set(completions(path).values()) == {1}


@pytest.mark.parametrize(("n_parallel", "n_iter_block"), [(1, 3), (7, 9), (3, 8), (4, 2)])
def test_slots_batches_and_blocks_fit_whatever_their_sizes(tmp_path, n_parallel, n_iter_block):
    path = tmp_path / "exploration"
    opened(path, n_parallel=n_parallel, n_iter_block=n_iter_block)
    explorer(path).run(10)
    proposed = of_kind(path, "proposed")
    assert [event.iteration for event in proposed] == list(range(1, 11))
    for event in proposed:
        assert event.slot == (event.iteration - 1) % n_iter_block % n_parallel
    ends = [event.iteration for event in of_kind(path, "remembered")]
    expected = [i for i in range(1, 11) if i % n_iter_block == 0 or (i % n_iter_block) % n_parallel == 0 or i == 10]
    assert ends == expected
    assert [event.iteration for event in of_kind(path, "reviewed")] == list(range(n_iter_block + 1, 11, n_iter_block))
    # A batch is proposed before any of it is known, and known before the next one is proposed.
    known = 0
    for event in events_of(path):
        if event.event == "remembered":
            known = event.iteration
        if event.event == "proposed":
            assert event.iteration - known <= n_parallel
        if event.event == "reviewed":
            assert known == event.iteration - 1


def test_fewer_iterations_than_there_are_change_nothing(tmp_path):
    path = tmp_path / "exploration"
    opened(path)
    explorer(path).run(6)
    before = (path / "journal.jsonl").read_bytes()
    for fewer in (1, 5, 6):
        explorer(path).run(fewer)
        assert (path / "journal.jsonl").read_bytes() == before


def test_fewer_iterations_than_were_begun_finish_what_was_begun(tmp_path):
    path = tmp_path / "exploration"
    opened(path)
    explorer(path).run(4)
    journal = path / "journal.jsonl"
    lines = journal.read_bytes().split(b"\n")
    cut = max(n for n, line in enumerate(lines) if b'"event":"proposed"' in line)  # iteration 4 is proposed, not run
    journal.write_bytes(b"\n".join(lines[: cut + 1]) + b"\n")
    for i in range(1, 5):
        (path / "runs" / f"{i:04d}" / "outcome.json").unlink()
    explorer(path).run(2)
    assert sorted(outcomes(path)) == [1, 2, 3, 4]
    assert len(of_kind(path, "proposed")) == 4


def test_more_iterations_go_on_where_it_stopped(tmp_path):
    """In the middle of a batch, whose other slots are filled then."""
    path = tmp_path / "exploration"
    opened(path)
    explorer(path).run(3)
    assert [event.slot for event in of_kind(path, "proposed")] == [0, 1, 2]
    explorer(path).run(8)
    assert [event.slot for event in of_kind(path, "proposed")] == [0, 1, 2, 3, 0, 1, 0, 1]
    assert [event.iteration for event in of_kind(path, "remembered")] == [3, 4, 6, 8]


def test_no_batch_begins_after_the_hours_are_spent(tmp_path):
    path = tmp_path / "exploration"
    opened(path, max_hours=1e-9)
    state = explorer(path).run(12)
    assert sorted(outcomes(path)) == [1, 2, 3, 4]
    assert len(of_kind(path, "remembered")) == 1
    assert state.hours > 1e-9
    explorer(path).run(12)
    assert sorted(outcomes(path)) == [1, 2, 3, 4]


def test_the_hours_spent_count_from_one_life_to_the_next(tmp_path):
    """They are in the journal, not in the clock of a process."""
    path = tmp_path / "exploration"
    opened(path, n_workers=2)
    state = explorer(path).run(4)
    assert state.hours * 3600 >= max(event.waited + event.seconds for event in of_kind(path, "finished"))
    assert explorer(path).run(4).hours == state.hours


def test_an_explorer_without_a_folder(tmp_path):
    with pytest.raises(InputError, match="cannot be made"):
        explorer(tmp_path / "missing", RulesProposer()).run(4)


def test_a_journal_that_cannot_be_appended_to_any_more_ends_the_jobs(tmp_path, monkeypatch):
    path = tmp_path / "exploration"
    opened(path)
    append = Journal.append

    def fail(self, event):
        if event.event == "finished":
            raise InputError("the journal: cannot be written (Input/output error)")
        return append(self, event)

    faulty(path, i2="late", i3="late", i4="late")
    monkeypatch.setattr(Journal, "append", fail)
    with pytest.raises(InputError, match="Input/output error"):
        explorer(path, workers=4).run(4)
    assert left_behind(path, patience=0.0) == []


def test_an_exploration_cut_off_before_its_first_line_can_begin(tmp_path):
    path = tmp_path / "a"
    (path / "base").mkdir(parents=True)
    (path / "journal.jsonl").write_bytes(b'{"time":"2026')
    (path / "journal.lock").touch()
    check_free(path)
    config = prepared(load_config("explore_rank50"))
    folder = open_exploration(path, config, proposer="rules", data="made up")
    assert len(folder.journal.read()) == 1
    with pytest.raises(InputError, match="explore resume"):
        check_free(path)


def test_what_a_crash_left_half_written_is_taken_away(tmp_path):
    path = tmp_path / "a"
    opened(path)
    (path / ".explore_rank50_memory.md.4711.part").write_text("half")
    explorer(path).run(2)
    assert not list(path.glob(".*.part"))
