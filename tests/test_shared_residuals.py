"""Residuals of the strategy `orthogonalised`: the first run of an exploration that needs them makes them for all."""

import dataclasses

import numpy as np
import pytest

from metabolismgraph.errors import InputError
from metabolismgraph.homeostasis.residuals import Phase2Data, Residuals
from metabolismgraph.homeostasis.strategies import orthogonalised
from metabolismgraph.homeostasis.strategies.orthogonalised import refine_reactions
from metabolismgraph.runs import pipeline, shared_residuals
from metabolismgraph.runs.checkpoint import OBSERVATIONS_FILE, load_observations, load_residuals, save_residuals
from metabolismgraph.runs.folder import RunFolder
from metabolismgraph.runs.shared_residuals import residuals_at_hand

SHORT = {"training.phase2_steps": 20, "training.strategies": ["orthogonalised", "contrastive"]}


@pytest.fixture
def shared(tmp_path):
    return tmp_path / "shared"


@pytest.fixture
def made(monkeypatch):
    """The settings of all residuals that were made; those of the checkpoint, which take no time."""
    found = []

    def find(observations, phase1, graph_model, training):
        found.append(training)
        return Phase2Data(observations, phase1, graph_model, training).checkpoint_residuals()

    monkeypatch.setattr(shared_residuals, "find_orthogonalised", find)
    return found


@pytest.fixture
def at_hand(finished_run, shared, tmp_path):
    """Names of the files that a training finds in the folder of its run, which is another one each time."""

    def find(**changes):
        config = RunFolder.open(finished_run).config.replace(SHORT | changes)
        folder = RunFolder.resume(tmp_path / str(len(list(tmp_path.iterdir()))), config, {}, base=finished_run)
        folder.training.mkdir()
        with residuals_at_hand(folder, shared):
            found = sorted(path.name for path in folder.training.iterdir())
        assert not list(folder.training.iterdir())
        return found

    return find


FILES = ["residuals.json", "residuals.safetensors"]


def test_training_gives_the_same_with_shared_residuals_and_uses_them(finished_run, shared, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "_evaluate", lambda *_: None)
    folder = RunFolder.open(finished_run)
    config = folder.config.replace(SHORT)

    def learned(name, place):
        pipeline.run_phase2(config, finished_run, tmp_path / name, shared=place)
        return (tmp_path / name / "training" / "phase2.safetensors").read_bytes()

    alone = learned("alone", None)
    assert learned("sharing", shared) == alone
    (kept,) = (path.with_suffix("") for path in shared.glob("*.safetensors"))
    observations, _ = load_observations(folder.given / OBSERVATIONS_FILE).split(*config.training.held_out)
    residuals = load_residuals(kept, observations)
    save_residuals(kept, dataclasses.replace(residuals, residual=2 * residuals.residual))
    assert learned("other", shared) != alone


def test_the_first_run_makes_them_for_all_that_need_the_same(at_hand, made, shared):
    assert at_hand() == FILES
    assert at_hand(**{"training.seed": 7, "graph_model.hidden_dim_node": 3}) == FILES
    assert len(made) == 1
    (kept,) = shared.glob("*.safetensors")
    before = kept.stat().st_mtime_ns
    assert at_hand(**{"training.strategies": [{"orthogonalised": {"iterations": 3}}]}) == FILES
    assert at_hand(**{"training.held_out_part": 1}) == FILES
    assert at_hand(**{"training.outlier_threshold": 9.0}) == FILES
    assert len(made) == 4
    assert kept.stat().st_mtime_ns == before


def test_strategies_without_them_make_none(at_hand, made, shared):
    assert at_hand(**{"training.strategies": ["residual"]}) == []
    assert not made
    assert not shared.exists()


def test_damaged_ones_are_made_again(at_hand, made, shared):
    at_hand()
    (kept,) = shared.glob("*.safetensors")
    whole = kept.read_bytes()
    kept.write_bytes(whole[:100])
    assert at_hand() == FILES
    assert kept.read_bytes() == whole
    assert len(made) == 2


def test_a_finished_training_needs_none(finished_run, made, shared):
    with residuals_at_hand(RunFolder.open(finished_run), shared):
        assert not made


def test_what_training_will_refuse_is_left_to_it(at_hand, monkeypatch):
    def refuse(*_):
        raise InputError("too few observations")

    monkeypatch.setattr(shared_residuals, "find_orthogonalised", refuse)
    assert at_hand() == []
    assert at_hand(**{"training.strategies": [{"orthogonalised": {"unknown": 3}}]}) == []


def test_the_corrected_copies_see_only_settings_that_are_compared(small, small_config, small_phase1, monkeypatch):
    # With every other setting another one than the default.
    def seen(observations, graph_model, training, **_):
        raise StopIteration(graph_model, training)

    monkeypatch.setattr(orthogonalised, "fit_reweighted", seen)
    given = small_config.training.model_copy(update={"seed": 99, "outlier_threshold": 7.0, "n_epochs": 77})
    model = small_config.graph_model.model_copy(update={"hidden_dim_node": 5, "aggr_type": "add"})
    with pytest.raises(StopIteration) as found:
        refine_reactions(Phase2Data(small.observations, small_phase1, model, given))
    graph_model, training = found.value.args
    defaults = type(given)()
    assert (training.outlier_threshold, training.seed, training.n_epochs) == (7.0, defaults.seed, defaults.n_epochs)
    assert (graph_model.aggr_type, graph_model.hidden_dim_node) == ("add", type(model)().hidden_dim_node)


@pytest.fixture
def written(small, small_config, small_phase1, tmp_path):
    """Residuals, and the files with them."""
    data = Phase2Data(small.observations, small_phase1, small_config.graph_model, small_config.training)
    save_residuals(tmp_path / "residuals", data.checkpoint_residuals())
    return data.checkpoint_residuals(), tmp_path / "residuals"


def test_residuals_are_read_as_they_were_written(small, written):
    residuals, path = written
    back = load_residuals(path, small.observations)
    for field in dataclasses.fields(Residuals):
        np.testing.assert_array_equal(getattr(back, field.name), getattr(residuals, field.name))


def test_residuals_of_other_frames_are_refused(small, written):
    with pytest.raises(InputError, match="holds no residuals of these data .at has another shape"):
        load_residuals(written[1], small.observations.select(np.arange(small.observations.n_frames) < 100))


def test_residuals_that_no_training_gives_are_refused(small, written):
    residuals, path = written
    save_residuals(path, dataclasses.replace(residuals, noise=-residuals.noise - 1))
    with pytest.raises(InputError, match="noise holds -1"):
        load_residuals(path, small.observations)
