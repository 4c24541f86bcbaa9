"""Commands of the explorer on a cluster: interrupts, the base run as a job, runs with fresh seeds, repeated runs."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter

import pytest
from cluster_lives import PATIENCE, begun, completions, faulty, wait_for
from command_line import call
from explorer_lives import JOB, explorer, opened
from test_explore_commands import TINY, events

from metabolismgraph.cli.base_run import BaseRun
from metabolismgraph.config import load_config
from metabolismgraph.errors import InputError
from metabolismgraph.explore.engines import cluster
from metabolismgraph.explore.start import check_free
from metabolismgraph.explore.validation import validate
from metabolismgraph.schedulers import make_scheduler
from metabolismgraph.schedulers.settings import ClusterSettings

FAST = ("--engine", "lsf", "--setting", "poll_seconds=0.1", "--setting", "grace_seconds=0.5")


@pytest.fixture
def lsf(lsf, tmp_path):
    """The folder of the stand-in."""
    return tmp_path / lsf


def scripts(lsf, word):
    """The jobs whose script has a word."""
    return [path for path in lsf.glob("*.json") if word in json.loads(path.read_text())["script"]]


# Interrupts


# The command line with quick jobs.
QUICKLY = f"""
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from metabolismgraph.explore.engines.cluster import ClusterEngine
ClusterEngine.__init__.__defaults__ = ({JOB!r}, *ClusterEngine.__init__.__defaults__[1:])
from metabolismgraph.cli import main
main()
"""


def resumed(path, **streams):
    arguments = ["explore", "resume", str(path), "--iterations", "4", "--quiet", *FAST]
    return subprocess.Popen([sys.executable, "-c", QUICKLY, *arguments], **streams)


def hears(terminal, words, meanwhile=lambda: None):
    """Wait until a process has said something on its terminal; do something after every three seconds of silence."""
    said, until = "", time.monotonic() + PATIENCE
    while words not in said:
        assert time.monotonic() < until, said
        if select.select([terminal], [], [], 3)[0]:
            said += os.read(terminal, 1 << 16).decode()
        else:
            meanwhile()


@pytest.mark.parametrize("answer", ["continue", "end", "interrupt"])
def test_a_second_interrupt_asks_whether_jobs_continue(lsf, tmp_path, answer):
    path = tmp_path / "x"
    opened(path)
    faulty(path, i2="held")
    terminal, of_child = pty.openpty()
    child = resumed(path, stdin=of_child, stdout=of_child, stderr=of_child)
    native = begun(path, 2)
    wait_for(lambda: set(completions(path)) == {1, 3, 4})
    child.send_signal(signal.SIGINT)
    hears(terminal, "interrupt again to stop at once, and to say whether jobs on lsf continue")
    child.send_signal(signal.SIGINT)
    hears(terminal, "end these jobs on lsf? [y/N]")
    if answer == "interrupt":
        # One that comes in the microseconds before Python waits for a line is not noticed (a terminal and `input`
        # alone: 5 of 3221): then somebody presses again.
        child.send_signal(signal.SIGINT)
        hears(terminal, "explore resume", lambda: child.send_signal(signal.SIGINT))
    else:
        os.write(terminal, b"y\n" if answer == "end" else b"\n")
        hears(terminal, "explore resume")
    assert child.wait(PATIENCE) == 130
    assert (lsf / f"{native}.stat").read_text().strip() == ("EXIT" if answer == "end" else "RUN")
    (path / "runs" / "0002" / "go").touch()
    (path / "faults.json").unlink()
    assert resumed(path, stdin=of_child, stdout=subprocess.DEVNULL).wait(PATIENCE) == 0
    assert completions(path) == Counter(range(1, 5))
    assert (path / "runs" / "0002" / "a2").exists() == (answer == "end")
    os.close(terminal)
    os.close(of_child)


def test_nobody_is_asked_without_a_terminal(lsf, tmp_path):
    path = tmp_path / "x"
    opened(path)
    faulty(path, i2="held")
    child = resumed(path, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    native = begun(path, 2)
    wait_for(lambda: set(completions(path)) == {1, 3, 4})
    child.send_signal(signal.SIGINT)
    assert (
        child.stderr.readline() == "finishing what has begun; interrupt again to stop at once; jobs on lsf continue\n"
    )
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=PATIENCE)[1].splitlines() == [
        "jobs that continue on lsf: 1; `explore cancel` ends them",
        f"stopped; `metabolismgraph explore resume {path}` continues",
    ]
    assert child.returncode == 130
    assert (lsf / f"{native}.stat").read_text().strip() == "RUN"
    (path / "runs" / "0002" / "go").touch()


# The base


# The program of the job, which trains nothing: it waits for a file, or does what the file says.
QUICK_BASE = """
import os, sys, time
from pathlib import Path
from metabolismgraph.cli import base_job

def run_command(arguments, out):
    out.mkdir(exist_ok=True)
    with (out / "attempts").open("a") as stream:
        stream.write(out.parent.name + " ")
    go = out.parents[2] / "go"
    while not go.exists():
        time.sleep(0.02)
    word = go.read_text()
    if word == "killed":
        go.write_text("")
        return -9, []
    return (2, ["error: a word with you", "error: no such data"]) if word else (0, ["a warning"])

