"""The table of all parameters: errors, intervals, and classes in words."""

import dataclasses

import numpy as np
import pytest
from test_trust import CHAIN, CONFIG, observe

import metabolismgraph as mg
from metabolismgraph.fitting.parameters import lines_of_types, parameters_table
from metabolismgraph.runs.sentences import verdict

LEARNED = CONFIG.override(["graph_model.rate_law=learned", "training.phase1_method=shooting"])


def with_noise(observations, share, seed=0):
    c = observations.concentration
    noise = share * c.std(axis=0) * np.random.default_rng(seed).normal(size=c.shape)
    return dataclasses.replace(observations, concentration=np.maximum(c + noise, 0.0))


@pytest.fixture(scope="module")
def fitted():
    observations = with_noise(observe(CHAIN, np.linspace(0, 20, 301)), 0.01)
    return mg.fit(observations, CONFIG.override(["training.phase1_method=shooting"]))


def test_every_parameter_has_a_row_with_its_unit(fitted):
    table = fitted.parameters.set_index("name")
    network = fitted.observations.network
    moving = [s for s, fixed in zip(network.species, network.fixed, strict=True) if not fixed]
    assert list(table.index) == [
        *(f"k:{r}" for r in network.reactions),
        *(f"{kind}:{s}" for kind in ("slope", "offset") for s in moving),
    ]
    assert table["unit"].iloc[0] == "log10 of 1/time"


def test_rate_constants_are_those_of_their_own_table(fitted):
    table, own = fitted.parameters, fitted.rate_constants
    k = table[table["name"].str.startswith("k:")]
    np.testing.assert_allclose(k["standard_error"], own["standard_error"])
    np.testing.assert_allclose(10 ** k["lower"], own["lower"])
    for reaction, row in zip(own["reaction"], k.to_dict("records"), strict=True):
        if row["classification"] == "determined":
            assert row["lower"] <= np.log10(CHAIN[1][reaction]) <= row["upper"]


LOSS = (
    {"first": ({"A": 1}, {"B": 1}), "lost": ({"B": 1}, {})},
    {"first": 0.7, "lost": 0.25},
    {"A": 5.0, "B": 0.0},
)


def test_homeostasis_like_a_loss_is_determined_only_with_it():
    observations = with_noise(observe(LOSS, np.linspace(0, 20, 301)), 0.01)
    table = mg.fit(observations, CONFIG.override(["training.phase1_method=shooting"])).parameters.set_index("name")
    together = table[table["classification"] == "only in combination"]
    assert set(together.index) == {"k:lost", "slope:B", "offset:B"}
    assert together.loc["slope:B", "combination"] == "with k(lost)"
    assert together.loc["k:lost", "combination"] == "with homeostasis"
    # An interval of zero width around zero would claim that there is none.
    assert together["standard_error"].isna().all()


def test_noisy_held_out_frames_are_not_taken_for_a_steady_state(fitted):
    """Concentrations change in them; only their differences are mostly noise."""
    result = mg.fit(fitted.observations, mg.load_config("small"))
    evaluation = mg.evaluate(result)
    assert result.trust.trustworthy
    assert evaluation.metrics["held_out_derivative_R2"] < 0.5
    said = verdict(evaluation.metrics, evaluation.rate_constants, evaluation.homeostasis, 0)
    assert "dc/dt is hardly larger than its errors" in said
    assert "R²" not in said


def test_without_trust_there_are_no_intervals(fitted):
    table = parameters_table(fitted.observations.network, fitted.phase1, None, aggregation="mul", trustworthy=False)
    assert table[["standard_error", "lower", "upper"]].isna().to_numpy().all()
    assert set(table["classification"]) == {"not trusted"}
    assert not table["identifiable"].any()


def test_lambda_and_baseline_of_types_have_errors_of_their_means():
    n, rng = 40, np.random.default_rng(3)
    types = np.arange(n) % 2
    slope, offset = np.array([-0.1, -0.3])[types], np.array([0.5, 0.6])[types]
    covariance = np.diag(np.repeat([0.02**2, 0.03**2], n))
    z = []
    for _ in range(200):
        measured = (slope + 0.02 * rng.normal(size=n), offset + 0.03 * rng.normal(size=n))
        for number, (values, of_values) in lines_of_types(*measured, covariance, types).items():
            truth = [-slope[number], -offset[number] / slope[number]]
            z.append((values - truth) / np.sqrt(np.diag(of_values)))
    assert np.mean(np.square(z), axis=0) == pytest.approx([1, 1], abs=0.2)  # 400 values: a spread of 0.07


def test_the_band_of_a_learned_law_covers_it():
    covered = []
    for seed in range(3):
        observations = with_noise(observe(CHAIN, np.linspace(0, 20, 101)), 0.01, seed)
        data = mg.evaluate(mg.fit(observations, LEARNED)).data
        if "law_f_lower" in data:
            c = data["law_concentration"].to_numpy()
            inside = (data["law_f_lower"][0] <= c) & (c <= data["law_f_upper"][0])
            covered.append(float(inside.mean()))
    assert covered
    assert np.median(covered) > 0.8
