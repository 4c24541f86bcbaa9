"""Problems of PEtab version 2: periods of experiments, formulas, noise, priors, files, refusals."""

import math

import numpy as np
import pandas as pd
import pytest
from command_line import call
from scipy.stats import cauchy, chi2, expon, gamma, laplace, loglaplace, lognorm, loguniform, norm, rayleigh, uniform
from test_petab import normal
from test_petab_fit import compared
from test_sbml import document, mathml, reaction, species

import metabolismgraph as mg
from metabolismgraph.errors import InputError
from metabolismgraph.formats.petab import read_petab
from metabolismgraph.kinetic_models.priors import Priors
from metabolismgraph.kinetic_models.problem import write_with_homeostasis
from metabolismgraph.kinetic_models.scales import to_scale

YAML = """format_version: 2.0.0
parameter_files: [parameters.tsv]
model_files: {decay: {location: model.xml, language: sbml}}
observable_files: [observables.tsv]
measurement_files: [measurements.tsv]
condition_files: [conditions.tsv]
experiment_files: [experiments.tsv]
"""
# Columns are separated by spaces here; a dot is an empty cell.
TABLES = {
    "parameters": "parameterId lowerBound upperBound nominalValue estimate\nk 0.01 10 0.7 true\ndose 0 9 5 true\n"
    "sd 0.1 9 0.5 false\n",
    "observables": "observableId observableFormula noiseFormula\na A sd\n",
    "measurements": "observableId experimentId measurement time\na . 0.6 1\na early 1 2\na early 7 3\na early 3 4\n",
    "conditions": "conditionId targetId targetValue\nmore A A+2*dose\n",
    "experiments": "experimentId time conditionId\nearly 3 more\nearly 2 .\n",
}
DECAY = document([reaction("R", "A", "", "c * k * A")], kinds=[species("A")], parameters={"k": 5.0})
FLOW = [reaction("In", "", "A", "c * p"), reaction("Out", "A", "", "c * q * A")]


@pytest.fixture
def problem(tmp_path):
    def inner(model=DECAY, spec=YAML, **tables):
        (tmp_path / "problem.yaml").write_text(spec)
        (tmp_path / "model.xml").write_text(model)
        for name, content in (TABLES | tables).items():
            cells = [["" if cell == "." else cell for cell in row.split(" ")] for row in content.splitlines()]
            (tmp_path / f"{name}.tsv").write_text("".join("\t".join(row) + "\n" for row in cells))
        return tmp_path / "problem.yaml"

    return inner


def initially(symbol, formula):
    """An initial assignment, before the reactions of a model."""
    assignment = f'<initialAssignment symbol="{symbol}">{mathml(formula)}</initialAssignment>'
    return f"<listOfInitialAssignments>{assignment}</listOfInitialAssignments>"


def assert_simulated(path, values):
    """By both integrators, with derivatives."""
    np.testing.assert_allclose(mg.simulate_petab(path)["simulation"], values, rtol=1e-6, atol=1e-9)
    return compared(path)


def test_periods_begin_at_any_time_and_change_states(problem):
    last = math.exp(-0.7) + 10
    gradient = assert_simulated(problem(), [math.exp(-0.7), 1, last, last * math.exp(-0.7)])
    assert (gradient != 0).all()


def test_limits(problem):
    header = "observableId experimentId measurement time measurementType censoringBounds\n"
    path = problem(measurements=header + "a . 9 1 left-censored 0.6\na . 0.4 2 . .\n")
    found = mg.simulate_petab(path)
    assert found["measurement"].tolist() == [0.6, 0.4]
    at = np.exp(-0.7 * np.array([1, 2]))
    expected = [norm.logcdf(0.6, at[0], 0.5), norm.logpdf(0.4, at[1], 0.5)]
    assert found["log_likelihood"].tolist() == pytest.approx(expected, rel=1e-6)
    compared(path)


def test_noise_and_placeholders(problem):
    path = problem(
        observables="observableId observableFormula noiseFormula noiseDistribution observablePlaceholders "
        "noisePlaceholders\n"
        "a A n+n2*a . . n;n2\nb f*A+g_1 0.1*f log-normal f;g_1 .\nd A sd log-laplace . .\ne A sd laplace . .\n",
        measurements="observableId experimentId measurement time observableParameters noiseParameters modelId\n"
        "a . 0.6 0 . 0.3;sd decay\nb . 2 0 3;dose . .\nd . 4 0 . . .\ne . 4 0 . . .\ne . 4 0 . . .\n",
    )
    assert_simulated(path, [1, 8, 1, 1, 1])
    expected = [
        normal(0.6, 1, 0.3 + 0.5),
        normal(math.log(2), math.log(8), 0.3) - math.log(2),
        -math.log(2 * 0.5) - math.log(4) / 0.5 - math.log(4),
        *[-math.log(2 * 0.5) - 3 / 0.5] * 2,
    ]
    np.testing.assert_allclose(mg.simulate_petab(path)["log_likelihood"], expected)


