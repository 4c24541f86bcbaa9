"""The explorer's commands, with real training on a tiny system."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from command_line import QUICK, call, refused
from test_explorer_crashes import left_behind

TINY = [
    *QUICK,
    *("--set", "training.strategies=[residual]", "--set", "training.phase2_steps=20"),
    *("--set", "exploration.n_parallel=2", "--set", "exploration.n_iter_block=2"),
]
VIEWS = ("small_analysis.md", "small_ucb_scores.txt", "small_memory.md")


def command(*arguments):
    return [sys.executable, "-m", "metabolismgraph", "explore", *map(str, arguments)]


@pytest.fixture(scope="module")
def explored(tmp_path_factory):
    """An exploration of one iteration."""
    out = tmp_path_factory.mktemp("explorations") / "first"
    subprocess.run(
        command("start", "small", "--iterations", 1, "--out", out, "--quiet", *TINY), check=True, capture_output=True
    )
    return out


def events(folder, *kinds):
    found = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    return [event for event in found if not kinds or event["event"] in kinds]


def test_an_exploration_leaves_everything_behind(explored):
    assert [e["event"] for e in events(explored)] == [
        *("opened", "proposed", "started", "finished", "scored", "remembered"),
    ]
    for event in events(explored, "finished"):
        assert event["metrics"]["avg_slope_ratio"] == pytest.approx(1, abs=0.05)
    run = explored / "runs" / "0001" / "run"
    assert list(run.glob("tmp_training/function/rate_func/MLP_node_p2_*.png"))
    assert not [path for path in run.rglob("*") if path.name.startswith(("observations", "phase1", "timeseries"))]
    log = (explored / VIEWS[0]).read_text()
    assert "oracle" in log
    assert log.count("\n## Iter ") == 1


def test_views_come_again_from_the_journal(explored, monkeypatch):
    before = {name: (explored / name).read_bytes() for name in VIEWS}
    for name in VIEWS:
        (explored / name).unlink()
    assert call(monkeypatch, "explore", "rebuild", explored) == 0
    assert {name: (explored / name).read_bytes() for name in VIEWS} == before


def test_looking_at_it(explored, monkeypatch, capsys):
    assert call(monkeypatch, "explore", "status", explored) == 0
    assert "oracle" in capsys.readouterr().out
    assert call(monkeypatch, "explore", "show", explored, 1) == 0
    assert "iteration 1" in capsys.readouterr().out
    assert call(monkeypatch, "explore", "tree", explored) == 0
    assert (explored / "figures" / "tree.png").stat().st_size > 10_000
    assert "there is no iteration 3" in refused(monkeypatch, capsys, "explore", "show", explored, 3)


def test_its_log_can_be_imported(explored, monkeypatch, capsys, tmp_path):
    out = tmp_path / "imported"
    assert call(monkeypatch, "explore", "import", explored / VIEWS[0], "--out", out) == 0
    assert "iterations imported into" in capsys.readouterr().out
    assert call(monkeypatch, "explore", "status", out) == 0
    assert "imported log" in refused(monkeypatch, capsys, "explore", "resume", out)


def test_a_replay_gives_the_same_proposals_and_scores(explored, tmp_path, monkeypatch):
    """With training and all; interrupted once on the way, and resumed."""
    out = tmp_path / "again"
    shutil.copytree(explored / "base", out / "base")  # what is there is not made again
    heeding = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from metabolismgraph.cli import main; main()"
    )
    start = command("start", "small", "--iterations", 1, "--out", out, "--quiet", *TINY)
    replay = ["--proposer", "replay", "--record", str(explored)]
    child = subprocess.Popen(
        [sys.executable, "-c", heeding, *start[3:], *replay],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    for _ in range(1200):
        if (out / "runs" / "0001" / "run" / "training" / "settings.json").exists():
            break
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    time.sleep(0.2)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 130
    assert b"explore resume" in errors
    assert b"Traceback" not in errors
    assert call(monkeypatch, "explore", "resume", out, "--iterations", 1, "--record", explored, "--quiet") == 0
    ours, theirs = (
        [timeless(event) for event in events(folder, "proposed", "started", "finished", "scored", "remembered")]
        for folder in (out, explored)
    )
    assert ours == theirs


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_making_data_and_phase_1_ends_with_the_explorer_and_goes_on(number, code, tmp_path):
    """Even when the explorer alone is killed: two processes would otherwise write to one folder."""
    out = tmp_path / "x"
    heeding = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from metabolismgraph.cli import main; main()"
    )
    words = command("start", "small", "--iterations", 1, "--out", out, "--quiet", *TINY)[3:]
    child = subprocess.Popen([sys.executable, "-c", heeding, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    for _ in range(1200):
        if (out / "base" / "training" / "settings.json").exists():
            break
        time.sleep(0.05)
    child.send_signal(number)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == code
    assert b"Traceback" not in errors
    assert (b"interrupted; the same command with --out" in errors) == (number == signal.SIGINT)
    assert left_behind(out) == []
    assert not (out / "journal.jsonl").exists()


def timeless(event):
    event = {key: value for key, value in event.items() if key not in {"time", "seconds", "started", "waited", "chain"}}
    if "metrics" in event:
        event["metrics"] = {k: v for k, v in event["metrics"].items() if k != "training_time_min"}
    return event


def test_what_cannot_begin_is_one_line(explored, monkeypatch, capsys, tmp_path):
    new = tmp_path / "new"
    assert "explore resume" in refused(monkeypatch, capsys, "explore", "start", "small", "--out", explored)
    (tmp_path / "thesis.txt").write_text("years of work")
    assert "not empty" in refused(monkeypatch, capsys, "explore", "start", "small", "--out", tmp_path)
    for arguments, expected in {
        ("--proposer", "oracle"): "rules",
        ("--proposer", "replay"): "--record",
        ("--proposer", "replay", "--record", tmp_path): "no exploration here",
        ("--proposer", "command"): "exploration.command",
        ("--proposer", "llm"): "llm_model",
        ("--primary", "beauty"): "exploration.primary",
        ("--network", "network.xml"): "--timeseries",
        ("--network", "network.xml", "--timeseries", "data.csv"): "--primary validation",
        ("--engine", "pbs"): "(all: process, slurm, lsf, dask)",
        ("--engine", "slurm", "--setting", "queu=short"): "queue",
        ("--set", "training.homeostasis_training=false"): "nothing to explore",
        ("--set", "training.strategies=[residul]"): "residual",
    }.items():
        assert expected in refused(monkeypatch, capsys, "explore", "start", "small", "--out", new, *arguments)
        assert not new.exists()
    for name in ("status", "resume", "tree", "rebuild"):
        assert "no exploration here" in refused(monkeypatch, capsys, "explore", name, tmp_path)
    assert "no such file" in refused(monkeypatch, capsys, "explore", "import", tmp_path / "log.md", "--out", new)


def test_explorations_need_every_value(dataset, monkeypatch, capsys, tmp_path):
    table = pd.read_csv(dataset / "timeseries.csv.gz")
    table.loc[3, "M002"] = np.nan
    table.to_csv(tmp_path / "gaps.csv", index=False)
    files = ("--network", dataset / "network.xml", "--timeseries", tmp_path / "gaps.csv", "--primary", "validation")
    said = refused(monkeypatch, capsys, "explore", "start", "small", "--out", tmp_path / "new", *files)
    assert " values are missing; the strategies of an exploration need all of them" in said
    assert not (tmp_path / "new").exists()


def test_a_journal_damaged_in_the_middle_is_named_by_its_line(explored, monkeypatch, capsys, tmp_path):
    lines = (explored / "journal.jsonl").read_bytes().splitlines(keepends=True)
    lines[2] = lines[2][:20] + b"\n"
    (tmp_path / "journal.jsonl").write_bytes(b"".join(lines))
    assert "line 3" in refused(monkeypatch, capsys, "explore", "status", tmp_path)


def test_help_gives_an_example_for_every_command():
    for name in ("start", "resume", "status", "show", "tree", "rebuild", "import"):
        answer = subprocess.run(command(name, "--help"), check=True, capture_output=True, text=True, env=os.environ)
        assert "Example: metabolismgraph explore" in answer.stdout
