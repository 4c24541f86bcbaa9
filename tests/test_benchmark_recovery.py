"""The recovery benchmark: it goes on where it was, in the order of its plan, and refuses what it cannot tell apart."""

from __future__ import annotations

import dataclasses
import errno
import json
import sys
from collections import Counter
from pathlib import Path

import pytest
from command_line import QUICK, call, refused
from jobs_here import Here, without_processes, wrong_engines

from metabolismgraph.benchmarks import cold_run, jobs, recovery, simulations, workers
from metabolismgraph.benchmarks.recovery import Settings, plan, run_recovery
from metabolismgraph.benchmarks.recovery_report import RecoveryResults
from metabolismgraph.benchmarks.results_file import LINES_WITH_JOBS
from metabolismgraph.benchmarks.workers import failure, rows_of
from metabolismgraph.errors import InputError, TrainingLostError
from metabolismgraph.processes import Child
from metabolismgraph.system.progress import silent

TWO = Settings(configs=("small", "types3"), seeds=2, repeats=2)
METRICS = {
    "classification": "converged",
    "phase1_converged": True,
    "rate_constants_R2_identifiable": 1.0,
    "rate_constants_R2": 0.9,
    "log_k_median_error_identifiable": 1e-7,
    "n_unidentifiable": 3,
    "embedding_cluster_acc": 1.0,
    "embedding_silhouette": 0.99,
    "MLP_node_slope_ratio_0": 1.001,
    "MLP_node_offset_ratio_0": 0.999,
}
FITTED = {"phase1_cold_s": 3.0, "phase1_s": 2.0, "phase2_cold_s": 4.0, "phase2_s": 1.0, "notes": [], "metrics": METRICS}


def by_hand(group, settings, out):
    """Takes the place of the fits, in this process."""
    for case in group.cases:
        yield case.row() | FITTED


@pytest.fixture
def unfitted(monkeypatch):
    without_processes(monkeypatch)
    monkeypatch.setattr(recovery, "results_of", by_hand)


@pytest.fixture
def data_set(tmp_path):
    def make(path):
        (tmp_path / path / "truth").mkdir(parents=True)
        for name in ("network.xml", "timeseries.csv", "truth/reactions.csv", "truth/metabolites.csv"):
            (tmp_path / path / name).touch()
        return str(tmp_path / path)

    return make


def identities(rows):
    return [(row["config"], row["simulation_seed"], row["training_seed"]) for row in rows]


def written(out):
    return json.loads((out / "recovery.json").read_text())


def test_the_plan_has_a_group_for_each_simulation_and_data_set():
    settings = dataclasses.replace(TWO, datasets=("/a/b",))
    groups = plan(settings, {"small": [0, 2], "types3": [1, 3]})
    assert [(group.source, group.seed) for group in groups] == [
        ("small", 0),
        ("small", 2),
        ("types3", 1),
        ("types3", 3),
        ("/a/b", None),
    ]
    assert [case[1:] for case in groups[1].cases] == [(2, 0), (2, 1)]
    assert groups[-1].cases[0].row() == {"config": "b (files)", "simulation_seed": None, "training_seed": 42}


def test_interrupted_benchmark_goes_on_where_it_was(unfitted, tmp_path):
    seen = []

    def stop(stage, done, message):
        seen.append(message)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_recovery(TWO, tmp_path, 1, stop)
    assert len(RecoveryResults.read(tmp_path).cases) == 2
    text = run_recovery(TWO, tmp_path, 1, silent)
    rows = RecoveryResults.read(tmp_path).cases
    assert set(Counter(identities(rows)).values()) == {1}
    assert text == (tmp_path / "recovery.md").read_text()
    assert "8 cases, 0 without a result." in text
    found = written(tmp_path)
    assert list(found) == ["host", "cases", "diverged", "cold_run"]
    assert identities(found["cases"]) == [
        (config, seed, repeat) for config in TWO.configs for seed in (0, 1) for repeat in (0, 1)
    ]
    assert found["cold_run"] is None
    assert not (tmp_path / "jobs").exists()


