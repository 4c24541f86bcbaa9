"""Estimation of the parameters of PEtab problems: derivatives, estimates, notes, files, refusals."""

import importlib.util
import math
import os
import signal
import sys
from pathlib import Path

import fides
import numpy as np
import pandas as pd
import pytest
import yaml
from command_line import call
from scipy.stats import laplace, loglaplace, lognorm, norm
from test_petab import TABLES, YAML, problem  # noqa: F401 (a fixture)
from test_sbml import document, reaction, species

import metabolismgraph as mg
from metabolismgraph.errors import InputError
from metabolismgraph.formats.petab import read_petab
from metabolismgraph.kinetic_models import estimation
from metabolismgraph.kinetic_models.compiled_model import CompiledModel, compile_rates
from metabolismgraph.kinetic_models.fit_result import AT_UPPER, FLAT
from metabolismgraph.kinetic_models.from_sbml import ModelFile
from metabolismgraph.kinetic_models.likelihood import Likelihood
from metabolismgraph.kinetic_models.objective import Part
from metabolismgraph.kinetic_models.priors import Priors
from metabolismgraph.kinetic_models.search import search
from metabolismgraph.kinetic_models.sensitivities import SimulatedMeasurements, SimulationFailedError
from metabolismgraph.kinetic_models.symbols import SYMBOLS

SHARED = Path(__file__).resolve().parents[2] / "shared" / "models"
# A + B is conserved; the steady state before depends on k, and on the total.
EXCHANGE = document(
    [reaction("R", "A", "B", "c * k * A"), reaction("Q", "B", "A", "c * q * B")],
    kinds=[species("A"), species("B")],
    parameters={"k": 5.0, "q": 1.0},
)
HEADER = "parameterId\tparameterScale\tlowerBound\tupperBound\tnominalValue\testimate\n"
ONE = "observableId\tobservableFormula\tnoiseFormula\na\tA\t0.1\n"
ROWS = "observableId\tsimulationConditionId\tmeasurement\ttime\n"


def measured(values, times, condition="only"):
    return ROWS + "".join(f"a\t{condition}\t{value:.12g}\t{t}\n" for value, t in zip(values, times, strict=True))


def decay(problem, values, times, parameters="k\tlog10\t0.001\t100\t7\t1\n", **more):  # noqa: F811
    tables = {
        "conditions": "conditionId\tA\nonly\t4\n",
        "observables": ONE,
        "parameters": HEADER + parameters,
        "measurements": measured(values, times),
    }
    return problem(**tables | more)


def nominal_point(read):
    """The nominal values on the scales of the table."""
    to = {"lin": float, "log": math.log, "log10": math.log10}
    scales = read.parameters["parameterScale"]
    return np.array([to[str(scales[name])](read.nominal[name]) for name in read.estimated])


def simulation_of(read):
    return SimulatedMeasurements(read, {k: value for k, value in read.nominal.items() if k not in read.estimated})


def simulated_at_nominal(read):
    return simulation_of(read).at(nominal_point(read), derivatives=False)


def compared(path):
    """Simulation by LSODA and by CVODES; derivatives by CVODES and by differences, all with the nominal values."""
    read = read_petab(path)
    point, simulated, likelihood = nominal_point(read), simulation_of(read), Likelihood(read)

    def objective(x):
        at = simulated.at(x, derivatives=False)
        return -likelihood.log_densities(at.simulation, at.noise).sum()

    at = simulated.at(point, derivatives=True)
    table = mg.simulate_petab(path)
    np.testing.assert_allclose(at.simulation, table["simulation"], rtol=1e-6)
    np.testing.assert_allclose(at.noise, table["noise"], rtol=1e-6)
    steps = 1e-4 * np.eye(len(point))
    differences = [(objective(point + step) - objective(point - step)) / 2e-4 for step in steps]
    gradient, information = likelihood.gradient(at.simulation, at.noise, at.of_simulation, at.of_noise)
    np.testing.assert_allclose(gradient, differences, rtol=1e-4, atol=1e-5)
    assert np.linalg.eigvalsh(information).min() > -1e-9
    return gradient


def test_derivatives_with_all_kinds_of_formulas(problem):  # noqa: F811
    assert (compared(problem()) != 0).all()


