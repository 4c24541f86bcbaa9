"""The noise benchmark: its cases and scores, that none is run twice, and what counts as silent."""

import dataclasses
import json
from collections import Counter

import numpy as np
import pytest
from command_line import call, refused

from metabolismgraph.benchmarks import noise, noise_peers, simulations, weak_terms
from metabolismgraph.benchmarks.noise import Settings, numbers_of, plan, results_of, run_noise, settings_of
from metabolismgraph.benchmarks.noise_methods import Estimate, Sample
from metabolismgraph.benchmarks.noise_report import NoiseResults, markdown, summarise
from metabolismgraph.benchmarks.noise_scores import scores, silence, true_type_lines
from metabolismgraph.benchmarks.results_file import Results
from metabolismgraph.errors import InputError
from metabolismgraph.ground_truth.simulator import simulate
from metabolismgraph.system.progress import silent
from metabolismgraph.trajectories.weak_form import Equations

SMALLER = ("simulation.n_metabolites=8", "simulation.n_reactions=12", "simulation.n_frames=240")
TINY = Settings(configs=("small",), noise=(0.0, 1.0), every=(1, 4), seeds=1, methods=("weak form",), overrides=SMALLER)


@pytest.fixture(scope="module")
def simulated():
    config = TINY.config("small")
    return simulate(config), config


def row(**changes):
    """A finished case whose slopes are within their errors."""
    found = {
        "config": "small",
        "noise": 1.0,
        "every": 1,
        "seed": 0,
        "method": "shooting",
        "log_k_R2": 0.999,
        "log_k_median_error": 1e-3,
        "log_k_over_bound": 1.1,
        "bound_log_k": 9e-4,
        "n_identifiable": 60,
        "n_determined": 60,
        "covered": 57,
        "intervals": 60,
        "slope_ratio": [1.005, 0.999],
        "slope_ratio_error": [0.002, 0.004],
        "offset_ratio": [1.0, 1.0],
        "offset_ratio_error": [0.01, 0.01],
        "slope_over_bound": 0.9,
        "bound_slope": 3e-3,
        "accuracy": 1.0,
        "n_types": 2,
        "doubtful_types": 0,
        "plausible_types": True,
        "trustworthy": True,
        "why_not": [],
        "warnings": [],
        "integrator": "Euler steps, 1 per frame",
        "window": 480,
        "cpu_s": 12.0,
    }
    found |= changes
    return found | silence(found)


# -- data and scores


def test_coarse_samples_are_a_subset_and_negative_values_are_cut(simulated):
    data, config = simulated
    fine, coarse = (Sample.of(data, config, 50.0, every) for every in (1, 4))
    np.testing.assert_array_equal(coarse.observations.concentration, fine.observations.concentration[::4])
    np.testing.assert_array_equal(coarse.clean.concentration, data.observations.concentration[::4])
    assert fine.observations.concentration.min() == 0
    left = fine.observations.concentration - data.observations.concentration
    assert np.std(left[fine.observations.concentration > 0]) > 0
    assert coarse.bound(law_known=True).log_k.min() > 0
    assert Sample.of(data, config, 0.0, 1).bound(law_known=True) is None


def test_every_run_begins_with_a_sample(simulated):
    data, config = simulated
    runs = np.repeat([0, 1], [121, 120])
    time = np.concatenate([np.arange(121.0), np.arange(120.0)])
    two = data._replace(observations=dataclasses.replace(data.observations, run=runs, time=time))
    found = Sample.of(two, config, 0.0, 4).observations
    assert Counter(found.run.tolist()) == {0: 31, 1: 30}
    assert found.time[found.run == 1][0] == 0


