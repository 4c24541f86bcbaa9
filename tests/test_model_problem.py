"""Problems from an SBML model and tables: experiments, inputs, rate laws, parameters, refusals."""

import numpy as np
import pandas as pd
import pytest
from command_line import call
from test_formula import parse
from test_sbml import document, mathml, reaction, species

import metabolismgraph as mg
from metabolismgraph.errors import InputError
from metabolismgraph.formats.formula import evaluate
from metabolismgraph.formats.petab import read_petab
from metabolismgraph.kinetic_models.fit_result import OTHER
from metabolismgraph.kinetic_models.held_out import skill
from metabolismgraph.kinetic_models.objective import Objective
from metabolismgraph.kinetic_models.rate_laws import Argument, learned, learned_reversible
from metabolismgraph.kinetic_models.starts import draw_points


def chain(*, q=1.0, laws=("c * k * A", "c * q * B"), amount="false", size=1, **initial):
    """A is converted to B; B is lost."""
    kinds = [
        species(name, more=f'initialConcentration="{initial[name]}"' if name in initial else "", amount=amount)
        for name in "AB"
    ]
    reactions = [reaction("R", "A", "B", laws[0]), reaction("Q", "B", "", laws[1])]
    return document(reactions, kinds=kinds, parameters={"k": 1.0, "q": q}, compartments=[("c", size)])


CHAIN = chain()
TIMES = np.linspace(0, 4, 9)


def a(k, start, times=TIMES):
    return start * np.exp(-k * times)


def b(k, q, start, times=TIMES):
    return start * k / (q - k) * (np.exp(-k * times) - np.exp(-q * times))


def made(tmp_path, model=CHAIN, tables=None, **options):
    (tmp_path / "model.xml").write_text(model)
    tables = tables or {"one": {"time": TIMES, "A": a(0.7, 4.0), "B": b(0.7, 0.3, 4.0)}}
    for name, columns in tables.items():
        pd.DataFrame(columns).to_csv(tmp_path / f"{name}.csv", index=False)
    held = options.pop("held_out", [])
    fitted = [tmp_path / f"{name}.csv" for name in tables if name not in held]
    return mg.write_model_problem(
        tmp_path / "model.xml",
        fitted,
        tmp_path / "problem",
        held_out=[tmp_path / f"{name}.csv" for name in held],
        **options,
    )


def fitted(tmp_path, model=CHAIN, tables=None, starts=3, **options):
    problem = made(tmp_path, model, tables, **options)
    return problem, mg.fit_petab(problem.path, starts, hold_out=problem.held_out)


def test_rate_constants_initial_values_and_noise(tmp_path):
    rng = np.random.default_rng(0)
    table = {"time": TIMES, "A": a(0.7, 4.0) + 0.01 * rng.standard_normal(9), "B": b(0.7, 0.3, 4.0)}
    problem, fit = fitted(tmp_path, tables={"one": table})
    assert fit.estimates.loc[["k", "q"], "estimate"].tolist() == pytest.approx([0.7, 0.3], rel=0.01)
    assert fit.estimates.loc["initial_A_one", "estimate"] == pytest.approx(4.0, rel=0.01)
    assert 0.003 < fit.estimates.loc["sd_A", "estimate"] < 0.03
    assert problem.notes == ()
    # The measured zero is exact.
    assert read_petab(problem.path).conditions.loc["one", "B"] == 0


def test_species_without_measurements(tmp_path):
    only = {"one": {"time": TIMES, "B": b(0.7, 0.3, 4.0)}}
    model = chain(A=4)
    problem, fit = fitted(tmp_path, model, only, noise=0.01)
    assert fit.estimates["estimate"].to_dict() == pytest.approx({"k": 0.7, "q": 0.3}, rel=1e-3)
    assert problem.notes == ("Initial concentrations without a measurement are those of the model: A.",)
    # With an initial value ten times too large, which is to be estimated.
    model = chain(A=40)
    _, fit = fitted(tmp_path / "two", model, only, noise=0.01, estimate=["k", "q", "A"], starts=6)
    # The two rate constants can be exchanged, if A is made larger or smaller: two starts with an equal likelihood.
    found = fit.estimates["estimate"]
    assert found["k"] * found["initial_A_one"] == pytest.approx(2.8, rel=1e-3)
    assert sorted(found[["k", "q"]]) == pytest.approx([0.3, 0.7], rel=1e-3)
    assert set(fit.estimates["note"]) == {OTHER}
    assert (
        "3 of 3 parameters are not unique, since other starts have an equal likelihood: k, q, initial_A_one"
        in fit.notes
    )
    with pytest.raises(InputError, match="species A has neither a measured initial value nor one in the model"):
        made(tmp_path / "three", CHAIN, only)


