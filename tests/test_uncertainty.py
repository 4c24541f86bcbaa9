"""Profiles, bootstrap, posterior samples and suggested measurements of small fits of trajectories."""

import dataclasses
import hashlib

import numpy as np
import pandas as pd
import pytest
import scipy.integrate
import xarray as xr
from command_line import call, refused

import metabolismgraph as mg
from metabolismgraph.figures.profiles import draw_profiles
from metabolismgraph.reactions.identifiability import Combination
from metabolismgraph.runs.checkpoint import save_observations, save_phase1
from metabolismgraph.runs.folder import RunFolder
from metabolismgraph.system.network import Reaction
from metabolismgraph.trajectories.sensitivities import sensitivities
from metabolismgraph.trajectories.shooting import linearise
from metabolismgraph.uncertainty.bootstrap import simulated
from metabolismgraph.uncertainty.fitted_model import FittedModel
from metabolismgraph.uncertainty.next_measurement import next_of
from metabolismgraph.uncertainty.posterior import posterior_of, write_posterior
from metabolismgraph.uncertainty.profile import Profile, profile_table, profiles_of

CONFIG = mg.Config().replace({"training.homeostasis_training": False, "training.phase1_method": "shooting"})
BIND = ({"A": 1.0, "B": 1.0}, {"A": -1.0, "B": -1.0, "C": 1.0})
FREE = ({"C": 1.0}, {"A": 1.0, "B": 1.0, "C": -1.0})
LOSS = ({"A": 1.0}, {"A": -1.0})
PAIR = ({"B": 2.0}, {"B": -2.0, "C": 2.0})


def observed(k, starts, noise, frames=35, scale=(1.0, 1.0)):
    """A network of mass action, integrated to ten digits, with noise; in other units of concentration and time."""
    written = [Reaction(name, *reaction, mass_action=True) for name, (reaction, _) in k.items()]
    network = mg.ReactionNetwork.from_reactions("test", ["A", "B", "C"], written)
    order = np.zeros((network.n_reactions, 3))
    order[network.edge_reaction, network.edge_species] = network.edge_order
    rates, time = np.array([value for _, value in k.values()]), np.linspace(0, 8, frames)

    def rate(_, c):
        return network.stoichiometry @ (rates * np.prod(c**order, axis=1))

    runs = [
        scipy.integrate.solve_ivp(rate, (0, 8), start, "LSODA", time, rtol=1e-10, atol=1e-12).y.T for start in starts
    ]
    c = np.concatenate(runs)
    c = np.maximum(c + noise * np.random.default_rng(1).standard_normal(c.shape), 0.0)
    run = np.repeat(np.arange(len(starts)), frames)
    return mg.Observations(network, np.tile(time, len(starts)) * scale[1], run, c * scale[0])


@pytest.fixture(scope="module")
def result():
    """Two determined rate constants, and a loss that cannot be told from homeostasis."""
    k = {"bind": (BIND, 0.3), "free": (FREE, 0.2), "loss": (LOSS, 0.05)}
    return mg.fit(observed(k, [[3.0, 2.0, 0.5], [1.0, 4.0, 2.0]], 0.02), CONFIG)


@pytest.fixture(scope="module")
def model(result):
    return FittedModel.of(result)


@pytest.fixture(scope="module")
def absent():
    """A reaction of the network that does not happen, in other units."""
    k = {"bind": (BIND, 0.3), "free": (FREE, 0.2), "pair": (PAIR, 0.0)}
    data = observed(k, [[3.0, 2.0, 0.5]], 0.02, scale=(1e-6, 60.0))
    return mg.fit(data, CONFIG)


# --- profiles