def test_derivatives_of_steady_states_on_a_conserved_sum(problem):  # noqa: F811
    gradient = compared(
        problem(
            EXCHANGE,
            parameters=HEADER + "k\tlog10\t0.01\t10\t0.7\t1\nq\tlin\t0\t9\t2\t1\ntotal\tlog\t0.1\t9\t3\t1\n",
            conditions="conditionId\tA\tk\nbefore\ttotal\t\nafter\t\t0.1\nset\ttotal\t\n",
            observables=ONE.replace("A\t0.1", "A\t0.1 + 0.2 * A"),
            measurements="observableId\tpreequilibrationConditionId\tsimulationConditionId\tmeasurement\ttime\n"
            "a\tbefore\tafter\t2\t0\na\tbefore\tafter\t2.5\t0.2\na\t\tset\t2\tinf\na\t\tset\t2\t0.1\n"
            "a\tbefore\tset\t2\t0\n",
        )
    )
    assert (np.abs(gradient) > 0.1).all()


def test_derivatives_after_a_switch_at_a_time(problem):  # noqa: F811
    law = "c * k * A * piecewise(1, time < 1.5, 3)"
    model = document([reaction("R", "A", "", law)], kinds=[species("A")], parameters={"k": 5.0})
    path = decay(problem, [3, 2, 1], [1, 2, 3], "k\tlog10\t0.001\t100\t0.4\t1\n", model=model)
    compared(path)


def test_a_rate_constant_and_its_standard_error(problem):  # noqa: F811
    times = np.array([0.5, 1.0, 2.0])
    fit = mg.fit_petab(decay(problem, 4 * np.exp(-0.7 * times), times), 4)
    assert fit.estimates.loc["k", "estimate"] == pytest.approx(0.7, rel=1e-5)
    # d A / d log10 k = -ln 10 k t A; the noise is 0.1.
    information = ((math.log(10) * 0.7 * times * 4 * np.exp(-0.7 * times) / 0.1) ** 2).sum()
    row = fit.estimates.loc["k"]
    assert row["standard_error"] == pytest.approx(information**-0.5, rel=1e-4)
    assert row["upper_95"] / row["estimate"] == pytest.approx(10 ** (1.95996 * information**-0.5), rel=1e-4)
    assert fit.reached == 4
    assert fit.notes == ()
    assert fit.objective == pytest.approx(-fit.simulation["log_likelihood"].sum(), rel=1e-6)


def test_parameters_of_noise_and_of_observables(problem):  # noqa: F811
    rng = np.random.default_rng(1)
    times = np.linspace(0.1, 4, 40)
    values = 2 * 4 * np.exp(-0.7 * times) * np.exp(0.05 * rng.standard_normal(40))
    rows = "k\tlog10\t0.001\t100\t7\t1\nscale\tlin\t0.1\t9\t1\t1\nsd\tlog10\t1e-6\t1e4\t1\t1\n"
    observables = "observableId\tobservableFormula\tnoiseFormula\tobservableTransformation\na\tscale * A\tsd\tlog\n"
    fit = mg.fit_petab(decay(problem, values, times, rows, observables=observables), 6)
    # Least squares of the logarithm.
    slope, offset = np.polyfit(times, np.log(values), 1)
    error = np.log(values) - slope * times - offset
    expected = [-slope, math.exp(offset) / 4, math.sqrt((error**2).mean())]
    np.testing.assert_allclose(fit.estimates["estimate"], expected, rtol=1e-4)
    assert fit.reached == 6


def test_laplace_noise_finds_the_median(problem):  # noqa: F811
    model = document([reaction("R", "A", "", "0 * k * c")], kinds=[species("A")], parameters={"k": 1.0})
    observables = (
        "observableId\tobservableFormula\tnoiseFormula\tobservableTransformation\tnoiseDistribution\n"
        "a\tk + 0 * A\tb\tlin\tlaplace\n"
    )
    rows = "k\tlin\t0\t10\t1\t1\nb\tlog10\t0.001\t100\t1\t1\n"
    path = decay(problem, [1, 2, 3, 5, 9], [1, 2, 3, 4, 5], rows, observables=observables, model=model)
    fit = mg.fit_petab(path, 10)
    assert fit.estimates["estimate"].tolist() == pytest.approx([3.0, 2.2], rel=1e-2)