def test_what_a_steady_state_leaves_behind(problem):
    # p is 2 s at the start of all; neither it nor q changes afterwards.
    model = document(
        FLOW,
        kinds=[species("A")],
        parameters={"p": 0.0, "q": 1.0, "s": 1.0},
        more=initially("p", "2 * s"),
    )
    path = problem(
        model,
        parameters="parameterId lowerBound upperBound nominalValue estimate\nrate 0.1 9 4 true\nsd 0 9 1 false\n",
        conditions="conditionId targetId targetValue\nbefore s 3\nbefore q rate\nbefore A 9\nthen s 1\nset A 3\n",
        experiments="experimentId time conditionId\ne -inf before\ne 0 then\nf 0 set\nf -inf before\nf 0 then\n",
        measurements="observableId experimentId measurement time\na e 1 0\na e 1 2\na e 1 inf\na f 1 0\na f 1 0.2\n"
        "a f 1 inf\n",
    )
    assert_simulated(path, [1.5, 1.5, 1.5, 3, 1.5 + 1.5 * math.exp(-0.8), 1.5])


def test_other_sizes_of_compartments_keep_concentrations(problem):
    kinds = [species("A"), species("B", amount="true"), species("E", boundary="true"), species("F", boundary="true")]
    model = document(
        [reaction("R", "A", "B", "c * k * A * E")], kinds=kinds, parameters={"k": 5.0}, compartments=[("c", 2)]
    )
    path = problem(
        model,
        observables="observableId observableFormula noiseFormula\na A sd\nb B sd\ne E sd\nf F+0*dose sd\n",
        conditions="conditionId targetId targetValue\nbig c 2*c*k\nbig F c\n",
        experiments="experimentId time conditionId\nearly 0 .\nearly 1 big\n",
        measurements="observableId experimentId measurement time\n"
        + "".join(f"{o} early 1 {t}\n" for t in (0, 1, 2) for o in "abef"),
    )
    # Concentration of A and amount of B, which is 2 at the start (1 in a volume of 2).
    one, two, size = math.exp(-0.7), math.exp(-1.4), 2 * 2 * 0.7
    made = 2 + 2 * (1 - one)
    assert_simulated(path, [1, 2, 1, 1, one, made, 1, 2, two, made + size * (one - two), 1, 2])


def test_time_is_that_of_the_experiment(problem):
    law = "c * k * A * piecewise(1, time < 3.5, 0)"
    model = document(
        [reaction("R", "A", "", law)],
        kinds=[species("A")],
        parameters={"k": 5.0, "p": 0.0},
        more=initially("p", "10 * time"),
    )
    path = problem(
        model,
        observables="observableId observableFormula noiseFormula\na A+time+p sd\n",
        conditions="conditionId targetId targetValue\nmore A A*time+dose\nset A time\n",
        experiments="experimentId time conditionId\nearly 3 more\nearly 2 set\n",
    )
    last = 3 * 2 * math.exp(-0.7) + 5
    assert_simulated(path, [math.exp(-0.7) + 1, 24, last + 23, last * math.exp(-0.35) + 24])


def test_a_steady_state_after_the_last_change(problem):
    laws = [reaction("R", "A", "B", "c * k * A"), reaction("Q", "B", "A", "c * B")]
    path = problem(
        document(laws, kinds=[species("A"), species("B")], parameters={"k": 5.0}),
        measurements="observableId experimentId measurement time\na early 1 inf\na early 1 3\n",
        conditions="conditionId targetId targetValue\nmore A dose\n",
    )
    # The sum of both is kept: B from time 2 to 3, and the dose.
    b = 2 * 0.7 / 1.7 + (1 - 2 * 0.7 / 1.7) * math.exp(-1.7)
    assert_simulated(path, [(5 + b) / 1.7, 5])


def test_formulas_of_the_first_condition_and_of_observables(problem):
    path = problem(
        observables="observableId observableFormula noiseFormula\na A*shift+log(dose)+log(8,2) sd\n",
        conditions="conditionId targetId targetValue\none A dose/2\ntwo shift sqrt(4*dose^2)\nother shift 3\n",
        experiments="experimentId time conditionId\ne 0 one\ne 0 two\ne 1 other\n",
        measurements="observableId experimentId measurement time\na e 1 0\na e 1 1\n",
    )
    rest = math.log(5) + 3
    assert_simulated(path, [2.5 * 10 + rest, 2.5 * math.exp(-0.7) * 3 + rest])