@pytest.fixture(autouse=True)
def _folders(tmp_path):
    for name in ("two", "three"):
        (tmp_path / name).mkdir()


def test_gaps_experiments_and_times_that_begin_later(tmp_path):
    first, second = a(0.7, 4.0), a(0.7, 2.0)
    first[[0, 3]] = np.nan
    tables = {
        "one": {"time": TIMES, "A": first, "B": b(0.7, 0.3, 4.0)},
        "two": {"time": TIMES + 5, "A": second, "B": b(0.7, 0.3, 2.0)},
    }
    problem, fit = fitted(tmp_path, tables=tables, noise=0.01)
    found = fit.estimates["estimate"].to_dict()
    expected = {"k": 0.7, "q": 0.3, "initial_A_one": 4.0, "initial_A_two": 2.0}
    assert found == pytest.approx(expected, rel=1e-3)
    assert problem.notes == ("two.csv: Times are counted from the first one, 5.",)


def test_inputs_follow_their_measured_values(tmp_path):
    # A is a line up and one down; B adds it up.
    model = chain(A=9, laws=("c * k * A", "0 * c * q * B"))
    line, other = np.interp(TIMES, [0, 2, 4], [0, 2, 0]), np.interp(TIMES, [0, 2, 4], [2, 2, 1])
    half = {"one": np.where(TIMES < 2, TIMES**2 / 2, 4 - (4 - TIMES) ** 2 / 2), "two": 0.5 + 2 * TIMES}
    half["two"][TIMES > 2] -= (TIMES[TIMES > 2] - 2) ** 2 / 4
    sums = {name: 0.7 * values for name, values in half.items()}
    tables = {
        "one": {"time": TIMES, "A": line, "B": sums["one"]},
        "two": {"time": TIMES, "A": other, "B": sums["two"]},
    }
    _, fit = fitted(tmp_path, model, tables, inputs=["A"], noise=0.01, estimate=["k"])
    assert fit.estimates.loc["k", "estimate"] == pytest.approx(0.7, rel=2e-4)  # of relative noise
    assert fit.estimates.index.tolist() == ["k", "initial_B_two"]
    np.testing.assert_allclose(fit.simulation["simulation"], fit.simulation["measurement"], rtol=2e-4, atol=1e-9)


def test_held_out_experiments_are_predicted(tmp_path):
    tables = {
        "one": {"time": TIMES, "A": a(0.7, 4.0), "B": b(0.7, 0.3, 4.0)},
        "two": {"time": TIMES, "A": a(0.7, 2.0), "B": b(0.7, 0.3, 2.0)},
    }
    problem, fit = fitted(tmp_path, tables=tables, held_out=["two"], noise=0.01)
    assert problem.held_out == ("two",)
    assert set(fit.simulation["simulationConditionId"]) == {"one"}
    found = skill(fit.held_out)
    assert found.index.tolist() == [("two", "of_A"), ("two", "of_B")]
    assert found["R2_simulation"].min() > 0.9999
    # Twice k and q of the model: much worse; and a value between its neighbours.
    nominal = a(1.0, 2.0)
    expected = 1 - ((nominal - tables["two"]["A"]) ** 2).sum() / (9 * np.var(tables["two"]["A"]))
    assert found.loc[("two", "of_A"), "R2_nominal"] == pytest.approx(expected)
    row = fit.held_out[fit.held_out["observableId"] == "of_A"].iloc[1]
    assert row["interpolation"] == pytest.approx((tables["two"]["A"][0] + tables["two"]["A"][2]) / 2)
    with pytest.raises(InputError, match="no measurement has condition or experiment on, to be held out; nearest: one"):
        mg.fit_petab(problem.path, 1, hold_out=["on"])
    with pytest.raises(InputError, match="nothing is left to be fitted"):
        mg.fit_petab(problem.path, 1, hold_out=["one", "two"])


def test_later_measurements_are_predicted(tmp_path):
    tables = {"one": {"time": TIMES, "A": a(0.7, 4.0), "B": b(0.7, 0.3, 4.0)}}
    problem = made(tmp_path, tables=tables, noise=0.01)
    fit = mg.fit_petab(problem.path, 2, hold_out_after=2.0)
    assert fit.simulation["time"].max() == 2
    assert fit.held_out["time"].min() == 2.5
    found = skill(fit.held_out)
    assert found["R2_simulation"].min() > 0.9999
    # The last one is interpolated by the one before it, and the first one with the last that was fitted.
    rows = fit.held_out[fit.held_out["observableId"] == "of_A"]
    values = a(0.7, 4.0)
    assert rows["interpolation"].iloc[-1] == pytest.approx(values[-2])
    assert rows["interpolation"].iloc[0] == pytest.approx((values[4] + values[6]) / 2)
    errors = rows["interpolation"] - values[5:]
    assert found.loc[("one", "of_A"), "error_interpolation"] == pytest.approx(np.sqrt((errors**2).mean()))
    with pytest.raises(InputError, match="no measurement is later than 4, to be held out; give an earlier time"):
        mg.fit_petab(problem.path, 1, hold_out_after=4.0)
    with pytest.raises(InputError, match="nothing is left to be fitted"):
        mg.fit_petab(problem.path, 1, hold_out_after=-1.0)