def test_flat_parameters_and_bounds_are_named(problem):  # noqa: F811
    model = document([reaction("R", "A", "", "c * k * q * A")], kinds=[species("A")], parameters={"k": 5.0, "q": 1.0})
    times = np.array([0.5, 1.0, 2.0])
    rows = "k\tlog10\t0.001\t100\t7\t1\nq\tlog10\t0.001\t100\t7\t1\n"
    fit = mg.fit_petab(decay(problem, 4 * np.exp(-0.7 * times), times, rows, model=model), 3)
    assert fit.estimates["note"].tolist() == [FLAT, FLAT]
    assert fit.estimates["estimate"].prod() == pytest.approx(0.7, rel=1e-4)
    assert "2 of 2 parameters are not determined: k, q" in fit.notes
    fit = mg.fit_petab(decay(problem, 4 * np.exp(-0.7 * times), times, "k\tlog10\t0.001\t0.5\t7\t1\n"), 3)
    assert fit.estimates.loc["k", "note"] == AT_UPPER
    assert math.isnan(fit.estimates.loc["k", "standard_error"])
    assert any(note.startswith("the residuals are larger than the given noise") for note in fit.notes)
    assert "1 of 1 parameters are at a bound: k" in fit.notes


def test_starts_that_cannot_be_simulated_are_counted(problem):  # noqa: F811
    # dA/dt = k A^2 is infinite at the time 1 / (4 k).
    model = document([reaction("R", "", "A", "c * k * A^2")], kinds=[species("A")], parameters={"k": 1.0})
    value = 4 / (1 - 4 * 0.01 * 2)
    fit = mg.fit_petab(decay(problem, [value], [2.0], model=model), 5)
    assert fit.estimates.loc["k", "estimate"] == pytest.approx(0.01, rel=1e-4)
    hopeless = decay(problem, [value], [2.0], "k\tlog10\t1\t100\t7\t1\n", model=model)
    with pytest.raises(InputError, match="no start of 2 has a finite likelihood"):
        mg.fit_petab(hopeless, 2)
    simulated = SimulatedMeasurements(read_petab(hopeless), {})
    with pytest.raises(SimulationFailedError):
        simulated.at(np.array([1.0]), derivatives=True)


def test_processes_and_seeds(problem):  # noqa: F811
    times = np.array([0.5, 1.0, 2.0])
    path = decay(problem, 4 * np.exp(-0.7 * times), times)
    one, two = mg.fit_petab(path, 3, seed=5), mg.fit_petab(path, 3, seed=5, processes=2)
    columns = ["objective", "evaluations", "ending"]
    pd.testing.assert_frame_equal(one.starts[columns], two.starts[columns])
    pd.testing.assert_frame_equal(one.points, two.points)
    assert not mg.fit_petab(path, 3, seed=6).starts[columns].equals(one.starts[columns])
    # Files that have changed are read again.
    other = mg.fit_petab(decay(problem, 4 * np.exp(-0.2 * times), times), 3)
    assert other.estimates.loc["k", "estimate"] == pytest.approx(0.2, rel=1e-4)


REFUSED = [
    ("k\tlog10\t0\t100\t7\t1\n", "parameter k: a bound on log10 scale must be positive, not 0"),
    ("k\tlin\t5\t1\t7\t1\n", "parameter k: bounds must be finite and in order, not 5.0, 1.0"),
    ("k\tlin\t0\tinf\t7\t1\n", "parameter k: bounds must be finite"),
    ("k\tlin\t0\t9\t7\t0\n", "no parameter has estimate 1"),
    ("k\tlin\t0\t9\t7\tyes\n", "parameter k: estimate is 'yes'; expected 0, 1"),
    ("k\tln\t0\t9\t7\t1\n", "parameter k: parameterScale is 'ln'; expected lin, log, log10"),
    ("k\tlin\tlow\t9\t7\t1\n", "parameter k: lowerBound is 'low', which is not a number"),
]


@pytest.mark.parametrize(("parameters", "message"), REFUSED)
def test_what_is_refused(problem, parameters, message):  # noqa: F811
    with pytest.raises(InputError, match=message):
        mg.fit_petab(decay(problem, [1.0], [1.0], parameters), 1)


def test_starts_must_be_positive(problem):  # noqa: F811
    with pytest.raises(InputError, match="starts must be at least 1, not 0"):
        mg.fit_petab(decay(problem, [1.0], [1.0]), 0)


