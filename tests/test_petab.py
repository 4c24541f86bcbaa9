"""PEtab problems: reading, simulation and likelihood, refusals."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import call
from test_sbml import document, reaction, species

import metabolismgraph as mg
from metabolismgraph.errors import InputError

SHARED = Path(__file__).resolve().parents[2] / "shared" / "models"
TABLES = {
    "parameters.tsv": "parameterId\tparameterScale\tlowerBound\tupperBound\tnominalValue\testimate\n"
    "k\tlog10\t0.01\t10\t0.7\t1\nscale\tlin\t0\t9\t2\t1\nsd\tlog\t0.01\t10\t0.5\t1\nhigh\tlin\t0\t9\t3\t0\n",
    "conditions.tsv": "conditionId\tconditionName\tA\tk\nlow\tone\t1\t\nup\ttwo\thigh\t0.1\n",
    "observables.tsv": "observableId\tobservableFormula\tnoiseFormula\tobservableTransformation\tnoiseDistribution\n"
    "a\tA\tnoiseParameter1_a\tlin\tnormal\n"
    "b\tobservableParameter1_b * A + 1\t0.1 * b\tlog10\tnormal\n"
    "d\tA\tsd\tlog\tlaplace\n",
    "measurements.tsv": "observableId\tsimulationConditionId\tmeasurement\ttime\tobservableParameters\t"
    "noiseParameters\n"
    "a\tlow\t0.6\t1\t\t0.3\na\tup\t2.5\t2\t\tsd\nb\tlow\t2\t0\tscale\t\nd\tup\t4\t1\t\t\n",
}
YAML = """format_version: 1
parameter_file: parameters.tsv
problems:
- sbml_files: [model.xml]
  condition_files: [conditions.tsv]
  observable_files: [observables.tsv]
  measurement_files: [measurements.tsv]