def test_starts_that_run_out_of_time(tmp_path):
    problem = made(tmp_path, noise=0.01)
    fit = mg.fit_petab(problem.path, 3, minutes=1e-9)
    assert set(fit.starts["ending"]) == {"OUT_OF_TIME"}
    assert np.isfinite(fit.starts["objective"]).all()
    assert "3 of 3 starts ran out of time; with more, they may find a better likelihood" in fit.notes
    # The point is the one with this likelihood.
    best = fit.points.loc[fit.starts["objective"].idxmin()]
    likelihood = mg.simulate_petab(problem.path, best.to_dict())["log_likelihood"].sum()
    assert fit.objective == pytest.approx(-likelihood, rel=1e-6)
    with pytest.raises(InputError, match="minutes must be positive, not 0"):
        mg.fit_petab(problem.path, 1, minutes=0.0)


SPREAD = np.array([0.1, 0.2, 0.1, 0.2])


def with_deviations(layout):
    """Values of A with their standard deviations."""
    wide = pd.DataFrame({"time": TIMES[:4], "A": a(0.7, 4.0)[:4], "A SD": SPREAD})
    if layout == "units":
        return wide.rename(columns={"A": "A (mM)", "A SD": "A SD (mM)"}), "* SD"
    if layout == "wide":
        return wide, "* SD"
    if layout == "rows":
        return wide.set_index("time").T.reset_index(names=""), "* SD"
    long = pd.DataFrame({"time": TIMES[:4], "species": "A", "value": a(0.7, 4.0)[:4], "sigma": SPREAD})
    return long, "sigma"


@pytest.mark.parametrize("layout", ["wide", "units", "rows", "long"])
def test_standard_deviations_are_read(tmp_path, layout):
    table, deviations = with_deviations(layout)
    problem = made(tmp_path, chain(B=0), {"one": table}, deviations=deviations, noise=0.3)
    read = read_petab(problem.path)
    assert read.measurements["noiseParameters"].tolist() == SPREAD.tolist()
    assert read.observables.loc["of_A", "noiseFormula"] == "noiseParameter1_of_A"
    simulated = mg.simulate_petab(problem.path, {"k": 0.7, "initial_A_one": 4.0, "q": 1.0})
    assert simulated["noise"].tolist() == SPREAD.tolist()


@pytest.mark.parametrize("layout", ["wide", "long"])
def test_replicates(tmp_path, layout):
    table = pd.DataFrame({"time": [0, 0, 1, 1, 2], "A": [4.0, 4.4, 2.0, np.nan, 1.0]})
    if layout == "long":
        table = table.rename(columns={"A": "value"}).assign(species="A").dropna()
    problem = made(tmp_path, chain(B=0), {"one": table}, noise=0.1)
    assert "Rows with the same time are replicates." in problem.notes
    rows = read_petab(problem.path).measurements
    assert rows[["time", "measurement"]].to_numpy().tolist() == [[0, 4.0], [0, 4.4], [1, 2.0], [2, 1.0]]
    # The initial concentration is sought near the mean of its replicates.
    bounds = read_petab(problem.path).parameters.loc["initial_A_one", ["lowerBound", "upperBound"]]
    assert bounds.tolist() == pytest.approx([1.4, 12.6])