@pytest.mark.parametrize(
    ("kind", "numbers", "distribution"),
    [
        ("uniform", "0.1;3", uniform(0.1, 2.9)),
        ("normal", "1;2", norm(1, 2)),
        ("normal", "-30;2", norm(-30, 2)),
        ("laplace", "1;2", laplace(1, 2)),
        ("log-normal", "1;2", lognorm(2, scale=math.e)),
        ("log-laplace", "1;2", loglaplace(0.5, scale=math.e)),
        ("log-uniform", "0.1;20", loguniform(0.1, 20)),
        ("cauchy", "1;2", cauchy(1, 2)),
        ("chisquare", "3", chi2(3)),
        ("exponential", "3", expon(scale=3)),
        ("gamma", "0.5;2", gamma(0.5, scale=2)),
        ("gamma", "3;2", gamma(3, scale=2)),
        ("rayleigh", "2", rayleigh(scale=2)),
    ],
)
@pytest.mark.parametrize("lower", [0, 0.5])  # with the second one, the search is on the logarithm
def test_priors_are_cut_off_at_the_bounds(problem, kind, numbers, distribution, lower):
    read = read_petab(
        problem(
            parameters="parameterId lowerBound upperBound nominalValue estimate priorDistribution priorParameters\n"
            f"k {lower} 10 0.7 true {kind} {numbers}\ndose 1 9 5 true . .\nsd . . 0.5 false normal 1;2\n"
        )
    )
    point = np.array([to_scale(2.0, "log10" if lower else "lin"), 0.5])
    term, gradient, curvature = Priors(read).terms(point)
    expected = distribution.logpdf(2.0) - np.log(distribution.sf(lower) - distribution.sf(10)) - math.log(8)
    assert -term == pytest.approx(expected, rel=1e-9)
    step = np.array([1e-5, 0])
    slope = (Priors(read).terms(point + step)[0] - Priors(read).terms(point - step)[0]) / 2e-5
    assert gradient == pytest.approx([slope, 0], abs=1e-6)
    assert (np.diag(curvature) >= 0).all()


def test_no_prior_and_an_impossible_one(problem):
    assert not Priors(read_petab(problem()))
    header = "parameterId lowerBound upperBound nominalValue estimate priorDistribution priorParameters\n"
    for entry, message in (
        ("uniform 11;12", "the prior allows no value between the bounds"),
        ("student 1;2", "prior student is not known; known: cauchy, chisquare"),
        ("rayleigh 1;2", "priorParameters is '1;2'; expected one number"),
        ("gamma 0;2", "both numbers must be positive"),
        ("exponential 0", "the number must be positive"),
    ):
        path = problem(parameters=f"{header}k 0 10 1 true {entry}\ndose 0 9 5 false . .\nsd . . 0.5 false . .\n")
        with pytest.raises(InputError, match=f"parameter k: .*{message}"):
            Priors(read_petab(path))


def test_a_fit_and_its_files(problem, monkeypatch, tmp_path):
    values = [math.exp(-0.7), 1, math.exp(-0.7) + 10, (math.exp(-0.7) + 10) * math.exp(-0.7)]
    rows = zip(("a .", "a early", "a early", "a early"), values, (1, 2, 3, 4), strict=True)
    path = problem(
        parameters=TABLES["parameters"].replace("0.7 true", ". true"),
        measurements="observableId experimentId measurement time\n" + "".join(f"{w} {v} {t}\n" for w, v, t in rows),
    )
    out = tmp_path / "fit"
    words = ("--starts", "2", "--processes", "1", "--hold-out", "as is", "--out", out, "--quiet")
    assert call(monkeypatch, "fit-petab", path, *words) == 0
    estimates = pd.read_csv(out / "estimates.csv", index_col=0)["estimate"]
    assert estimates.to_dict() == pytest.approx({"k": 0.7, "dose": 5}, rel=1e-4)
    held = pd.read_csv(out / "held_out.tsv", sep="\t")
    assert held["simulation"].tolist() == pytest.approx([math.exp(-0.7)], rel=1e-4)
    # The parameter table is one of version 2.
    text = (out / "parameters.tsv").read_text()
    assert text.splitlines()[0] == "parameterId\tlowerBound\tupperBound\tnominalValue\testimate"
    assert "false" in text
    (tmp_path / "parameters.tsv").write_text(text)
    np.testing.assert_allclose(mg.simulate_petab(path)["simulation"], values, rtol=1e-4)
    assert "experimentId" in pd.read_csv(out / "simulated.tsv", sep="\t")


