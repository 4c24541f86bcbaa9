"""Data folders and checkpoints of the published program: what comes in is what the program computes."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from command_line import call, refused
from published_files import GOLDEN, LAMBDA_AND_BASELINE, NET, STEP, SUBSTRATES, TYPES, torch, write_all

import metabolismgraph as mg
from metabolismgraph.errors import InputError
from metabolismgraph.evaluation.evaluate import rate_constant_metrics
from metabolismgraph.formats import published
from metabolismgraph.formats.published import read_published_data, read_published_model
from metabolismgraph.formats.torch_file import read_torch
from metabolismgraph.ground_truth import published as published_truth
from metabolismgraph.ground_truth.published import read_published_truth
from metabolismgraph.runs.checkpoint import load_phase1, load_phase2
from metabolismgraph.system.kinetics import Structure
from metabolismgraph.system.tabulated_reactions import TabulatedReactions

needs_torch = pytest.mark.skipif(torch is None, reason="PyTorch is not installed")
FLOAT32 = {"rtol": 2e-6, "atol": 2e-6}


@pytest.fixture
def folder(tmp_path):
    """A copy of the data folder, to be changed."""
    return shutil.copytree(GOLDEN, tmp_path / "given")


@pytest.fixture(scope="module")
def observations():
    return read_published_data(GOLDEN)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """The run folder that the command makes of a checkpoint."""
    out = tmp_path_factory.mktemp("converted") / "run"
    with pytest.MonkeyPatch.context() as patch:
        checkpoint = ("--checkpoint", GOLDEN / "model_mul.pt")
        assert call(patch, "convert", GOLDEN, out, *checkpoint, "--set", "plotting.dpi=40", "--quiet") == 0
    return out


# -- the data


def test_the_network_is_that_of_the_graph(observations):
    named = [{f"M{i:03d}": value for i, value in edges.items()} for edges in (*SUBSTRATES, *NET)]
    reactions = observations.network.to_reactions()
    assert [dict(r.substrates) for r in reactions] == named[: len(NET)]
    assert [dict(r.net) for r in reactions] == named[len(NET) :]
    assert not observations.network.mass_action.any()


def test_concentrations_and_times(observations):
    x = np.load(GOLDEN / "x_list_0.npy")
    assert np.array_equal(observations.concentration, x[..., 3].astype(np.float64))
    np.testing.assert_allclose(observations.time, STEP * np.arange(len(x)), rtol=1e-12)


def test_runs_follow_each_other(folder):
    for name in ("x", "y"):
        np.save(folder / f"{name}_list_1.npy", np.load(folder / f"{name}_list_0.npy")[:50])
    found = read_published_data(folder)
    assert np.array_equal(np.bincount(found.run), [121, 50])
    assert found.transitions().dt == pytest.approx(STEP)


def test_the_time_step_can_be_given(folder):
    (folder / "y_list_0.npy").unlink()
    with pytest.raises(InputError, match=r"y_list_0.npy: no such file"):
        read_published_data(folder)
    given = read_published_data(folder, 0.25)
    assert given.time[1] == 0.25
    assert read_published_truth(folder, given.network) is not None


def test_types_do_not_reach_what_training_sees(folder, observations, converted):
    x = np.load(folder / "x_list_0.npy")
    x[..., 6] = np.nan
    np.save(folder / "x_list_0.npy", x)
    changed = read_published_data(folder)
    assert np.array_equal(changed.concentration, observations.concentration)
    assert changed.network.to_reactions() == observations.network.to_reactions()
    seen = safetensors.numpy.load((converted / "training" / "observations.safetensors").read_bytes())
    assert set(seen) == {"time", "run", "concentration"}
    assert sorted(p.name for p in (converted / "training").iterdir() if p.suffix == ".json") == [
        *("observations.json", "phase1.json", "phase2.json", "settings.json")
    ]


def test_the_truth(folder, observations):
    truth = read_published_truth(folder, observations.network)
    state = read_torch(folder / "gt_model.pt")
    np.testing.assert_allclose(np.log10(truth.k), state["log_k"], rtol=1e-6)
    assert truth.type.tolist() == TYPES
    np.testing.assert_allclose(
        np.stack([truth.lam, truth.baseline], 1), np.array(LAMBDA_AND_BASELINE)[TYPES], rtol=1e-6
    )
    (folder / "model_p_0.pt").unlink()  # an older generator
    assert np.array_equal(read_published_truth(folder, observations.network).lam, truth.lam)
    (folder / "gt_model.pt").unlink()
    assert read_published_truth(folder, observations.network) is None


def test_the_truth_of_noisy_data_is_compared_without_noise(folder, observations):
    x = np.load(folder / "x_list_0.npy")
    for name in ("x_list_0.npy", "y_list_0.npy"):
        shutil.copy(folder / name, folder / f"raw_{name}")
    x[..., 3] += 0.1 * np.random.default_rng(0).random(x[..., 3].shape)
    np.save(folder / "x_list_0.npy", x)
    assert read_published_truth(folder, observations.network) is not None
    (folder / "raw_x_list_0.npy").unlink()
    with pytest.raises(InputError, match="another rate law made the data"):
        read_published_truth(folder, observations.network)


# -- the model


@pytest.mark.parametrize("aggregation", ["mul", "add"])
def test_it_predicts_what_pytorch_predicted(observations, aggregation):
    compare(GOLDEN, observations, aggregation)


def compare(folder, observations, aggregation):
    """dc/dt and rate constants as PyTorch computed them, at concentrations that include zero."""
    expected = np.load(folder / "expected.npz")
    model = read_published_model(folder / f"model_{aggregation}.pt", observations.network, aggregation)
    c, structure = expected["c"].astype(np.float64), Structure.of(observations.network)
    assert (c == 0).any()
    np.testing.assert_allclose(model(jnp.asarray(c), structure), expected[f"{aggregation}_dcdt"], **FLOAT32)
    np.testing.assert_allclose(model.log_k, expected[f"{aggregation}_log_k"], **FLOAT32)
    # Phase 2, the verdict of trust and the figures use tables.
    table = TabulatedReactions.of(model.mlp_sub, 10.0 ** np.asarray(model.log_k), structure, aggregation, c)
    np.testing.assert_allclose(table(c), model.reactions(jnp.asarray(c), structure), rtol=1e-9, atol=1e-12)


@needs_torch
def test_other_networks_and_models_with_pytorch_itself(tmp_path):
    rng = np.random.default_rng(3)
    substrates, net = [], []
    for _ in range(60):
        chosen = rng.permutation(20)[: rng.integers(2, 6)]
        split = rng.integers(1, len(chosen))
        orders = {int(i): int(rng.integers(1, 3)) for i in chosen[:split]}
        substrates.append(orders)
        net.append({i: -order for i, order in orders.items()} | {int(i): 1 for i in chosen[split:]})
    settings = {"types": [i % 2 for i in range(20)], "species": 20, "substrates": substrates, "net": net}
    write_all(tmp_path, frames=121, **settings)
    observations = read_published_data(tmp_path, STEP)
    for aggregation in ("mul", "add"):
        compare(tmp_path, observations, aggregation)


def test_rate_constants_agree_as_in_the_published_program():
    """R2, slope and outliers of the line through learned against true values."""
    rng = np.random.default_rng(0)
    true = rng.uniform(-2, -1, 50)
    learned = 0.7 * true - 0.2 + 0.2 * rng.standard_normal(50)
    metrics = rate_constant_metrics(learned, true, np.ones(50, dtype=bool))
    close = np.abs(learned - true) <= 0.3
    for name, chosen in (("rate_constants_R2_of_line", close | True), ("trimmed_R2_of_line", close)):
        line = np.polyfit(true[chosen], learned[chosen], 1)
        left = learned[chosen] - np.polyval(line, true[chosen])
        assert metrics[name] == pytest.approx(
            1 - np.sum(left**2) / np.sum((learned[chosen] - learned[chosen].mean()) ** 2)
        )
    assert metrics["n_outliers"] == np.sum(~close)
    constant = rate_constant_metrics(np.ones(5), true[:5], np.ones(5, dtype=bool))
    assert np.isnan(constant["rate_constants_R2_of_line"])


# -- the command


def test_metrics_of_a_converted_checkpoint(converted):
    metrics = json.loads((converted / "metrics.json").read_text())
    state = read_torch(GOLDEN / "model_mul.pt")["model_state_dict"]
    expected, true = np.load(GOLDEN / "expected.npz"), read_torch(GOLDEN / "gt_model.pt")["log_k"]
    correlation = np.corrcoef(expected["mul_log_k"], true)[0, 1]
    assert metrics["rate_constants_R2_of_line"] == pytest.approx(correlation**2, rel=1e-4)
    assert metrics["n_outliers"] == np.sum(np.abs(expected["mul_log_k"] - true) > 0.3)
    c, slopes = np.linspace(0, 40, 50), []
    for a in state["a"]:
        y = np.column_stack([c, np.tile(a, (50, 1))])
        for layer in (0, 2, 4):
            y = y @ state[f"node_func.{layer}.weight"].T + state[f"node_func.{layer}.bias"]
            y = np.tanh(y) if layer < 4 else y
        slopes.append(np.polyfit(c, y[:, 0], 1)[0])
    for kind in (0, 1):
        assert metrics[f"MLP_node_slope_{kind}"] == pytest.approx(
            np.mean(np.array(slopes)[np.array(TYPES) == kind]), rel=1e-4
        )


def test_a_run_can_start_from_it(converted, observations):
    quick = ["training.phase2_steps=10", "training.strategies=[residual]"]
    config = mg.load_config(str(converted / "config.yaml"), quick)
    phase1 = load_phase1(converted / "training" / "phase1", config.graph_model)
    phase2 = load_phase2(converted / "training" / "phase2", config.graph_model)
    expected = np.load(GOLDEN / "expected.npz")
    found = phase2.model(jnp.asarray(expected["c"], dtype=float), Structure.of(observations.network))
    np.testing.assert_allclose(found, expected["mul_dcdt"], **FLOAT32)
    result = mg.fit(observations, config, checkpoint=phase1)
    assert np.array_equal(result.phase2.model.log_k, phase2.model.log_k)
    assert np.isfinite(result.phase2.losses).all()
    with pytest.raises(InputError, match="joint_refinement is true, which a converted checkpoint"):
        mg.fit(observations, config.replace({"training.joint_refinement": True}), checkpoint=phase1)
    with pytest.raises(InputError, match="which Phase 1 cannot train"):
        mg.fit(observations, config.replace({"training.skip_phase1": False}))


def test_data_alone_become_a_data_set(monkeypatch, capsys, tmp_path, observations):
    out = tmp_path / "out"
    assert call(monkeypatch, "convert", GOLDEN, out) == 0
    assert (
        f"metabolismgraph fit {out}/network.xml {out}/timeseries.csv.gz --truth {out}/truth\n"
        in capsys.readouterr().err
    )
    back = mg.read(out)
    assert back.network.to_reactions() == observations.network.to_reactions()
    np.testing.assert_allclose(back.concentration, observations.concentration, rtol=1e-8)
    assert mg.Truth.load(out / "truth").type.tolist() == TYPES
    assert "--overwrite" in refused(monkeypatch, capsys, "convert", GOLDEN, out)


def test_the_labels_of_an_overwritten_data_set_go(monkeypatch, folder, tmp_path):
    assert call(monkeypatch, "convert", folder, tmp_path / "out") == 0
    (folder / "gt_model.pt").unlink()
    assert call(monkeypatch, "convert", folder, tmp_path / "out", "--overwrite") == 0
    assert not (tmp_path / "out" / "truth").exists()


def test_a_checkpoint_of_other_reactions_is_refused(converted, monkeypatch, capsys, tmp_path):
    """Of the same numbers of species and reactions: its shapes would fit."""
    sizes = ("n_metabolites=6", "n_reactions=8", "n_frames=200")
    settings = [word for size in sizes for word in ("--set", f"simulation.{size}")]
    command = ("run", converted / "config.yaml", "--checkpoint", converted, "--out", tmp_path / "out", *settings)
    assert "made for other reactions" in refused(monkeypatch, capsys, *command, "--quiet")


# -- what is refused


def of_folder(name, change):
    """A change to an array of the data folder."""

    def inner(folder):
        np.save(folder / name, change(np.load(folder / name)))

    return inner


def set_column(column, value):
    def inner(x):
        x[3, 1, column] = value
        return x

    return inner


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda folder: (folder / "stoich_graph.pt").unlink(),
            r"stoich_graph.pt: no such file; a published data folder",
        ),
        (lambda folder: (folder / "stoichiometry.pt").unlink(), r"stoichiometry.pt: no such file"),
        (lambda folder: (folder / "x_list_0.npy").unlink(), r"x_list_0.npy: no such file"),
        (lambda folder: (folder / "x_list_0.npy").write_bytes(b"\x93NUMPY"), "not a readable NumPy array"),
        (of_folder("x_list_0.npy", lambda x: x.astype(object)), "not a readable NumPy array"),
        (of_folder("x_list_0.npy", lambda x: x.astype(int)), "not an array of floating-point numbers"),
        (of_folder("x_list_0.npy", lambda x: x[:, :5]), r"shape \(121, 5, 8\); expected frames x 6 metabolites"),
        (of_folder("x_list_0.npy", lambda x: x[..., :4]), "shape"),
        (of_folder("x_list_0.npy", set_column(3, np.nan)), "M001 at frame 3"),
        (of_folder("x_list_0.npy", set_column(3, -1)), "negative"),
        (of_folder("x_list_0.npy", set_column(4, 1)), "external input, is not zero"),
        (of_folder("x_list_0.npy", lambda x: x[:1]), "at least two frames"),
        (of_folder("y_list_0.npy", lambda y: y[:-1]), "holds 720 values of dc/dt for 726 concentrations"),
        (of_folder("y_list_0.npy", lambda y: -y), "does not determine the time between frames; give it with --delta-t"),
        (of_folder("y_list_0.npy", lambda y: 0 * y), "--delta-t"),
        (of_folder("y_list_0.npy", lambda y: y + np.nan), "--delta-t"),
        (of_folder("y_list_0.npy", lambda y: np.roll(y, 1, axis=1)), "--delta-t"),
    ],
)
def test_data_that_are_refused(folder, monkeypatch, capsys, tmp_path, change, message):
    change(folder)
    with pytest.raises(InputError, match=message) as caught:
        read_published_data(folder)
    assert "\n" not in str(caught.value)
    refused(monkeypatch, capsys, "convert", folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def stub(monkeypatch, name, change):
    """Another content of a file of PyTorch."""
    for module in (published, published_truth):
        real = module.read_torch

        def read(path, real=real):
            content = real(path)
            return change(content) if path.name == name else content

        monkeypatch.setattr(module, "read_torch", read)


def edges(part, index, change):
    """The same graph with one of its three arrays changed."""

    def inner(graph):
        arrays = [array.copy() for array in graph[part]]
        arrays[index] = change(arrays[index])
        return graph | {part: tuple(arrays)}

    return inner


def first(value):
    def inner(array):
        array[0] = value
        return array

    return inner


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: [], "expected the entries sub and all"),
        (lambda graph: {"sub": graph["sub"]}, "expected the entries sub and all"),
        (lambda graph: graph | {"stimulus_sub": graph["sub"]}, "external stimuli are not modelled"),
        (lambda graph: graph | {"all": graph["all"][:2]}, "all: expected metabolite, reaction and coefficient"),
        (lambda graph: graph | {"all": (1, 2, 3)}, "all: expected metabolite, reaction and coefficient"),
        (edges("sub", 2, lambda a: a[1:]), "sub: expected metabolite"),
        (edges("sub", 2, first(np.nan)), "sub: expected metabolite"),
        (edges("sub", 0, lambda a: a.astype(float)), "sub: expected metabolite"),
        (edges("sub", 0, lambda a: a[:, None]), "sub: expected metabolite"),
        (edges("sub", 0, first(6)), "sub: names metabolite 6, but there are 6"),
        (edges("all", 1, first(-1)), "all: names reaction"),
        (edges("sub", 0, first(1)), "listed twice"),
        (edges("all", 2, first(-2)), "not those of stoichiometry.pt"),
        (edges("sub", 2, first(0.5)), "consumes more of metabolite 0"),
    ],
)
def test_graphs_that_are_refused(monkeypatch, change, message):
    stub(monkeypatch, "stoich_graph.pt", change)
    with pytest.raises(InputError, match=message):
        read_published_data(GOLDEN)


def state(**changes):
    """The same checkpoint with other arrays; None removes one."""

    def inner(content):
        found = dict(content["model_state_dict"])
        for name, change in changes.items():
            name = name.replace("__", ".")  # noqa: PLW2901
            if change is None:
                del found[name]
            else:
                found[name] = change(found.get(name, np.zeros(1)).copy())
        return {"model_state_dict": found}

    return inner


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: 3, "no model_state_dict"),
        (lambda _: {"model_state_dict": []}, "no model_state_dict"),
        (lambda _: {"log_k": 1.0}, "no model_state_dict"),
        (state(log_k=None), "log_k is missing"),
        (state(sub_to_all=None), "sub_to_all is missing"),
        (state(substrate_func__2__bias=None), r"substrate_func.2.bias is missing"),
        (state(substrate_func__0__weight=None), r"substrate_func.2.weight has a wrong shape|substrate_func"),
        (state(log_km=lambda a: a), "holds 'log_km', which is not part of the model"),
        (state(substrate_func__net__0__weight=lambda a: a), "which is not part of the model"),
        (state(log_k=first(np.nan)), "log_k contains a number that is not finite"),
        (state(node_func__4__bias=first(np.inf)), r"node_func.4.bias contains"),
        (state(log_k=lambda a: a[1:]), r"log_k has shape \(7,\)"),
        (state(a=lambda a: a[1:]), "log_k has shape"),
        (state(a=lambda a: a[:, 0]), "log_k has shape"),
        (state(a=lambda a: a[:, :1]), r"node_func.0.weight has a wrong shape; expected layers from 2 inputs"),
        (state(substrate_func__4__weight=lambda a: a[:, 1:]), r"substrate_func.4.weight has a wrong shape"),
        (state(substrate_func__2__bias=lambda a: a[1:]), "wrong shape"),
        (state(sto_all=first(-1.01)), r"the stoichiometry of M000 in R000 is -1.01, but -1 in the data"),
        (state(met_all=first(5)), "does not lead from the substrates to their edges"),
        (state(sub_to_all=first(99)), "not an index of sto_all"),
        (state(sub_to_all=lambda a: a.astype(float)), "not an index of sto_all"),
        (
            state(met_sub=lambda a: a[1:], rxn_sub=lambda a: a[1:], sub_to_all=lambda a: a[1:]),
            "order of a substrate of M000",
        ),
        (state(sto_all=lambda a: a[1:]), "expected metabolite, reaction and coefficient"),
    ],
)
def test_checkpoints_that_are_refused(monkeypatch, capsys, tmp_path, observations, change, message):
    path = GOLDEN / "model_mul.pt"
    stub(monkeypatch, path.name, change)
    with pytest.raises(InputError, match=message) as caught:
        read_published_model(path, observations.network, "mul")
    assert "\n" not in str(caught.value)
    refused(monkeypatch, capsys, "convert", GOLDEN, tmp_path / "out", "--checkpoint", path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("gt_model.pt", lambda _: {}, "no log_k of 8 reactions"),
        ("gt_model.pt", lambda found: found | {"log_k": found["log_k"][1:]}, "no log_k of 8 reactions"),
        ("gt_model.pt", lambda found: found | {"log_k": found["log_k"] + 0.1}, "another rate law made the data"),
        ("model_p_0.pt", lambda p: p[:1], "no p with lambda and baseline of every type"),
        ("model_p_0.pt", lambda p: p[:, 0], "no p with lambda and baseline of every type"),
    ],
)
def test_labels_that_are_refused(monkeypatch, observations, name, change, message):
    stub(monkeypatch, name, change)
    with pytest.raises(InputError, match=message):
        read_published_truth(GOLDEN, observations.network)


def test_types_need_their_column(folder, observations):
    np.save(folder / "x_list_0.npy", np.load(folder / "x_list_0.npy")[..., :6])
    with pytest.raises(InputError, match="has no column 6 with types"):
        read_published_truth(folder, observations.network)


def test_a_time_step_that_is_refused():
    for value in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(InputError, match="must be greater than zero"):
            read_published_data(GOLDEN, value)
