"""Which species have homeostasis: a claim for one of many must not come about by chance."""

import dataclasses

import numpy as np
import pytest

import metabolismgraph as mg
from metabolismgraph.fitting.tables import find_pulls, homeostasis_table


def test_without_homeostasis_hardly_any_network_seems_to_have_it():
    scores = np.random.default_rng(0).normal(size=(4000, 30))
    claimed = np.array([find_pulls(one).any() for one in scores])
    assert 0.015 < claimed.mean() < 0.035  # 2.5 %; with two standard errors for each species, half of them


def test_few_of_those_found_are_so_by_chance():
    rng = np.random.default_rng(1)
    true = np.arange(30) < 10
    shares = []
    for _ in range(1000):
        found = find_pulls(rng.normal(size=30) - 6.0 * true)
        assert found[true].mean() > 0.7
        shares.append((found & ~true).sum() / max(found.sum(), 1))
    assert np.mean(shares) < 0.025


@pytest.mark.parametrize(
    ("scores", "found"),
    [
        ([], []),
        ([-1.9], [False]),
        ([-2.0], [True]),
        ([8.0, -8.0], [False, True]),  # a slope above zero pulls to nothing
        ([np.nan, -np.inf, 0.0], [False, True, False]),  # 0/0, an error of zero, an error without bound
    ],
)
def test_single_scores(scores, found):
    assert find_pulls(np.array(scores, dtype=float)).tolist() == found


@pytest.fixture(scope="module")
def none():
    """A system without homeostasis, and its fit."""
    config = mg.load_config(
        "small", ["simulation.homeostatic_lambda_per_type=[0,0]", "training.homeostasis_training=false"]
    )
    data = mg.simulate(config)
    return mg.fit(data.observations, config)


def test_a_system_without_homeostasis_is_said_to_have_none(none):
    assert none.trust.trustworthy
    assert not none.homeostasis["resolved"].any()
    assert none.homeostasis[["baseline", "baseline_error"]].isna().all(axis=None)
    assert "0 of 30 species" in repr(none)


def test_a_pull_below_zero_is_not_homeostasis(none):
    network, slope = none.observations.network, np.full(30, -0.1)
    line = {"slope": slope, "slope_error": np.full(30, 0.001), "slope_offset_covariance": np.zeros(30)}
    offset = np.where(np.arange(30) < 15, 0.4, -0.4)
    found = dataclasses.replace(none.phase1, **line, offset=offset, offset_error=np.full(30, 0.01))
    table = homeostasis_table(network, found, None, trustworthy=True)
    assert table["resolved"].tolist() == [True] * 15 + [False] * 15
    assert table["baseline"][:15].to_numpy() == pytest.approx(4.0)
    assert table["baseline"][15:].isna().all()
    assert not homeostasis_table(network, found, None, trustworthy=False)["resolved"].any()