def test_relative_values(tmp_path):
    # Two tables with scales of their own, of B alone.
    tables = {
        "one": {"time": TIMES, "A": a(0.7, 4.0), "B": 50 * b(0.7, 0.3, 4.0)},
        "two": {"time": TIMES, "A": a(0.7, 2.0), "B": 0.03 * b(0.7, 0.3, 2.0)},
    }
    problem, fit = fitted(tmp_path, chain(A=4, B=0), tables, starts=6, noise=0.01, relative=["B*"])
    found = fit.estimates["estimate"].to_dict()
    expected = {"scale_B_one": 50, "scale_B_two": 0.03, "k": 0.7, "q": 0.3, "initial_A_one": 4.0, "initial_A_two": 2.0}
    assert found == pytest.approx(expected, rel=1e-3)
    # The initial concentration of B is that of the model, although B was measured.
    assert problem.notes == ("Initial concentrations without a measurement are those of the model: B.",)
    # Noise is in the units of each table.
    problem = made(tmp_path / "three", chain(A=4, B=0), tables, relative=["B"])
    assert {"sd_A", "sd_B_one", "sd_B_two"} < set(problem.estimated)
    bounds = read_petab(problem.path).parameters["upperBound"]
    assert bounds["sd_B_one"] / bounds["sd_B_two"] == pytest.approx(50 * 4 / (0.03 * 2))
    # Without an absolute value, the scale is one with the initial concentration.
    only = {"one": {"time": TIMES, "B": tables["one"]["B"]}}
    problem, fit = fitted(
        tmp_path / "two", chain(A=4, B=0), only, starts=4, noise=0.01, relative=["B"], estimate=["k", "q", "A"]
    )
    assert set(fit.estimates["note"]) & {"not determined", OTHER}


def test_what_the_fitted_measurements_do_not_tell_is_not_predicted(tmp_path):
    # The scale of B in one table is known from nowhere, if that table is held out.
    tables = {
        "one": {"time": TIMES, "A": a(0.7, 4.0), "B": 50 * b(0.7, 0.3, 4.0)},
        "two": {"time": TIMES, "A": a(0.7, 2.0), "B": 0.03 * b(0.7, 0.3, 2.0)},
    }
    options = {"noise": 0.01, "relative": ["B"]}
    problem = made(tmp_path, chain(A=4, B=0), tables, **options)
    fit = mg.fit_petab(problem.path, 2, hold_out=["two"])
    rows = fit.held_out.set_index("observableId")["simulation"]
    assert rows.isna().sum() == 17  # all but the exact zero
    assert "17 held-out measurements are not predicted, since the fitted ones do not depend on scale_B_two, " in str(
        fit.notes
    )
    # From tables, the initial concentration is the measured one, and B is left out.
    problem, fit = fitted(tmp_path / "two", chain(A=4, B=0), tables, starts=2, held_out=["two"], inputs=[], **options)
    assert "scale_B_two" not in problem.estimated
    expected = "Values with a scale or an offset in held-out tables are not predicted, since it is not known: B."
    assert problem.notes[0] == expected
    assert set(fit.held_out["observableId"]) == {"of_A"}
    np.testing.assert_allclose(fit.held_out["simulation"], tables["two"]["A"], rtol=1e-3)


def test_tables_of_the_same_name_have_scales_of_their_own(tmp_path):
    (tmp_path / "model.xml").write_text(chain(A=4, B=0))
    for folder, scale in (("two", 50), ("three", 0.03)):
        table = pd.DataFrame({"time": TIMES, "A": a(0.7, 4.0), "B": scale * b(0.7, 0.3, 4.0)})
        table.to_csv(tmp_path / folder / "data.csv", index=False)
    files = [tmp_path / folder / "data.csv" for folder in ("two", "three")]
    problem = mg.write_model_problem(tmp_path / "model.xml", files, tmp_path / "problem", relative=["B"])
    assert sum(name.startswith("scale_B_") for name in problem.estimated) == 2


def test_later_measurements_that_are_held_out_have_no_say(tmp_path):
    # The bounds, starts and knots are those without the last value.
    early = {"time": TIMES, "A": a(0.7, 4.0), "B": b(0.7, 0.3, 4.0)}
    late = {name: np.append(values[:-1], [4 if name == "time" else 1e6]) for name, values in early.items()}
    found = []
    for folder, table in (("two", early), ("three", late)):
        problem = made(
            tmp_path / folder, CHAIN, {"one": table}, hold_out_after=3.9, laws={"R": "learned"}, homeostasis=["A"]
        )
        read = read_petab(problem.path)
        found.append((read.parameters.to_csv(), read.observables.to_csv(), read.model.read_text()))
    assert found[0] == found[1]


def test_deviations_of_amounts_and_of_names_that_stand_for_others(tmp_path):
    # Amounts in a volume of 2, whose deviations have no unit of their own; Glc stands for A.
    table = {"time": TIMES, "Glc (mmol)": 2 * a(0.7, 4.0), "Glc_sd": np.full(9, 0.2)}
    options = {"deviations": "*_sd", "names": {"Glc": "A"}, "skip_unknown": True}
    problem = made(tmp_path, chain(B=0, size=2), {"one": table}, **options)
    rows = read_petab(problem.path).measurements
    assert rows["measurement"].iloc[0] == 4
    assert set(rows["noiseParameters"]) == {0.1}


