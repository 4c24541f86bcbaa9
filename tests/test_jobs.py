"""The process of a slot, for real: what it finds, what it shares, and what it does not believe."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import journals
import psutil
import pytest
from command_line import QUICK
from forks import is_server

from metabolismgraph.config import load_config
from metabolismgraph.errors import InputError
from metabolismgraph.explore.engines import job as jobs
from metabolismgraph.explore.engines.base import JOB
from metabolismgraph.explore.engines.local import ProcessEngine
from metabolismgraph.explore.engines.outcome import read_outcome
from metabolismgraph.explore.folder import ExplorationFolder
from metabolismgraph.explore.planning import plan
from metabolismgraph.explore.review.admission import Verdict
from metabolismgraph.explore.reward import slope_ratios
from metabolismgraph.explore.start import prepared
from metabolismgraph.explore.state import State
from metabolismgraph.formats.dataset import write_dataset
from metabolismgraph.ground_truth.simulator import simulate
from metabolismgraph.reactions.fit import fit_reactions
from metabolismgraph.runs import training
from metabolismgraph.runs.checkpoint import save_phase1
from metabolismgraph.runs.folder import RunFolder

SMALL = {
    "graph_model.hidden_dim_node": 8,
    "graph_model.n_layers_node": 2,
    "graph_model.hidden_dim_sub": 8,
    "graph_model.n_layers_sub": 2,
    "training.phase1_method": "gradient",  # a few steps: what Phase 1 finds is of no importance here
    "training.n_epochs": 1,
    "exploration.data_augmentation_loop": 1,
    "plotting.dpi": 30,
    "training.phase2_steps": 100,
    "training.strategies": ["residual", "contrastive"],
}
pytestmark = pytest.mark.slow

PATIENCE = 240.0  # seconds; two cores may be busy with something else


@pytest.fixture(scope="module")
def exploration(tmp_path_factory):
    """A folder with a finished base, and three jobs described in it, the last of which may not see the truth."""
    path = tmp_path_factory.mktemp("jobs") / "exploration"
    config = prepared(load_config("small", QUICK[1::2]).replace(SMALL))
    folder = ExplorationFolder(path)
    # As `runs.pipeline.run` leaves it, but for what nobody reads here: evaluation and figures.
    base = RunFolder.create(folder.base, config, {"command": "run"})
    simulated = simulate(config)
    write_dataset(base.data, simulated.observations)
    simulated.truth.save(base.data / "truth")
    training.hand_over(base, simulated.observations, None)
    save_phase1(
        base.training / "phase1", fit_reactions(simulated.observations, config.graph_model, config.training), 0.0
    )
    base.finish("phase 1", 0.0)
    for iteration, oracle in ((1, True), (2, True), (3, False)):
        state = State.of([journals.opened(config, oracle=oracle)])
        folder.describe(plan(journals.proposal(), state, iteration, by="rules"), state)
    return folder


def fingerprint(folder):
    """Every file with what it is and when it was made."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def trainers(*started):
    """Processes of training below some that we started."""
    found = []
    for process in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            below = psutil.Process(process.pid).children(recursive=True)
            found += [child for child in below if trains(child)]
    return found


def trains(process):
    """Whether a process is a program that trains, or a fork of the server of a worker."""
    return "metabolismgraph.runs.train_process" in process.cmdline() or is_server(process.parent())


def lives(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def wait_for(what):
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        found = what()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("it never happened")


def start(folder):
    """The job as the engine starts it."""
    command = [*JOB, str(folder)]
    with (folder / "stdout.txt").open("ab") as out:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=out, start_new_session=True)


def ends(process):
    """Its exit code; what it was started with is closed."""
    code = process.wait(PATIENCE)
    process.stdin.close()
    return code


@pytest.fixture(scope="module")
def finished(exploration):
    """The first job, started twice at the same time: (folder, what was seen meanwhile)."""
    folder = exploration.job(1)
    before = fingerprint(exploration.base)
    both = [start(folder) for _ in range(2)]
    most, written = 0, None
    while any(process.poll() is None for process in both):
        most = max(most, len(trainers(*both)))
        if written is None and (folder / "outcome.json").exists():
            written = (folder / "outcome.json").stat().st_mtime_ns  # of the first that is done
        time.sleep(0.02)
    return folder, {"codes": [ends(process) for process in both], "trainers": most, "written": written, "base": before}


def metrics_of(folder):
    """Metrics of a job without what is never the same twice."""
    found = read_outcome(folder)
    assert found is not None
    assert found.reason is None
    return comparable(found)


def comparable(outcome):
    return {name: value for name, value in outcome.metrics.items() if name != "training_time_min"}


def assert_alike(found, expected):
    """The same metrics, but for the last digits of arithmetic in another process."""
    for numbers in (True, False):
        one, other = (
            {name: value for name, value in metrics.items() if isinstance(value, float) == numbers}
            for metrics in (found, expected)
        )
        assert one == (pytest.approx(other, rel=1e-6) if numbers else other)