base_job.run_command = run_command
sys.exit(base_job.main(Path(sys.argv[1])))
"""


@pytest.fixture
def base(lsf, tmp_path):
    """Makes the base of an exploration by a job: the folder, and a function that makes it."""
    (tmp_path / "x").mkdir()
    made = BaseRun.of(load_config("explore_rank50"))

    def make(changed=made):
        settings = ClusterSettings(engine="lsf", memory_gb=0.1, poll_seconds=0.1, grace_seconds=0.5)
        engine = cluster.ClusterEngine(make_scheduler("lsf"), settings, 60.0, (sys.executable, "-c", QUICK_BASE))
        changed.make_by_job(tmp_path / "x", engine, "lsf")

    return tmp_path / "x", made, make


def killed_meanwhile(make, path, attempt=1):
    """Kill a process that makes the base as soon as its job works."""
    with warnings.catch_warnings():  # of threads, which the child does not use
        warnings.simplefilter("ignore")
        pid = os.fork()
    if pid == 0:
        try:
            make()
        finally:
            os._exit(1)
    wait_for((path / "base-job" / f"a{attempt}" / "run" / "attempts").exists)
    wait_for((path / "base-job" / f"a{attempt}" / "native").exists)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_the_job_of_a_base_is_followed_by_the_same_command(base, lsf, capsys):
    path, made, make = base
    killed_meanwhile(make, path)
    with pytest.raises(InputError, match="holds the base of other settings"):
        make(made._replace(config=made.config.replace({"simulation.seed": 7})))
    with pytest.raises(InputError, match="was submitted to lsf .*`explore cancel`"):
        made.make(path, quiet=True)
    check_free(path)
    (path / "go").touch()
    make()
    assert (path / "base" / "attempts").read_text() == "a1 "
    assert "a warning" in capsys.readouterr().err
    make()  # it is there
    assert (path / "base" / "attempts").read_text() == "a1 "
    assert len(list(lsf.glob("*.json"))) == 1


def test_the_job_of_a_base_that_is_cancelled_or_killed(base, monkeypatch, capsys):
    """Another attempt continues where it was."""
    path, _, make = base
    killed_meanwhile(make, path)
    assert call(monkeypatch, "explore", "cancel", path) == 0
    assert "jobs cancelled: 1" in capsys.readouterr().out
    (path / "go").write_text("killed")
    make()
    assert (path / "base" / "attempts").read_text() == "a1 a2 a3 "


def test_a_base_that_goes_wrong(base, capsys):
    path, _, make = base
    (path / "go").write_text("wrong")
    for _ in range(2):
        with pytest.raises(InputError, match="^no such data$"):
            make()
        assert capsys.readouterr().err == "error: a word with you\n"
    (path / "go").write_text("")
    make()
    assert (path / "base").exists()


@pytest.mark.on_demand
def test_the_base_and_single_runs_are_jobs(lsf, tmp_path, monkeypatch, capsys):
    out = tmp_path / "x"
    start = ["start", "small", "--iterations", 1, "--out", out, "--quiet", *TINY, "--engine", "lsf"]
    # Real jobs take longer than quick ones: their scheduler is not asked all the time.
    assert call(monkeypatch, "explore", *start, "--setting", "poll_seconds=1") == 0
    assert len(scripts(lsf, "base_job")) == 1
    assert [event["event"] for event in events(out, "finished", "failed")] == ["finished"]
    assert call(monkeypatch, "explore", "validate", out, 1, "--seeds", 1) == 0  # where its runs were
    assert call(monkeypatch, "explore", "repeat", out, 1, "--out", tmp_path / "again") == 0
    assert len(scripts(lsf, str(out / "validation"))) == 1
    assert len(scripts(lsf, str(tmp_path / "again"))) == 1
    assert "to the last digit" in re.sub(r"\s+", " ", capsys.readouterr().out)


def test_fresh_runs_that_were_lost_are_run_again(lsf, tmp_path):
    path = tmp_path / "x"
    folder = opened(path)
    explorer(path).run(4)
    settings = ClusterSettings(engine="lsf", memory_gb=0.1, poll_seconds=0.1, grace_seconds=0.5, retries=1)

    def validated():
        engine = cluster.ClusterEngine(make_scheduler("lsf"), settings, 60.0, JOB)
        validate(folder, engine, 1, 3)
        return [(event["number"], event["state"]) for event in events(path, "validated")]

    (path / "validation").mkdir()
    (path / "validation" / "faults.json").write_text(json.dumps({"1": "killed", "2": "killed once"}))
    assert sorted(validated()) == [(0, "scored"), (1, "lost"), (2, "scored")]
    (path / "validation" / "faults.json").unlink()
    assert validated()[-1] == (1, "scored")
    assert len(list(lsf.glob("*.json"))) == 6


# What was lost


def test_losses_are_counted_by_kind(lsf, tmp_path, monkeypatch, capsys):
    path = tmp_path / "x"
    opened(path)
    faulty(path, i1="killed once", i2="greedy once", i3="killed once")
    settings = ClusterSettings(engine="lsf", memory_gb=0.1, poll_seconds=0.1, grace_seconds=0.5)
    explorer(path, engine=cluster.ClusterEngine(make_scheduler("lsf"), settings, 60.0, JOB)).run(4)
    assert call(monkeypatch, "explore", "status", path) == 0
    assert "lost and run again: killed 2, memory 1" in capsys.readouterr().out
    assert call(monkeypatch, "explore", "show", path, 2) == 0
    assert "lost (memory) after" in capsys.readouterr().out
    log = (path / "explore_rank50_analysis.md").read_text()
    assert log.count("\n> Iteration ") == 3
    assert "\n> Iteration 2 lost (memory) and run again: used too much memory: job " in log
