"""Problems from a model and tables: formulas of species, values below or above a limit, offsets."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import call
from scipy.optimize import minimize
from scipy.special import log_ndtr
from scipy.stats import norm
from test_model_problem import CHAIN, TIMES, a, b, chain, made
from test_petab import problem  # noqa: F401 (a fixture)
from test_sbml import document, mathml, reaction, species

import metabolismgraph as mg
from metabolismgraph.cli import kinetic_models as command
from metabolismgraph.errors import InputError
from metabolismgraph.figures import petab as figures
from metabolismgraph.formats.petab import PetabProblem, read_petab
from metabolismgraph.kinetic_models import estimation
from metabolismgraph.kinetic_models.held_out import skill
from metabolismgraph.kinetic_models.likelihood import Likelihood
from metabolismgraph.kinetic_models.problem import write_with_homeostasis

A, B = a(0.7, 4.0), b(0.7, 0.3, 4.0)
TOTAL = {"total": "A + 2*B"}
MODEL = chain(A=4, B=0)
ONLY_A = document([reaction("R", "A", "", "c * k * A")], kinds=[species("A")], parameters={"k": 1.0})


def fitted(tmp_path, model=MODEL, tables=None, starts=1, **options):
    tmp_path.mkdir(exist_ok=True)
    written = made(tmp_path, model, tables, **options)
    return written, mg.fit_petab(written.path, starts, hold_out=written.held_out, hold_out_after=written.hold_out_after)


def simulated(tmp_path, model, tables, values, **options):
    """A problem, and simulated and measured values with these parameters."""
    written = made(tmp_path, model, tables, **options)
    table = mg.simulate_petab(written.path, values)
    return written, table["simulation"].to_numpy(), table["measurement"].to_numpy()


def limited(values, limit, sign="<"):
    """Cells in which what is below, or above, a limit is only known to be there."""
    return [f"{sign}{limit}" if (v < limit) == (sign == "<") else f"{v:.8g}" for v in values]


# -- formulas of species


def test_a_formula_of_species_alone(tmp_path):
    written, fit = fitted(tmp_path, tables={"one": {"time": TIMES, "total": A + 2 * B}}, observables=TOTAL, noise=0.01)
    assert fit.estimates["estimate"].to_dict() == pytest.approx({"k": 0.7, "q": 0.3}, rel=1e-3)
    assert written.notes == ("Initial concentrations without a measurement are those of the model: A, B.",)
    row = read_petab(written.path).observables.loc["of_total"]
    assert row["observableFormula"] == "A + 2*B"
    assert row["noiseFormula"].startswith("0.01 * (abs(of_total) + ")


def test_ids_in_formulas_are_concentrations(tmp_path):
    model = chain(laws=("k * A", "q * B"), amount="true", size=2, A=4, B=0)
    table = {"time": TIMES, "[A]": A, "total": A + 2 * B, "mol": 2 * B}
    truth = {"k": 0.7, "q": 0.3, "initial_A_one": 2 * 4}
    written, found, measured = simulated(
        tmp_path, model, {"one": table}, truth, observables=TOTAL | {"mol": "c*B"}, noise=0.01
    )
    np.testing.assert_allclose(found, measured, rtol=1e-5, atol=1e-8)
    assert (
        "Amounts in the model, but concentrations in formulas of observables: A, B; an amount is written with its "
        "compartment, such as c*A." in written.notes
    )


def test_logarithms_and_parameters_of_formulas_alone(tmp_path):
    model = MODEL.replace("<listOfParameters>", '<listOfParameters><parameter id="s" value="1" constant="true"/>')
    table = {"time": TIMES, "B": B, "y": np.log10(A), "z": 1 + 5 * B, "y_sd": np.full(9, 0.01), "z_sd": np.full(9, 0.1)}
    options = {"observables": {"y": "log10(A)", "z": "1e0 + s*B"}, "deviations": "*_sd"}
    table["B_sd"] = np.full(9, 0.01)
    _, fit = fitted(tmp_path, model, {"one": table}, **options)
    assert fit.estimates.loc[["k", "q", "s"], "estimate"].tolist() == pytest.approx([0.7, 0.3, 5], rel=1e-3)
    assert fit.simulation["measurement"].min() < 0


def test_a_parameter_that_a_rule_computes(tmp_path):
    rule = f'<listOfRules><assignmentRule variable="s">{mathml("A + 2 * B")}</assignmentRule></listOfRules>'
    model = MODEL.replace("<listOfReactions>", f"{rule}<listOfReactions>")
    model = model.replace("<listOfParameters>", '<listOfParameters><parameter id="s" constant="false"/>')
    options = {"observables": {"y": "10 * s"}, "noise": 0.01}
    table = {"one": {"time": TIMES, "y": 10 * (A + 2 * B)}}
    written, found, measured = simulated(tmp_path, model, table, {"k": 0.7, "q": 0.3}, **options)
    np.testing.assert_allclose(found, measured, rtol=1e-5)
    assert written.estimated == ("k", "q")


def test_a_relative_formula_in_two_tables_one_of_them_held_out(tmp_path):
    tables = {
        "one": {"time": TIMES, "A": A, "total": 50 * (A + 2 * B)},
        "two": {"time": TIMES, "A": A / 2, "total": 0.1 * (A + 2 * B) / 2},
        "three": {"time": TIMES, "A": A, "total": A + 2 * B},
    }
    options = {"observables": TOTAL, "noise": 0.01, "relative": ["tot*"]}
    written, fit = fitted(tmp_path, tables=tables, held_out=["three"], **options)
    found = fit.estimates.loc[["scale_total_one", "scale_total_two", "q"], "estimate"]
    assert found.tolist() == pytest.approx([50, 0.1, 0.3], rel=2e-3)
    left_out = "Values with a scale or an offset in held-out tables are not predicted, since it is not known: total."
    assert left_out in written.notes
    assert set(fit.held_out["observableId"]) == {"of_A"}


def test_the_initial_concentration_of_a_species_in_a_formula_is_estimated_on_request(tmp_path):
    table = {"one": {"time": TIMES, "A": A, "total": A + 2 * (B + 0.5 * np.exp(-0.3 * TIMES))}}
    options = {"observables": TOTAL, "noise": 0.01, "estimate": ["k", "q", "B"]}
    truth = {"k": 0.7, "q": 0.3, "initial_A_one": 4, "initial_B_one": 0.5}
    written, found, measured = simulated(tmp_path, chain(A=4, B=2), table, truth, **options)
    np.testing.assert_allclose(found, measured, rtol=1e-5)
    assert written.estimated == tuple(truth)


def test_models_are_compared_by_formulas(tmp_path):
    tmp_path.joinpath("model.xml").write_text(MODEL)
    pd.DataFrame({"time": TIMES, "total": limited(A + 2 * B, 4.2)}).to_csv(tmp_path / "one.csv", index=False)
    variants = {law: {"laws": {"Q": law}} for law in ("from_model", "mass_action")}
    found = mg.compare_models(
        tmp_path / "model.xml", [tmp_path / "one.csv"], variants, tmp_path / "c", starts=1, observables=TOTAL, noise=0.1
    )
    assert found.table["measurements"].tolist() == [9, 9]
    assert found.table["AICc"].iloc[0] == pytest.approx(found.table["AICc"].iloc[1], abs=0.01)


WITH_TOTAL = {"one": {"time": TIMES, "A": A, "total": A + 2 * B}}
REFUSED_FORMULAS = [
    ({"total": "A + 2*C"}, "observable total: C is no species, parameter or compartment; nearest: "),
    ({"total": "A + time"}, "observable total: time is no species, parameter or compartment; nearest: "),
    ({"total": "A +* 2"}, r"observable total: the formula 'A \+\* 2' is not valid; write it as in 'A \+ 2\*B'"),
    ({"total": "f(A)"}, "observable total: the formula 'f.A.' is not valid"),
    ({"total": "exp(A, A, A)"}, "is not valid"),
    ({"total": ""}, "the formula '' is not valid"),
    ({"total": "2 * k"}, r"observable total: the formula '2 \* k' does not depend on a species"),
    ({"total": "A", "B": "A"}, "observable B: the model has this id already; choose another name"),
    ({"total": "A", "k": "A"}, "one.csv: observable: no column with values is named k"),
    ({"total": "A", "sum": "A + B"}, "one.csv: observable: no column with values is named sum"),
    ({}, "'total' is not a species of network"),
]


@pytest.mark.parametrize(("formulas", "message"), REFUSED_FORMULAS)
def test_formulas_that_are_refused(tmp_path, formulas, message):
    tables = {"one": WITH_TOTAL["one"] | ({"B": B} if "B" in formulas else {})}
    with pytest.raises(InputError, match=message) as error:
        made(tmp_path, MODEL, tables, observables=formulas)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "problem").exists()


def test_names_and_units_of_formulas_that_are_refused(tmp_path):
    spaced = {"one": {"time": TIMES, "my total": A}}
    with pytest.raises(InputError, match="a name has letters, digits and underscores only; map the column to "):
        made(tmp_path, MODEL, spaced, observables={"my total": "A"})
    amounts = pd.DataFrame({"time": TIMES, "A (mmol)": A, "total (mmol)": A})
    long = amounts.set_axis(["time", "A", "total"], axis=1).melt("time", var_name="species", value_name="value (mmol)")
    for table in (amounts, long):
        with pytest.raises(InputError, match="total is a formula of concentrations, and has the unit of an amount"):
            made(tmp_path, chain(A=4, B=0, size=2), {"one": table}, observables=TOTAL)
    called_pi = document([reaction("R", "pi", "", "c * k * pi")], kinds=[species("pi")], parameters={"k": 1.0})
    with pytest.raises(InputError, match="observable y: pi has another meaning in formulas; rename it in the model"):
        made(tmp_path, called_pi, {"one": {"time": TIMES, "pi": A, "y": A}}, observables={"y": "2 * pi"})


# -- limits


@pytest.mark.parametrize("layout", ["wide", "rows", "long", "commas"])
def test_limits_are_read_and_written(tmp_path, layout):
    table = pd.DataFrame({"time": TIMES[:4], "A": [">3", "2.8", "2", "≤ 1.5"], "B": ["< 0.5", "1", "1.3", "1.5"]})
    if layout == "rows":
        table = table.set_index("time").T.reset_index(names="")
    if layout == "long":
        table = table.melt("time", var_name="species")
    if layout == "commas":
        table = pd.DataFrame({k: [str(v).replace(".", ",") for v in x] for k, x in table.items()})
        (tmp_path / "one.csv").write_text(table.to_csv(sep=";", index=False))
        (tmp_path / "model.xml").write_text(MODEL)
        written = mg.write_model_problem(tmp_path / "model.xml", [tmp_path / "one.csv"], tmp_path / "problem")
    else:
        written = made(tmp_path, MODEL, {"one": table})
    rows = pd.read_csv(written.path.with_name("measurements.tsv"), sep="\t", keep_default_na=False)
    assert rows["measurement"].tolist() == [3, 2.8, 2, 1.5, 0.5, 1, 1.3, 1.5]
    assert rows["measurementType"].tolist() == ["right-censored", "", "", "left-censored", "left-censored", "", "", ""]
    assert rows["censoringBounds"].tolist() == ["3.0", "", "", "1.5", "0.5", "", "", ""]
    assert written.notes[-2:] == (
        "3 of 8 values are limits (A, B). The problem marks them by the columns measurementType and censoringBounds, "
        "as pyPESTO does; programs that do not know these take the limits as values.",
        "Limits at time zero (A, B): initial concentrations are estimated below or above these, and are those of the "
        "model in held-out tables.",
    )
    bounds = read_petab(written.path).parameters[["lowerBound", "upperBound"]]
    assert bounds.loc["initial_A_one"].tolist() == pytest.approx([1, 3e4])
    assert bounds.loc["initial_B_one"].tolist() == pytest.approx([5e-5, 1.5])


def test_a_problem_without_limits_has_no_columns_for_them(tmp_path):
    rows = pd.read_csv(made(tmp_path, MODEL).path.with_name("measurements.tsv"), sep="\t")
    assert not {"measurementType", "censoringBounds"} & set(rows)


def test_limits_are_no_measured_values(tmp_path):
    # Bounds, starts, knots and baselines are those of the table without the limits, of which one would show.
    found = []
    for folder, cell in (("b", np.nan), ("d", "<900")):
        (tmp_path / folder).mkdir(exist_ok=True)
        table = {"time": TIMES, "A": [*A[:-1], cell], "B": [*B[:-1], cell]}
        options = {"laws": {"R": "learned"}, "homeostasis": ["A"], "relative": ["B"], "offset": ["B"]}
        read = read_petab(made(tmp_path / folder, MODEL, {"one": table}, **options).path)
        found.append((read.parameters.to_csv(), read.observables.to_csv(), read.model.read_text()))
    assert found[0] == found[1]


def test_a_replicate_that_is_a_limit_lowers_the_initial_concentration(tmp_path):
    table = {"time": [0, 0, 1, 2], "A": [4, 4, 2, 1], "B": ["<0.1", 0.3, 1, 1]}
    bounds = read_petab(made(tmp_path, MODEL, {"one": table}).path).parameters.loc["initial_B_one"]
    assert bounds[["lowerBound", "upperBound"]].tolist() == pytest.approx([3e-5, 0.9])


def test_a_held_out_table_with_limits(tmp_path):
    two = {"time": TIMES, "A": A, "B": ["<0.2", *B[1:-1], "<9"], "total": A + 2 * B}
    tables = {"one": {"time": TIMES, "A": A, "B": B}, "two": two}
    written, fit = fitted(tmp_path, tables=tables, held_out=["two"], noise=0.01, observables=TOTAL)
    # The limit at its start is not its initial concentration.
    assert read_petab(written.path).conditions.loc["two", "B"] == 0
    found = skill(fit.held_out)
    # Limits have no residual, and no line is drawn to them.
    assert found["measurements"].tolist() == [9, 7, 9]
    assert found["R2_simulation"].min() > 0.999
    rows = fit.held_out[fit.held_out["observableId"] == "of_B"]
    assert rows["interpolation"].iloc[1] == pytest.approx(B[2])
    assert skill(rows.assign(measurementType="left-censored")).isna().sum(axis=1).tolist() == [6]


SIDES = ["left-censored", "right-censored", np.nan]


def likelihood_of(scale, count=12, kinds=SIDES, distribution="normal"):
    """Of measurements of one observable, some of which are limits."""
    settings = {"observableTransformation": [scale], "noiseDistribution": [distribution]}
    rows = {
        "observableId": ["o"] * count,
        "measurement": np.random.default_rng(0).uniform(0.5, 3, count),
        "measurementType": (kinds * count)[:count],
    }
    observables = pd.DataFrame(settings, index=["o"])
    return Likelihood(PetabProblem(Path("p"), Path("m"), *[pd.DataFrame()] * 2, observables, pd.DataFrame(rows)))


@pytest.mark.parametrize("scale", ["lin", "log", "log10"])
def test_the_gradient_of_limits_is_that_of_differences(scale):
    likelihood, rng = likelihood_of(scale), np.random.default_rng(1)
    of_y, of_noise, point = 0.3 * rng.standard_normal((12, 3)), 0.2 * rng.standard_normal((12, 3)), np.ones(3)

    def at(x):
        return np.exp(of_y @ x + 0.3), np.exp(of_noise @ x - 1)

    def value(x):
        return -likelihood.log_densities(*at(x)).sum()

    y, noise = at(point)
    gradient, information = likelihood.gradient(y, noise, y[:, None] * of_y, noise[:, None] * of_noise)
    differences = [(value(point + 1e-6 * e) - value(point - 1e-6 * e)) / 2e-6 for e in np.eye(3)]
    np.testing.assert_allclose(gradient, differences, rtol=1e-6)
    assert np.linalg.eigvalsh(information).min() > 0


def test_limits_far_away():
    # The simulated value is z standard deviations above a limit that the measured one is below.
    likelihood = likelihood_of("lin", 8, ["left-censored"])
    z = np.array([1e150, 1e9, 1e6, 9999, 100, 5, 0, -50])
    y, noise = likelihood.measured + z, np.ones(8)
    np.testing.assert_allclose(likelihood.log_densities(y, noise)[1:], log_ndtr(likelihood.measured - y)[1:])
    slopes = [likelihood.gradient(y, noise, *(np.eye(8)[:, [k]], np.zeros((8, 1)))) for k in range(8)]
    # -log Phi has the slope z + 1/z - ..., and the curvature 1 - 1/z^2 + ...
    for k, (slope, curvature) in enumerate(slopes[:5]):
        assert slope[0] == pytest.approx(z[k] + 1 / z[k], rel=1e-6)
        assert curvature[0, 0] == pytest.approx(1 - 1 / z[k] ** 2, rel=1e-6)
    ratio = norm.pdf(5) / norm.cdf(-5)
    assert slopes[5][0][0] == pytest.approx(ratio)
    assert slopes[5][1][0, 0] == pytest.approx(ratio * (ratio - 5))
    assert [slopes[7][0][0], slopes[7][1][0, 0]] == [0, 0]


def test_limits_with_laplace_noise_are_refused():
    with pytest.raises(InputError, match="observable o has a censored measurement and Laplace noise; only normal"):
        likelihood_of("lin", distribution="laplace")


def test_a_limit_counts_as_what_it_says(tmp_path):
    """30 % of the values are below the limit: only as limits do they leave the rate constant as it is."""
    times = np.repeat(np.linspace(0, 3.4, 31), 20)
    values = a(0.7, 4.0, times) + 0.5 * np.random.default_rng(0).standard_normal(len(times))
    low = values < 0.8
    assert low.mean() == pytest.approx(0.3, abs=0.02)
    _, fit = fitted(tmp_path, ONLY_A, {"one": {"time": times, "A": limited(values, 0.8)}})
    lower, upper = fit.estimates.loc["k", ["lower_95", "upper_95"]]
    assert lower < 0.7 < upper

    # The same by another program: the likelihood in closed form, with a solver without derivatives.
    def likeliest(measured, limits):
        def minus_log(x):
            y, sd = a(x[0], x[1], times), np.exp(x[2])
            exact = norm.logpdf(measured, y, sd)[~low if limits != "taken" else slice(None)].sum()
            return -exact - (norm.logcdf(0.8, y[low], sd).sum() if limits == "limits" else 0.0)

        x = minimize(minus_log, [1, 3, 0], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-9}).x
        return [x[0], x[1], np.exp(x[2])]

    found = fit.estimates.loc[["k", "initial_A_one", "sd_A"], "estimate"].tolist()
    assert found == pytest.approx(likeliest(values, "limits"), rel=1e-4)
    for biased in (likeliest(values, "dropped"), likeliest(values.clip(0.8), "taken")):
        assert biased[0] < 0.7 - 5 * (upper - lower) / (2 * 1.96)


@pytest.fixture(scope="module")
def both_sides(tmp_path_factory):
    """A fit with limits below and above the values."""
    table = {"one": {"time": TIMES, "A": limited(A, 2.5, ">"), "B": limited(B, 0.1)}}
    return fitted(tmp_path_factory.mktemp("both"), tables=table, noise=0.01, hold_out_after=2.0)[1]


def test_values_above_a_limit_and_later_ones_held_out(both_sides):
    found = both_sides.estimates.loc[["k", "initial_A_one"], "estimate"]
    assert found.tolist() == pytest.approx([0.7, 4], rel=0.01)
    assert skill(both_sides.held_out)["R2_simulation"].min() > 0.99


def test_limits_are_triangles(both_sides):
    figure = figures._measurements(both_sides, both_sides.simulation, "simulated")
    points = [
        {line.get_marker(): len(line.get_xdata()) for line in ax.lines if line.get_marker() in ("^", "v")}
        for ax in figure.axes[:2]
    ]
    assert points == [{"v": 0, "^": 2}, {"v": 1, "^": 0}]
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert labels == ["measured", "below a limit", "above a limit", "simulated"]


def test_a_limit_of_the_logarithm_of_zero(tmp_path):
    table = {"time": TIMES, "A": A, "log": ["<-2", *np.log10(B[1:])]} | dict.fromkeys(["A_sd", "log_sd"], 0.01)
    _, fit = fitted(tmp_path, tables={"one": table}, observables={"log": "log10(B)"}, deviations="*_sd")
    assert fit.estimates.loc[["k", "q"], "estimate"].tolist() == pytest.approx([0.7, 0.3], rel=1e-3)
    assert fit.simulation["log_likelihood"].iloc[9] == 0


def test_limits_that_are_missed_are_named(tmp_path):
    table = {"one": {"time": TIMES, "A": A, "B": limited(B, 1.2), "A_sd": np.full(9, 0.01), "B_sd": np.full(9, 0.01)}}
    table["one"]["B"][3] = "<1"
    _, fit = fitted(tmp_path, tables=table, deviations="*_sd")
    assert (
        "limits that are missed by more than 3 standard deviations: 1 (of_B); the model or the noise is not right"
        in fit.notes
    )


def test_values_that_are_all_limits(tmp_path):
    table = {"one": {"time": TIMES, "A": A, "B": ["<9"] * 9}}
    with pytest.raises(InputError, match="all values of B to be fitted are limits, from which its noise cannot be est"):
        made(tmp_path, MODEL, table)
    # With noise that is given, they say nothing about q, and the interval of k is as without them.
    _, fit = fitted(tmp_path, tables=table, noise=0.01, hold_out_after=3.9)
    assert fit.estimates.loc["q", "note"]
    without = {"one": {"time": TIMES, "A": A}}
    _, without = fitted(tmp_path / "b", tables=without, noise=0.01, hold_out_after=3.9)
    errors = [each.estimates.loc["k", "standard_error"] for each in (fit, without)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)
    assert "1 held-out measurements are not predicted, since the fitted ones do not depend on " in str(fit.notes)


def test_what_is_known_does_not_depend_on_units():
    # The first two are known to a hundredth of their range; the third is not known.
    between = np.array([1e-10, 1e10, 1e12])
    errors = estimation._standard_errors(np.diag([1e24, 1e-16, 0.0]), between)
    assert errors[:2].tolist() == pytest.approx([1e-12, 1e8])
    assert errors[2] > 1e6 * between[2]
    assert estimation._unseen(np.diag([1e24, 1e-16, 1e-60]), between).tolist() == [False, False, True]


REFUSED_LIMITS = [
    ({"A": ["<0", "1", "1"]}, "A has the limit 0, which says nothing of a concentration; correct it"),
    ({"A": [">0", "1", "1"]}, "A has the limit 0, which says nothing of a concentration; correct it"),
    ({"A": ["<0.5x", "1", "1"]}, "column 'A', data row 1: '<0.5x' is not a number"),
    ({"A": ["<0,5", "1", "1"]}, "column 'A', data row 1: '<0,5' is not a number; write it with a decimal point"),
    ({"time": ["<0", "1", "2"]}, "column 'time', data row 1: '<0' is not a number"),
    ({"A_sd": ["<0.1", "1", "1"], "deviations": "*_sd"}, "a standard deviation of A is a limit; give a number"),
    ({"inputs": ["A"]}, "input A has limits; an input needs concentrations"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED_LIMITS)
def test_limits_that_are_refused(tmp_path, change, message):
    table = {"time": [0, 1, 2], "A": ["<4", "1", "1"], "B": [1, 2, 3]}
    options = {key: change[key] for key in change if key in ("inputs", "deviations")}
    table |= {key: column for key, column in change.items() if key not in options}
    with pytest.raises(InputError, match=message):
        made(tmp_path, MODEL, {"one": table}, **options)
    assert not (tmp_path / "problem").exists()


def test_a_fit_of_the_network_refuses_limits(tmp_path):
    (tmp_path / "model.xml").write_text(CHAIN)
    (tmp_path / "one.csv").write_text("time,A,B\n0,4,<0.5\n1,2,1\n")
    message = "one.csv: column 'B', data row 1: '<0.5' is a limit, which only fit-model supports; leave the cell empty"
    with pytest.raises(InputError, match=message):
        mg.read(tmp_path / "model.xml", tmp_path / "one.csv")
    with pytest.raises(InputError, match=message):
        mg.convert(tmp_path / "one.csv", tmp_path / "one.parquet")


def censored(kind="left-censored", bounds="0.5"):
    """A measurement table whose last row is a limit, whatever its measurement."""
    header = "observableId\tsimulationConditionId\tmeasurement\ttime\tmeasurementType\tcensoringBounds\n"
    return header + f"a\tonly\t2\t1\t\t\na\tonly\t7\t3\t{kind}\t{bounds}\n"


PROBLEM = {
    "conditions": "conditionId\tA\nonly\t4\n",
    "observables": "observableId\tobservableFormula\tnoiseFormula\na\tA\t0.1\n",
    "parameters": "parameterId\tparameterScale\tlowerBound\tupperBound\tnominalValue\testimate\n"
    "k\tlog10\t0.1\t9\t0.7\t1\n",
}


def test_limits_of_a_petab_problem(problem):  # noqa: F811
    path = problem(**PROBLEM, measurements=censored())
    found = mg.simulate_petab(path)
    expected = norm.logcdf((0.5 - 4 * np.exp(-2.1)) / 0.1)
    assert found["log_likelihood"].iloc[1] == pytest.approx(expected, rel=1e-6)
    assert found["measurement"].iloc[1] == 0.5
    fit = mg.fit_petab(path, 1)
    assert np.isfinite(fit.objective)
    assert f"{fit.quantity}  " in repr(fit)
    assert all(name in repr(fit) for name in fit.estimates.index)
    for kind, bounds, message in (
        (
            "interval-censored",
            "1;2",
            "row 2 of the measurements: measurementType is not supported; known: left-censored, right-censored, or ",
        ),
        ("left-censored", "", "row 2 of the measurements: censoringBounds is not a number"),
        ("", "0.5", "row 2 of the measurements: censoringBounds needs a measurementType"),
    ):
        with pytest.raises(InputError, match=message):
            mg.simulate_petab(problem(**PROBLEM, measurements=censored(kind, bounds)))


def test_limits_are_no_values_for_homeostasis_of_a_petab_problem(tmp_path, problem):  # noqa: F811
    high, low = (
        write_with_homeostasis(problem(**PROBLEM, measurements=censored(bounds=limit)), ["A"], tmp_path / limit)
        for limit in ("900", "0.5")
    )
    bounds = [read_petab(each.path).parameters.loc["baseline_A", "upperBound"] for each in (high, low)]
    assert bounds[0] == bounds[1]
    assert read_petab(high.path).measurements["measurementType"].tolist() == [np.nan, "left-censored"]


# -- offsets


def test_offsets(tmp_path):
    tables = {
        "one": {"time": TIMES, "A": A, "B": B + 3},
        "two": {"time": TIMES, "A": A / 2, "B": B / 2 - 1},
        "three": {"time": TIMES, "A": A, "B": B},
    }
    written, fit = fitted(tmp_path, tables=tables, offset=["B"], noise=0.01, held_out=["three"])
    found = fit.estimates["estimate"].to_dict()
    expected = {"k": 0.7, "q": 0.3, "offset_B_one": 3, "offset_B_two": -1, "initial_A_one": 4, "initial_A_two": 2}
    assert found == pytest.approx(expected, rel=2e-3)
    assert written.notes == (
        "Values with a scale or an offset in held-out tables are not predicted, since it is not known: B.",
        "Initial concentrations without a measurement are those of the model: B.",
    )
    with pytest.raises(InputError, match="one.csv: offset: no measured species is named X"):
        made(tmp_path / "b", MODEL, {"one": tables["one"]}, offset=["X"])
    with pytest.raises(InputError, match="input B has relative values; an input needs concentrations"):
        made(tmp_path / "b", MODEL, tables, offset=["B"], inputs=["B"])


def test_a_held_out_table_of_which_nothing_can_be_predicted(tmp_path):
    tables = {"one": {"time": TIMES, "A": A, "B": B}, "two": {"time": TIMES, "B": B}}
    written = made(tmp_path, MODEL, tables, relative=["B"], held_out=["two"])
    assert written.held_out == ()
    assert "two" not in set(read_petab(written.path).measurements["simulationConditionId"])
    assert written.notes[-1] == "Held out, without a measurement to predict: two."


def test_ids_of_observables_that_the_model_has(tmp_path):
    model = MODEL.replace(
        "<listOfParameters>", '<listOfParameters><parameter id="of_total" value="1" constant="true"/>'
    )
    with pytest.raises(InputError, match="of_total is needed as the id of an observable; rename that of the model"):
        made(tmp_path, model, WITH_TOTAL, observables=TOTAL)


@pytest.fixture(autouse=True)
def _folder(tmp_path):
    (tmp_path / "b").mkdir()


@pytest.mark.parametrize("size", [1e-6, 1e5])
def test_a_scale_and_an_offset_in_any_unit(tmp_path, size):
    noise = 0.01 * np.random.default_rng(0).standard_normal(9)
    table = {"one": {"time": TIMES, "A": A, "total": size * (A + 2 * B + noise + 20)}}
    options = {"observables": TOTAL, "relative": ["total"], "offset": ["total"]}
    _, fit = fitted(tmp_path, tables=table, **options)
    found = fit.estimates.loc[["k", "q", "scale_total_one", "offset_total_one"]]
    assert found["estimate"].tolist() == pytest.approx([0.7, 0.3, size, 20 * size], rel=0.02)
    assert found["note"].tolist() == [""] * 4
    assert (found["lower_95"] < found["estimate"]).all()


def test_command(tmp_path, monkeypatch, capsys):
    (tmp_path / "model.xml").write_text(MODEL)
    table = {"time": TIMES, "A": limited(A, 0.5), "total": A + 2 * B, "B": B + 1}
    pd.DataFrame(table).to_csv(tmp_path / "one.csv", index=False)
    written = {}
    # The fit itself is that of every other problem.
    monkeypatch.setattr(command, "_fit", lambda problems, *_, **__: written.update(problems(tmp_path / "made")))
    words = ["fit-model", tmp_path / "model.xml", tmp_path / "one.csv", "--observable", "total=A + 2*B"]
    words += ["--offset", "B", "--noise", "0.05", "--out", tmp_path / "fit"]
    assert call(monkeypatch, *words) == 0
    (made_problem,) = written.values()
    found = read_petab(made_problem.path).observables["observableFormula"].to_dict()
    assert found == {"of_A": "A", "of_B": "B + observableParameter1_of_B", "of_total": "A + 2*B"}
    assert "values are limits (A)" in str(made_problem.notes)
    for pair in ("total", "=A", "total="):
        assert call(monkeypatch, *words, "--observable", pair) == 2
        assert "expected NAME=FORMULA, such as total=A+2*B" in capsys.readouterr().err
