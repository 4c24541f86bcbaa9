"""The explorer as a job of the cluster, one after another, with quick runs; a real Slurm, and a stand-in for LSF."""

import json
import sys
from collections import Counter

import pytest
from cluster_lives import completions, events_of, faulty, wait_for
from command_line import call, refused
from explorer_lives import JOB, opened

from metabolismgraph.cli import in_job
from metabolismgraph.cli.in_job import Plan
from metabolismgraph.schedulers import make_scheduler

# What an explorer in a job would load: engines run quick jobs.
QUICKLY = f"""
import sys
from pathlib import Path
from metabolismgraph.explore.engines.cluster import ClusterEngine
ClusterEngine.__init__.__defaults__ = ({JOB!r}, *ClusterEngine.__init__.__defaults__[1:])
from metabolismgraph.cli import in_job
in_job._JOB = tuple(sys.orig_argv[:4])
from metabolismgraph.cli.explorer_job import main
sys.exit(main(Path(sys.argv[1])))
"""


@pytest.fixture
def cluster(cluster, monkeypatch):
    monkeypatch.setattr(in_job, "_JOB", (sys.executable, "-P", "-c", QUICKLY))
    return cluster


def resume(path, engine, seconds, *more):
    settings = {"memory_gb": 0.8, "poll_seconds": 0.1, "grace_seconds": 0.5, "explorer_minutes": seconds / 60}
    options = [word for name, value in settings.items() for word in ("--setting", f"{name}={value}")]
    return ("explore", "resume", path, "--iterations", 4, "--engine", engine, *options, *more)


def begun(path):
    """How many explorers have begun."""
    output = path / "explorer" / "output.txt"
    return output.read_text().count(" follows") if output.exists() else 0


def explorers(path):
    return Plan.read(path).alive()


def test_explorers_hand_over_until_it_is_done(cluster, tmp_path, monkeypatch, capsys):
    path = tmp_path / "x"
    opened(path)
    faulty(path, i2="held")
    assert call(monkeypatch, *resume(path, cluster, 3.0, "--in-job")) == 0
    assert "the explorer is job" in capsys.readouterr().err
    assert f"its explorer is job {explorers(path)[0].native} on {cluster}" in refused(
        monkeypatch, capsys, *resume(path, cluster, 1.0)
    )
    wait_for(lambda: begun(path) >= 2 and (path / "runs" / "0002" / "once").exists())
    (path / "runs" / "0002" / "go").touch()
    wait_for(lambda: not explorers(path))
    assert completions(path) == Counter(range(1, 5))
    assert events_of(path, "lost") == []
    assert not list(path.glob("runs/*/a2"))
    output = (path / "explorer" / "output.txt").read_text()
    assert "the time is over" in output
    assert output.count("results are in") == begun(path)


@pytest.mark.on_demand
def test_cancelling_ends_the_explorer_and_its_jobs(cluster, tmp_path, monkeypatch, capsys):
    path = tmp_path / "x"
    opened(path)
    faulty(path, i2="held")
    assert call(monkeypatch, *resume(path, cluster, 600.0, "--in-job")) == 0
    wait_for((path / "runs" / "0002" / "once").exists)
    wait_for(lambda: begun(path) == 1)
    native = (path / "runs" / "0002" / "a1" / "native").read_text().strip()
    assert call(monkeypatch, "explore", "cancel", path) == 0
    assert "jobs cancelled: 1" in capsys.readouterr().out
    assert explorers(path) == []
    wait_for(lambda: make_scheduler(cluster).look([native])[native].has_ended)


@pytest.mark.on_demand
def test_an_explorer_that_is_cut_off_has_a_successor(cluster, tmp_path, monkeypatch):
    """But not for ever."""
    path = tmp_path / "x"
    opened(path)
    faulty(path, i2="held")
    assert call(monkeypatch, *resume(path, cluster, 600.0, "--in-job")) == 0
    wait_for((path / "runs" / "0002" / "once").exists)
    for number in (1, 2, 3):
        wait_for(lambda number=number: begun(path) == number)
        running = wait_for(lambda: [seen for seen in explorers(path) if seen.state == "running"])
        make_scheduler(cluster).cancel(running[0].native)
    wait_for(lambda: not explorers(path))
    assert "3 explorers in a row were cut off" in (path / "explorer" / "output.txt").read_text()
    (path / "runs" / "0002" / "go").touch()
    assert call(monkeypatch, *resume(path, cluster, 600.0, "--in-job")) == 0
    wait_for(lambda: not explorers(path))
    assert completions(path) == Counter(range(1, 5))
    assert json.loads((path / "explorer" / "plan.json").read_text())["cut_off"] == 0


def test_where_an_explorer_cannot_be_a_job(tmp_path, monkeypatch, capsys):
    path = tmp_path / "x"
    opened(path)
    for engine in ("process", "dask"):
        message = refused(monkeypatch, capsys, "explore", "resume", path, "--engine", engine, "--in-job")
        assert message.endswith(f"an explorer cannot be a job of engine {engine}; take slurm or lsf")
    assert not (path / "explorer").exists()