def test_a_job_leaves_the_metrics_of_its_run(finished):
    folder, _ = finished
    found = read_outcome(folder)
    assert found.reason is None, found.reason
    assert found.seconds > 0
    assert set(slope_ratios(found.metrics)) == {0, 1}
    assert all(isinstance(value, float) for value in slope_ratios(found.metrics).values())
    assert {"avg_slope_ratio", "embedding_n_clusters", "rate_constants_R2"} <= set(found.metrics)
    own = json.loads((folder / "run" / "metrics.json").read_text())
    assert own["avg_slope_ratio"] == found.metrics["avg_slope_ratio"]


def test_of_two_jobs_in_one_folder_one_works_and_one_waits(finished):
    folder, seen = finished
    assert seen["codes"] == [0, 0]
    assert seen["trainers"] == 1
    assert (folder / "outcome.json").stat().st_mtime_ns == seen["written"]


def test_a_job_that_is_done_is_done(finished):
    folder, _ = finished
    before = fingerprint(folder)
    assert ends(start(folder)) == 0
    assert fingerprint(folder) == before | {"lock": fingerprint(folder)["lock"]}


def test_data_and_phase_1_are_shared_and_never_copied(exploration, finished):
    folder, seen = finished
    assert fingerprint(exploration.base) == seen["base"]
    names = {path.name for path in (folder / "run").rglob("*") if path.is_file()}
    assert "phase2.safetensors" in names
    assert not [name for name in names if name.startswith(("observations", "phase1", "timeseries", "network"))]
    large = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in {".png", ".tif"}]
    size = (exploration.base / "training" / "observations.safetensors").stat().st_size
    assert sum(path.stat().st_size for path in large) < size + 100_000
    assert not [path for path in folder.rglob("*") if "truth" in path.name]


