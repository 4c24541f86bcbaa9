"""Residuals of the strategy `orthogonalised`: the first run of an exploration that needs them makes them for all."""

import dataclasses
import io
import json
import shutil
import signal
import threading
import time

import numpy as np
import pytest

from metabolismgraph.config import GraphModel, Training
from metabolismgraph.errors import FirewallError, InputError
from metabolismgraph.homeostasis.residuals import MODEL_SETTINGS, TRAINING_SETTINGS, Phase2Data, Residuals
from metabolismgraph.homeostasis.strategies import make_plan, orthogonalised
from metabolismgraph.homeostasis.strategies.orthogonalised import refine_reactions
from metabolismgraph.runs import pipeline, shared_residuals
from metabolismgraph.runs.checkpoint import (
    OBSERVATIONS_FILE,
    load_observations,
    load_residuals,
    save_observations,
    save_residuals,
)
from metabolismgraph.runs.folder import RunFolder
from metabolismgraph.runs.shared_residuals import residuals_at_hand
from metabolismgraph.runs.train_process import NO_ROOM

SHORT = {"training.phase2_steps": 20, "training.strategies": ["orthogonalised", "contrastive"]}
FILES = ["residuals.json", "residuals.safetensors"]
# Another value than the default for every setting that the corrected copies depend on.
OTHER = {
    "training.derivative": "trapezoid",
    "training.nuisance_degree": 0,
    "training.outlier_threshold": 9.0,
    "training.phase1_frame_stride": 2,
    "graph_model.aggr_type": "add",
    "graph_model.substrate_input": "raw",
}


@pytest.fixture
def shared(tmp_path):
    return tmp_path / "shared"


@pytest.fixture
def made(monkeypatch, small, small_phase1, small_config):
    """The places where residuals were made: those of the checkpoint, which take no time."""
    found = []
    data = Phase2Data(small.observations, small_phase1, small_config.graph_model, small_config.training)

    def make(place, *_):
        found.append(place)
        time.sleep(0.2)  # so that another run meets the lock
        save_residuals(place / "residuals", data.checkpoint_residuals(), 7.5)

    monkeypatch.setattr(shared_residuals, "_make", make)
    return found


@pytest.fixture
def base(finished_run, tmp_path):
    """A run of its own with data and Phase 1."""
    return shutil.copytree(finished_run, tmp_path / "base")


@pytest.fixture
def new_run(base, tmp_path):
    """A run of Phase 2 on one base, which has not been trained."""

    def begin(**changes):
        config = RunFolder.open(base).config.replace(SHORT | changes)
        folder = RunFolder.resume(tmp_path / str(len(list(tmp_path.iterdir()))), config, {}, base=base)
        folder.training.mkdir()
        return folder

    return begin


@pytest.fixture
def at_hand(new_run, shared):
    """Names of the files that a training finds in the folder of its run, which is another one each time."""

    def find(**changes):
        folder = new_run(**changes)
        with residuals_at_hand(folder, shared):
            found = sorted(path.name for path in folder.training.iterdir())
        assert not list(folder.training.iterdir())
        return found

    return find


def test_training_gives_the_same_with_shared_residuals_and_uses_them(finished_run, shared, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "_evaluate", lambda *_: None)
    base = RunFolder.open(finished_run)
    config = base.config.replace(SHORT)

    def learned(name, place):
        pipeline.run_phase2(config, finished_run, tmp_path / name, residuals=place)
        return (tmp_path / name / "training" / "phase2.safetensors").read_bytes()

    alone = learned("alone", None)
    assert learned("sharing", shared) == alone
    (kept,) = shared.glob("*/residuals.safetensors")
    kept = kept.with_suffix("")
    observations, _ = load_observations(base.given / OBSERVATIONS_FILE).split(*config.training.held_out)
    residuals = load_residuals(kept, observations)
    save_residuals(kept, dataclasses.replace(residuals, residual=2 * residuals.residual), 1e6)
    assert learned("other", shared) != alone
    # The time of making them counts for every run.
    seconds = json.loads((tmp_path / "other" / "training" / "phase2.json").read_bytes())["seconds"]
    assert 1e6 < seconds < 1e6 + 600


