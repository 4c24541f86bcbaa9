"""What may happen to Slurm, its nodes and its jobs, on a real one: every iteration ends in the right way.

Each test has a Slurm of its own, and waits for what takes Slurm half a minute or longer: `make test-clusters`.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
from cluster_lives import (
    SETTINGS,
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
from private_slurm import running_slurm

from metabolismgraph.explore.engines.cluster import ClusterEngine
from metabolismgraph.schedulers import make_scheduler
from metabolismgraph.schedulers.settings import ClusterSettings

pytestmark = pytest.mark.on_demand


@pytest.fixture
def own_slurm(monkeypatch):
    with running_slurm() as slurm:
        monkeypatch.setenv("SLURM_CONF", str(slurm.path))
        yield slurm


def ended_well(path, iterations=4):
    """Every iteration has metrics, and was completed once."""
    assert [event.iteration for event in events_of(path, "failed")] == []
    assert completions(path) == Counter(range(1, iterations + 1))


def follow(path, iterations=4, **changes):
    """An explorer beside this test; what it says, and a function that waits for its end."""
    said, failures = [], []
    settings = ClusterSettings(**(SETTINGS | {"grace_seconds": 5.0} | changes))
    # A limit that no job reaches: they are stopped by others.
    jobs = ClusterEngine(make_scheduler("slurm"), settings, 600.0, JOB, said.append)

    def run():
        try:
            explorer(path, engine=jobs).run(iterations)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def end():
        thread.join(240.0)
        assert not thread.is_alive()
        assert failures == []
        return said

    return said, end


def native_of(path, iteration, attempt=1):
    return (path / "runs" / f"{iteration:04d}" / f"a{attempt}" / "native").read_text().strip()


# Jobs


@pytest.mark.parametrize(
    ("fault", "changes", "kind"),
    [
        ("held once", {"minutes": 1}, "walltime"),
        ("hungry once", {"memory_gb": 0.2}, "memory"),
        ("no room once", {}, "disk"),
        ("killed once", {}, "killed"),
        ("mute once", {}, "died"),
    ],
)
def test_a_job_that_is_lost_is_run_again(own_slurm, tmp_path, fault, changes, kind):
    path = tmp_path / "x"
    opened(path)
    faulty(path, i2=fault)
    follow(path, **changes)[1]()
    losses, end = ends_of(path, 2)
    assert (losses, end.event) == ([kind], "finished")
    ended_well(path)
    if kind == "memory":
        scripts = [(path / "runs" / "0002" / place / "job.sh").read_text() for place in ("a1", "a2")]
        assert ["--mem=200M" in scripts[0], "--mem=300M" in scripts[1]] == [True, True]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("crashed", "killed by SIGSEGV"), ("refused", "the loss is not finite"), ("broken", "ZeroDivisionError")],
)
def test_a_job_that_goes_wrong_by_itself_is_not_run_again(own_slurm, tmp_path, fault, reason):
    path = tmp_path / "x"
    opened(path)
    faulty(path, i2=fault)
    follow(path)[1]()
    losses, end = ends_of(path, 2)
    assert (losses, end.event, end.cause, end.kind) == ([], "failed", "idea", "")
    assert reason in end.reason


def test_an_outcome_that_is_cut_off_is_not_believed(own_slurm, tmp_path):
    path = tmp_path / "x"
    opened(path)
    faulty(path, i2="truncated once")
    follow(path)[1]()
    losses, end = ends_of(path, 2)
    assert (losses, end.event) == ([""], "finished")


def test_jobs_of_another_partition_take_the_cores(own_slurm, tmp_path):
    path = tmp_path / "x"
    opened(path)
    faulty(path, i2="held once")
    _, end = follow(path)
    begun(path, 2)
    urgent = "#!/bin/bash\n#SBATCH --partition=urgent --nodes=2 --exclusive --mem=4000 --output=/dev/null\nsleep 3\n"
    own_slurm.ask("sbatch", stdin=urgent)
    end()
    losses, last = ends_of(path, 2)
    assert (losses, last.event) == (["preempted"], "finished")
    ended_well(path)


@pytest.mark.parametrize("waits", [False, True])
def test_a_job_that_somebody_cancels(own_slurm, tmp_path, waits):
    """While it runs, or while it waits for its turn."""
    path = tmp_path / "x"
    opened(path)
    faulty(path, i2="late")
    if waits:
        own_slurm.ask("scontrol", "update", "PartitionName=main", "State=DOWN")
    _, end = follow(path)
    if waits:
        wait_for((path / "runs" / "0002" / "a1" / "native").exists)
    else:
        begun(path, 2)
        time.sleep(1.5)  # Slurm counts whole seconds
    own_slurm.ask("scancel", native_of(path, 2))
    own_slurm.ask("scontrol", "update", "PartitionName=main", "State=UP")
    end()
    losses, last = ends_of(path, 2)
    assert (losses, last.event, last.cause, last.kind) == ([], "failed", "machine", "cancelled")
    assert completions(path) == Counter([1, 3, 4])


# Nodes


def test_a_node_that_is_lost_while_its_job_lives_on(own_slurm, tmp_path):
    """The job comes back late, when another attempt has ended: what it writes is not read."""
    path = tmp_path / "x"
    opened(path)
    faulty(path, i2="held once")
    _, end = follow(path)
    begun(path, 2)
    node = own_slurm.ask("squeue", "-h", "-o%N", "-j", native_of(path, 2)).strip()
    own_slurm.signal(node, signal.SIGKILL)
    end()
    losses, last = ends_of(path, 2)
    assert (losses, last.event) == (["node"], "finished")
    outcome = (path / "runs" / "0002" / "outcome.json").read_bytes()
    (path / "runs" / "0002" / "go").touch()
    time.sleep(2.0)
    assert not (path / "runs" / "0002" / "a1" / "outcome.json").exists()
    assert (path / "runs" / "0002" / "outcome.json").read_bytes() == outcome
    ended_well(path)


def test_a_node_that_cannot_start_a_job(own_slurm, tmp_path):
    """Slurm cancels the job, as a person may do, since it may not queue it again."""
    path = tmp_path / "x"
    opened(path)
    own_slurm.set_prolog(f"sleep 2; ! mkdir {own_slurm.folder / 'first'}")
    follow(path)[1]()
    assert [event.kind for event in events_of(path, "lost")] == ["died"]
    ended_well(path)


# The controller


def test_a_controller_that_is_killed_and_knows_its_jobs(own_slurm, tmp_path):
    path = tmp_path / "x"
    opened(path)
    faulty(path, i2="held")
    _, end = follow(path)
    begun(path, 2)
    time.sleep(8.0)  # it saves its state
    own_slurm.signal("controller", signal.SIGKILL)
    time.sleep(1.0)
    own_slurm.start("controller")
    (path / "runs" / "0002" / "go").touch()
    end()
    assert events_of(path, "lost") == []
    ended_well(path)


@pytest.mark.parametrize("state", ["not saved", "gone"])
def test_a_controller_that_is_killed_and_has_forgotten_its_jobs(own_slurm, tmp_path, state):
    """It gives their numbers again, and nodes refuse those that still run; nobody has cancelled anything."""
    path = tmp_path / "x"
    opened(path)
    faulty(path, i1="slow", i2="held once", i3="slow")
    _, end = follow(path)
    begun(path, 2)
    own_slurm.signal("controller", signal.SIGKILL)
    # Steps that live through the end that the nodes give them, as on a busy machine.
    steps = own_slurm.steps()
    assert steps
    for step in steps:
        os.kill(step, signal.SIGSTOP)
    if state == "gone":
        for name in ("job_state", "job_state.old"):
            (own_slurm.folder / "state" / name).unlink(missing_ok=True)
    own_slurm.start("controller")
    time.sleep(8.0)
    for step in steps:
        os.kill(step, signal.SIGCONT)
    (path / "runs" / "0002" / "go").touch()
    end()
    ended_well(path)
    assert {event.kind for event in events_of(path, "lost")} <= {"died", "killed", "vanished", "node"}


@pytest.mark.parametrize("left", ["outcome", "nothing"])
def test_a_job_that_is_purged_before_anybody_asks(own_slurm, tmp_path, left):
    path = tmp_path / "x"
    (native,) = killed_while_jobs_work(path, "slurm", i2="held once")
    if left == "outcome":
        (path / "runs" / "0002" / "go").touch()
    else:
        own_slurm.ask("scancel", native)
    wait_for(lambda: native not in own_slurm.ask("squeue", "-h", "-tall", "-o%A").split())
    explorer(path, engine=engine("slurm")).run(4)
    losses, end = ends_of(path, 2)
    assert (losses, end.event) == ([] if left == "outcome" else ["vanished"], "finished")
    ended_well(path)


def test_a_controller_that_says_nothing_for_a_minute(own_slurm, tmp_path, monkeypatch):
    """Nothing is submitted meanwhile, nobody is called lost, and results are read."""
    path, calls = tmp_path / "x", tmp_path / "bin" / "calls"
    calls.parent.mkdir()
    real = subprocess.run(["which", "sbatch"], capture_output=True, text=True, check=True).stdout.strip()
    (calls.parent / "sbatch").write_text(f'#!/bin/bash\necho >> {calls}\nexec {real} "$@"\n')
    (calls.parent / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{calls.parent}:{os.environ['PATH']}")
    opened(path, n_parallel=2)
    faulty(path, i2="held")
    said, end = follow(path, iterations=6)
    begun(path, 2)
    wait_for(lambda: 1 in completions(path))
    own_slurm.signal("controller", signal.SIGSTOP)
    begin = time.monotonic()
    wait_for(lambda: said)
    submitted = calls.stat().st_size
    (path / "runs" / "0002" / "go").touch()
    wait_for(lambda: events_of(path, "scored"))
    time.sleep(60.0 - (time.monotonic() - begin))
    assert [event.iteration for event in events_of(path, "scored")] == [1, 2]
    assert said[0].startswith("slurm does not answer")
    assert calls.stat().st_size == submitted
    own_slurm.signal("controller", signal.SIGCONT)
    assert end()[1] == "slurm answers again"
    assert events_of(path, "lost") == []
    ended_well(path, 6)


# Real runs


def test_real_runs_are_the_same_as_with_processes(own_slurm, tmp_path):
    """To the last digit, where the base has as many threads as the job that makes it on Slurm."""
    limits = ("XLA_", "OMP_", "OPENBLAS_", "JAX_")  # of these tests
    environment = {name: value for name, value in os.environ.items() if not name.startswith(limits)}
    secret = tmp_path / "slurm" / "base" / "data" / "truth" / "secret.key"
    places = {
        "slurm": ("--setting", "memory_gb=1.5", "--setting", "poll_seconds=0.5"),
        "process": ("--secret", secret),
    }
    for name, own in places.items():
        command = [sys.executable, "-P", "-m", "metabolismgraph", "explore", "start", "small", "--engine", name, *own]
        command += ["--out", tmp_path / name, "--iterations", "8", "--quiet", "--unsafe-strategies"]
        command += ["--set", "exploration.until_settled=false", "--set", "training.phase2_steps=150"]
        threads = {"NPROC": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} if name == "process" else {}
        subprocess.run(command, env=environment | threads, check=True, timeout=900, cwd=tmp_path)
    on_slurm, with_processes = (untimed(tmp_path / name) for name in places)
    for event in on_slurm + with_processes:
        event.get("metrics", {}).pop("training_time_min", None)
    assert sum(event["event"] == "scored" for event in on_slurm) == 8
    assert on_slurm == with_processes