# A table, or the YAML file, with a text that is replaced by another one; and the message.
REFUSED = [
    ("spec", "model_files", "problems: []\nmodel_files", "problems is not a key of PEtab version 2"),
    ("spec", "condition_files", "extensions: {sciml: {version: 1.0.0, required: true}}\ncondition_files", "sciml"),
    ("spec", "condition_files", "extensions: [sciml]\ncondition_files", "extensions must be a mapping of names"),
    ("spec", "language: sbml", "language: bngl", "model decay is bngl; only sbml is supported"),
    ("spec", ", language: sbml", "", "model decay needs language and location"),
    ("spec", "{decay:", "{other: {}, decay:", "expected one model in model_files"),
    ("spec", "[measurements.tsv]", "[]", "measurement_files is missing"),
    ("spec", "[measurements.tsv]", "measurements.tsv", "measurement_files must be a list"),
    ("spec", "condition_files: [conditions.tsv]", "mapping_files: [conditions.tsv]", "column petabEntityId is missing"),
    ("spec", "conditions.tsv", "nothing.tsv", "nothing.tsv: no such file, named in"),
    ("spec", "condition_files: [conditions.tsv]\n", "", "names condition more, which is not defined"),
    ("spec", "experiment_files: [experiments.tsv]\n", "", "name experiment early, which is not defined"),
    ("parameters", "estimate\n", "estimate parameterScale\n", "column parameterScale is not one of PEtab version 2"),
    ("parameters", "0.7 true", "0.7 1", "parameter k: estimate is '1'; expected true or false"),
    ("parameters", "0.5 false", ". false", "parameter sd is not estimated and has no nominalValue"),
    ("parameters", "dose 0", "dose .", "parameter dose is estimated and has no lowerBound or upperBound"),
    ("parameters", "dose", "k", "parameterId k occurs twice"),
    ("parameters", "dose", ".", "a parameterId is empty"),
    ("parameters", "dose 0", "dose low", "parameter dose: lowerBound is 'low', which is not a number"),
    (
        "observables",
        "noiseFormula\na A sd",
        "noiseFormula noiseDistribution\na A sd log10-normal",
        "log10-normal is not",
    ),
    ("observables", "noiseFormula\na A sd", "noiseFormula observablePlaceholders\na A sd s", "has 0 values for 1"),
    ("observables", "A sd", "A .", "observable a: a formula is empty"),
    ("observables", "a A", "a f*A", "observable a: f has no value"),
    (
        "measurements",
        "time\na . 0.6 1",
        "time modelId\na . 0.6 1 other",
        "modelId other is not that of the model, decay",
    ),
    ("measurements", "a . 0.6 1", "b . 0.6 1", "name observable b, which is not defined"),
    ("measurements", "a early 1 2", "a early 1 1.9", "row 2 of the measurements: time is before the start"),
    ("measurements", "a . 0.6 1", "a . 0.6 -1", "row 1 of the measurements: time is before the start"),
    ("measurements", "a . 0.6 1", "a . 0.6 soon", "row 1 of the measurements: time is not a number"),
    ("measurements", "experimentId", "simulationConditionId", "column experimentId is missing"),
    ("conditions", "A+2*dose", "B+2*dose", "parameter B has no value"),
    ("conditions", "A+2*dose", "A+", "condition more: A: the formula 'A.' is not valid"),
    ("conditions", "A+2*dose", ".", "condition more: the targetValue of A is empty"),
    ("conditions", " A ", " . ", "condition more: targetId is empty"),
    ("conditions", " A ", " k ", "condition more: k is in the parameter table"),
    ("conditions", " A ", " X ", "X, which changes at time 3, is not a parameter"),
    ("conditions", "A A+2*dose", "c A+2*dose", "the change of c depends on A, which is not a constant"),
    ("conditions", "more A A+2*dose", "more A 1\nmore A 2", "A gets two values at time 3"),
    ("experiments", "early 2 .", "early 2 more", "A depends on A, which is not in the parameter table"),
    ("experiments", "early 3 more\nearly 2 .", "early -inf .", "has no period with a finite time"),
    ("experiments", "early 2", "early inf", "experiment early: time must be a number or -inf"),
]


@pytest.mark.parametrize(("where", "old", "new", "message"), REFUSED)
def test_what_is_refused(problem, where, old, new, message):
    text = YAML if where == "spec" else TABLES[where]
    assert old in text
    path = problem(**{where: text.replace(old, new)})
    with pytest.raises(InputError, match=message):
        mg.simulate_petab(path)


def test_names_for_parts_of_the_model(problem, tmp_path):
    path = problem(spec=f"{YAML}mapping_files: [mapping.tsv]\n", mapping="petabEntityId modelEntityId\nk k\nsd .\n")
    mg.simulate_petab(path)
    (tmp_path / "mapping.tsv").write_text("petabEntityId\tmodelEntityId\nalias\tR.k\n")
    with pytest.raises(InputError, match=r"alias stands for R.k in the model; such names are not supported yet"):
        mg.simulate_petab(path)


def test_homeostasis_is_refused(problem, tmp_path):
    with pytest.raises(InputError, match="homeostasis is not supported for PEtab version 2 yet"):
        write_with_homeostasis(problem(), ["A"], tmp_path / "more")
