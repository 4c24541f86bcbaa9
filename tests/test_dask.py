"""Explorations on Dask: a real scheduler and real workers of our own."""

import contextlib
import os
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest
from cluster_lives import begin_explorer, begun, completions, ends_of, events_of, faulty, untimed, wait_for
from command_line import refused
from explorer_lives import JOB, explorer, opened
from private_dask import PrivateDask

from metabolismgraph.errors import InputError
from metabolismgraph.explore.engines.attempts import Attempt
from metabolismgraph.explore.engines.cluster import ClusterEngine
from metabolismgraph.schedulers import make_scheduler
from metabolismgraph.schedulers.base import Job, SilentError
from metabolismgraph.schedulers.settings import ClusterSettings

SETTINGS = {"engine": "dask", "poll_seconds": 0.1, "grace_seconds": 0.5}


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """A scheduler with two workers, which live through all tests."""
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    dask = PrivateDask(tmp_path_factory.mktemp("dask"))
    for _ in range(2):
        dask.add_worker()
    yield dask
    dask.end()


@pytest.fixture
def mortal(tmp_path):
    """A scheduler without workers, which a test may kill."""
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    (tmp_path / "dask").mkdir()
    dask = PrivateDask(tmp_path / "dask")
    yield dask
    dask.end()


def engine(dask, report=lambda line: None, **changes):
    settings = ClusterSettings(**(SETTINGS | {"address": dask.address} | changes))
    return ClusterEngine(make_scheduler("dask", dask.address), settings, 60.0, JOB, report)


def test_an_exploration_is_the_same_as_with_processes(ours, tmp_path):
    for place in ("process", "dask"):
        opened(tmp_path / place)
    explorer(tmp_path / "process").run(4)
    explorer(tmp_path / "dask", engine=engine(ours)).run(4)
    assert untimed(tmp_path / "dask") == untimed(tmp_path / "process")
    assert completions(tmp_path / "dask") == Counter(range(1, 5))


def test_ends_of_jobs(ours, tmp_path):
    path = tmp_path / "x"
    opened(path)
    faulty(path, i1="killed once", i2="mute", i3="crashed")
    explorer(path, engine=engine(ours)).run(4)
    losses, end = ends_of(path, 1)
    assert (losses, end.event) == (["killed"], "finished")
    losses, end = ends_of(path, 2)
    assert (losses, end.kind, end.cause) == (["died"], "died", "machine")
    losses, end = ends_of(path, 3)
    assert (losses, end.cause) == ([], "idea")


def test_jobs_go_on_without_the_explorer(ours, tmp_path):
    path = tmp_path / "x"
    opened(path)
    faulty(path, i2="held", i3="held")
    number = begin_explorer(path, engine(ours))
    begun(path, 2)
    begun(path, 3)
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    make_scheduler("dask", ours.address).cancel(Attempt(path / "runs" / "0003", 1).native)
    (path / "runs" / "0002" / "go").touch()
    wait_for((path / "runs" / "0002" / "a1" / "outcome.json").exists)
    explorer(path, engine=engine(ours)).run(4)
    losses, end = ends_of(path, 3)
    assert (losses, end.kind, end.cause) == ([], "cancelled", "machine")
    assert completions(path) == Counter([1, 2, 4])
    assert events_of(path, "lost") == []


def processes_of(path):
    """Processes whose command names a folder."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += [command] if str(path).encode() in command.read_bytes() else []
    return found


@pytest.mark.on_demand
def test_a_worker_that_is_killed(mortal, tmp_path):
    """Its script ends with it; Dask gives the job to another worker, which does not begin it."""
    path = tmp_path / "x"
    opened(path, n_parallel=1)
    faulty(path, i1="held")
    first = mortal.add_worker()
    jobs = engine(mortal)

    def wait(timeout, inner=jobs.wait):
        if (path / "runs" / "0001" / "once").exists() and first.poll() is None:
            mortal.kill(first)
            wait_for(lambda: not processes_of(path))
            (path / "faults.json").unlink()
            mortal.add_worker()
        return inner(timeout)

    jobs.wait = wait
    explorer(path, engine=jobs).run(2)
    losses, end = ends_of(path, 1)
    assert (losses, end.event) == (["node"], "finished")
    assert completions(path) == Counter([1, 2])


@pytest.mark.on_demand
def test_a_scheduler_that_is_started_again(mortal, tmp_path, monkeypatch):
    """It knows nothing of what was submitted; its workers are new as well."""
    monkeypatch.setattr("metabolismgraph.schedulers.dask._CONNECT", 1.0)
    path, said = tmp_path / "x", []
    opened(path, n_parallel=2)
    faulty(path, i2="held")
    worker = mortal.add_worker()
    jobs = engine(mortal, said.append)

    def wait(timeout, inner=jobs.wait):
        if (path / "runs" / "0002" / "once").exists() and not said and mortal.scheduler.poll() is None:
            mortal.kill(mortal.scheduler)
        if said and mortal.scheduler.poll() is not None:  # it has noticed
            assert len(list(path.glob("runs/*/a*/job.sh"))) == 2
            mortal.kill(worker)
            (path / "faults.json").unlink()
            mortal.start_scheduler()
            mortal.add_worker()
        return inner(timeout)

    jobs.wait = wait
    explorer(path, engine=jobs).run(4)
    assert said[0].startswith("dask does not answer")
    assert "dask answers again" in said
    losses, end = ends_of(path, 2)
    assert (losses, end.event) == (["vanished"], "finished")
    assert completions(path) == Counter(range(1, 5))


def test_a_job_that_takes_too_long_is_ended(ours, tmp_path):
    scheduler = make_scheduler("dask", ours.address)
    job = Job("mg-long", tmp_path, tmp_path / "out.txt", 1, ["sleep", "61"], ClusterSettings(**SETTINGS))
    script = scheduler.script(job).replace("minutes 1", "minutes 0.005")
    assert scheduler.submit(script) == "mg-long"
    seen = wait_for(lambda: [s for s in scheduler.find("mg-long") if s.has_ended])
    assert (seen[0].state, scheduler.look(["mg-other"])) == ("walltime", {})


def test_what_dask_cannot_do(monkeypatch):
    with pytest.raises(InputError, match="address '' is not that of a scheduler"):
        make_scheduler("dask").find("x")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install 'metabolismgraph\[dask\]'"):
        make_scheduler("dask", "tcp://127.0.0.1:1").find("x")


def test_a_wrong_address_is_refused_before_anything_is_made(tmp_path, monkeypatch, capsys):
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    out = tmp_path / "x"
    options = ("--engine", "dask", "--setting", "address=host", "--out", out)
    message = refused(monkeypatch, capsys, "explore", "start", "small", *options)
    assert "address 'host' is not that of a scheduler" in message
    assert not out.exists()


def test_a_silent_scheduler_of_dask(monkeypatch):
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    monkeypatch.setattr("metabolismgraph.schedulers.dask._CONNECT", 0.3)
    with pytest.raises(SilentError, match="tcp://127.0.0.1:1: "):
        make_scheduler("dask", "tcp://127.0.0.1:1").find("x")
