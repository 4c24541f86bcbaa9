"""Explorations on a cluster: a real Slurm of our own, and a stand-in for the commands of LSF."""

import contextlib
import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from cluster_lives import (
    SETTINGS,
    begin_explorer,
    begun,
    completions,
    ends_of,
    engine,
    events_of,
    faulty,
    killed_while_jobs_work,
    untimed,
    wait_for,
)
from explorer_lives import JOB, explorer, opened

from metabolismgraph.errors import InputError
from metabolismgraph.explore.engines import attempts
from metabolismgraph.explore.engines.attempts import Attempt, Lost, Submission, in_force, retire
from metabolismgraph.explore.engines.cluster import ClusterEngine, cancel_all
from metabolismgraph.files import write_bytes
from metabolismgraph.schedulers import make_scheduler
from metabolismgraph.schedulers.base import Seen
from metabolismgraph.schedulers.settings import ClusterSettings


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """An exploration with processes."""
    path = tmp_path_factory.mktemp("undisturbed") / "x"
    opened(path)
    explorer(path).run(8)
    return path


def test_an_exploration_is_the_same_as_with_processes(cluster, undisturbed, tmp_path):
    path = tmp_path / "x"
    opened(path)
    explorer(path, engine=engine(cluster)).run(8)
    assert untimed(path) == untimed(undisturbed)
    assert completions(path) == Counter(range(1, 9))


# Jobs that are lost, and what becomes of their iterations


def test_a_job_that_is_killed_is_run_again(cluster, tmp_path):
    path = tmp_path / "x"
    opened(path)
    faulty(path, i2="killed once", i3="killed", i4="crashed")
    explorer(path, engine=engine(cluster, retries=1)).run(4)
    losses, end = ends_of(path, 2)
    assert (losses, end.event) == (["killed"], "finished")
    losses, end = ends_of(path, 3)
    assert (losses, end.event, end.cause, end.kind) == (["killed"], "failed", "machine", "killed")
    assert "was killed: job" in end.reason
    losses, end = ends_of(path, 4)
    assert (losses, end.cause) == ([], "idea")
    scored = {event.iteration: event.state for event in events_of(path, "scored")}
    assert (scored[3], scored[4]) == ("lost", "failed")


@pytest.mark.on_demand
def test_other_ends_of_jobs(cluster, tmp_path):
    path = tmp_path / "x"
    opened(path, retries=0)
    faulty(path, i1="mute", i2="no room once", i3="truncated", i4="late")
    explorer(path, engine=engine(cluster, limit=1.0)).run(4)
    losses, end = ends_of(path, 1)
    assert (losses, end.kind, end.cause) == (["died"], "died", "machine")
    losses, end = ends_of(path, 2)
    assert (losses, end.event) == (["disk"], "finished")
    losses, end = ends_of(path, 3)
    assert (losses, end.cause, end.reason.split(" (")[0]) == ([], "machine", "outcome.json is damaged")
    losses, end = ends_of(path, 4)
    assert end.reason == "took longer than exploration.slot_minutes = 0.0166667 and was stopped"


@pytest.mark.on_demand
def test_too_many_lost_jobs_in_a_row_stop_the_explorer(lsf, tmp_path):
    path = tmp_path / "x"
    opened(path)
    faulty(path, **{f"i{i}": "killed" for i in range(1, 5)})
    with pytest.raises(InputError, match="lsf: . jobs in a row were lost, and none had an outcome"):
        explorer(path, engine=engine(lsf)).run(4)
    assert 4 <= len(events_of(path, "lost")) <= 8
    assert len(list(path.glob("runs/*/a*/native"))) <= 8
    (path / "faults.json").unlink()
    explorer(path, engine=engine(lsf)).run(4)
    assert completions(path) == Counter(range(1, 5))


def test_losses_that_a_former_explorer_saw_do_not_stop_the_next(lsf, tmp_path):
    jobs = engine(lsf)
    for job in range(1, 7):
        attempt = Attempt(tmp_path / str(job), 1)
        attempt.prepare(Submission(lsf, f"mg-former-{job}-1"))
        attempt.note_loss(Lost("killed", "was killed", 1.0))
        jobs.submit(job, attempt.folder)
    assert [(end.job, end.kind) for end in jobs.wait(0.0)] == [(job, "killed") for job in range(1, 7)]
    retire(tmp_path / "1")
    jobs.submit(1, tmp_path / "1")
    wait_for(lambda: jobs.wait(0.01) == [] and Attempt(tmp_path / "1", 2).native)
    jobs.close()
    jobs = engine(lsf)
    jobs._heard, jobs._lost_in_a_row = True, 5  # those that it saw itself do
    retire(tmp_path / "2")
    with pytest.raises(InputError, match="lsf: 5 jobs in a row were lost, and none had an outcome"):
        jobs.submit(2, tmp_path / "2")