def test_species_that_reactions_do_not_change_begin_where_they_were_measured(tmp_path):
    # E is a boundary species, and S has a rate rule; both differ from the model.
    model = document(
        [reaction("R", "A", "", "c * k * A * E * S")],
        kinds=[species("A"), species("E", boundary="true"), species("S", boundary="true")],
        parameters={"k": 0.5},
        more=f'<listOfRules><rateRule variable="S">{mathml("-0.1 * S")}</rateRule></listOfRules>',
    )
    s = 3 * np.exp(-0.1 * TIMES)
    amount = 5 * np.exp(-0.2 * 2 * 3 * (1 - np.exp(-0.1 * TIMES)) / 0.1)
    table = {"time": TIMES, "A": amount, "E": np.full(9, 2.0), "S": s}
    problem, fit = fitted(tmp_path, model, {"one": table}, noise=0.01, starts=2)
    assert fit.estimates.loc[["k", "initial_S_one"], "estimate"].tolist() == pytest.approx([0.2, 3.0], rel=0.01)
    assert problem.notes == (
        "Constant in the model, at the first measurement: E; as an input, a species follows its measurements.",
    )


def saturating(value):
    """A Michaelis-Menten law."""
    return document(
        [reaction("R", "A", "B", "c * k * A / (q + A)")],
        kinds=[species("A"), species("B")],
        parameters={"k": value, "q": value},
    )


@pytest.mark.parametrize("law", ["learned", "from_model"])
def test_a_law_is_learned(tmp_path, law):
    (tmp_path / "true.xml").write_text(saturating(1))
    times = np.linspace(0, 8, 33)
    tables = {}
    for number, start in enumerate((4.0, 1.0, 2.5)):
        simulated = mg.simulate_model(tmp_path / "true.xml", times, values={"A": start, "B": 0.0})
        tables[f"e{number}"] = simulated[["time", "A", "B"]]
    _, fit = fitted(tmp_path, saturating(3), tables, held_out=["e2"], laws={"*": law}, noise=0.01, starts=2)
    assert skill(fit.held_out)["R2_simulation"].min() > (0.9999 if law == "learned" else 1 - 1e-6)
    if law == "from_model":
        assert fit.estimates.loc[["k", "q"], "estimate"].tolist() == pytest.approx([1, 1], rel=1e-3)
    else:
        assert "R_rate" in fit.estimates.index
        assert "k" not in fit.estimates.index


def test_a_prior_holds_what_the_data_do_not_say(tmp_path):
    # Only the product of k and q matters.
    model = chain(laws=("c * k * q * A", "0 * c * B"), B=0)
    table = {"one": {"time": TIMES, "A": a(0.25, 4.0)}}
    _, fit = fitted(tmp_path, model, table, noise=0.01, prior=2.0)
    assert fit.quantity == "-log posterior"
    assert fit.estimates.loc[["k", "q"], "estimate"].tolist() == pytest.approx([0.5, 0.5], rel=1e-3)
    # Half of the variance of the logarithm of the prior, ln 2, is left to each.
    assert fit.estimates.loc["k", "standard_error"] == pytest.approx(np.log10(2) / 2**0.5, rel=0.01)


def test_the_other_laws(tmp_path):
    table = {"one": {"time": TIMES, "A": a(0.7, 4.0), "B": b(0.7, 0.3, 4.0)}}
    _, fit = fitted(tmp_path, tables=table, laws={"R": "mass_action", "Q": "power_law"}, noise=0.01)
    assert fit.estimates.loc["Q_exponent_B", "estimate"] == pytest.approx(1.0, abs=0.01)
    # The rate at the geometric mean of A.
    reference = float(np.exp(np.log(table["one"]["A"]).mean()))
    assert fit.estimates.loc["R_rate", "estimate"] == pytest.approx(0.7 * reference, rel=1e-3)


def test_a_learned_law_has_the_rate_at_the_reference_and_bends_at_knots():
    law = learned("R", (Argument("A", "A", 1.0, np.array([1.0, 2.0, 4.0])),), 3.0)
    assert [parameter.id for parameter in law.parameters] == [
        "R_rate",
        "R_exponent_A",
        "R_bend1_A",
        "R_bend2_A",
        "R_bend3_A",
    ]
    assert law.parameters[0].start == (0.5, 9.0)  # at half of the largest concentration
    assert law.parameters[1].lower == 1.0
    modifier = learned("R", (Argument("I", "I", 0.0, np.array([1.0, 2.0, 4.0])),), 3.0)
    assert modifier.parameters[1].lower == 0.0


