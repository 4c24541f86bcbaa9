"""Rate laws compared, and homeostasis tested, on measurements of the same kind."""

import numpy as np
import pandas as pd
import pytest
from command_line import call
from test_formula import parse
from test_model_problem import CHAIN, TIMES, a
from test_sbml import document, reaction, species

import metabolismgraph as mg
from metabolismgraph.errors import InputError
from metabolismgraph.formats.formula import evaluate
from metabolismgraph.formats.petab import read_petab, write_petab
from metabolismgraph.kinetic_models.comparison import compare_problems, variants_of
from metabolismgraph.kinetic_models.experiments import experiments_of
from metabolismgraph.kinetic_models.problem import write_with_homeostasis
from metabolismgraph.kinetic_models.rate_laws import Argument, hill, michaelis_menten

NOISE = 0.02


def decay(law, **parameters):
    """A is lost with a rate law."""
    return document([reaction("R", "A", "", f"c * {law}")], kinds=[species("A")], parameters=parameters)


def measured(folder, model, starts, *, seed=0, times=TIMES):
    """Files of experiments that begin with some concentrations of A, with relative noise."""
    (folder / "true.xml").write_text(model)
    rng, files = np.random.default_rng(seed), []
    for start in starts:
        table = mg.simulate_model(folder / "true.xml", times, values={"A": start})[["time", "A"]]
        table["A"] *= 1 + NOISE * rng.standard_normal(len(times))
        files.append(folder / f"from_{start}.csv")
        table.to_csv(files[-1], index=False)
    return files


def compared(folder, files, variants, starts=2, **options):
    return mg.compare_models(
        folder / "true.xml", files, variants, folder / "problems", starts=starts, noise=NOISE, **options
    )


def value(law, **values):
    """The rate of a law."""
    return float(evaluate(parse(law.formula), values.__getitem__, {}))


def argument(name, order):
    return Argument(name, name, order, np.array([1.0, 4.0]))  # reference 2


def test_formulas_of_saturating_laws():
    both = (argument("A", 2.0), argument("I", 0.0))
    law = michaelis_menten("R", both, 1.0)
    given = {"R_rate": 3.0, "R_half_A": 0.5, "R_half_I": 4.0, "R_effect_I": 0.25}
    assert [parameter.id for parameter in law.parameters] == list(given)

    def rate(x, y, h=1.0, g=1.0):
        saturation = x**h / (0.5**h + x**h)
        return saturation**2 * (1 + 0.25 * (y / 4) ** g) / (1 + (y / 4) ** g)

    for x, y in ((2.0, 2.0), (1.0, 5.0), (7.0, 0.0), (0.0, 1.0), (-1.0, 1.0)):
        expected = 3 * rate(max(x, 0.0), y) / rate(2.0, 2.0)
        assert value(law, **given, A=x, I=y) == pytest.approx(expected)
    law = hill("R", (argument("A", 1.0), argument("I", 0.0)), 1.0)
    given |= {"R_hill_A": 3.0, "R_hill_I": 2.0}
    assert {parameter.id for parameter in law.parameters} == set(given)

    def rate_hill(x, y):
        return x**3 / (0.5**3 + x**3) * (1 + 0.25 * (y / 4) ** 2) / (1 + (y / 4) ** 2)

    for x, y in ((2.0, 2.0), (1.0, 5.0), (0.0, 1.0)):
        assert value(law, **given, A=x, I=y) == pytest.approx(3 * rate_hill(x, y) / rate_hill(2.0, 2.0))


