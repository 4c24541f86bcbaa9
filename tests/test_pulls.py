"""Which species have homeostasis: a claim for one of many must not come about by chance."""

import dataclasses
import re

import numpy as np
import pytest

import metabolismgraph as mg
from metabolismgraph.fitting.parameters import lines_of_types
from metabolismgraph.fitting.tables import find_pulls, homeostasis_table
from metabolismgraph.runs.answer_files import write_answer


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


def claims(result):
    """The species with homeostasis, from each of the places that say so."""
    table, named = result.homeostasis, result.parameters.set_index("name")["identifiable"]
    slopes = [name.split(":")[1] for name in named.index[named] if name.startswith("slope:")]
    return list(table["species"][table["resolved"]]), slopes


def test_without_homeostasis_no_table_and_no_model_contains_any(none, tmp_path):
    assert claims(none) == ([], [])
    assert not none.parameters.set_index("name")["identifiable"].filter(regex="^(slope|offset|lambda):").any()
    assert written_pulls(none, tmp_path) == []


def test_with_homeostasis_table_and_model_contain_the_same(small, small_config, tmp_path):
    result = mg.fit(small.observations, small_config.replace({"training.homeostasis_training": False}))
    resolved, slopes = claims(result)
    assert resolved == slopes == written_pulls(result, tmp_path) == list(small.observations.network.species)
    # What is not to be trusted has no class, but its model still follows the data.
    doubted = dataclasses.replace(result)
    vars(doubted)["trust"] = dataclasses.replace(result.trust, why_not=("noise",))
    assert claims(doubted) == ([], [])
    assert written_pulls(doubted, tmp_path) == resolved


def written_pulls(result, folder):
    """The species with a reaction of homeostasis in the model file of an answer."""
    write_answer(result, mg.evaluate(result), folder, None)
    text = (folder / "model_fitted.xml").read_text()
    return re.findall('<reaction id="homeostasis_([^"]*)', text)


def test_what_is_not_resolved_has_one_bound(none):
    """Homeostasis pulls towards a concentration: slopes are not above zero, and offsets not below."""
    table = none.parameters.set_index("name")
    slopes, offsets = (table.filter(like=f"{kind}:", axis=0) for kind in ("slope", "offset"))
    constant = slopes.index.isin(["slope:M010", "slope:M011"])  # no reaction changes them
    for lines in (slopes, offsets):
        assert set(lines["classification"][constant]) == {"flat"}
        assert lines[["standard_error", "lower", "upper"]][constant].isna().all(axis=None)
    slopes, offsets = slopes[~constant], offsets[~constant]
    assert set(slopes["classification"]) == set(offsets["classification"]) == {"bounded on one side"}
    assert (slopes["lower"] < slopes["estimate"]).all()
    assert slopes["upper"].isna().all()
    assert (offsets["upper"] > offsets["estimate"]).all()
    assert offsets["lower"].isna().all()


def test_a_type_that_is_pushed_away_has_no_lambda():
    slope, offset = np.repeat([-0.1, 0.1], 3), np.repeat([0.4, -0.4], 3)
    found = lines_of_types(slope, offset, np.diag(np.full(12, 1e-6)), np.repeat([0, 1], 3))
    assert found[0][0] == pytest.approx([0.1, 4.0])
    assert np.isnan(found[1][0][1])