def test_a_reversible_law_may_be_mass_action():
    values = np.array([1.0, 2.0, 4.0])
    law = learned_reversible("R", (Argument("A", "A", 1.0, values), Argument("B", "B", 0.0, values, 1.0)), 3.0)
    orders = {"R_exponent_A": 1.0, "R_backward_exponent_B": 1.0, "R_rate": 6.0, "R_backward_rate": 2.0}
    given = {parameter.id: 0.0 for parameter in law.parameters} | orders
    for x, y in ((3.0, 1.0), (1.0, 5.0), (0.0, 1.0), (1.0, 0.0)):
        found = evaluate(parse(law.formula), (given | {"A": x, "B": y}).__getitem__, {})
        assert float(found) == pytest.approx(3.0 * x - 1.0 * y)


def test_a_reversible_law_consumes_what_it_changes():
    values = np.array([1.0, 2.0, 4.0])
    arguments = (Argument("A", "A", 1.0, values), Argument("B", "B", 0.0, values, 0.1), Argument("I", "I", 0.0, values))
    law = learned_reversible("R", arguments, 3.0)
    found = {parameter.id: parameter for parameter in law.parameters}
    least = {name: found[name].lower for name in found if "exponent" in name}
    assert least == {
        "R_exponent_A": 1.0,
        "R_exponent_B": 0.0,
        "R_exponent_I": 0.0,
        "R_backward_exponent_A": 0.0,
        "R_backward_exponent_B": 1.0,
        "R_backward_exponent_I": 0.0,
    }
    assert all(p.lower <= p.start[0] < p.start[1] <= p.upper for p in law.parameters)

    def rate(**given):
        values = {name: parameter.nominal for name, parameter in found.items()} | {"A": 2.0, "B": 2.0, "I": 2.0} | given
        return float(evaluate(parse(law.formula), values.__getitem__, {}))

    # At the geometric means of the concentrations.
    assert rate(R_rate=7.0, R_backward_rate=3.0) == pytest.approx(4.0)
    assert rate(B=0.0, R_exponent_B=0.0) > 0 > rate(A=0.0, R_backward_exponent_A=0.0)


def test_a_reversible_law_depends_on_products(tmp_path):
    """Which the law of the model does not name."""
    table = {"one": {"time": TIMES, "A": a(0.7, 4.0)}}
    problem = made(tmp_path, chain(laws=("c * k * A", "0 * c * q * B"), B=0), table, laws={"R": "learned_reversible"})
    assert {"R_exponent_A", "R_backward_exponent_B"} < set(problem.estimated)


def test_amounts(tmp_path):
    amount = chain(laws=("k * A", "q * B"), amount="true", size=2)
    table = {"one": {"time": TIMES, "[A]": a(0.7, 4.0), "[B]": b(0.7, 0.3, 4.0)}}
    _, fit = fitted(tmp_path, amount, table, noise=0.01)
    assert fit.estimates.loc[["k", "q"], "estimate"].tolist() == pytest.approx([0.7, 0.3], rel=1e-3)
    assert fit.estimates.loc["initial_A_one", "estimate"] == pytest.approx(8.0, rel=1e-3)