def test_more_memory_after_a_job_that_used_too_much(lsf, tmp_path):
    path = tmp_path / "x"
    opened(path, n_parallel=1)
    faulty(path, i1="greedy once")
    explorer(path, engine=engine(lsf, memory_gb=2.0)).run(1)
    losses, end = ends_of(path, 1)
    assert (losses, end.event) == (["memory"], "finished")
    scripts = [(path / "runs" / "0001" / place / "job.sh").read_text() for place in ("a1", "a2")]
    assert ["#BSUB -M 2000" in scripts[0], "#BSUB -M 3000" in scripts[1]] == [True, True]


# The explorer ends, and another one follows


@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, *(pytest.param(n, marks=pytest.mark.on_demand) for n in (signal.SIGTERM, signal.SIGHUP))],
)
def test_jobs_go_on_without_the_explorer(lsf, tmp_path, number):
    path = tmp_path / "x"
    opened(path)
    faulty(path, i2="held")
    explorers_number = begin_explorer(path, engine(lsf))
    begun(path, 2)
    os.kill(explorers_number, number)
    os.waitpid(explorers_number, 0)
    (path / "runs" / "0002" / "go").touch()
    wait_for((path / "runs" / "0002" / "a1" / "outcome.json").exists)
    explorer(path, engine=engine(lsf)).run(4)
    assert completions(path) == Counter(range(1, 5))
    assert events_of(path, "lost") == []
    assert not list(path.glob("runs/*/a2"))


@pytest.mark.on_demand
def test_a_job_that_is_cancelled_from_outside(cluster, tmp_path):
    path = tmp_path / "x"
    (native,) = killed_while_jobs_work(path, cluster, i2="late")
    time.sleep(1.1)  # in the first second, nobody can tell whether the node could start it
    make_scheduler(cluster).cancel(native)
    explorer(path, engine=engine(cluster)).run(4)
    losses, end = ends_of(path, 2)
    assert (losses, end.kind, end.cause) == ([], "cancelled", "machine")
    assert completions(path) == Counter([1, 3, 4])


def test_a_cancelled_exploration_runs_its_iterations_again(cluster, tmp_path):
    path = tmp_path / "x"
    numbers = killed_while_jobs_work(path, cluster, i2="late", i3="late")
    with pytest.raises(InputError, match=f"was submitted to {cluster} .*resume with --engine {cluster}"):
        explorer(path).run(4)
    wait_for(lambda: {1, 4} == set(completions(path)))
    assert cancel_all(path / "runs") == numbers
    wait_for(lambda: all(seen.has_ended for seen in make_scheduler(cluster).look(numbers).values()))
    (path / "faults.json").unlink()
    explorer(path, engine=engine(cluster)).run(4)
    assert completions(path) == Counter(range(1, 5))
    assert events_of(path, "lost") == []


@pytest.mark.on_demand
def test_a_late_writer_is_not_believed(cluster, tmp_path):
    """Its node came back after the job was given up, and another attempt was made."""
    path = tmp_path / "x"
    killed_while_jobs_work(path, cluster, i2="held")
    retire(path / "runs" / "0002")
    (path / "faults.json").unlink()
    explorer(path, engine=engine(cluster)).run(4)
    (path / "runs" / "0002" / "go").touch()
    native = (path / "runs" / "0002" / "a1" / "native").read_text().strip()
    wait_for(lambda: (seen := make_scheduler(cluster).look([native]).get(native)) is None or seen.has_ended)
    assert completions(path) == Counter(range(1, 5))
    assert not (path / "runs" / "0002" / "a1" / "outcome.json").exists()


def test_a_late_starter_does_not_begin(lsf, tmp_path):
    path = tmp_path / "x"
    opened(path, n_parallel=1)
    explorer(path, engine=engine(lsf)).run(1)
    folder = path / "runs" / "0001"
    retire(folder)
    before = sorted(folder.rglob("*"))
    assert subprocess.run(["bash", str(folder / "a1" / "job.sh")], check=False).returncode == 0
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    "left", [*(pytest.param(left, marks=pytest.mark.on_demand) for left in ("outcome", "nothing")), "another job"]
)
def test_a_job_that_the_scheduler_has_forgotten(lsf, tmp_path, left):
    path = tmp_path / "x"
    (native,) = killed_while_jobs_work(path, lsf, i2="held")
    if left == "outcome":
        (path / "runs" / "0002" / "go").touch()
        wait_for((path / "runs" / "0002" / "a1" / "outcome.json").exists)
    if left == "another job":
        known = tmp_path / "lsf" / f"{native}.json"
        known.write_text(known.read_text().replace('["mg-', '["another-'))
    else:
        (tmp_path / "lsf" / f"{native}.purged").touch()
    (path / "faults.json").unlink()
    explorer(path, engine=engine(lsf)).run(4)
    losses, end = ends_of(path, 2)
    assert (losses, end.event) == ([] if left == "outcome" else ["vanished"], "finished")
    (path / "runs" / "0002" / "go").touch()
    wait_for((tmp_path / "lsf" / f"{native}.code").exists)
    assert completions(path) == Counter(range(1, 5))