def test_the_truth_has_perfect_scores(simulated):
    sample = Sample.of(*simulated, 1.0, 1)
    slope, offset = sample.line
    n = len(slope)
    covariance = np.diag(np.repeat([1e-12, 1e-12], n))
    estimate = Estimate(
        np.log10(sample.truth.k), slope, offset, np.full(12, 0.1), covariance, np.ones(12, bool), trustworthy=True
    )
    found = scores(sample, estimate, sample.bound(law_known=False))
    assert (found["log_k_R2"], found["log_k_over_bound"], found["slope_over_bound"]) == (1, 0, pytest.approx(0))
    assert (found["accuracy"], found["n_types"], found["silent"]) == (1, 2, False)
    assert found["covered"] == found["intervals"] == found["n_identifiable"]
    json.dumps(found, allow_nan=False)
    wrong = dataclasses.replace(estimate, slope=1.1 * slope)
    assert scores(sample, wrong, None)["silent"]


def test_types_share_what_their_members_know():
    line, error = true_type_lines(np.array([1.0, 2.0, 7.0]), np.zeros(3), np.array([0, 0, 1]), np.eye(6))
    np.testing.assert_allclose(line[:, 0], [1.5, 7.0])
    np.testing.assert_allclose(error[:, 0], [np.sqrt(0.5), 1.0])


@pytest.mark.parametrize(
    ("changes", "silently", "strictly"),
    [
        ({}, False, False),
        ({"slope_ratio": [1.009, 1.0]}, False, True),  # 4.5 standard errors, below 1 %
        ({"slope_ratio": [1.05, 1.0]}, True, True),
        ({"slope_ratio": [1.05, 1.0], "slope_ratio_error": [0.1, 0.1]}, False, False),
        ({"slope_ratio": [1.05, 1.0], "trustworthy": False}, False, False),
        ({"slope_ratio": [1.05, 1.0], "warnings": ["homeostasis: only one type is resolved"]}, False, False),
        ({"accuracy": 0.5}, True, True),
        ({"trustworthy": None}, None, None),
    ],
)
def test_a_wrong_answer_without_a_warning_is_silent(changes, silently, strictly):
    assert silence(row(**changes)) == {"silent": silently, "silent_strict": strictly}


# -- methods


def test_methods_recover_what_they_can_and_a_failing_one_is_a_row(simulated, monkeypatch):
    settings = dataclasses.replace(TINY, noise=(0.1,), every=(1,), methods=("shooting", "weak form", "scipy"))
    (group,) = plan(settings, {"small": [0]})
    monkeypatch.setitem(noise.METHODS, "scipy", lambda sample, budget: 1 / 0)
    shooting, weak, failed = results_of(group, settings)
    assert shooting["log_k_R2"] > 0.99
    assert 0.3 < shooting["log_k_over_bound"] < 3
    assert shooting["integrator"] == "Euler steps, 1 per frame"
    assert weak["trustworthy"] is None
    assert weak["log_k_R2"] > 0.9
    assert failed == group.cases[2].row() | {"error": "ZeroDivisionError: division by zero"}
    (nowhere,) = results_of(group._replace(config="nowhere", cases=group.cases[:1]), settings)
    assert nowhere["error"].startswith("nowhere: neither a file nor a shipped configuration")


def test_scipy_fits_windows_or_runs_out_of_time(simulated):
    sample = Sample.of(*simulated, 1.0, 4)
    with pytest.raises(InputError, match="did not finish within 0 s"):
        noise_peers.by_scipy(sample, 0.0)
    problem = noise_peers._WindowFit(sample, np.inf)
    start = problem.start(np.random.default_rng(0))
    jacobian, step = problem.jacobian(start).toarray(), 1e-6
    for column in (0, 14, 25, len(start) - 1):
        unit = step * np.eye(len(start))[column]
        numbers = (problem.residual(start + unit) - problem.residual(start - unit)) / (2 * step)
        np.testing.assert_allclose(jacobian[:, column], numbers, atol=1e-5)


@pytest.mark.parametrize(("noise", "every", "most"), [(0.0, 1, 1e-4), (0.1, 4, 0.2)])
def test_the_closed_form_is_handed_the_rate_law(simulated, noise, every, most):
    sample = Sample.of(*simulated, noise, every)
    found = noise_peers.by_closed_form(sample)
    error = np.abs(found.log_k - np.log10(sample.truth.k))[sample.identifiable]
    assert np.median(error) < most
    saturating = dataclasses.replace(sample, config=sample.config.replace({"simulation.use_mass_action": False}))
    with pytest.raises(InputError, match="needs a known rate law"):
        noise_peers.by_closed_form(saturating)