@pytest.fixture
def again(exploration, finished, tmp_path, monkeypatch):
    """The whole exploration once more, its first job trained but not evaluated yet: its folder."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", os.environ.get("JAX_COMPILATION_CACHE_DIR", ""))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    monkeypatch.setattr("metabolismgraph.figures.draw_all", lambda *arguments, **given: None)  # metrics are compared
    shutil.copytree(exploration.path, tmp_path / "exploration")
    folder = tmp_path / "exploration" / "runs" / "0001"
    (folder / "outcome.json").unlink()
    return folder


def evaluated(folder):
    """What comes of a job, in this process."""
    outcome = jobs._outcome(folder)
    assert (outcome.metrics is None) != (outcome.reason is None)
    return outcome


def test_what_was_trained_is_evaluated_alike_a_second_time(finished, again):
    first, _ = finished
    second = evaluated(again)
    assert second.reason is None
    jobs.write_outcome(again, second)
    assert_alike(metrics_of(again), metrics_of(first))


def test_residuals_are_shared_by_all_jobs_of_an_exploration(again, monkeypatch):
    def run_phase2(*_, residuals, **__):
        raise InputError(f"{residuals}")

    monkeypatch.setattr("metabolismgraph.runs.pipeline.run_phase2", run_phase2)
    place = again.parents[1] / "cache" / "residuals"
    assert [evaluated(again.with_name(name)).reason for name in ("0001", "0002")] == [str(place)] * 2


def test_without_the_truth_there_are_no_metrics_that_need_it(exploration, again):
    job = json.loads((again / "job.json").read_text())
    assert job["truth"] is True
    assert json.loads((exploration.job(3) / "job.json").read_text())["truth"] is False
    (again / "job.json").write_text(json.dumps(job | {"truth": False}))
    found = evaluated(again)
    assert found.reason is None
    assert "held_out_skill" in found.metrics
    known = {"_ratio", "rate_constants", "trimmed", "cluster_acc", "_gt_", "MLP_sub_R2", "slope_ratio", "outliers"}
    told = [name for name, value in found.metrics.items() if any(k in name for k in known) and value is not None]
    assert told == []


@pytest.mark.parametrize(
    "name",
    ["base/training/phase1.safetensors", "base/training/observations.safetensors", "run/training/phase2.safetensors"],
)
@pytest.mark.parametrize("place", ["middle", "end"])
def test_a_flipped_byte_is_found_and_nothing_is_scored(again, name, place, monkeypatch):
    path = again / name if name.startswith("run") else again.parents[1] / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place == "middle" else -1] ^= 1
    path.write_bytes(content)
    # Training again is not what is looked at here: it would repair what is the run's own.
    monkeypatch.setattr("metabolismgraph.runs.pipeline.train", lambda *arguments, **named: None)
    found = evaluated(again)
    assert found.metrics is None
    assert path.stem in found.reason
    assert "\n" not in found.reason


def test_a_flipped_byte_in_its_own_checkpoint_is_trained_anew(finished, again):
    """The checkpoint was damaged after training: what is scored is what training finds, not what the disk says."""
    path = again / "run" / "training" / "phase2.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 64
    path.write_bytes(content)
    found = evaluated(again)
    assert found.reason is None
    jobs.write_outcome(again, found)
    assert_alike(metrics_of(again), metrics_of(finished[0]))


NO_CONFIG = '{"config": 3, "base": "", "cache": "", "trial": ""}'


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"config": {}}', NO_CONFIG])
def test_a_damaged_description_of_the_job(again, content):
    (again / "job.json").write_text(content)
    found = evaluated(again)
    assert found.metrics is None
    assert "\n" not in found.reason
    assert "job.json" in found.reason


@pytest.fixture
def with_file(again):
    """A job with a strategy file, which is not executed, and the file of its trial."""
    content = json.loads((again / "job.json").read_text())
    content["strategies"] = {"mine": "# mine\n"}
    (again / "job.json").write_text(json.dumps(content))
    return again, (again / content["trial"]).resolve()


def test_strategy_files_are_tried_once_with_the_settings_of_a_run(with_file, monkeypatch):
    folder, trial = with_file
    seen = []

    def refused(files, settings, training, scratch):
        seen.append((files, settings.strategies, training.parent.name))
        scratch.mkdir(parents=True)
        return Verdict.refused("the learned slopes do not follow the data")

    monkeypatch.setattr("metabolismgraph.explore.review.admission.try_settings", refused)
    for _ in range(2):
        found = evaluated(folder)
        assert (found.metrics, found.cause) == (None, "idea")
        assert found.reason == (
            "mine, on trial with the options and settings of this run: the learned slopes do not follow the data"
        )
    assert seen == [({"mine": "# mine\n"}, ("residual", "contrastive"), "base")]
    assert {path.name for path in trial.parent.iterdir()} == {trial.name, trial.with_suffix(".lock").name}
    trial.write_text("[")  # damaged: tried again
    assert "slopes do not follow" in evaluated(folder).reason
    assert len(seen) == 2
    trial.unlink()


def test_a_trial_that_was_killed_is_the_fault_of_the_machine(with_file, monkeypatch):
    folder, trial = with_file
    verdict = dataclasses.replace(Verdict.refused("its trial was killed by SIGKILL"), lost=True)
    monkeypatch.setattr("metabolismgraph.explore.review.admission.try_settings", lambda *_: verdict)
    found = evaluated(folder)
    assert (found.metrics, found.cause) == (None, "machine")
    assert not trial.exists()


def test_no_trial_where_strategy_files_are_not_executed(with_file, monkeypatch):
    folder, trial = with_file
    monkeypatch.setattr("metabolismgraph.sandbox.landlock.available", lambda: False)
    monkeypatch.setattr("metabolismgraph.explore.review.admission.try_settings", lambda *_: pytest.fail("executed"))
    found = evaluated(folder)
    assert (found.metrics, found.cause) == (None, "machine")
    assert "no Landlock" in found.reason
    assert not trial.exists()


def test_a_base_that_is_gone(again):
    shutil.rmtree(again.parents[1] / "base")
    found = evaluated(again)
    assert found.metrics is None
    assert "base" in found.reason


def test_a_file_where_the_run_should_be(again):
    shutil.rmtree(again / "run")
    (again / "run").write_text("")
    found = evaluated(again)
    assert found.metrics is None
    assert "run" in found.reason


ENGINE = """
import sys, time
from pathlib import Path
from metabolismgraph.explore.engines.local import ProcessEngine
engine = ProcessEngine(1, 600.0)
engine.submit(1, Path(sys.argv[1]))
time.sleep(600)
"""


def test_a_job_ends_with_its_parent_and_goes_on_in_the_next_life(exploration, finished):
    """In the middle of training: job and trainer are gone, and what the next one finds is what it would have been."""
    first, _ = finished
    folder = exploration.job(2)
    parent = subprocess.Popen([sys.executable, "-c", ENGINE, str(folder)])
    wait_for(lambda: trainers(parent))
    below = psutil.Process(parent.pid).children(recursive=True)
    assert len(below) == 4  # the worker, its server, its job, and the trainer for which the job waits
    assert all(lives(process) for process in below)
    parent.kill()
    parent.wait()
    wait_for(lambda: not any(lives(process) for process in below))
    assert read_outcome(folder) is None
    engine = ProcessEngine(1, PATIENCE)
    engine.submit(2, folder)
    (ended,) = wait_for(lambda: engine.wait(1.0))
    engine.close()
    assert ended.reason is None
    assert metrics_of(folder) == metrics_of(first)


def test_a_trainer_that_is_killed_alone_is_a_failure_with_its_reason(exploration):
    folder = exploration.job(3)
    process = start(folder)
    (trainer,) = wait_for(lambda: trainers(process))
    trainer.send_signal(signal.SIGKILL)
    assert ends(process) == 0
    found = read_outcome(folder)
    assert found.metrics is None
    assert "training was killed by SIGKILL" in found.reason
    assert "\n" not in found.reason
    assert Path(folder / "run" / "manifest.json").exists()