WITH_RATE = CHAIN.replace("<listOfParameters>", '<listOfParameters><parameter id="R_rate" value="1" constant="true"/>')
WITH_SD = WITH_RATE.replace("R_rate", "sd_A")
REFUSED = [
    ({"inputs": ["C"]}, "input C is not a species of the model; nearest: "),
    ({"inputs": ["A", "B"]}, "nothing is to be fitted: all species with measurements are inputs"),
    ({"laws": {"S": "learned"}}, "no reaction is named S; nearest: "),
    (
        {"laws": {"R": "linear"}},
        "law 'linear' of R is not known; known: mass_action, .*, learned, learned_reversible, from_model",
    ),
    ({"homeostasis": ["C"]}, "homeostasis: no species is named C; nearest: "),
    ({"homeostasis": ["A", "*"]}, "homeostasis of A is given twice"),
    ({"homeostasis": ["A"], "inputs": ["A"]}, "homeostasis of A: no such species is measured and changes"),
    ({"laws": {"*": "hill"}, "model": WITH_RATE}, "R_rate is needed as the id of a new"),
    ({"estimate": ["kk"]}, "no parameter or species is named kk; nearest: k"),
    ({"fold": 1.0}, "fold must be larger than 1, not 1"),
    ({"prior": 0.5}, "prior must be larger than 1, not 0.5"),
    ({"noise": 0.0}, "noise must be positive, not 0"),
    ({"relative": ["A"], "inputs": ["A"]}, "model.xml: input A has relative values; an input needs concentrations"),
    ({"relative": ["X"]}, "one.csv: relative: no measured species is named X"),
    ({"deviations": "*"}, "one.csv: every name is like the pattern '.' of standard deviations; give one such as"),
    (
        {"deviations": "*B", "tables": {"one": {"time": TIMES, "A": a(1, 1), "B": a(1, 1)}}},
        "no name of a column or row is like|B is a species of the model",
    ),
    ({"hold_out_after": 4.0}, "model.xml: no measurement is later than 4 after the first one of its run"),
    ({"hold_out_after": -1.0}, "model.xml: all measurements are held out; nothing is left to be fitted"),
    ({"hold_out_after": np.nan}, "hold_out_after must be a time, not nan"),
    ({"model": WITH_SD}, "model.xml: sd_A is needed as the id of a new parameter; rename that of the model"),
    (
        {"deviations": "*_sd", "tables": {"one": {"time": TIMES, "A (mM)": a(1, 1), "A_sd (uM)": a(1, 1)}}},
        "one.csv: standard deviations are in uM, values in mM; write them in the same unit",
    ),
    ({"deviations": "*_sd"}, r"one.csv: no name of a column or row is like '\*_sd'; found: time, A, B"),
    ({"deviations": "sigma"}, "no column 'sigma' of a long table; for columns A_sd beside A, give "),
    (
        {"deviations": "s*", "tables": {"one": {"time": TIMES, "A": a(1, 1), "sA": [*TIMES[:-1], np.nan]}}},
        "A at time 0 has no positive standard deviation; give one, or leave out the value",
    ),
    (
        {
            "deviations": "s*",
            "tables": {
                "one": {"time": TIMES, "A": a(1, 1), "sA": TIMES + 1},
                "two": {"time": TIMES, "A": a(1, 1), "B": a(1, 1), "sB": TIMES + 1},
            },
        },
        "A has standard deviations in one, not in two",
    ),
    (
        {"tables": {"one": {"time": [0, 1, 2, 0, 1, 2], "A": [4, 2, 1, 4, 2, 1]}}},
        "time does not increase at frame 3 .2 -> 0.; sort the rows by time, or distinguish repeats by a column 'run'",
    ),
    ({"names": {"Zucker": "A"}}, r"no column or species is named 'Zucker' \(Zucker=A\)"),
    ({"tables": {"one": {"time": TIMES, "A": a(1, 1), "X": a(1, 1)}}}, "'X' is not a species of network"),
    (
        {"tables": {"one": {"time": TIMES, "A (mM)": a(1, 1)}, "two": {"time": TIMES, "A (uM)": a(1, 1)}}},
        r"two.csv: concentrations are in uM, those of .*one.csv in mM; convert them to one unit",
    ),
    ({"tables": {"one": {"time": TIMES, "A": -a(1, 1)}}}, "A has a value that is negative or not finite"),
    ({"tables": {"one": {"time": TIMES, "A": np.full(9, np.nan)}}}, "no column is a species of the model"),
]


def test_a_reaction_that_changes_nothing_has_no_other_law(tmp_path):
    model = document(
        [reaction("R", "A", "", "c * k * A"), reaction("N", "", "", "c * k")],
        kinds=[species("A")],
        parameters={"k": 1.0},
    )
    table = {"one": {"time": TIMES, "A": a(0.7, 4.0)}}
    with pytest.raises(InputError, match="reaction N changes no species; it has no other law"):
        made(tmp_path, model, table, laws={"*": "learned"})


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_is_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        made(tmp_path, **options)
    assert not (tmp_path / "problem").exists()


def test_what_is_assumed_is_said(tmp_path):
    table = {"one": {"time": TIMES, "A": a(0.7, 4.0), "X": a(1, 1), "B": np.full(9, np.nan)}}
    problem = made(tmp_path, chain(q=0, B=0), table, skip_unknown=True)
    assert problem.notes == (
        "Not in the model, and left out: X.",
        "Columns without a value were left out: B.",
        "Not estimated, since their value in the model is not positive: q.",
        "Initial concentrations without a measurement are those of the model: B.",
    )


def test_rows_that_are_not_in_the_model(tmp_path):
    rows = pd.DataFrame({"A": a(0.7, 4.0), "X": a(1, 1)}, index=TIMES).T
    (tmp_path / "model.xml").write_text(chain(B=0))
    rows.to_csv(tmp_path / "turned.csv")
    problem = mg.write_model_problem(
        tmp_path / "model.xml", [tmp_path / "turned.csv"], tmp_path / "problem", skip_unknown=True
    )
    assert "Not in the model, and left out: X." in problem.notes
    assert len(read_petab(problem.path).measurements) == 9


