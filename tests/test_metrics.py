"""One record per metric: what it is, and who may see it."""

import dataclasses
import io
import math
import re
from pathlib import Path

import numpy as np
import pytest
from continuous import LOTKA_VOLTERRA, network_of, observe
from rich.console import Console

import metabolismgraph as mg
from metabolismgraph.cli.tables import summary_table
from metabolismgraph.ground_truth.agreement import r_squared
from metabolismgraph.metrics import METRICS, by_index, classify, find, from_log_name


@pytest.fixture(scope="module")
def evaluations(small, small_config, small_phase1):
    """Of one fit: with the truth, and without."""
    config = small_config.replace({"training.phase2_steps": 20})
    result = mg.fit(small.observations, config, checkpoint=small_phase1)
    return mg.evaluate(result, small.truth), mg.evaluate(result)


def test_the_rollout_that_is_shown_is_that_of_the_metrics(evaluations):
    check_rollouts(evaluations[1])


@pytest.mark.parametrize("part", [0, 1])
def test_rollouts_of_runs_of_different_length_are_shown_whole(small_config, part):
    settings = {"training.phase2_steps": 2, "training.held_out_part": part, "simulation.n_runs": 2}
    config = small_config.replace(settings)
    observations = mg.simulate(config).observations
    frames = np.arange(observations.n_frames)
    check_rollouts(mg.evaluate(mg.fit(observations.select(frames < 0.8 * observations.n_frames), config)), part)


def test_fixed_species_that_vary_are_as_measured_in_rollouts():
    """An enzyme that something outside the network determines, without which its product cannot be predicted."""
    time = np.linspace(0, 40, 4001)
    enzyme = 1 + 0.8 * np.sin(time)
    reactions = {"make": ({"E": 1}, {"E": 1, "A": 1}), "use": ({"A": 1}, {})}
    network = network_of(reactions, ("E", "A"), fixed=["E"])
    product = np.zeros(len(time))
    for i, step in enumerate(np.diff(time)):
        product[i + 1] = product[i] + step * (0.5 * enzyme[i] - 0.3 * product[i])
    run, concentration = np.zeros(len(time), dtype=np.int64), np.stack([enzyme, product], axis=1)
    observations = mg.Observations(network, time, run, concentration)
    evaluation = mg.evaluate(mg.fit(observations, mg.load_config("small", ["training.phase2_steps=2"])))
    assert 1 - evaluation.metrics["test_R2"] < 1e-4
    assert evaluation.metrics["held_out_rollout_error"] < 0.01
    held_out, predicted = (evaluation.data[name].to_numpy() for name in ("held_out", "predicted_concentration"))
    np.testing.assert_array_equal(predicted[held_out, 0], enzyme[held_out])
    np.testing.assert_allclose(predicted[held_out, 1], product[held_out], rtol=0.01)


def check_rollouts(evaluation, part=0):
    """Rollouts cover the held-out frames of each run, begin at a measured state, and have the R² of the metrics."""
    data, moving = evaluation.data, evaluation.data["moving"].to_numpy()
    held_out, run = data["held_out"].to_numpy(), data["run"].to_numpy()
    predicted, measured = data["predicted_concentration"].to_numpy(), data["concentration"].to_numpy()
    np.testing.assert_array_equal(np.isfinite(predicted), np.broadcast_to(held_out[:, None], predicted.shape))
    frames = [np.flatnonzero(held_out & (run == r)) for r in np.unique(run)]
    for of_run in frames:
        np.testing.assert_array_equal(predicted[of_run[0]], measured[of_run[0]])
        assert (predicted[of_run[1:]] != measured[of_run[1:]]).any(axis=1).all()
    np.testing.assert_allclose(predicted[held_out], measured[held_out], rtol=0.01, atol=1e-3)
    if part == 0:  # otherwise the last step of a rollout leads into a training frame, which is not shown
        shortest = min(map(len, frames))
        within = np.stack([of_run[1:shortest] for of_run in frames], axis=1)
        r2 = r_squared(predicted[within][..., moving].ravel(), measured[within][..., moving].ravel())
        assert r2 == evaluation.metrics["test_R2"]