def test_a_nearly_quadratic_profile_agrees_with_the_standard_error(result):
    found = mg.profile(result, ["bind", "slope:C"])
    for one in found:
        ends = np.array(one.by_error)
        np.testing.assert_allclose([one.lower, one.upper], ends, atol=0.15 * np.ptp(ends) / 2)
        assert one.sentence.startswith("determined: ")
        assert one.sentence.endswith("the profile agrees with the standard error")
        assert one.sentence in repr(one)
        assert (np.diff(one.value) > 0).all()
        assert 6 <= len(one.value) <= 16
    assert found[0].name == "k:bind"
    row = result.rate_constants.iloc[0]
    assert (found[0].estimate, found[0].standard_error) == pytest.approx((row["log10_k"], row["standard_error"]))
    table = profile_table(found)
    assert len(table) == sum(len(one.value) for one in found)
    assert table["increase"].min() == 0


def test_a_loss_that_homeostasis_can_replace_is_flat(model):
    (loss,) = profiles_of(model, [model.index_of("k:loss")])
    assert loss.sentence.startswith("flat: any value from ")
    assert loss.sentence.endswith("not distinguishable from homeostasis")
    assert np.isnan([loss.lower, loss.upper, loss.standard_error]).all()
    assert np.ptp(loss.value) == pytest.approx(6)  # three decades on either side
    assert loss.increase.max() < 1


def test_a_reaction_that_does_not_happen_has_an_upper_bound(absent, tmp_path):
    (one,) = mg.profile(absent, "k:pair", anyway=True)
    assert one.sentence.startswith("bounded on one side: at most ")
    assert np.isnan(one.lower)
    # In the units of the data: 0.2/(concentration time) were 200000 / 60.
    assert 0.001 < 10**one.upper * 60 / 1e6 < 0.2
    assert one.unit == "1/(concentration time)"
    figure = draw_profiles([one, one], tmp_path / "profiles.png", 50)
    assert figure.read_bytes().startswith(b"\x89PNG")


def example(**changes):
    own = {"name": "k:R1", "unit": "1/time", "estimate": -1.0, "standard_error": 0.01}
    own |= {"value": np.array([-1.03, -1.0, -0.97]), "increase": np.array([9.0, 0.0, 9.0])}
    return Profile(**own | {"lower": -1.02, "upper": -0.98} | changes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "determined: 0.100 (0.0955 to 0.105); the profile agrees with the standard error"),
        (
            {"lower": -1.1},
            "determined: 0.100 (0.0794 to 0.105); the standard error alone would say 0.0956 to 0.105",
        ),
        ({"lower": np.nan}, "bounded on one side: at most 0.105"),
        ({"upper": np.nan}, "bounded on one side: at least 0.0955"),
        ({"lower": np.nan, "upper": np.nan}, "flat: any value from 0.0933 to 0.107 fits"),
        ({"lower": -2.5, "standard_error": np.nan}, "known roughly: 0.100 (0.00316 to 0.105)"),
        (
            {"lower": np.nan, "combination": "k(R1) + k(R2) = 0.1"},
            "only in combination: k(R1) + k(R2) = 0.1; alone at most 0.105",
        ),
        (
            {"lower": np.nan, "upper": np.nan, "combination": "k(R1) + k(R2) = 0.1"},
            "only in combination: k(R1) + k(R2) = 0.1; alone any value from 0.0933 to 0.107 fits",
        ),
        ({"better": -0.97}, "better value found: the fit had not converged; 0.107 has a lower misfit"),
        (
            {"name": "slope:A", "standard_error": np.nan},
            "without its prior: -1.00 (-1.02 to -0.980)",
        ),
    ],
)
def test_profiles_in_words(changes, sentence):
    assert example(**changes).sentence == sentence


def test_reactions_with_the_same_substrates_are_known_in_combination(model):
    twice = dataclasses.replace(model.allowed, combinations=((Combination((1, 2), (1.0, 1.0)),),))
    (one,) = profiles_of(dataclasses.replace(model, allowed=twice), [2])
    assert one.combination == f"k(free) + k(loss) = {10**one.estimate + 10 ** float(model.found.log_k[1]):.3g}"