def test_rows_are_written_in_the_order_of_the_plan(unfitted, tmp_path):
    class Backwards(Here):
        def submit(self, job, folder):
            self.waiting.insert(0, (job, folder))

    run_recovery(TWO, tmp_path, 1, silent, engine=Backwards())
    rows = RecoveryResults.read(tmp_path).cases
    assert rows[0]["config"] == "types3"
    assert identities(written(tmp_path)["cases"]) == sorted(identities(rows))


def test_other_settings_are_refused_and_overwritten_on_demand(unfitted, tmp_path):
    run_recovery(TWO, tmp_path, 1, silent)
    other = dataclasses.replace(TWO, repeats=1)
    with pytest.raises(InputError, match="other settings \\(repeats\\).*--overwrite"):
        run_recovery(other, tmp_path, 1, silent)
    run_recovery(other, tmp_path, 1, silent, overwrite=True)
    assert len(written(tmp_path)["cases"]) == 4


def test_the_cold_run_is_measured_last_and_once(unfitted, monkeypatch, tmp_path):
    codes, rows = [1, 0], []

    def measure(overrides):
        rows.append(len(RecoveryResults.read(tmp_path).cases))
        return {"exit_code": codes.pop(0), "seconds": 30.0, "peak_memory_gb": 1.0}

    monkeypatch.setattr(recovery, "cold_run", measure)
    settings = Settings(configs=("oscillatory_rank50",), seeds=2, repeats=1)
    for code in (1, 0, 0):  # one that failed is measured again
        run_recovery(settings, tmp_path, 1, silent)
        assert written(tmp_path)["cold_run"] == {"exit_code": code, "seconds": 30.0, "peak_memory_gb": 1.0}
        met = "NO" if code else "yes"
        assert f"| its peak memory, GB | at most 2 | 1 | {met} |" in (tmp_path / "recovery.md").read_text()
    assert rows == [2, 2]


def test_cold_run_measures_a_process(monkeypatch):
    monkeypatch.setattr(cold_run.sys, "executable", "/bin/true")
    found = cold_run.cold_run(())
    assert found["exit_code"] == 0
    assert 0 < found["seconds"] < 10


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say what processes share")
def test_memory_that_processes_share_counts_once():
    held = 200 << 20
    code = f"import os, time; held = b'x' * {held}; os.fork(); time.sleep(1.5)"
    with Child([sys.executable, "-c", code]) as child:
        peak = cold_run._PeakMemory(child.pid)
        assert child.wait() == 0
        assert held < peak.stop() < 1.5 * held


def test_diverged_simulations_are_listed(unfitted, monkeypatch, tmp_path):
    def survey(name, settings):
        lost = {"config": name, "seed": 0, "error": "blew up"}
        yield {"kind": "seeds", "config": name, "seeds": [1, 2], "diverged": [lost]}

    monkeypatch.setattr(simulations, "survey", survey)
    text = run_recovery(dataclasses.replace(TWO, configs=("small",)), tmp_path, 1, silent)
    assert written(tmp_path)["diverged"] == [{"config": "small", "simulation_seed": 0, "error": "blew up"}]
    assert "- small seed 0: blew up" in text


def test_a_full_disk_loses_a_case_which_the_next_command_runs_again(unfitted, monkeypatch, tmp_path):
    def full_disk(shared, case):
        if case.training_seed == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        if case.config == "types3":
            raise ValueError("two\nlines")
        return FITTED

    monkeypatch.setattr(recovery, "results_of", lambda group, *_: rows_of(group.cases, lambda: None, full_disk))
    text = run_recovery(TWO, tmp_path, 1, silent)
    rows = RecoveryResults.read(tmp_path).cases
    assert {(row.get("lost"), row["training_seed"]) for row in rows} == {("machine", 0), (None, 1)}
    assert {row["error"] for row in rows if row.get("lost")} == {"OSError: [Errno 28] No space left on device"}
    assert {row["error"] for row in rows if row["config"] == "types3" and row["training_seed"]} == {
        "ValueError: two lines"
    }
    assert "8 cases, 6 without a result." in text
    monkeypatch.setattr(recovery, "results_of", by_hand)
    run_recovery(TWO, tmp_path, 1, silent)
    rows = RecoveryResults.read(tmp_path).cases
    assert Counter("error" in row for row in rows) == {False: 6, True: 2}  # an error of the case is a result
    assert not (tmp_path / "jobs").exists()