def test_pysindy_is_handed_the_true_terms(simulated):
    pytest.importorskip("pysindy")
    sample = Sample.of(*simulated, 0.1, 1)
    found = noise_peers.by_pysindy(sample)
    error = np.abs(found.log_k - np.log10(sample.truth.k))[sample.identifiable]
    assert np.median(error) < 0.05
    saturating = dataclasses.replace(sample, config=sample.config.replace({"simulation.use_mass_action": False}))
    with pytest.raises(InputError, match="needs a known rate law"):
        noise_peers.by_pysindy(saturating)


def test_without_pysindy_the_row_says_so(simulated, monkeypatch):
    monkeypatch.setattr(noise_peers, "PYSINDY", "no_such_package")
    data = noise._Data(*simulated, 0.0, 1)
    assert "PySINDy is not installed" in data.measure("pysindy", 1.0)["error"]


# -- running


@pytest.fixture
def in_this_process(monkeypatch):
    """Jobs run in this process; a stop can be planted."""
    stop = {"after": None}

    def run(jobs, workers, stored, done=lambda _: None):
        for job in jobs:
            for number, found in enumerate(job.call(*job.arguments)):
                if number == stop["after"] and "config" in found and found.get("kind") != "seeds":
                    raise KeyboardInterrupt
                stored.append(found)
                done(found)

    for module in (simulations, noise):
        monkeypatch.setattr(module, "run_jobs", run)
    return stop


def test_interrupted_benchmark_goes_on_where_it_was(in_this_process, tmp_path):
    in_this_process["after"] = 1
    with pytest.raises(KeyboardInterrupt):
        run_noise(TINY, tmp_path, 1, silent)
    assert len(NoiseResults.read(tmp_path).cases) == 1
    in_this_process["after"] = None
    told = []
    text = run_noise(TINY, tmp_path, 1, lambda stage, share, note: told.append((share, note)))
    assert len(told) == 3
    assert told[-1] == (1.0, "small, noise 1 %, every 4, seed 0, weak form")
    report = json.loads((tmp_path / "noise.json").read_text())
    places = [NoiseResults.identity(case) for case in report["cases"]]
    assert len(set(places)) == len(places) == 4
    assert text == (tmp_path / "noise.md").read_text()
    assert "| weak form | 4 | 0 | - | - | - | - | - |" in text
    assert (tmp_path / "noise.png").stat().st_size > 10_000
    with pytest.raises(InputError, match="other settings \\(seeds\\)"):
        run_noise(dataclasses.replace(TINY, seeds=2), tmp_path, 1, silent)


def test_report_lists_silent_failed_and_distrusted_cases():
    rows = [
        row(seed=0),
        row(seed=1, slope_ratio=[1.5, 1.0]),
        row(seed=2, slope_ratio=[1.009, 1.0]),
        row(seed=3, trustworthy=False, why_not=["noise is 60% of the signal"]),
        {**{key: row(seed=4)[key] for key in NoiseResults.keys}, "error": "boom"},
    ]
    header = json.loads(json.dumps(dataclasses.asdict(dataclasses.replace(TINY, methods=("shooting",)))))
    report = summarise(Results(header, [{"config": "small", "seed": 7, "error": "blew up"}], rows))
    assert report["methods"][0] == {
        "method": "shooting",
        "cases": 5,
        "failed": 1,
        "trustworthy": 3,
        "silent": 1,
        "silent_strict": 2,
        "warned": 0,
        "coverage": pytest.approx(0.95),
        "cpu_s": 12.0,
    }
    (place,) = report["grid"]
    assert place["slope_ratio"] == [pytest.approx(1.0025), 0.999, 1.5]
    text = markdown(report)
    assert "- small, noise 1 %, every 1, seed 1, shooting: slope ratios 1.5 ± 0.002" in text
    assert "seed 2, shooting: slope ratios 1.009 ± 0.002, 1 ± 0.004, accuracy 1 (strict only)" in text
    assert "- small, noise 1 %, every 1, seed 4, shooting: boom" in text
    assert "seed 3, shooting: noise is 60% of the signal" in text
    assert "- small seed 7: blew up" in text