def test_without_the_solver(monkeypatch):
    for name in ("sensitivities", "symbols", "objective", "held_out", "search", "estimation"):
        monkeypatch.delitem(sys.modules, f"metabolismgraph.kinetic_models.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "casadi", None)
    with pytest.raises(
        InputError, match=r"needs casadi, which is not installed; pip install 'metabolismgraph\[petab\]'"
    ):
        importlib.import_module("metabolismgraph.kinetic_models.estimation")


def test_command(problem, monkeypatch, capsys, tmp_path):  # noqa: F811
    path, out = problem(), tmp_path / "fit"
    words = ("fit-petab", path, "--starts", "3", "--processes", "1", "--out", out)
    assert call(monkeypatch, *words) == 0
    said = capsys.readouterr().out
    assert "starts" in said
    assert "note: " in said
    files = {"estimates.csv", "starts.csv", "points.csv", "simulated.tsv", "parameters.tsv", "notes.txt"}
    assert {file.name for file in out.iterdir()} == files | {"waterfall.png", "measurements.png", "model.xml"}
    estimates = pd.read_csv(out / "estimates.csv", index_col=0)
    assert estimates.index.tolist() == ["k", "scale", "sd"]
    assert len(pd.read_csv(out / "starts.csv")) == 3
    # The parameter table takes the place of the given one: its nominal values are the estimates.
    (tmp_path / "parameters.tsv").write_text((out / "parameters.tsv").read_text())
    found = mg.simulate_petab(path)
    np.testing.assert_allclose(found["simulation"], pd.read_csv(out / "simulated.tsv", sep="\t")["simulation"])
    assert read_petab(path).nominal["high"] == 3.0
    assert call(monkeypatch, *words) == 2
    assert "is not empty; choose another --out, or give --overwrite" in capsys.readouterr().err
    assert call(monkeypatch, *words, "--overwrite", "--quiet") == 0
    assert capsys.readouterr().out == ""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("all")
    assert call(monkeypatch, "fit-petab", path, "--out", tmp_path / "mine", "--overwrite") == 2
    assert "not the folder of a fit" in capsys.readouterr().err
    assert call(monkeypatch, "fit-petab", path, "--out", path / "below") == 2
    assert "cannot be made in" in capsys.readouterr().err
    assert call(monkeypatch, "fit-petab", path, "--out", path) == 2
    assert "is a file" in capsys.readouterr().err


@pytest.mark.slow
def test_a_benchmark_problem():
    folder = SHARED / "Bruno_JExpBot2016"
    if not folder.exists():
        pytest.skip("the shared models are not there")
    path = folder / "Bruno_JExpBot2016.yaml"
    fit = mg.fit_petab(path, 6)
    shipped = mg.simulate_petab(path)["log_likelihood"].sum()
    assert fit.objective < -shipped + 0.05
    nominal = pd.Series(read_petab(path).nominal)
    np.testing.assert_allclose(fit.estimates["estimate"], nominal[fit.estimates.index], rtol=0.01)


def with_priors(parameters):
    """A parameter table with a prior per row, type and parameters behind a bar."""
    rows = [line.split("|") for line in parameters.strip().splitlines()]
    header = HEADER.rstrip("\n") + "\tobjectivePriorType\tobjectivePriorParameters\n"
    return header + "".join(f"{row}\t{prior.replace(' ', chr(9))}\n" for row, prior in rows)


@pytest.mark.parametrize(
    ("scale", "x", "prior", "density"),
    [
        ("log10", math.log10(2.0), "normal 3;0.5", norm(3, 0.5).pdf(2.0)),
        ("lin", 2.0, "laplace 3;0.5", laplace(3, 0.5).pdf(2.0)),
        ("log", math.log(2.0), "logNormal 1;0.5", lognorm(0.5, scale=math.e).pdf(2.0)),
        ("lin", 2.0, "logNormal 1;0.5", lognorm(0.5, scale=math.e).pdf(2.0)),
        ("log10", 0.0, "logNormal 1;0.5", lognorm(0.5, scale=math.e).pdf(1.0)),
        ("log10", math.log10(2.0), "logLaplace 1;0.5", loglaplace(2.0, scale=math.e).pdf(2.0)),
        ("log10", math.log10(2.0), "parameterScaleNormal 1;0.5", norm(1, 0.5).pdf(math.log10(2.0))),
        ("log10", math.log10(2.0), "parameterScaleLaplace 1;0.5", laplace(1, 0.5).pdf(math.log10(2.0))),
        ("log10", math.log10(2.0), "parameterScaleUniform -1;3", 0.25),
        ("log10", math.log10(2.0), "uniform 0;5", 0.2),
        ("log10", math.log10(2.0), "uniform 3;5", 0.0),
    ],
)
def test_densities_of_priors(problem, scale, x, prior, density):  # noqa: F811
    path = decay(problem, [1.0], [1.0])
    path.with_name("parameters.tsv").write_text(with_priors(f"k\t{scale}\t0.001\t100\t7\t1|{prior}"))
    priors = Priors(read_petab(path))

    def value(x):
        return priors.terms(np.array([x]))[0]

    found, gradient, curvature = priors.terms(np.array([x]))
    assert math.exp(-found) == pytest.approx(density, rel=1e-12)
    if density:
        assert gradient[0] == pytest.approx((value(x + 1e-6) - value(x - 1e-6)) / 2e-6, abs=1e-7)
    assert curvature.shape == (1, 1)
    assert curvature[0, 0] >= 0


def test_a_prior_and_a_measurement_are_weighed(problem):  # noqa: F811
    model = document([reaction("R", "A", "", "0 * k * c")], kinds=[species("A")], parameters={"k": 1.0})
    observables = "observableId\tobservableFormula\tnoiseFormula\na\tk + 0 * A\t0.5\n"
    path = decay(problem, [2.0], [1.0], "k\tlin\t0\t10\t1\t1\n", observables=observables, model=model)
    path.with_name("parameters.tsv").write_text(with_priors("k\tlin\t0\t10\t1\t1|normal 4;1"))
    fit = mg.fit_petab(path, 3)
    # Weights 4 and 1.
    assert fit.estimates.loc["k", "estimate"] == pytest.approx((4 * 2 + 1 * 4) / 5)
    assert fit.estimates.loc["k", "standard_error"] == pytest.approx(5**-0.5)
    assert fit.quantity == "-log posterior"
    expected = -norm(2.4, 0.5).logpdf(2.0) - norm(4, 1).logpdf(2.4)
    assert fit.objective == pytest.approx(expected)
    assert not any("disagree" in note for note in fit.notes)


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ("gamma 1;2", "parameter k: prior gamma is not known; known: normal, laplace, uniform"),
        ("normal 1", "parameter k: objectivePriorParameters is '1.*'; expected two numbers, a;b"),
        ("normal 1;0", "the second number must be positive"),
        ("uniform 1;0", "the second number must be larger than the first"),
    ],
)
def test_priors_that_are_refused(problem, prior, message):  # noqa: F811
    path = decay(problem, [1.0], [1.0])
    path.with_name("parameters.tsv").write_text(with_priors(f"k\tlog10\t0.001\t100\t7\t1|{prior}"))
    with pytest.raises(InputError, match=message):
        mg.fit_petab(path, 1)