def test_the_true_law_is_the_best_one(tmp_path):
    times = np.linspace(0, 8, 17)
    files = measured(tmp_path, decay("k * A / (q + A)", k=1.0, q=1.0), (5.0, 1.0), times=times)
    laws = ("mass_action", "hill", "michaelis_menten", "power_law", "from_model")
    found = compared(tmp_path, files, variants_of({"R": laws}), starts=1)
    table = found.table
    # The law of the model is Michaelis and Menten's: as many parameters, the same likelihood.
    assert set(table.index[:2]) == {"from_model", "michaelis_menten"}
    assert repr(found).split()[:4] == ["models", "least", "AICc", found.best]
    first, second = table["minus_log_L"].iloc[:2]
    assert first == pytest.approx(second, abs=1e-3)
    assert "by AICc, these are about as good as" in found.notes[0]
    assert table["parameters"].to_dict() == {
        "mass_action": 3,
        "michaelis_menten": 4,
        "from_model": 4,
        "power_law": 4,
        "hill": 5,
    }
    assert table.loc["michaelis_menten", "special_case"] == "mass_action"
    assert table.loc["michaelis_menten", "p_value"] < 1e-10
    assert table.loc["hill", "special_case"] == "michaelis_menten"
    assert table.loc["hill", "p_value"] > 0.01
    assert np.isnan(table.loc["power_law", "p_value"])  # its exponent has a prior
    best = found.fits["michaelis_menten"].estimates
    assert best.loc["R_half_A", "estimate"] == pytest.approx(1.0, rel=0.15)
    row = table.loc["mass_action"]
    assert row["AIC"] == pytest.approx(2 * 3 + 2 * row["minus_log_L"])
    assert row["AICc"] == pytest.approx(row["AIC"] + 2 * 3 * 4 / (34 - 3 - 1))
    assert row["difference"] == pytest.approx(row["AICc"] - table["AICc"].min())


@pytest.mark.parametrize("pull", [0.0, 0.2])
def test_homeostasis_is_found_where_it_is(tmp_path, pull):
    files = measured(tmp_path, decay("(k * A + w * (A - 2))", k=0.1, w=pull), (6.0, 1.0, 3.0))
    (tmp_path / "true.xml").write_text(decay("k * A", k=1.0))
    found = compared(tmp_path, files, variants_of({}, ["A"]), starts=2)
    row, fit = found.table.loc["homeostasis"], found.fits["homeostasis"]
    assert row["special_case"] == "no_homeostasis"
    if pull:
        assert row["p_value"] < 1e-10
        assert found.best == "homeostasis"
        # Only the sums are known: of the loss and the pull, and of what is made.
        k, weight, baseline = (fit.estimates.loc[name, "estimate"] for name in ("k", "pull_A", "baseline_A"))
        assert k + weight == pytest.approx(0.3, rel=0.1)
        assert weight * baseline == pytest.approx(0.4, rel=0.1)
        # The model that was written is the one that was fitted.
        (tmp_path / "found.xml").write_bytes(fit.problem.model.read_bytes())
        values = fit.estimates["estimate"].to_dict()
        start = values.pop("initial_A_from_6_0" if "initial_A_from_6_0" in values else "initial_A_from_6")
        again = mg.simulate_model(
            tmp_path / "found.xml", TIMES, values={"A": start, **{k: values[k] for k in ("k", "pull_A", "baseline_A")}}
        )
        seen = fit.simulation[fit.simulation["simulationConditionId"].str.contains("6")]
        np.testing.assert_allclose(again["A"], seen["simulation"], rtol=1e-6)
    else:
        assert row["p_value"] > 0.01
        assert found.best == "no_homeostasis"


def test_no_p_value_of_fits_that_have_not_ended(tmp_path):
    files = measured(tmp_path, decay("k * A", k=0.3), (6.0, 1.0))
    laws = variants_of({"R": ["mass_action", "michaelis_menten"]})
    done = compared(tmp_path, files, laws)
    assert np.isfinite(done.table.loc["michaelis_menten", "p_value"])
    assert not any(note.startswith("not ended") for note in done.notes)
    cut = compared(tmp_path, files, laws, minutes=1e-9)
    assert cut.table["p_value"].isna().all()
    (note,) = (note for note in cut.notes if note.startswith("not ended"))
    assert "mass_action" in note
    assert "michaelis_menten" in note