def test_quick_form_and_numbers():
    assert settings_of(quick=True, seeds=None).configs == ("small",)
    assert settings_of(noise=numbers_of("--noise", "0,0.5", float)).noise == (0.0, 0.5)
    with pytest.raises(InputError, match=r"--every: 1\.5 is not a list of whole numbers"):
        numbers_of("--every", "1.5", int)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--noise", "much"), "--noise: much is not a list of numbers"),
        (("--noise=-1",), "--noise: -1 is not a number >= 0"),
        (("--every", "0"), "--every: 0 is not a number of frames"),
        (("--methods", "shoting"), "did you mean shooting"),
        (("--methods", "scipy,scipy"), "--methods: scipy is named twice"),
        (("--configs", "nowhere"), "nowhere: neither a file nor a shipped configuration"),
        (("--report-only",), "holds no noise.jsonl"),
    ],
)
def test_wrong_options_are_refused_in_one_line(monkeypatch, capsys, tmp_path, options, message):
    out = tmp_path / "out"
    assert message in refused(monkeypatch, capsys, "benchmark", "noise", "--out", out, *options)
    assert not out.exists()


def test_report_of_what_is_there(monkeypatch, capsys, tmp_path):
    stored = NoiseResults.open(tmp_path, TINY.header() | {"methods": ["shooting"]})
    stored.append(row())
    assert call(monkeypatch, "benchmark", "noise", "--report-only", "--out", tmp_path) == 0
    assert "1 cases, 0 without a result" in capsys.readouterr().out


def test_only_methods_that_treat_both_terms_together_find_a_weak_one(simulated):
    """Without noise, a residual of the reactions alone is already biased: they take a part of homeostasis."""
    data, config = simulated
    sample = Sample.of(data, config, noise=0.0, every=1)
    error = {}
    for way in weak_terms.WAYS:
        found = weak_terms.by_weak_term(sample, way)
        error[way] = np.abs(found.slope / -sample.truth.lam - 1).max()
        assert np.median(np.abs(found.log_k - np.log10(sample.truth.k))[sample.identifiable]) < 0.01
    assert max(error["together"], error["augmentation"]) < 0.01
    assert min(error["residual"], error["residual SINDy"]) > 0.05


@pytest.mark.parametrize("penalty", [0.0, 3.0, 1e12])
def test_penalised_least_squares_are_those_of_the_whole_matrix(penalty):
    rng = np.random.default_rng(1)
    s, rows = np.array([[-1.0, 1.0], [1.0, -1.0]]), 30
    parts = [rng.normal(size=(rows, width)) for width in (2, 2, 2, 1)]
    at = Equations(*parts, stoichiometry=s, weight=np.array([1.0, 2.0]))
    found = at.solve(np.zeros((rows, 2, 0)), penalty)
    zero = np.zeros((rows, 1))
    c, one = at.c, at.ones
    reactions = np.concatenate([at.v * s[i] * at.weight[i] for i in range(2)])
    lines = [np.hstack([c[:, [0]], zero, one, zero]), np.hstack([zero, c[:, [1]], zero, one]) * 2]
    design = np.hstack([reactions, np.concatenate(lines)])
    target = np.concatenate([at.left[:, 0], 2 * at.left[:, 1]])
    if penalty > 1e6:  # as if there were no homeostasis
        np.testing.assert_allclose(found.k, np.linalg.lstsq(reactions, target, rcond=None)[0], rtol=1e-6)
    shrunk = np.hstack([np.zeros_like(reactions), np.sqrt(penalty) * np.concatenate(lines)])
    x = np.linalg.lstsq(np.vstack([design, shrunk]), np.concatenate([target, np.zeros(2 * rows)]), rcond=None)[0]
    np.testing.assert_allclose(np.concatenate([found.k, found.slope, found.offset]), x, rtol=1e-6, atol=1e-8)
