import json

import libsbml
import numpy as np
import pandas as pd
import pytest
import scipy.integrate
import xarray as xr
from command_line import call
from continuous import LOTKA_VOLTERRA, MICHAELIS_MENTEN, observe

import metabolismgraph as mg
from metabolismgraph.evaluation.variables import VARIABLES
from metabolismgraph.formats.dataset import write_dataset
from metabolismgraph.formats.sbml import read_sbml

CONFIG = mg.load_config("small", ["training.homeostasis_training=false"])
COLUMNS = [
    *("reaction", "equation", "k", "unit", "log10_k", "standard_error", "lower", "upper", "identifiable"),
    *("combination", "reason"),
]


@pytest.fixture(scope="module")
def prey():
    return mg.fit(observe(LOTKA_VOLTERRA, np.linspace(0, 30, 301)), CONFIG)


def test_every_rate_constant_has_a_row_that_says_what_is_known(prey):
    table = prey.rate_constants
    assert list(table.columns) == COLUMNS
    rows = table.set_index("reaction")
    eat = rows.loc["eat"]
    assert eat["equation"] == "H + W -> 2 W"
    assert eat["unit"] == "1/(concentration time)"
    assert eat["lower"] <= 0.1 <= eat["upper"]
    assert eat["identifiable"]
    assert eat["reason"] == ""


def test_a_loss_that_homeostasis_may_be_is_not_called_determined_in_fit_nor_in_identify(prey):
    rows = prey.rate_constants.set_index("reaction")
    found = mg.identify(prey.observations.network, prey.observations)
    for name, known in zip(prey.observations.network.reactions, found.identifiable, strict=True):
        assert rows.loc[name, "identifiable"] == known
    assert rows.loc["die", "reason"] == rows.loc["grow", "reason"] == "not distinguishable from homeostasis"
    # The value goes with the weakest homeostasis: here there is none.
    assert rows.loc["die", "k"] == pytest.approx(0.4, rel=1e-3)
    assert rows.loc["grow", "k"] == pytest.approx(1.1, rel=1e-3)
    assert np.isnan(rows.loc["die", ["standard_error", "lower", "upper"]].astype(float)).all()


def test_combinations_come_with_their_value():
    reactions = {"one": ({"A": 1, "B": 1}, {"B": 2}), "two": ({"A": 1, "B": 1}, {"B": 2})}
    system = (reactions, {"one": 0.03, "two": 0.05}, {"A": 5.0, "B": 1.0})
    table = mg.fit(observe(system, np.linspace(0, 20, 201)), CONFIG).rate_constants
    assert not table["identifiable"].any()
    assert (table["reason"] == "only in combination").all()
    for text in table["combination"]:
        name, value = text.split(" = ")
        assert name == "k(one) + k(two)"
        assert float(value) == pytest.approx(0.08, rel=1e-3)


def test_a_constant_at_zero_says_what_it_does_not_exceed():
    reactions = {**MICHAELIS_MENTEN[0], "leak": ({"E": 1, "S": 1}, {"E": 1, "P": 1})}
    k = {**MICHAELIS_MENTEN[1], "leak": 0.0}
    result = mg.fit(observe((reactions, k, MICHAELIS_MENTEN[2]), np.linspace(0, 20, 201)), CONFIG)
    row = result.rate_constants.set_index("reaction").loc["leak"]
    if row["reason"] == "zero within its error":
        assert row["lower"] == 0
        assert 0 < row["upper"] < 1e-2
    assert not row["identifiable"]