def test_homeostasis_of_a_petab_problem(tmp_path):
    files = measured(tmp_path, decay("(k * A + 0.2 * (A - 2))", k=0.1), (6.0, 1.0))
    (tmp_path / "true.xml").write_text(decay("k * A", k=1.0))
    first = mg.write_model_problem(tmp_path / "true.xml", files, tmp_path / "first", noise=NOISE)
    more = write_with_homeostasis(first.path, ["A"], tmp_path / "second")
    assert set(more.estimated) - set(first.estimated) == {"pull_A", "baseline_A"}
    found = compare_problems({"first": first, "more": more}, 2)
    assert found.best == "more"
    assert found.table.loc["more", "p_value"] < 1e-10
    with pytest.raises(InputError, match="no species is named X"):
        write_with_homeostasis(first.path, ["X"], tmp_path / "third")


def test_measured_concentrations_of_a_petab_problem(tmp_path):
    model = decay("k * A / c", k=1.0).replace('hasOnlySubstanceUnits="false"', 'hasOnlySubstanceUnits="true"')
    (tmp_path / "model.xml").write_text(model.replace('id="c" size="1"', 'id="c" size="2"'))
    tables = {
        "parameters": {
            "parameterId": ["k"],
            "parameterScale": ["lin"],
            "lowerBound": [0],
            "upperBound": [9],
            "estimate": [1],
        },
        "conditions": {"conditionId": ["one"]},
        "observables": {"observableId": ["a", "twice"], "observableFormula": ["A", "2 * A"], "noiseFormula": [1, 1]},
        "measurements": {
            "observableId": ["a", "a", "a", "twice"],
            "simulationConditionId": ["one"] * 4,
            "measurement": [2.0, 4.0, 8.0, 0.1 + 0.2],
            "time": [1, 1, 3, 2],
        },
    }
    frames = {name: pd.DataFrame(table) for name, table in tables.items()}
    path = write_petab(tmp_path / "problem", (tmp_path / "model.xml").read_text(), frames)
    (experiment,) = experiments_of(read_petab(path))
    # Amounts in a volume of 2, the mean of two replicates; what is not the species itself does not count.
    time, values = experiment.known("A")
    assert (time.tolist(), values.tolist()) == ([1.0, 3.0], [1.5, 4.0])
    again = write_with_homeostasis(path, ["A"], tmp_path / "again").path
    assert read_petab(again).measurements["measurement"].tolist() == [2.0, 4.0, 8.0, 0.1 + 0.2]


def test_species_of_one_pattern_have_the_same_pull(tmp_path):
    (tmp_path / "model.xml").write_text(CHAIN)
    table = {"time": TIMES, "A": a(0.7, 4.0), "B": a(0.2, 1.0)}
    pd.DataFrame(table).to_csv(tmp_path / "one.csv", index=False)
    options = {"A": ["A", "B"], "same": ["*"]}
    found = {
        name: mg.write_model_problem(
            tmp_path / "model.xml", [tmp_path / "one.csv"], tmp_path / name, homeostasis=patterns
        ).estimated
        for name, patterns in options.items()
    }
    assert set(found["A"]) - set(found["same"]) == {"pull_B"}
    assert {"pull_A", "baseline_A", "baseline_B"} < set(found["same"])


def test_a_species_that_is_used_up(tmp_path):
    # The rate at the geometric mean of the concentrations is thousands of times smaller than most of the time.
    model = document([reaction("R", "2 A", "", "c * 20 * (A / (1 + A))^2")], kinds=[species("A")])
    files = measured(tmp_path, model, (40.0,), times=np.linspace(0, 30, 40))
    found = compared(tmp_path, files, variants_of({"R": ["michaelis_menten", "hill"]}), starts=2)
    assert found.best == "michaelis_menten"
    assert found.table.loc["hill", "p_value"] > 0.01
    assert found.fits["michaelis_menten"].estimates.loc["R_half_A", "estimate"] == pytest.approx(1.0, rel=0.2)
    assert any(note.startswith("hill: at a bound: R_hill_A") for note in found.notes) or (
        found.fits["hill"].estimates.loc["R_hill_A", "estimate"] > 1.0
    )