def test_only_the_machine_is_to_blame_for_a_disk():
    assert failure(InputError("so")) == {"error": "InputError: so"}
    try:
        try:
            raise OSError(errno.ENOSPC, "full")
        except OSError as error:
            raise ValueError("not written") from error
    except ValueError as error:
        with pytest.raises(TrainingLostError, match="ValueError: not written"):
            failure(error)
    with pytest.raises(TrainingLostError, match="killed"):
        failure(TrainingLostError("killed"))


def test_data_sets_of_equal_name_or_without_files_are_refused(unfitted, data_set, monkeypatch, capsys, tmp_path):
    first, second = data_set("a/cells"), data_set("b/cells")
    command = ("benchmark", "recovery", "--configs", "small", "--out", tmp_path / "out")
    assert "have the same name" in refused(monkeypatch, capsys, *command, "--dataset", first, "--dataset", second)
    assert "have the same name" in refused(monkeypatch, capsys, *command, "--dataset", first, "--dataset", first)
    assert "is named twice" in refused(monkeypatch, capsys, *command, "--configs", "small,small")
    Path(second, "truth", "metabolites.csv").unlink()
    message = refused(monkeypatch, capsys, *command, "--dataset", second)
    assert "truth/metabolites.csv missing" in message
    assert "network.xml, timeseries.csv.gz" in refused(monkeypatch, capsys, *command, "--dataset", tmp_path / "none")
    assert not (tmp_path / "out").exists()
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, *command, "--seeds", 1, "--repeats", 1, "--dataset", "a/cells/") == 0
    assert RecoveryResults.read(tmp_path / "out").header["datasets"] == [first]
    assert [row["config"] for row in written(tmp_path / "out")["cases"]] == ["small", "cells (files)"]


def test_cases_run_one_after_the_other_unless_told_otherwise(unfitted, monkeypatch, tmp_path):
    numbers = []
    monkeypatch.setattr(jobs, "engine_for", lambda settings, workers, report: numbers.append(workers) or Here())
    command = ("benchmark", "recovery", "--configs", "small", "--overwrite", "--out", tmp_path)
    assert call(monkeypatch, *command) == call(monkeypatch, *command, "--workers", 3) == 0
    assert numbers == [1, 3]


@wrong_engines
def test_wrong_engines_are_refused_before_anything_is_written(monkeypatch, capsys, tmp_path, options, message):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert message in refused(monkeypatch, capsys, "benchmark", "recovery", "--out", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_a_folder_holds_one_benchmark(unfitted, tmp_path):
    (tmp_path / "strategies.jsonl").touch()
    with pytest.raises(InputError, match="results of another benchmark \\(strategies.jsonl\\); choose another --out"):
        run_recovery(TWO, tmp_path, 1, silent)


@pytest.mark.parametrize("lines", LINES_WITH_JOBS)
def test_cancel_knows_the_folders_of_benchmarks(monkeypatch, capsys, tmp_path, lines):
    (tmp_path / lines).write_text("{}\n")
    assert call(monkeypatch, "explore", "cancel", tmp_path) == 0
    assert "jobs cancelled: 0" in capsys.readouterr().out


def test_jobs_that_measure_compilation_keep_no_programs(tmp_path):
    assert workers.library_variables(2, None)["JAX_ENABLE_COMPILATION_CACHE"] == "false"
    assert "JAX_ENABLE_COMPILATION_CACHE" not in workers.library_variables(2, tmp_path)


def test_cases_are_fitted_and_a_failed_simulation_is_a_row(tmp_path):
    settings = Settings(configs=("small",), seeds=1, repeats=1, overrides=tuple(QUICK[1::2]))
    (group,) = plan(settings, {"small": [0]})
    (row,) = recovery.results_of(group, settings, tmp_path)
    assert row.items() >= group.cases[0].row().items()
    assert row["metrics"]["rate_constants_R2_identifiable"] > 0.999
    assert min(row["phase1_cold_s"], row["phase1_s"], row["phase2_s"]) > 0
    (row,) = recovery.results_of(group._replace(source="nowhere"), settings, tmp_path)
    assert row["error"].startswith("InputError: nowhere: neither a file nor a shipped configuration")
    (row,) = recovery.results_of(group._replace(source="/nowhere", seed=None), settings, tmp_path)
    assert "error" in row