def test_names_of_parameters(model):
    assert model.index_of("free") == model.index_of("k:free") == 1
    assert [model.names[model.index_of(f"{kind}:B")] for kind in ("slope", "offset")] == ["slope:B", "offset:B"]
    for name, why in (
        ("A", "could be slope:A or offset:A"),
        ("nothing", "there is no reaction 'nothing'"),
        ("k:A", "there is no reaction 'A'; known: bind, free, loss"),
        ("baseline:A", "no such parameter; write k:REACTION"),
    ):
        with pytest.raises(mg.InputError, match=why):
            model.index_of(name)


# --- bootstrap


def test_standard_errors_are_those_of_repeated_experiments(result):
    samples = 16
    found = mg.bootstrap(result, samples, seed=5)
    table = found.table
    assert list(table["parameter"]) == [
        "k:bind",
        "k:free",
        *(f"{what}:{s}" for what in ("slope", "offset") for s in "BC"),
    ]
    # The mean square of 6 ratios, of which at least 2 are independent: 30 degrees of freedom, four standard deviations.
    assert np.mean(table["ratio"] ** 2) == pytest.approx(1, abs=4 * np.sqrt(2 / (2 * (samples - 1))))
    assert table["coverage"].mean() > 0.8
    assert (table["bias"].abs() < 4 * table["standard_error"] / np.sqrt(samples)).all()
    assert found.sentence.startswith("16 simulated experiments: spread / standard error ")
    assert repr(found).split()[:3] == ["bootstrap", "fits", "16"]
    assert all(name in found._repr_html_() for name in table["parameter"])
    assert found.sentence in repr(found)
    for few in (0, 1):
        with pytest.raises(mg.InputError, match=rf"^bootstrap: {few} experiments? cannot tell .* at least 2$"):
            mg.bootstrap(result, few)
    again = mg.bootstrap(result, 2, seed=5)
    np.testing.assert_array_equal(again.estimates, found.estimates[:2])


def test_simulated_experiments_are_cut_at_zero(model):
    low = dataclasses.replace(model.start, path=np.zeros_like(model.start.path))
    made = simulated(dataclasses.replace(model, start=low), np.random.default_rng(0))
    assert made.value.min() == 0
    assert 0.4 < made.censored.mean() < 0.6


# --- posterior


def test_samples_have_the_moments_of_the_fit(model, tmp_path):
    write_posterior(posterior_of(model, 20_000), tmp_path / "posterior.nc")
    found = xr.open_dataset(tmp_path / "posterior.nc", group="posterior", engine="h5netcdf")
    log_k = found["log10_k"].to_numpy().reshape(-1, 3)
    error = model.error[:3]
    np.testing.assert_allclose(log_k.mean(axis=0), model.found.log_k, atol=4 * error.max() / np.sqrt(20_000))
    np.testing.assert_allclose(np.cov(log_k.T), model.covariance[:3, :3], atol=0.04 * error.max() ** 2)
    assert found["log10_k"].attrs["units"] == "log10 concentration^(1-order)/time"
    assert list(found["reaction"].to_numpy()) == ["bind", "free", "loss"]
    constant = xr.open_dataset(tmp_path / "posterior.nc", group="constant_data", engine="h5netcdf")
    assert constant["identifiable"].to_numpy().tolist() == [True, True, False]
    assert constant["slope_identifiable"].to_numpy().tolist() == [False, True, True]
    data = xr.open_dataset(tmp_path / "posterior.nc", group="observed_data", engine="h5netcdf")
    assert data["concentration"].sizes == {"frame": 56, "species": 3}


def test_arviz_reads_the_samples(model, tmp_path):
    arviz = pytest.importorskip("arviz")
    write_posterior(posterior_of(model, 40), tmp_path / "posterior.nc")
    found = arviz.from_netcdf(tmp_path / "posterior.nc")
    assert found["posterior"]["log10_k"].shape == (4, 10, 3)