"""
DECAY = document([reaction("R", "A", "", "c * k * A")], kinds=[species("A")], parameters={"k": 5.0})


@pytest.fixture
def problem(tmp_path):
    def inner(model=DECAY, spec=YAML, **tables):
        (tmp_path / "problem.yaml").write_text(spec)
        (tmp_path / "model.xml").write_text(model)
        for name, content in (TABLES | {f"{key}.tsv": value for key, value in tables.items()}).items():
            (tmp_path / name).write_text(content)
        return tmp_path / "problem.yaml"

    return inner


def normal(measured, simulated, sigma):
    return -0.5 * math.log(2 * math.pi * sigma**2) - 0.5 * ((measured - simulated) / sigma) ** 2


def test_simulation_and_likelihood(problem):
    table = mg.simulate_petab(problem())
    values = [math.exp(-0.7), 3 * math.exp(-0.2), 3.0, 3 * math.exp(-0.1)]
    np.testing.assert_allclose(table["simulation"], values, rtol=1e-7)
    np.testing.assert_allclose(table["noise"], [0.3, 0.5, 0.3, 0.5], rtol=1e-9)
    expected = [
        normal(0.6, values[0], 0.3),
        normal(2.5, values[1], 0.5),
        normal(math.log10(2), math.log10(3), 0.3) - math.log(2 * math.log(10)),
        -math.log(2 * 0.5) - abs(math.log(4) - math.log(values[3])) / 0.5 - math.log(4),
    ]
    np.testing.assert_allclose(table["log_likelihood"], expected, rtol=1e-6)


def test_logarithms_in_formulas(problem):
    table = mg.simulate_petab(
        problem(observables=TABLES["observables.tsv"].replace("a\tA", "a\tlog(A) + log(A + 7, 2)"))
    )
    assert table["simulation"][0] == pytest.approx(-0.7 + math.log2(7 + math.exp(-0.7)))


def test_other_parameters(problem):
    table = mg.simulate_petab(problem(), {"k": 0.2, "high": 1.0})
    assert table["simulation"][0] == pytest.approx(math.exp(-0.2))
    assert table["simulation"][1] == pytest.approx(math.exp(-0.2))  # the condition has its own k
    with pytest.raises(InputError, match="the parameter table has no kk; nearest: k"):
        mg.simulate_petab(problem(), {"kk": 1.0})


def test_steady_states_before_and_after(problem):
    laws = [reaction("R", "", "A", "c * 2 * k"), reaction("Q", "A", "", "c * A")]
    model = document(laws, kinds=[species("A")], parameters={"k": 5.0})
    measured = (
        "observableId\tpreequilibrationConditionId\tsimulationConditionId\tmeasurement\ttime\tnoiseParameters\n"
        "a\tlow\tup\t1\t0\tsd\na\tlow\tup\t1\t1\tsd\na\t\tlow\t1\tinf\tsd\na\tlow\tset\t1\t0\tsd\n"
    )
    conditions = "conditionId\tA\tk\nlow\t\t0.5\nup\t\t2\nset\t7\t2\n"
    table = mg.simulate_petab(problem(model, measurements=measured, conditions=conditions))
    np.testing.assert_allclose(table["simulation"], [1, 4 - 3 * math.exp(-1), 1, 7], rtol=1e-5)
    growing = document([reaction("R", "", "A", "c * k")], kinds=[species("A")], parameters={"k": 5.0})
    with pytest.raises(InputError, match="model test: no steady state is reached"):
        mg.simulate_petab(problem(growing, measurements=measured, conditions=conditions))


# A table, or the YAML file, with a text that is replaced by another one; and the message.
REFUSED = [
    (
        "spec",
        "format_version: 1",
        "format_version: 3.0.0",
        "PEtab version 3.0.0 is not supported, only versions 1 and 2",
    ),
    ("spec", "sbml_files: [model.xml]", "model_files: {}", "sbml_files is missing"),
    ("spec", YAML, "- a\n", "not a PEtab problem"),
    ("spec", YAML, "a: [\n", "not a readable YAML file"),
    ("spec", "conditions.tsv", "nothing.tsv", "nothing.tsv: no such file, named in"),
    ("observables", "noiseFormula", "noise", "column noiseFormula is missing"),
    ("observables", "laplace", "cauchy", "noiseDistribution cauchy is not supported"),
    ("observables", "\tA\tsd", "\tA +\tsd", "observable d: the formula 'A .' is not valid"),
    ("observables", "\tA\tsd", "\tX\tsd", "observable d: X has no value"),
    ("measurements", "a\tlow", "x\tlow", "name observable x, which is not defined"),
    ("measurements", "a\tlow", "a\tl", "name condition l, which is not defined"),
    ("measurements", "\t0.6\t", "\tmany\t", "row 1 of the measurements: measurement is not a number"),
    ("measurements", "\t0.6\t1", "\t0.6\t-1", "row 1 of the measurements: time is negative"),
    ("measurements", "a\tlow", "a\t", "row 1 of the measurements: simulationConditionId is empty"),
    ("measurements", "a\tlow", "\tlow", "row 1 of the measurements: observableId is empty"),
    ("observables", "\tA\tsd", "\tA\t", "observable d: a formula is empty"),
    ("measurements", "b\tlow\t2", "b\tlow\t-2", "a measurement on a log10 scale is -2, not positive"),
    ("measurements", "\tsd\n", "\ttau\n", "parameter tau has no value"),
    ("conditions", "up\t", "low\t", "conditionId low occurs twice"),
    ("conditions", "\tk\n", "\tkk\n", "no quantity kk has a value"),
]


@pytest.mark.parametrize(("where", "old", "new", "message"), REFUSED)
def test_what_is_refused(problem, where, old, new, message):
    text = YAML if where == "spec" else TABLES[f"{where}.tsv"]
    assert old in text
    changed = text.replace(old, new)
    with pytest.raises(InputError, match=message):
        mg.simulate_petab(problem(**{where: changed}))


def test_command(problem, monkeypatch, capsys, tmp_path):
    path, out = problem(), tmp_path / "simulated.tsv"
    total = -mg.simulate_petab(path)["log_likelihood"].sum()
    assert call(monkeypatch, "simulate-petab", path, "--out", out) == 0
    assert capsys.readouterr().out == f"-log likelihood of 4 measurements: {total:.10g}\n"
    assert list(pd.read_csv(out, sep="\t"))[-3:] == ["simulation", "noise", "log_likelihood"]
    assert call(monkeypatch, "simulate-petab", path, "--out", out) == 2
    assert "exists; choose another name" in capsys.readouterr().err
    assert call(monkeypatch, "simulate-petab", tmp_path / "nothing.yaml") == 2
    assert "nothing.yaml: no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    ["Bruno_JExpBot2016", "Zheng_PNAS2012", *(f"petab/{n}" for n in ("Boehm_JProteomeRes2014", "Sneyd_PNAS2002"))],
)
def test_benchmark_problems_are_read(name):
    if not SHARED.exists():
        pytest.skip("the shared models are not there")
    table = mg.simulate_petab(SHARED / name / f"{Path(name).name}.yaml")
    assert np.isfinite(table["log_likelihood"]).all()


def test_the_shipped_simulation_of_a_benchmark_problem():
    folder = SHARED / "Bruno_JExpBot2016"
    if not folder.exists():
        pytest.skip("the shared models are not there")
    shipped = pd.read_csv(folder / "simulatedData_Bruno_JExpBot2016.tsv", sep="\t")
    found = mg.simulate_petab(folder / "Bruno_JExpBot2016.yaml")
    np.testing.assert_allclose(found["simulation"], shipped["simulation"], rtol=1e-5)