def test_special_cases(tmp_path):
    model = document(
        [reaction("R", "2 A", "", "c * k * A^2"), reaction("Q", "A", "", "c * k * A")],
        kinds=[species("A")],
        parameters={"k": 1.0},
    )
    files = measured(tmp_path, model, (4.0,))

    def problem(name, **options):
        return mg.write_model_problem(tmp_path / "true.xml", files, tmp_path / name, noise=NOISE, **options)

    # k is estimated for Q in both, but the law of the model for R is not a special case of another one.
    plain = problem("plain")
    laws = {law: problem(law, laws={"R": law}) for law in ("mass_action", "michaelis_menten", "hill", "power_law")}
    assert set(plain.estimated) < set(laws["hill"].estimated)
    assert not any(larger.contains(plain) for larger in laws.values())
    assert laws["hill"].contains(laws["michaelis_menten"])
    assert laws["michaelis_menten"].contains(laws["mass_action"])
    assert not laws["michaelis_menten"].contains(laws["hill"])
    assert not laws["hill"].contains(laws["power_law"])
    assert problem("pulled", homeostasis=["A"]).contains(plain)


def test_names_of_variants():
    assert list(variants_of({"R": ["learned"]})) == ["model"]
    assert list(variants_of({"R": ["hill", "learned"], "Q": ["mass_action"]})) == ["hill", "learned"]
    assert variants_of({"R": ["hill"]}, ["A"]) == {
        "no_homeostasis": {"laws": {"R": "hill"}},
        "homeostasis": {"laws": {"R": "hill"}, "homeostasis": ("A",)},
    }
    both = variants_of({"v*": ["hill", "learned"], "w": ["hill", "learned"]}, ["A"])
    assert len(both) == 8
    assert "v_=hill,w=learned+homeostasis" in both


def test_what_cannot_be_compared(tmp_path):
    files = measured(tmp_path, decay("k * A", k=0.5), (4.0,))
    with pytest.raises(InputError, match="expected at least two models to compare, not 1"):
        compared(tmp_path, files, {"one": {}})
    (tmp_path / "other.csv").write_bytes(files[0].read_bytes())
    with pytest.raises(InputError, match="two and one do not have the same measurements; they cannot be compared"):
        compared(tmp_path, files, {"one": {}, "two": {"held_out": [tmp_path / "other.csv"]}})


def test_command(tmp_path, monkeypatch, capsys):
    files = measured(tmp_path, decay("k * A / (q + A)", k=1.0, q=1.0), (5.0,), times=np.linspace(0, 8, 17))
    words = ["fit-model", tmp_path / "true.xml", *files, "--noise", NOISE, "--law", "R=mass_action,michaelis_menten"]
    words += ["--starts", "2", "--processes", "1", "--out", tmp_path / "fit"]
    assert call(monkeypatch, *map(str, words)) == 0
    assert "AICc: difference from the least one" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "fit" / "comparison.csv", index_col=0)
    assert table.index.tolist() == ["michaelis_menten", "mass_action"]
    for name in table.index:
        assert {"model.xml", "estimates.csv", "problem"} <= {file.name for file in (tmp_path / "fit" / name).iterdir()}
    assert call(monkeypatch, *map(str, words)) == 2
    assert "is not empty" in capsys.readouterr().err
    assert call(monkeypatch, *map(str, words), "--overwrite", "--homeostasis", "X") == 2
    assert "no species is named X" in capsys.readouterr().err
    assert (tmp_path / "fit" / "comparison.csv").exists()