def test_units_of_the_samples(absent):
    own = mg.posterior(absent, 40, anyway=True)
    estimate = own["constant_data"]["log10_k_estimate"].to_numpy()
    np.testing.assert_allclose(estimate, absent.phase1.log_k)
    np.testing.assert_allclose(own["observed_data"]["concentration"][0], absent.observations.concentration[0])


# --- what to measure next


def covariance_of(model, sigma):
    problem = dataclasses.replace(
        model.problem, measurements=dataclasses.replace(model.problem.measurements, sigma=sigma)
    )
    normal = linearise(problem, model.theta, model.x).matrix
    return np.linalg.inv(normal + np.diag(1 / problem.prior[1] ** 2))


def test_suggestions_are_those_of_a_fit_with_the_further_measurement(model):
    # Otherwise, with less noise, more values would count as outliers.
    quadratic = dataclasses.replace(model.problem.measurements, robust=np.inf)
    model = dataclasses.replace(model, problem=dataclasses.replace(model.problem, measurements=quadratic))
    sigma = quadratic.sigma
    exact = dataclasses.replace(model, covariance=covariance_of(model, sigma))
    found = next_of(exact)
    table = found.table
    assert set(table["measurement"]) == {"once", "series", "start"}
    assert len(table) == 2 * 3 * 3
    assert all(sentence in repr(found) for sentence in found.sentences)
    observations = model.stages.observations
    own_time = observations.time * model.units.time
    series = np.linspace(0, observations.n_frames - 1, 10).round().astype(int)
    for row in table.to_dict("records"):
        i = model.network.species.index(row["species"])
        index = model.index_of(row["parameter"])
        frames = (
            series
            if row["measurement"] == "series"
            else np.flatnonzero((observations.run == row["run"]) & (own_time == row["time"]))
        )
        more = sigma.copy()
        more[frames, i] /= np.sqrt(2)
        if row["measurement"] == "start":
            # The variance of the initial state, from a tiny change of its weight.
            variance = initial_variance(exact, frames[0], i)
            more[frames, i] = (1 / sigma[frames, i] ** 2 + 99 / variance) ** -0.5
        after = np.sqrt(np.diag(covariance_of(model, more)))
        assert row["error_after"] == pytest.approx(after[index] * model.scale[index], rel=1e-6)
        assert row["error_before"] == pytest.approx(exact.error[index] * model.scale[index])
        assert row["error_after"] <= row["largest_after"] * (1 + 1e-12) <= row["error_before"] * (1 + 1e-12)
    best = table.groupby("target")["largest_after"]
    assert (best.diff().dropna() >= 0).all()
    assert found.sentences
    assert all("lowers the error of" in line or "noticeably" in line for line in found.sentences)


def test_nothing_to_suggest(model):
    none = dataclasses.replace(model.allowed, identifiable=np.zeros(3, dtype=bool))
    tight = (model.problem.prior[0], 1e-4 * model.problem.prior[1])
    problem = dataclasses.replace(model.problem, prior=tight)
    found = next_of(dataclasses.replace(model, allowed=none, problem=problem))
    assert found.table.empty
    assert found.best().empty
    assert found.sentences == ("neither the network nor the data determine a rate constant or a slope",)
    assert found.sentences[0] in repr(found)


def initial_variance(model, frame, species):
    """Of the first state of a run, by the inverse of the whole normal matrix of its window and all unknowns."""
    problem = model.problem
    window = int(np.flatnonzero(problem.windows.starts == frame)[0])
    n, total = model.x.shape[1], problem.equation.unknowns.total
    hessian = np.zeros((len(model.x), n + total, n + total))
    rate = problem.equation.bind(model.theta)
    states = problem.states(problem.windows, rate, model.x)
    information = problem.misfit(problem.windows, states).information
    for at in sensitivities(problem, problem.windows, rate, states):
        j = at.sensitivities
        hessian += np.swapaxes(j, 1, 2) @ (information[:, at.number, :, None] * j)
    others = np.linalg.inv(model.covariance)
    one = hessian[window]
    own = one[n:, n:] - one[n:, :n] @ np.linalg.solve(one[:n, :n], one[:n, n:])
    joint = one.copy()
    joint[n:, n:] += others - own
    return np.linalg.inv(joint)[species, species]