def test_homeostasis_has_a_baseline_with_an_error_that_covers_it(small, small_config):
    result = mg.fit(small.observations, small_config)
    table = result.homeostasis
    assert table["resolved"].all()
    types = np.asarray(small.truth.type)
    for kind in np.unique(types):
        assert len(set(table["type"][types == kind])) == 1
    off = (table["baseline"] - small.truth.baseline) / table["baseline_error"]
    assert np.abs(off).median() < 3
    np.testing.assert_allclose(table["baseline"], small.truth.baseline, rtol=0.02)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, prey):
    """A fit by the command, from files."""
    place = tmp_path_factory.mktemp("fit")
    write_dataset(place / "data", prey.observations)
    with pytest.MonkeyPatch.context() as patch:
        arguments = ["fit", place / "data/network.xml", place / "data/timeseries.csv.gz", "--out", place / "run"]
        assert call(patch, *arguments, "--quiet", "--set", "training.phase2_steps=100") == 0
    return place / "run"


def test_the_files_hold_the_same_tables(folder, prey):
    table = pd.read_csv(folder / "rate_constants.csv")
    assert list(table.columns) == COLUMNS
    np.testing.assert_allclose(table["k"], prey.rate_constants["k"], rtol=1e-6)
    homeostasis = pd.read_csv(folder / "homeostasis.csv")
    assert list(homeostasis["species"]) == ["H", "W"]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["trustworthy"] is True
    assert metrics["why_not"] == []
    assert metrics["derivative_rule"] == "cubic"


def test_the_model_with_the_estimates_runs_like_the_data(folder, prey):
    """Read again, its reactions and constants reproduce the data they came from."""
    document = libsbml.readSBMLFromFile(str(folder / "model_fitted.xml"))
    assert document.checkConsistency() == 0 or not any(
        document.getError(i).getSeverity() >= libsbml.LIBSBML_SEV_ERROR for i in range(document.getNumErrors())
    )
    model = read_sbml(folder / "model_fitted.xml")
    network = model.network
    k = np.array([model.rate_constants[r] for r in network.reactions])
    orders = np.zeros((network.n_reactions, network.n_species))
    orders[network.edge_reaction, network.edge_species] = network.edge_order
    index = [network.species.index(s) for s in prey.observations.network.species]
    time, data = prey.observations.time, prey.observations.concentration
    solution = scipy.integrate.solve_ivp(
        lambda _, c: network.stoichiometry @ (k * np.prod(np.maximum(c, 0) ** orders, axis=1)),
        (time[0], time[-1]),
        data[0][np.argsort(index)],
        t_eval=time,
        rtol=1e-9,
        atol=1e-11,
    )
    np.testing.assert_allclose(solution.y[index].T, data, rtol=1e-2, atol=1e-2)


def test_every_variable_of_evaluation_nc_is_described(folder):
    with xr.open_dataset(folder / "evaluation.nc", engine="h5netcdf") as data:
        for name, variable in data.data_vars.items():
            assert name in VARIABLES
            assert variable.attrs["long_name"]


def test_the_page_is_short_and_begins_with_the_verdict(folder, monkeypatch, capsys):
    assert call(monkeypatch, "evaluate", folder) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("The fit is"))
    assert "trustworthy" in lines[start]
    assert len(lines) - start < 40
    text = "\n".join(lines)
    for word in ("eat", "assuming the weakest homeostasis", "rate_constants.csv"):
        assert word in text


def test_what_the_readers_assumed_is_in_manifest_and_metrics(tmp_path, prey, monkeypatch):
    write_dataset(tmp_path / "data", prey.observations)
    source = tmp_path / "data/timeseries.csv.gz"
    table = pd.read_csv(source).rename(columns={"H": "[H]", "W": "[W]", "time": "# Time"})
    table.to_csv(tmp_path / "table.csv", index=False)
    arguments = ["fit", tmp_path / "data/network.xml", tmp_path / "table.csv", "--out", tmp_path / "run", "--quiet"]
    assert call(monkeypatch, *arguments, "--set", "training.homeostasis_training=false") == 0
    notes = json.loads((tmp_path / "run/manifest.json").read_text())["notes"]
    assert any("[H]" in note for note in notes)
    assert json.loads((tmp_path / "run/metrics.json").read_text())["notes"][: len(notes)] == notes
