"""Workers of this computer, which fork a process for every job."""

import contextlib
import fcntl
import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
from forks import is_fork, is_server

from metabolismgraph.explore.engines.base import STDOUT
from metabolismgraph.explore.engines.job import LOCK
from metabolismgraph.explore.engines.local import ProcessEngine
from metabolismgraph.explore.engines.outcome import read_outcome
from metabolismgraph.explore.engines.worker import Worker

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="workers fork on Linux only"),
]
PATIENCE = 120.0  # seconds


@pytest.fixture
def worker():
    made = Worker({"METABOLISMGRAPH_CORES": "0"})
    yield made
    made.kill()


@pytest.fixture
def job(tmp_path):
    """Makes folders of jobs without a description, which fail at once; a held one waits before."""
    locks = []

    def make(name, *, held=False):
        folder = tmp_path / name
        folder.mkdir()
        if held:
            locks.append((folder / LOCK).open("w"))
            fcntl.flock(locks[-1], fcntl.LOCK_EX)
        return folder

    yield make
    for lock in locks:
        lock.close()


def wait_for(what):
    until = time.monotonic() + PATIENCE
    while (found := what()) is None or found is False:
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.02)
    return found


def below():
    """Workers, which are children of this process, and their jobs."""
    found = []
    for child in psutil.Process().children(recursive=True):  # of which some are those of other tests
        with contextlib.suppress(psutil.Error):
            if child.status() != psutil.STATUS_ZOMBIE and is_fork(child) and not is_server(child):
                found.append(child)
    return found


def writes(process, path):
    """Whether a file is the standard output of a process, as of a job; other forks of a worker have a pipe there."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process.pid}/fd/1").readlink() == path
    return False


def test_jobs_are_forked_by_one_process(worker, job):
    folders = [job("1"), job("ж 2")]
    numbers = []
    for folder in folders:
        worker.start(folder)
        assert wait_for(worker.code) == 0
        worker.end(0)
        numbers.append([process.pid for process in below()])
        assert "job.json: No such file" in read_outcome(folder).reason
        assert (folder / "stdout.txt").read_text() == ""
    assert numbers[0] == numbers[1]
    assert len(numbers[0]) == 1
    assert psutil.Process(numbers[0][0]).cpu_affinity() == [0]


def test_the_trainings_of_all_jobs_have_one_server(worker, job):
    servers = []
    for name in ("1", "2"):
        worker.start(job(name))
        assert wait_for(worker.code) == 0
        worker.end(0)
        started = psutil.Process(worker._process.pid).children(recursive=True)
        servers.append([process.pid for process in started if is_server(process)])
    assert servers[0] == servers[1]
    assert len(servers[0]) == 1


@pytest.mark.parametrize("which", ["job", "worker"])
def test_a_process_that_is_killed(worker, job, which):
    folder = job("1", held=True)
    worker.start(folder)
    child = wait_for(lambda: next((process for process in below() if writes(process, folder / STDOUT)), None))
    os.kill(child.pid if which == "job" else child.ppid(), signal.SIGKILL)
    code = wait_for(worker.code)
    assert code == -signal.SIGKILL
    worker.end(code)
    wait_for(lambda: not below())
    worker.start(job("2"))
    assert wait_for(worker.code) == 0


def test_a_worker_that_is_killed_between_jobs(worker, job):
    worker.start(job("1"))
    assert wait_for(worker.code) == 0
    worker.end(0)
    (process,) = below()
    process.kill()
    # With threads, a process that looks like a zombie may be one for the system only a moment later.
    wait_for(lambda: worker._process.poll() is not None)
    worker.start(job("2"))
    assert wait_for(worker.code) == 0


def test_an_engine_stops_jobs_with_their_workers(job):
    engine = ProcessEngine(2, 3.0)
    for number in (1, 2, 3):
        engine.submit(number, job(str(number), held=True))
    wait_for(lambda: len(below()) == 4)
    engine.cancel(1)
    assert len(below()) == 2
    ended = wait_for(lambda: engine.wait(1.0) or None)
    assert (ended[0].job, ended[0].cause) == (2, "machine")
    assert "was stopped" in ended[0].reason
    engine.submit(4, job("4"))
    engine.close()
    assert below() == []


def test_a_job_whose_folder_is_gone_is_a_loss_of_the_machine(tmp_path):
    engine = ProcessEngine(1, 60.0)
    engine.submit(1, tmp_path / "gone")
    (ended,) = engine.wait(1.0)
    assert (ended.cause, "could not be started (No such file" in ended.reason) == ("machine", True)
    engine.close()