TEST_SUITE = importlib.util.find_spec("petabtests")


@pytest.mark.skipif(TEST_SUITE is None, reason="the PEtab test suite (petabtests) is not installed")
def test_petab_test_suite():
    """Version 1, by both integrators."""
    root = Path(TEST_SUITE.origin).parent / "cases" / "v1.0.0" / "sbml"
    cases = sorted(path for path in root.iterdir() if path.is_dir())
    for case in cases:
        solution = yaml.safe_load((case / f"_{case.name}_solution.yaml").read_text())
        expected = pd.concat([pd.read_csv(case / file, sep="\t") for file in solution["simulation_files"]])
        path = case / f"_{case.name}.yaml"
        table = mg.simulate_petab(path)
        np.testing.assert_allclose(table["simulation"], expected["simulation"], atol=1e-6)
        assert table["log_likelihood"].sum() == pytest.approx(solution["llh"], abs=1e-6)
        at = simulated_at_nominal(read_petab(path))
        np.testing.assert_allclose(at.simulation, expected["simulation"], atol=1e-6)
    assert len(cases) == 18


def test_a_second_integrator_that_fails_costs_a_note_only(problem, monkeypatch):  # noqa: F811
    def failing(*_):
        raise InputError("model test: the integration failed")

    times = np.array([0.5, 1.0, 2.0])
    path = decay(problem, 4 * np.exp(-0.7 * times), times)
    monkeypatch.setattr(estimation, "simulated_table", failing)
    fit = mg.fit_petab(path, 2)
    assert fit.notes[0].startswith("the estimates were not checked by a second integrator, since it failed: model test")
    np.testing.assert_allclose(fit.simulation["simulation"], 4 * np.exp(-0.7 * times), rtol=1e-5)


