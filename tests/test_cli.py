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

import numpy as np
import pandas as pd
import pytest

from metabolismgraph.cli import main

QUICK = [
    "--set",
    "simulation.n_metabolites=12",
    "--set",
    "simulation.n_reactions=24",
    "--set",
    "simulation.n_frames=400",
]
SHARED = Path(__file__).resolve().parents[2] / "shared" / "benchmarks" / "oscillatory_rank50"


def call(monkeypatch, *arguments: object) -> int:
    """Exit code of the command line."""
    monkeypatch.setattr(sys, "argv", ["metabolismgraph", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def refused(monkeypatch, capsys, *arguments: object) -> str:
    """The one line that wrong input is answered with."""
    assert call(monkeypatch, *arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> Path:
    """A small run by the command itself, in a process of its own."""
    out = tmp_path_factory.mktemp("runs") / "first"
    subprocess.run(
        [sys.executable, "-m", "metabolismgraph", "run", "small", "--out", out, *QUICK], check=True, capture_output=True
    )
    return out


@pytest.fixture
def dataset(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "data"
    assert call(monkeypatch, "simulate", "small", "--out", folder, "--quiet", *QUICK) == 0
    return folder


def test_help_loads_no_jax_and_gives_an_example_for_every_command():
    code = (
        "import sys; sys.argv=['m','--help']\nfrom metabolismgraph.cli import main\ntry: main()\n"
        "except SystemExit: pass\nassert not {'jax','pandas','scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    for command in ("run", "simulate", "fit", "evaluate", "identify", "configs", "benchmark recovery"):
        answer = subprocess.run(
            [sys.executable, "-m", "metabolismgraph", *command.split(), "--help"],
            check=True,
            capture_output=True,
            text=True,
        )
        assert "Example: metabolismgraph" in answer.stdout


def test_run_leaves_everything_behind(finished_run):
    manifest = json.loads((finished_run / "manifest.json").read_text())
    assert set(manifest["stages"]) == {"simulate", "phase 1", "phase 2", "evaluate", "figures"}
    metrics = json.loads((finished_run / "metrics.json").read_text())
    assert metrics["rate_constants_R2_identifiable"] > 0.9999
    log = dict(line.split(": ") for line in (finished_run / "analysis.log").read_text().splitlines())
    assert log["rate_constants_R2"] == f"{metrics['rate_constants_R2']:.4f}"
    assert log["MLP_node_slope_0"] == f"{metrics['MLP_node_slope_0']:.6f}"
    for name in ("function/rate_func/MLP_node_p2_*.png", "rate_constants/comparison_p2_*.png", "loss.tif"):
        assert list((finished_run / "tmp_training").glob(name))
    assert (finished_run / "figures" / "summary.png").stat().st_size > 10_000
    assert not list(finished_run.rglob("*.part"))


def test_training_folder_holds_no_truth_and_no_simulation(finished_run):
    settings = json.loads((finished_run / "training" / "settings.json").read_text())
    assert set(settings) == {"graph_model", "training"}
    names = {path.name for path in (finished_run / "training").iterdir()}
    assert names == {
        "observations.nc",
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


def test_resume_repairs_what_is_damaged_and_keeps_the_rest(finished_run, tmp_path):
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", finished_run, copy], check=True)
    before = json.loads((copy / "metrics.json").read_text())
    (copy / "metrics.json").unlink()
    checkpoint = copy / "training" / "phase2.safetensors"
    content = bytearray(checkpoint.read_bytes())
    content[-5] ^= 1
    checkpoint.write_bytes(content)
    first = (copy / "training" / "phase1.safetensors").stat().st_mtime_ns
    subprocess.run(
        [sys.executable, "-m", "metabolismgraph", "run", "small", "--out", copy, "--resume", "--quiet", *QUICK],
        check=True,
        capture_output=True,
    )
    after = json.loads((copy / "metrics.json").read_text())
    assert (copy / "training" / "phase1.safetensors").stat().st_mtime_ns == first
    times = {"training_time_min"}
    assert {k: v for k, v in after.items() if k not in times} == {k: v for k, v in before.items() if k not in times}


def test_an_interrupted_run_resumes(tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "metabolismgraph", "run", "small", "--out", out, *QUICK]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    for _ in range(600):
        if (out / "training" / "settings.json").exists():
            break
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 130
    assert b"--resume" in errors
    assert b"Traceback" not in errors
    subprocess.run([*command, "--resume", "--quiet"], check=True, capture_output=True)
    assert (out / "metrics.json").exists()


def test_evaluate_with_another_truth(finished_run, monkeypatch, capsys, tmp_path):
    truth = tmp_path / "truth"
    subprocess.run(["cp", "-r", finished_run / "data" / "truth", truth], check=True)
    table = pd.read_csv(truth / "metabolites.csv")
    table["lambda"] *= 2
    table.to_csv(truth / "metabolites.csv", index=False)
    before = json.loads((finished_run / "metrics.json").read_text())["avg_slope_ratio"]
    assert call(monkeypatch, "evaluate", finished_run, "--truth", truth, "--quiet") == 0
    assert json.loads((finished_run / "metrics.json").read_text())["avg_slope_ratio"] == pytest.approx(before / 2)
    assert call(monkeypatch, "evaluate", finished_run, "--quiet") == 0
    assert "no run here" in refused(monkeypatch, capsys, "evaluate", tmp_path)
    assert "no such file" in refused(monkeypatch, capsys, "evaluate", finished_run, "--truth", tmp_path)


def test_simulate_then_fit_equals_run(finished_run, dataset, monkeypatch, tmp_path):
    """What `simulate` writes goes through `fit` to the same result as `run`."""
    out = tmp_path / "fit"
    truth = dataset / "truth"
    arguments = (
        "fit",
        dataset / "network.xml",
        dataset / "timeseries.csv.gz",
        "--truth",
        truth,
        "--out",
        out,
        "--quiet",
    )
    assert call(monkeypatch, *arguments) == 0
    ours, theirs = (json.loads((run / "metrics.json").read_text()) for run in (out, finished_run))
    assert ours["rate_constants_R2"] == pytest.approx(theirs["rate_constants_R2"], abs=1e-6)
    assert ours["avg_slope_ratio"] == pytest.approx(theirs["avg_slope_ratio"], abs=1e-3)


def test_fit_without_truth_predicts_held_out_frames(dataset, monkeypatch, tmp_path):
    out = tmp_path / "fit"
    assert (
        call(monkeypatch, "fit", dataset / "network.xml", dataset / "timeseries.csv.gz", "--out", out, "--quiet") == 0
    )
    metrics = json.loads((out / "metrics.json").read_text())
    assert "avg_slope_ratio" not in metrics
    assert metrics["held_out_derivative_R2"] > 0.999
    assert not (out / "data" / "truth").exists()


def test_identify_table_and_json(dataset, monkeypatch, capsys):
    assert call(monkeypatch, "identify", dataset / "network.xml", dataset / "timeseries.csv.gz") == 0
    assert "rate constants are determined by themselves" in capsys.readouterr().out
    assert call(monkeypatch, "identify", dataset / "network.xml", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert set(answer) == {"determined", "determined_without_homeostasis", "groups"}


def test_configs_lists_and_shows(monkeypatch, capsys):
    assert call(monkeypatch, "configs") == 0
    assert "types3" in capsys.readouterr().out
    assert call(monkeypatch, "configs", "--show", "small") == 0
    assert "n_metabolites: 30" in capsys.readouterr().out


class TestBadInput:
    """Each is refused with one line, and nothing is left where the run would have been."""

    @pytest.fixture
    def fit(self, dataset, monkeypatch, capsys, tmp_path):
        table = pd.read_csv(dataset / "timeseries.csv.gz")

        def fit(change=lambda table: table, network=dataset / "network.xml", timeseries=None) -> str:
            path = timeseries or tmp_path / "changed.csv"
            if timeseries is None:
                change(table.copy()).to_csv(path, index=False)
            message = refused(monkeypatch, capsys, "fit", network, path, "--out", tmp_path / "out")
            assert not (tmp_path / "out").exists()
            return message

        return fit

    def test_missing_network(self, fit, tmp_path):
        assert "no such file" in fit(network=tmp_path / "absent.xml")

    def test_missing_timeseries(self, fit, tmp_path):
        assert "no such file" in fit(timeseries=tmp_path / "absent.csv")

    def test_invalid_sbml(self, fit, tmp_path):
        path = tmp_path / "broken.xml"
        path.write_text("<sbml><model>")
        assert "broken.xml" in fit(network=path)

    def test_damaged_gzip(self, fit, dataset, tmp_path):
        path = tmp_path / "cut.csv.gz"
        path.write_bytes((dataset / "timeseries.csv.gz").read_bytes()[:2000])
        assert "gzip" in fit(timeseries=path)

    def test_species_without_column(self, fit):
        assert "M003" in fit(lambda t: t.drop(columns="M003"))

    def test_column_without_species(self, fit):
        assert "M03x" in fit(lambda t: t.assign(M03x=1.0))

    def test_missing_cell(self, fit):
        assert "M002" in fit(lambda t: t.assign(M002=t.M002.where(t.index != 7)))

    def test_negative(self, fit):
        assert "negative" in fit(lambda t: t.assign(M002=-t.M002))

    def test_time_not_increasing(self, fit):
        assert "time" in fit(lambda t: t.assign(time=np.r_[t.time[:5], 0.1, t.time[6:]]))

    def test_too_few_frames(self, fit):
        assert "at least" in fit(lambda t: t.head(3))

    def test_truth_of_another_system(self, dataset, monkeypatch, capsys, tmp_path):
        truth = tmp_path / "truth"
        subprocess.run(["cp", "-r", dataset / "truth", truth], check=True)
        table = pd.read_csv(truth / "reactions.csv")
        table.head(3).to_csv(truth / "reactions.csv", index=False)
        files = (dataset / "network.xml", dataset / "timeseries.csv.gz")
        assert "truth" in refused(monkeypatch, capsys, "fit", *files, "--truth", truth, "--out", tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_unknown_key(self, monkeypatch, capsys, tmp_path):
        message = refused(
            monkeypatch, capsys, "run", "small", "--set", "training.learning_rate_kk=1", "--out", tmp_path / "o"
        )
        assert "learning_rate_k" in message
        assert not (tmp_path / "o").exists()

    def test_wrong_type(self, monkeypatch, capsys, tmp_path):
        path = tmp_path / "mine.yaml"
        path.write_text("training:\n  batch_size: many\n")
        message = refused(monkeypatch, capsys, "run", path, "--out", tmp_path / "o")
        assert "mine.yaml" in message
        assert "batch_size" in message

    def test_unknown_configuration(self, monkeypatch, capsys):
        assert "small" in refused(monkeypatch, capsys, "run", "smal")

    def test_out_is_a_file(self, monkeypatch, capsys, tmp_path):
        (tmp_path / "file").write_text("")
        assert "another --out" in refused(monkeypatch, capsys, "run", "small", "--out", tmp_path / "file", *QUICK)
        assert "another --out" in refused(
            monkeypatch, capsys, "run", "small", "--out", tmp_path / "file" / "below", *QUICK
        )

    def test_out_not_writable(self, monkeypatch, capsys):
        message = refused(monkeypatch, capsys, "run", "small", "--out", "/proc/nothing", *QUICK)
        assert "/proc/nothing" in message

    def test_damaged_manifest(self, finished_run, monkeypatch, capsys, tmp_path):
        (tmp_path / "manifest.json").write_text("{")
        assert "damaged" in refused(monkeypatch, capsys, "run", "small", "--out", tmp_path, "--resume", *QUICK)

    def test_a_simulation_that_blows_up_ends_with_code_1(self, monkeypatch, capsys, tmp_path):
        arguments = ("run", "small", "--set", "simulation.delta_t=5", "--out", tmp_path / "o", *QUICK)
        assert call(monkeypatch, *arguments, "--quiet") == 1
        assert "blew up at frame" in capsys.readouterr().err


@pytest.mark.skipif(not SHARED.exists(), reason="the shared benchmark data are not here")
def test_fit_on_data_that_this_project_did_not_make(monkeypatch, tmp_path):
    out = tmp_path / "fit"
    files = (SHARED / "network.xml", SHARED / "timeseries.csv.gz")
    assert call(monkeypatch, "fit", *files, "--truth", SHARED / "truth", "--out", out, "--quiet") == 0
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
