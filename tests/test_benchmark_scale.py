import json

import numpy as np
import pytest
from typer.testing import CliRunner

from metabolismgraph.benchmarks.scale import exponents
from metabolismgraph.cli.app import app
from metabolismgraph.errors import InputError


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    out = tmp_path_factory.mktemp("scale")
    arguments = ["--sizes", "6,12", "--densities", "2", "--frames", "60", "--out", str(out)]
    return CliRunner().invoke(app, ["benchmark", "scale", *arguments]), out


def test_every_case_has_a_row(measured):
    done, out = measured
    assert done.exit_code == 0
    result = json.loads((out / "scale.json").read_text())
    assert [(c["n_metabolites"], c["n_reactions"], c["n_frames"]) for c in result["cases"]] == [
        (6, 12, 60),
        (12, 24, 60),
    ]
    for case in result["cases"]:
        assert case["cpu_seconds"] > 0.5
        assert 0.1 < case["peak_memory_gb"] < 10
        assert "metrics" in case or case["error"]
    assert (out / "scale.md").read_text() in done.stdout
    assert "| 6 | 12 | 60 | 0 |" in done.stdout


def test_results_of_other_cases_stay(measured):
    _, out = measured
    before = json.loads((out / "scale.json").read_text())["cases"]
    arguments = ["--sizes", "6", "--densities", "2", "--frames", "80", "--hubs", "0.5", "--out", str(out)]
    arguments += ["--set", "simulation.delta_t=0.05"]
    assert CliRunner().invoke(app, ["benchmark", "scale", *arguments]).exit_code == 0
    cases = json.loads((out / "scale.json").read_text())["cases"]
    assert cases[:2] == before
    assert (cases[2]["hub_share"], cases[2]["n_frames"], cases[2]["set"]) == (0.5, 80, "simulation.delta_t=0.05")
    (out / "scale.json").write_text('{"host": {}, "cases": []}')
    done = CliRunner().invoke(app, ["benchmark", "scale", *arguments])
    assert isinstance(done.exception, InputError)
    assert (out / "scale.json").read_text() == '{"host": {}, "cases": []}'


def test_a_size_that_fails_has_its_reason(tmp_path):
    arguments = ["--sizes", "3", "--densities", "2", "--frames", "2", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, ["benchmark", "scale", *arguments])
    assert done.exit_code == 0
    (case,) = json.loads((tmp_path / "scale.json").read_text())["cases"]
    assert case["error"] == "exit code 2"
    assert not (tmp_path / "scale.png").exists()


def test_a_wrong_key_is_one_line_before_anything_runs(tmp_path):
    done = CliRunner().invoke(
        app, ["benchmark", "scale", "--set", "simulation.n_frame=3", "--out", str(tmp_path / "a")]
    )
    assert isinstance(done.exception, InputError)
    assert not (tmp_path / "a").exists()


def test_exponents_are_those_of_large_networks():
    rows = [
        {"density": 1.8, "n_frames": 700, "n_metabolites": n, "hub_share": 0.0, "set": "", "cpu_seconds": 5 + n**1.5}
        | {"peak_memory_gb": n**0.5}
        for n in (10, 300, 3000, 30000)
    ]
    name = "species; 1.8 reactions per species, 700 frames"
    found = exponents(rows)[name]
    np.testing.assert_allclose([found["cpu_seconds"], found["peak_memory_gb"]], [1.5, 0.5], atol=0.01)
    assert exponents(rows[:2])[name]["cpu_seconds"] is None
    assert exponents([{"density": 1.8, "error": "x"}]) == {}


def test_exponents_of_frames():
    row = {"density": 1.8, "n_metabolites": 100, "hub_share": 0.65, "set": "", "peak_memory_gb": 1.0}
    rows = [row | {"n_frames": frames, "cpu_seconds": 2.0 * frames} for frames in (30000, 500)]
    found = exponents(rows)["frames; 100 species, 1.8 reactions per species, hubs 0.65"]
    assert found["cpu_seconds"] == pytest.approx(1.0)


def test_a_wrong_number_is_one_line(tmp_path):
    done = CliRunner().invoke(app, ["benchmark", "scale", "--sizes", "x", "--out", str(tmp_path / "a")])
    assert done.exit_code != 0
    assert not (tmp_path / "a").exists()