def test_command(tmp_path, monkeypatch, capsys):
    made(
        tmp_path,
        tables={"one": {"time": TIMES, "A": a(0.7, 4.0)}, "two": {"time": TIMES, "A": a(0.7, 2.0)}},
        model=chain(B=0),
    )
    words = ["fit-model", tmp_path / "model.xml", tmp_path / "one.csv", "--hold-out", tmp_path / "two.csv"]
    words += ["--starts", "2", "--processes", "1", "--noise", "0.05", "--out", tmp_path / "fit", "--law", "R=power_law"]
    assert call(monkeypatch, *words) == 0
    said = capsys.readouterr().out
    assert "R2 predicted" in said
    assert "assumed: Initial concentrations without a measurement are those of the model: B." in said
    out = tmp_path / "fit"
    assert {file.name for file in (out / "problem").iterdir()} >= {"problem.yaml", "model.xml", "parameters.tsv"}
    prediction = pd.read_csv(out / "prediction.csv", index_col=[0, 1])
    assert prediction.loc[("two", "of_A"), "R2_simulation"] > 0.999
    assert len(pd.read_csv(out / "held_out.tsv", sep="\t")) == 9
    assert (out / "held_out.png").stat().st_size > 0
    # The model has the estimates.
    estimates = pd.read_csv(out / "estimates.csv", index_col=0)["estimate"]
    found = mg.simulate_model(out / "model.xml", TIMES, values={"A": estimates["initial_A_one"]})
    np.testing.assert_allclose(found["A"], a(0.7, 4.0), rtol=5e-3)
    assert call(monkeypatch, *words[:-2], "--law", "R", "--overwrite") == 2
    assert "--law" in capsys.readouterr().err


def test_starts_follow_initialization_priors(tmp_path):
    problem = made(tmp_path)
    table = problem.path.with_name("parameters.tsv")
    rows = pd.read_csv(table, sep="\t").set_index("parameterId")
    wanted = {
        "k": ("normal", "0.7;0.1"),
        "q": ("logNormal", "0;0.1"),
        "sd_A": ("parameterScaleLaplace", "-1;0.1"),
        "sd_B": ("uniform", "0.02;0.03"),
    }
    for name, (kind, numbers) in wanted.items():
        rows.loc[name, ["initializationPriorType", "initializationPriorParameters"]] = kind, numbers
    rows.to_csv(table, sep="\t")
    read = read_petab(problem.path)
    bounds = np.log10(read.parameters[["lowerBound", "upperBound"]].to_numpy(float)).T
    points = pd.DataFrame(10 ** draw_points(read, *bounds, 400, 0), columns=read.estimated)
    assert points["k"].mean() == pytest.approx(0.7, abs=0.01)
    assert points["k"].std() == pytest.approx(0.1, rel=0.05)
    assert np.log(points["q"]).std() == pytest.approx(0.1, rel=0.05)
    assert np.log10(points["sd_A"]).median() == pytest.approx(-1, abs=0.01)
    assert 0.02 <= points["sd_B"].min() <= points["sd_B"].max() <= 0.03
    for kind, numbers, message in (
        ("gamma", "1;2", "initializationPriorType gamma is not known"),
        ("normal", "1", "expected two numbers"),
        ("uniform", "2;1", "the second number must be larger than the first"),
    ):
        rows.loc["k", ["initializationPriorType", "initializationPriorParameters"]] = kind, numbers
        rows.to_csv(table, sep="\t")
        with pytest.raises(InputError, match=message):
            draw_points(read_petab(problem.path), *bounds, 4, 0)


def test_parts_of_an_oscillation(tmp_path):
    # Lotka and Volterra: predator B is not measured.
    laws = ("c * g * A", "c * p * A * B", "c * d * B")
    reactions = [reaction("R", "", "A", laws[0]), reaction("Q", "A", "B", laws[1]), reaction("L", "B", "", laws[2])]
    kinds = [species("A"), species("B")]

    def model(**values):
        return document(reactions, kinds=kinds, parameters=values)

    times = np.linspace(0, 20, 41)
    (tmp_path / "true.xml").write_text(model(g=1.1, p=0.7, d=0.9))
    simulated = mg.simulate_model(tmp_path / "true.xml", times)
    rng = np.random.default_rng(0)
    table = {"time": times, "A": simulated["A"] * np.exp(0.02 * rng.standard_normal(41))}
    problem, fit = fitted(tmp_path, model(g=0.5, p=0.5, d=0.5), {"one": table}, starts=8, fold=20.0)
    assert fit.estimates.loc[["g", "p", "d"], "estimate"].tolist() == pytest.approx([1.1, 0.7, 0.9], rel=0.03)
    parts = Objective(read_petab(problem.path)).parts
    assert [len(part.free) for part in parts] == [4] * len(parts)
    led = fit.starts["objective"].to_numpy()[1::2] < fit.objective + 0.1
    whole = fit.starts["objective"].to_numpy()[::2] < fit.objective + 0.1
    assert led.sum() > whole.sum()