def test_every_metric_has_a_record(evaluations):
    for evaluation in evaluations:
        assert [name for name in evaluation.metrics if find(name) is None] == []


def test_the_summary_shows_units(evaluations):
    _, without = evaluations
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(summary_table({**without.metrics, "training_time_min": 0.5}, ()))
    text = console.export_text()
    assert "both phases [minutes]" in text
    assert "[concentration/time]" in text


def test_what_uses_the_truth_is_not_computed_without_it(evaluations):
    with_truth, without = evaluations
    assert [name for name in without.metrics if find(name).uses_truth] == []
    assert {name for name in with_truth.metrics if find(name).uses_truth} >= {
        *("classification", "avg_slope_ratio", "rate_constants_R2", "MLP_node_slope_ratio_1", "embedding_cluster_acc")
    }


def test_the_record_of_a_metric_of_one_type_names_it():
    metric = find("refined_MLP_node_offset_ratio_12")
    assert (metric.name, metric.better, metric.uses_truth) == ("refined_MLP_node_offset_ratio_12", "one", True)
    assert metric.meaning.endswith("of type 12")
    assert find("MLP_node_slope_ratio_x") is None
    assert find("MLP_node_slope_ratio_1_observed").meaning.endswith("over the observed concentrations")
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_values_by_type_and_names_of_the_log():
    values = {"MLP_node_slope_ratio_1": 1.0, "MLP_node_slope_ratio_0": None, "MLP_node_slope_ratio_0_observed": 2.0}
    assert by_index(values, "MLP_node_slope_ratio_{t}") == {1: 1.0, 0: None}
    assert from_log_name("offset_ratio_3") == "MLP_node_offset_ratio_3"
    assert from_log_name("embedding_cluster_acc") == "embedding_cluster_acc"


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (0.8, "converged"),
        (1.2, "converged"),
        (0.79, "partial"),
        (3.0, "partial"),
        (0.29, "failed"),
        (math.nan, "failed"),
    ],
)
def test_classes_of_ratios(ratio, expected):
    assert classify(ratio) == expected
    assert find("avg_slope_ratio").verdict(ratio) == (None if math.isnan(ratio) else expected)


def test_classes_of_skill():
    assert [find("held_out_skill").verdict(value) for value in (0.8, 0.3, 0.29, math.nan)] == [
        "converged",
        "partial",
        "failed",
        "failed",
    ]


def test_a_system_without_homeostasis_has_no_class(small, small_config, small_phase1):
    truth = dataclasses.replace(small.truth, lam=0 * small.truth.lam)
    config = small_config.replace({"training.phase2_steps": 20})
    metrics = mg.evaluate(mg.fit(small.observations, config, checkpoint=small_phase1), truth).metrics
    assert metrics["classification"] == "not applicable"


def test_no_other_place_takes_names_apart():
    parsing = re.compile(
        r"(startswith|removeprefix|endswith|re\.compile)\([^)\n]*(MLP_node|embedding_|rate_constants|refined_)"
    )
    for path in Path(mg.__file__).parent.rglob("*.py"):
        if path.name not in {"metrics.py", "prompt.py"}:
            assert not parsing.search(path.read_text()), path


def test_after_a_fit_of_trajectories_those_of_the_model_are_shown():
    exact = observe(LOTKA_VOLTERRA, np.linspace(0, 20, 201))
    truth = 1000 * exact.concentration  # in other units, so that the fit converts them
    noise = np.random.default_rng(0).normal(scale=0.02, size=truth.shape)
    observations = dataclasses.replace(exact, concentration=truth * (1 + noise))
    evaluation = mg.evaluate(mg.fit(observations))
    assert evaluation.metrics["trustworthy"]
    held_out, fitted = (evaluation.data[name].to_numpy() for name in ("held_out", "fitted_concentration"))
    np.testing.assert_array_equal(np.isfinite(fitted), np.broadcast_to(held_out[:, None], fitted.shape))
    error = (fitted / truth - 1)[held_out]
    assert np.sqrt(np.mean(error**2)) < 0.01  # half the noise: they follow the truth, not the samples
