"""The command line, end to end and on bad input: one line, the right exit code, nothing half-written."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from command_line import QUICK, call, refused

from metabolismgraph.config import load_config

SHARED = Path(__file__).resolve().parents[2] / "shared" / "benchmarks" / "oscillatory_rank50"


def test_help_loads_no_jax_and_gives_an_example_for_every_command():
    code = (
        "import sys; sys.argv=['m','--help']\nfrom metabolismgraph.cli import main\ntry: main()\n"
        "except SystemExit: pass\nassert not {'jax','pandas','scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    for command in (
        "run",
        "simulate",
        "fit",
        "evaluate",
        "identify",
        "configs",
        "convert",
        "profile",
        "uncertainty",
        "benchmark recovery",
    ):
        answer = subprocess.run(
            [sys.executable, "-m", "metabolismgraph", *command.split(), "--help"],
            check=True,
            capture_output=True,
            text=True,
        )
        assert "Example: metabolismgraph" in answer.stdout


def test_libraries_of_tables_and_figures_take_no_memory_beside_training(tmp_path):
    code = (
        "import sys; sys.argv[1:] = ['run', 'small', '--out', 'run', '--set', 'simulation.n_frames=20']\n"
        "from metabolismgraph.runs import pipeline\n"
        "pipeline.train = lambda *arguments: sys.exit(str(sorted(LIBRARIES & set(sys.modules))))\n"
        "LIBRARIES = {'pandas', 'pyarrow', 'xarray', 'libsbml', 'matplotlib', 'PIL', 'sklearn'}\n"
        "from metabolismgraph.cli import main\nmain()"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=False, capture_output=True, text=True, timeout=300
    )
    assert answer.stderr.splitlines()[-1] == "[]"


def test_run_leaves_everything_behind(finished_run):
    manifest = json.loads((finished_run / "manifest.json").read_text())
    assert set(manifest["stages"]) == {"simulate", "phase 1", "phase 2", "evaluate", "figures"}
    assert "leak" not in manifest
    config = load_config(str(finished_run / "config.yaml"))
    assert config.model_dump(mode="json") == manifest["config"]
    assert manifest["sandbox"][0] == "audit hook"
    metrics = json.loads((finished_run / "metrics.json").read_text())
    assert metrics["rate_constants_R2_identifiable"] > 0.9999
    log = dict(line.split(": ") for line in (finished_run / "analysis.log").read_text().splitlines())
    assert log["rate_constants_R2"] == f"{metrics['rate_constants_R2']:.6g}"
    assert log["MLP_node_slope_0"] == f"{metrics['MLP_node_slope_0']:.6g}"
    for name in ("function/rate_func/MLP_node_p2_*.png", "rate_constants/comparison_p2_*.png", "loss.tif"):
        assert list((finished_run / "tmp_training").glob(name))
    assert (finished_run / "figures" / "summary.png").stat().st_size > 10_000
    assert not list(finished_run.rglob("*.part"))


def test_training_folder_holds_no_truth_and_no_simulation(finished_run):
    settings = json.loads((finished_run / "training" / "settings.json").read_text())
    assert set(settings) == {"graph_model", "training"}
    names = {path.name for path in (finished_run / "training").iterdir()}
    assert names == {
        "observations.json",
        "observations.safetensors",
        "settings.json",
        "stderr.txt",
        "phase1.json",
        "phase1.safetensors",
        "phase2.json",
        "phase2.safetensors",
    }


def test_run_is_refused_in_a_folder_in_use(finished_run, monkeypatch, capsys, tmp_path):
    assert "--resume" in refused(monkeypatch, capsys, "run", "small", "--out", finished_run, *QUICK)
    (tmp_path / "thesis.txt").write_text("years of work")
    assert "no run" in refused(monkeypatch, capsys, "run", "small", "--out", tmp_path, "--overwrite", *QUICK)
    assert (tmp_path / "thesis.txt").exists()


def test_resume_refuses_another_configuration(finished_run, monkeypatch, capsys):
    assert "another configuration" in refused(
        monkeypatch, capsys, "run", "small", "--out", finished_run, "--resume", *QUICK, "--set", "training.seed=9"
    )


def test_resume_repairs_what_is_damaged_and_keeps_the_rest(finished_run, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", finished_run, copy], check=True)
    before = json.loads((copy / "metrics.json").read_text())
    (copy / "metrics.json").unlink()
    checkpoint = copy / "training" / "phase2.safetensors"
    content = bytearray(checkpoint.read_bytes())
    content[-5] ^= 1
    checkpoint.write_bytes(content)
    first = (copy / "training" / "phase1.safetensors").stat().st_mtime_ns
    assert call(monkeypatch, "run", "small", "--out", copy, "--resume", "--quiet", *QUICK) == 0
    after = json.loads((copy / "metrics.json").read_text())
    assert (copy / "training" / "phase1.safetensors").stat().st_mtime_ns == first
    times = {"training_time_min"}
    assert {k: v for k, v in after.items() if k not in times} == {k: v for k, v in before.items() if k not in times}


def test_an_interrupted_run_resumes(tmp_path, monkeypatch):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "metabolismgraph", "run", "small", "--out", out, *QUICK]
    # A shell's background jobs ignore interrupts, and so would this process, if the tests run as one.
    heeding = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from metabolismgraph.cli import main; main()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", heeding, *command[3:]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    for _ in range(600):
        if (out / "training" / "settings.json").exists():
            break
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 130
    assert b"--resume" in errors
    assert b"Traceback" not in errors
    assert call(monkeypatch, "run", "small", "--out", out, *QUICK, "--resume", "--quiet") == 0
    assert (out / "metrics.json").exists()


def test_a_system_with_a_key_is_simulated_again_by_its_key_alone(monkeypatch, capsys, tmp_path):
    secret = ("--set", "simulation.secret=true", "--set", "simulation.n_frames=50", "--quiet")
    truths = {}
    key = tmp_path / "a" / "truth" / "secret.key"
    for name, given in {"a": (), "b": (), "again": ("--secret", key)}.items():
        assert call(monkeypatch, "simulate", "small", "--out", tmp_path / name, *secret, *given) == 0
        truths[name] = (tmp_path / name / "truth" / "reactions.csv").read_text()
    assert truths["a"] == truths["again"] != truths["b"]
    assert (tmp_path / "again" / "truth" / "secret.key").read_bytes() == key.read_bytes()
    key.write_bytes(b"short")
    for command in ("simulate", "run"):
        capsys.readouterr()
        assert call(monkeypatch, command, "small", "--out", tmp_path / "c", *secret, "--secret", key) == 2
        assert "secret.key: not a key (5 bytes, expected 32)" in capsys.readouterr().err
        assert not (tmp_path / "c").exists()


@pytest.fixture
def without_figures(monkeypatch):
    """Commands that draw nothing: figures take a third of their time."""
    monkeypatch.setattr("metabolismgraph.figures.draw_all", lambda *_, **__: [])


@pytest.mark.usefixtures("without_figures")
def test_evaluate_with_another_truth(finished_run, monkeypatch, capsys, tmp_path):
    truth = tmp_path / "truth"
    subprocess.run(["cp", "-r", finished_run / "data" / "truth", truth], check=True)
    table = pd.read_csv(truth / "metabolites.csv")
    table["lambda"] *= 2
    table.to_csv(truth / "metabolites.csv", index=False)
    before = json.loads((finished_run / "metrics.json").read_text())["avg_slope_ratio"]
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", finished_run, copy], check=True)
    assert call(monkeypatch, "evaluate", copy, "--truth", truth, "--quiet") == 0
    assert json.loads((copy / "metrics.json").read_text())["avg_slope_ratio"] == pytest.approx(before / 2)
    assert "no run here" in refused(monkeypatch, capsys, "evaluate", tmp_path)
    assert "no such file" in refused(monkeypatch, capsys, "evaluate", finished_run, "--truth", tmp_path)


@pytest.mark.usefixtures("without_figures")
def test_simulate_then_fit_equals_run(finished_run, dataset, monkeypatch, tmp_path):
    """What `simulate` writes goes through `fit`, without the truth, to the same result as `run`."""
    out = tmp_path / "fit"
    files = (dataset / "network.xml", dataset / "timeseries.csv.gz")
    assert call(monkeypatch, "fit", *files, "--out", out, "--quiet", "--set", "plotting.dpi=40") == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert "avg_slope_ratio" not in metrics
    assert metrics["held_out_derivative_R2"] > 0.999
    assert metrics["held_out_skill"] > 0.99
    assert not (out / "data" / "truth").exists()
    assert call(monkeypatch, "evaluate", out, "--truth", dataset / "truth", "--quiet") == 0
    ours, theirs = (json.loads((run / "metrics.json").read_text()) for run in (out, finished_run))
    for name in ("rate_constants_R2", "final_loss", "phase2_loss", "embedding_silhouette", "avg_slope_ratio"):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-9), name


def test_names_in_tables(dataset, monkeypatch, capsys, tmp_path):
    table = pd.read_csv(dataset / "timeseries.csv.gz").rename(columns={"time": "Zeit", "M003": "Glc"})
    table.to_csv(tmp_path / "named.csv", index=False)
    files = ("identify", dataset / "network.xml", tmp_path / "named.csv")
    assert call(monkeypatch, *files, "--map", "Zeit=time", "--map", "Glc=M003") == 0
    assert "Read as stated: Zeit as time, Glc as M003." in capsys.readouterr().out
    for pairs, message in (
        (["Glc"], "--map Glc: expected NAME=ID"),
        (["Glc=M003", "Glc=M004"], "--map: Glc is given twice"),
        (["Zeit=time", "Glc=M003", "x=M001"], "no column or species is named 'x'"),
    ):
        assert call(monkeypatch, *files, *(word for pair in pairs for word in ("--map", pair))) == 2
        assert message in capsys.readouterr().err
    assert call(monkeypatch, "identify", dataset / "network.xml", "--map", "a=b") == 2
    assert "--map is for the names in tables" in capsys.readouterr().err


def test_identify_table_and_json(dataset, monkeypatch, capsys):
    assert call(monkeypatch, "identify", dataset / "network.xml", dataset / "timeseries.csv.gz") == 0
    assert "rate constants are determined by themselves" in capsys.readouterr().out
    assert call(monkeypatch, "identify", dataset / "network.xml", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert set(answer) == {"determined", "determined_without_homeostasis", "groups", "notes"}


def test_configs_lists_and_shows(monkeypatch, capsys):
    assert call(monkeypatch, "configs") == 0
    assert "types3" in capsys.readouterr().out
    assert call(monkeypatch, "configs", "--show", "small") == 0
    assert "n_metabolites: 30" in capsys.readouterr().out


@pytest.mark.skipif(not SHARED.exists(), reason="the shared benchmark data are not here")
def test_fit_on_data_that_this_project_did_not_make(monkeypatch, tmp_path):
    out = tmp_path / "fit"
    files = (SHARED / "network.xml", SHARED / "timeseries.csv.gz")
    known = ("--truth", SHARED / "truth", "--set", "plotting.dpi=40")
    assert call(monkeypatch, "fit", *files, *known, "--out", out, "--quiet") == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["rate_constants_R2_identifiable"] > 0.9999
    assert metrics["log_k_median_error_identifiable"] < 1e-4
    assert metrics["n_unidentifiable"] == 16
    for name in ("slope", "offset"):
        for kind in (0, 1):
            assert metrics[f"MLP_node_{name}_ratio_{kind}"] == pytest.approx(1, abs=0.01)
    assert metrics["embedding_cluster_acc"] == 1.0
    assert metrics["embedding_silhouette"] > 0.9
    with gzip.open(out / "data" / "timeseries.csv.gz") as stream:
        assert stream.readline().startswith(b"time,M000")