def submissions(tmp_path):
    return len(list((tmp_path / "lsf").glob("*.json")))


def test_a_scheduler_that_is_slower_than_the_questions_gets_new_jobs(tmp_path, monkeypatch):
    scheduler, names = make_scheduler("lsf"), {}

    def submit(script):
        native = str(len(names) + 1)
        names[native] = re.search(r"mg-\w+-\d+-\d+", script)[0]
        return native

    def look(natives):
        time.sleep(0.2)
        return {native: Seen(native, names[native], "running", "RUN") for native in natives}

    monkeypatch.setattr(scheduler, "submit", submit)
    monkeypatch.setattr(scheduler, "look", look)
    monkeypatch.setattr(scheduler, "find", lambda name: [])
    jobs = ClusterEngine(scheduler, ClusterSettings(**SETTINGS), 60.0, JOB)
    for job in (1, 2, 3):
        (tmp_path / str(job)).mkdir()
        jobs.submit(job, tmp_path / str(job))
    wait_for(lambda: jobs.wait(0.01) == [] and len(list(tmp_path.glob("*/a1/native"))) == 3)
    jobs.close()


def test_nothing_is_submitted_to_a_silent_scheduler(lsf, tmp_path):
    """Jobs that work go on, and their results are read."""
    path = tmp_path / "x"
    opened(path, n_parallel=2)
    said = []
    jobs = ClusterEngine(make_scheduler(lsf), ClusterSettings(**SETTINGS), 60.0, JOB, said.append)
    life = explorer(path, engine=jobs)
    faulty(path, i2="held")
    down, calls = tmp_path / "lsf" / "down", []

    def wait(timeout, inner=jobs.wait):
        if (path / "runs" / "0002" / "once").exists() and not said:
            down.touch()
        if said and down.exists():  # it has noticed
            (path / "runs" / "0002" / "go").touch()
            calls.append(submissions(tmp_path))
        if len(calls) > 3:
            down.unlink(missing_ok=True)
        return inner(timeout)

    jobs.wait = wait
    life.run(4)
    assert said[0].startswith("lsf does not answer (bjobs: LSF is down.")
    assert said[1] == "lsf answers again"
    assert len(calls) > 3
    assert set(calls) == {2}
    assert completions(path) == Counter(range(1, 5))


# Before, while and after a job is submitted: the real command behind one that kills its caller.
MOMENTS = ["before", "after", "", "before", "", "after", "after", "before", "before", "after"]
SHIM = """#!/bin/bash
moment=$(head -n 1 {folder}/moments); sed -i 1d {folder}/moments
[ "$moment" = before ] && kill -9 $PPID && exit 1
answer=$({command} "$@"); code=$?
[ "$moment" = after ] && kill -9 $PPID
printf '%s\\n' "$answer"; exit $code
"""