def test_integrators_that_disagree_are_named(problem, monkeypatch):  # noqa: F811
    times = np.array([0.5, 1.0, 2.0])
    path = decay(problem, 4 * np.exp(-0.7 * times), times)
    table = mg.simulate_petab(path, {"k": 0.9})
    monkeypatch.setattr(estimation, "simulated_table", lambda *_: table)
    assert "two integrators disagree" in mg.fit_petab(path, 2).notes[0]


def test_an_optimiser_that_fails_is_a_start_without_a_result(problem, monkeypatch):  # noqa: F811
    def failing(*_):
        raise RuntimeError("no step")

    monkeypatch.setattr(fides.Optimizer, "minimize", failing)
    with pytest.raises(InputError, match="no start of 2 has a finite likelihood"):
        mg.fit_petab(decay(problem, [1.0], [1.0]), 2)


def test_an_interrupt_is_not_a_failed_simulation(problem, monkeypatch):  # noqa: F811
    simulated = simulation_of(read_petab(decay(problem, [1.0], [1.0])))

    def interrupted(*_, **__):
        os.kill(os.getpid(), signal.SIGINT)
        raise RuntimeError("CVode returned CV_RHSFUNC_FAIL")

    monkeypatch.setattr("metabolismgraph.kinetic_models.sensitivities.Course.__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        simulated.at(np.array([0.0]), derivatives=True)


def test_a_model_without_states(problem):  # noqa: F811
    model = document(
        [reaction("R", "A", "", "c * k * A")], kinds=[species("A", boundary="true")], parameters={"k": 5.0}
    )
    observables = "observableId\tobservableFormula\tnoiseFormula\na\tk * time\t0.1\n"
    path = decay(problem, [0.0, 2.0], [0, 1], observables=observables, model=model, conditions="conditionId\nonly\n")
    assert mg.fit_petab(path, 2).estimates.loc["k", "estimate"] == pytest.approx(2.0)


def test_a_fixed_parameter_without_a_value(problem):  # noqa: F811
    rows = "k\tlog10\t0.001\t100\t7\t1\nsd\tlin\t0\t9\t\t0\n"
    with pytest.raises(InputError, match="observable a: sd has no value"):
        mg.fit_petab(decay(problem, [1.0], [1.0], rows, observables=ONE.replace("0.1", "sd")), 1)


def test_compiled_rates_are_those_of_the_formulas(tmp_path):
    model = document(
        [reaction("R", "A", "B", "c * k * A / (0.5 + A)"), reaction("Q", "B", "", "c * B * (1 + sin(time))")],
        kinds=[species("A"), species("B")],
        parameters={"k": 1.3},
    )
    (tmp_path / "model.xml").write_text(model)
    file = ModelFile(tmp_path / "model.xml")
    plain, symbolic = file.model({}), file.model({}, SYMBOLS)
    found = compile_rates(plain, symbolic)
    assert isinstance(found, CompiledModel)
    y = np.array([2.0, 0.7])
    np.testing.assert_allclose(found.rate(0.3, y), plain.rate(0.3, y), rtol=1e-14)
    np.testing.assert_allclose(found.jacobian(0.3, y), plain.jacobian(0.3, y), atol=1e-6)
    # One that does not agree with the formulas is not taken.
    other = file.model({"k": 1.2}, SYMBOLS)
    assert compile_rates(plain, other) is plain


def test_a_search_goes_on_where_rounding_crosses_a_bound(monkeypatch):
    """Fides refuses a step beyond a bound, be it by 1e-16."""

    class Bowl(Part):
        def __init__(self):
            self.lower, self.upper = np.array([0.5, -1.0]), np.ones(2)

        def __call__(self, free):
            return float(free @ free), 2 * free, 2 * np.eye(2)

    failures, minimize = [], fides.Optimizer.minimize

    def rounded(self, start):
        found = minimize(self, start)
        if not failures:
            failures.append(start)
            raise RuntimeError("Exceeded lower bounds for indices [0] by [1.11022302e-16] at iteration 421.")
        return found

    monkeypatch.setattr(fides.Optimizer, "minimize", rounded)
    value, point, _ = search(Bowl(), np.array([0.9, 0.9]), 1e-8, None)
    assert failures
    assert value == pytest.approx(0.25, abs=1e-4)
    assert point == pytest.approx([0.5, 0.0], abs=1e-2)