def test_the_first_run_makes_them_for_all_that_need_the_same(at_hand, made):
    assert at_hand() == FILES
    assert at_hand(**{"training.seed": 7, "graph_model.hidden_dim_node": 3}) == FILES
    assert len(made) == 1
    at_hand(**{"training.strategies": [{"orthogonalised": {"iterations": 3}}]})
    at_hand(**{"training.held_out_part": 1})
    assert len(set(made)) == 3


@pytest.mark.parametrize("key", OTHER)
def test_another_setting_needs_others(at_hand, made, key):
    at_hand()
    at_hand(**{key: OTHER[key]})
    assert len(set(made)) == 2


@pytest.mark.parametrize("name", ["observations", "phase1"])
def test_other_data_and_another_checkpoint_need_others(base, at_hand, made, name):
    at_hand()
    path = base / "training" / f"{name}.json"
    path.write_bytes(json.dumps(json.loads(path.read_bytes()) | {"notes": ["another"]}).encode())
    at_hand()
    assert len(set(made)) == 2


def test_runs_that_begin_together_make_them_once(new_run, shared, made):
    folders, found = [new_run(), new_run()], []

    def train(folder):
        with residuals_at_hand(folder, shared):
            found.append(sorted(path.name for path in folder.training.iterdir()))

    threads = [threading.Thread(target=train, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [FILES, FILES]
    assert len(made) == 1


@pytest.mark.parametrize("changes", [{"training.strategies": ["residual"]}, {"training.homeostasis_training": False}])
def test_a_training_without_the_strategy_makes_none(at_hand, made, shared, changes):
    assert at_hand(**changes) == []
    assert not made
    assert not shared.exists()


def test_damaged_ones_are_made_again(at_hand, made, shared):
    at_hand()
    (kept,) = shared.glob("*/residuals.safetensors")
    whole = kept.read_bytes()
    kept.write_bytes(whole[:100])
    assert at_hand() == FILES
    assert kept.read_bytes() == whole
    assert len(made) == 2


def test_a_finished_training_needs_none_and_leaves_none(finished_run, new_run, shared, made):
    folder = new_run()
    for suffix in (".json", ".safetensors"):
        content = (finished_run / "training" / "phase2").with_suffix(suffix).read_bytes()
        (folder.training / "phase2").with_suffix(suffix).write_bytes(content)
    (folder.training / "residuals.json").write_text("of a run that was killed")
    with residuals_at_hand(folder, shared):
        assert sorted(path.name for path in folder.training.iterdir()) == ["phase2.json", "phase2.safetensors"]
    assert not made


def test_what_training_puts_in_their_place_hides_no_error(new_run, shared, made):
    folder = new_run()

    def train():
        with residuals_at_hand(folder, shared):
            (folder.training / "residuals.json").unlink()
            (folder.training / "residuals.json" / "deep").mkdir(parents=True)
            raise FirewallError("seen")

    with pytest.raises(FirewallError):
        train()
    assert not list(folder.training.iterdir())


def test_a_place_that_cannot_be_written_does_not_fail_the_run(new_run, shared):
    shared.write_text("a file")
    with residuals_at_hand(new_run(), shared):
        pass


class Ended:
    """A training that ends with some code, and makes nothing."""

    def __init__(self, code):
        self.code, self.times = code, 0

    def __call__(self, *_, **__):
        self.times += 1
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    @property
    def stdout(self):
        return io.BytesIO()

    def wait(self):
        return self.code


@pytest.mark.parametrize(("code", "times"), [(2, 1), (1, 1), (NO_ROOM, 2), (-signal.SIGKILL, 2)])
def test_a_fault_that_would_come_again_is_met_once(at_hand, monkeypatch, code, times):
    monkeypatch.setattr(shared_residuals, "sealed_training", start := Ended(code))
    assert at_hand() == at_hand() == []
    assert start.times == times


def test_a_training_that_makes_residuals_refuses_data_with_gaps(base, at_hand, shared):
    path = base / "training" / "observations"
    observations = load_observations(path)
    interpolated = np.zeros(observations.concentration.shape, dtype=bool)
    interpolated[5, 0] = True
    save_observations(path, dataclasses.replace(observations, interpolated=interpolated))
    assert at_hand() == []
    assert len(list(shared.glob("*/not_made"))) == 1
    assert not list(shared.glob("*/residuals*"))


def test_strategies_that_do_not_fit_together_make_none(at_hand, made):
    assert at_hand(**{"training.strategies": ["orthogonalised", "shooting"]}) == []
    assert not made


def test_an_option_that_does_not_exist_is_left_to_training(at_hand, made):
    assert at_hand(**{"training.strategies": [{"orthogonalised": {"unknown": 3}}]}) == []
    assert not made


def test_the_corrected_copies_see_only_settings_that_are_compared(small, small_phase1, monkeypatch):
    class SeenError(Exception):
        pass

    def seen(observations, graph_model, training, **_):
        raise SeenError(graph_model, training)

    monkeypatch.setattr(orthogonalised, "fit_reweighted", seen)
    given = {key.split(".")[1]: value for key, value in OTHER.items()}
    assert set(given) == {*TRAINING_SETTINGS, *MODEL_SETTINGS}
    training = Training().model_copy(update={name: given[name] for name in TRAINING_SETTINGS})
    model = GraphModel().model_copy(update={name: given[name] for name in MODEL_SETTINGS})
    data = Phase2Data(
        small.observations,
        small_phase1,
        model.model_copy(update={"hidden_dim_node": 5}),
        training.model_copy(update={"seed": 99, "n_epochs": 77, "batch_size": 3}),
    )
    with pytest.raises(SeenError) as found:
        refine_reactions(data)
    assert found.value.args == (model, training)


def layout(residuals):
    """What tells arrays of equal values apart."""
    arrays = {field.name: getattr(residuals, field.name) for field in dataclasses.fields(Residuals)}
    return {name: (a.dtype, a.strides, str(a.flags), a.base is None, a.tobytes()) for name, a in arrays.items()}


def test_a_strategy_cannot_tell_residuals_that_were_read(small, small_config, small_phase1, tmp_path):
    training = small_config.training.model_copy(update={"strategies": ("orthogonalised",)})
    data = Phase2Data(small.observations, small_phase1, small_config.graph_model, training)
    computed = refine_reactions(data).residuals
    save_residuals(tmp_path / "residuals", computed, 1.0)
    read = load_residuals(tmp_path / "residuals", small.observations)
    assert layout(read) != layout(computed)
    of_run, of_trial = make_plan(data, orthogonalised=read).residuals, make_plan(data).residuals
    assert layout(of_run) == layout(of_trial)


@pytest.fixture
def written(small, small_config, small_phase1, tmp_path):
    """Residuals, and the files with them."""
    data = Phase2Data(small.observations, small_phase1, small_config.graph_model, small_config.training)
    save_residuals(tmp_path / "residuals", data.checkpoint_residuals(), 1.0)
    return data.checkpoint_residuals(), tmp_path / "residuals"


def test_residuals_of_other_frames_are_refused(small, written):
    with pytest.raises(InputError, match="holds no residuals of these data .at has another shape"):
        load_residuals(written[1], small.observations.select(np.arange(small.observations.n_frames) < 100))


def test_residuals_that_no_training_gives_are_refused(small, written):
    residuals, path = written
    save_residuals(path, dataclasses.replace(residuals, noise=-residuals.noise - 1), 1.0)
    with pytest.raises(InputError, match="noise holds -1"):
        load_residuals(path, small.observations)