def lives(path, name, iterations, kills=0):
    """Explorers, one after another, until one ends by itself; killed ones, and iterations that there are.

    One that ends before so many of them were killed at random moments goes on for another block.
    """
    killed, moments = 0, random.Random(3)
    while True:
        number = begin_explorer(path, engine(name), iterations)
        if killed < kills:
            time.sleep(moments.uniform(0, 1.2))
            os.kill(number, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
        assert code in {0, -signal.SIGKILL}
        if code == 0 and killed >= kills:
            return killed, iterations
        killed += code != 0
        iterations += 0 if code else 6


def test_an_explorer_that_is_killed_around_submissions(cluster, undisturbed, tmp_path, monkeypatch):
    folder, command = tmp_path / "shim", {"slurm": "sbatch", "lsf": "bsub"}[cluster]
    folder.mkdir()
    (folder / "moments").write_text("\n".join(MOMENTS) + "\n")
    (folder / command).write_text(SHIM.format(folder=folder, command=shutil.which(command)))
    (folder / command).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    path = tmp_path / "x"
    opened(path)
    assert lives(path, cluster, 8) == (sum(moment != "" for moment in MOMENTS), 8)
    assert untimed(path) == untimed(undisturbed)
    assert completions(path) == Counter(range(1, 9))


def killed_after(monkeypatch, notes):
    """Explorers are killed as soon as they have made so many notes on attempts; this process is not."""
    made, this = itertools.count(1), os.getpid()

    def write(path, content):
        write_bytes(path, content)
        if os.getpid() != this and next(made) == notes:
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(attempts, "write_bytes", write)


@pytest.mark.on_demand
@pytest.mark.parametrize("loses", [False, True], ids=["none is lost", "some are lost"])
def test_an_explorer_that_is_killed_after_every_note(cluster, undisturbed, tmp_path, monkeypatch, loses):
    path = tmp_path / "x"
    opened(path)
    faulty(path, **({"i2": "killed once", "i3": "killed", "i5": "killed once"} if loses else {}))
    for life in range(200):
        killed_after(monkeypatch, 1 + life % 7)
        code = os.waitstatus_to_exitcode(os.waitpid(begin_explorer(path, engine(cluster, retries=1), 8), 0)[1])
        assert code in {0, -signal.SIGKILL}
        if code == 0:
            break
    assert life > 10
    if loses:
        assert {i: ends_of(path, i)[0] for i in range(1, 9)} == {i: ["killed"] * (i in {2, 3, 5}) for i in range(1, 9)}
        assert completions(path) == Counter({*range(1, 9)} - {3})
    else:
        assert untimed(path) == untimed(undisturbed)
        assert completions(path) == Counter(range(1, 9))


@pytest.mark.parametrize("notes", [1, 2])
def test_an_attempt_that_was_not_fully_noted_is_followed_by_another(tmp_path, monkeypatch, notes):
    """An explorer was killed meanwhile."""
    made = itertools.count()

    def write(path, content):
        if next(made) == notes:
            raise KeyboardInterrupt
        write_bytes(path, content)

    monkeypatch.setattr(attempts, "write_bytes", write)
    with contextlib.suppress(KeyboardInterrupt):
        Attempt(tmp_path, 1).prepare(Submission("lsf", "mg-1-1-1"))
    monkeypatch.undo()
    attempt = in_force(tmp_path)
    assert attempt == Attempt(tmp_path, 1)
    retire(tmp_path)
    assert in_force(tmp_path) == Attempt(tmp_path, 1 if attempt.submission is None else 2)


@pytest.mark.on_demand
def test_an_explorer_that_is_killed_at_many_moments(cluster, tmp_path):
    for place in ("undisturbed", "disturbed"):
        opened(tmp_path / place)
    killed, iterations = lives(tmp_path / "disturbed", cluster, 12, kills=30)
    assert killed == 30
    explorer(tmp_path / "undisturbed").run(iterations)
    assert untimed(tmp_path / "disturbed") == untimed(tmp_path / "undisturbed")
    assert completions(tmp_path / "disturbed") == Counter(range(1, iterations + 1))


@pytest.mark.on_demand
def test_two_explorations_at_once(cluster, tmp_path):
    """Neither touches the jobs of the other."""
    paths = [tmp_path / "one", tmp_path / "other"]
    for path in paths:
        opened(path)
        faulty(path, i2="slow")
    numbers = [begin_explorer(path, engine(cluster)) for path in paths]
    for path in paths:
        begun(path, 2)
    for number in numbers:
        os.kill(number, signal.SIGKILL)
        os.waitpid(number, 0)
    numbers = [begin_explorer(path, engine(cluster)) for path in paths]
    assert [os.waitpid(number, 0)[1] for number in numbers] == [0, 0]
    for path in paths:
        assert completions(path) == Counter(range(1, 5))
        assert events_of(path, "lost") == []


def test_keys_do_not_reach_jobs(cluster, tmp_path, monkeypatch):
    """Nor does it matter where the explorer was started."""
    monkeypatch.chdir(tmp_path)
    path = Path("x")
    opened(path, n_parallel=1)
    monkeypatch.setenv("SOME_API_KEY", "canary-of-a-key")
    settings = {"setup": ("env > env.txt",)}
    explorer(path, engine=engine(cluster, **settings)).run(1)
    assert completions(path) == Counter([1])
    found = (path / "runs" / "0001" / "a1" / "env.txt").read_text()
    assert "OMP_NUM_THREADS=1" in found
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert not [file for file in files if "canary-of-a-key" in file.read_text(errors="replace")]


def test_what_a_scheduler_refuses_stops_the_explorer(slurm, tmp_path):
    path, said = tmp_path / "x", []
    opened(path)
    nowhere = engine(slurm, queue="nowhere")
    nowhere._report = said.append
    with pytest.raises(InputError, match="sbatch refuses the job: .*nvalid partition"):
        explorer(path, engine=nowhere).run(4)
    assert said == []  # no job continues
    explorer(path, engine=engine(slurm)).run(4)
    assert completions(path) == Counter(range(1, 5))
    assert events_of(path, "lost") == []