# --- what is refused, and the command line


def run_folder(path, result, *, finished=True):
    """A run folder with the result of training, without the time that training takes."""
    folder = RunFolder.create(path, CONFIG.replace({"plotting.dpi": 40}), {"command": "run"})
    save_observations(folder.training / "observations", result.observations)
    content = (folder.training / "observations.safetensors").read_bytes()
    folder.record(observations=hashlib.sha256(content).hexdigest())
    save_phase1(folder.training / "phase1", result.phase1, 1.0)
    for stage in ("phase 1", *(["evaluate"] if finished else [])):
        folder.finish(stage, 1.0)
    return path


def changed(result, **evidence):
    """The same result with other evidence of the fit of trajectories; None: it was fitted by projection."""
    own = dataclasses.replace(result.phase1.trajectories, **evidence) if evidence else None
    return dataclasses.replace(result, phase1=dataclasses.replace(result.phase1, trajectories=own))


def test_the_command_uncertainty_writes_all_of_its_files_or_none(result, tmp_path, monkeypatch, capsys):
    run = run_folder(tmp_path / "run", result)
    (run / "uncertainty").mkdir()
    (run / "uncertainty" / "old.csv").write_text("of an earlier call")
    monkeypatch.setenv("COLUMNS", "120")
    assert call(monkeypatch, "uncertainty", run, "--bootstrap", 2, "--profiles", 1, "--samples", 40) == 0
    printed = capsys.readouterr().out
    assert "What to measure next" in printed
    assert "2 simulated experiments" in printed
    names = ["bootstrap.csv", "next_measurement.csv", "posterior.nc", "profiles.csv", "profiles.png"]
    assert sorted(path.name for path in (run / "uncertainty").iterdir()) == names
    assert not list(run.glob(".*"))
    assert len(pd.read_csv(run / "uncertainty" / "bootstrap.csv")) == 6


def test_the_command_profile(result, tmp_path, monkeypatch, capsys):
    run = run_folder(tmp_path / "run", result)
    assert call(monkeypatch, "profile", run, "bind", "--out", tmp_path / "out", "--quiet") == 0
    assert capsys.readouterr().out.startswith("k:bind: determined: 0.3")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["profiles.csv", "profiles.png"]
    line = refused(monkeypatch, capsys, "profile", run, "slope:D", "--out", tmp_path / "other")
    assert "there is no species 'D'; known: A, B, C" in line
    assert not (tmp_path / "other").exists()


def test_other_runs_are_refused_in_one_line(result, tmp_path, monkeypatch, capsys):
    projected = run_folder(tmp_path / "projected", changed(result))
    assert "fit again with training.phase1_method=shooting" in refused(
        monkeypatch, capsys, "profile", projected, "bind"
    )
    doubtful = run_folder(tmp_path / "doubtful", changed(result, chi2=9.0))
    assert "the fit is not to be trusted (" in refused(monkeypatch, capsys, "uncertainty", doubtful)
    assert call(monkeypatch, "profile", doubtful, "bind", "--anyway") == 0
    begun = run_folder(tmp_path / "begun", result, finished=False)
    assert "is not finished" in refused(monkeypatch, capsys, "uncertainty", begun)
    assert "no run here" in refused(monkeypatch, capsys, "uncertainty", tmp_path / "nowhere")
    assert not [path for run in (projected, doubtful, begun) for path in run.glob("*uncertainty*")]


def test_a_checkpoint_of_other_data_is_refused(result, absent):
    other = dataclasses.replace(result, observations=absent.observations)
    with pytest.raises(mg.InputError, match="fitted to other data"):
        FittedModel.of(other)
