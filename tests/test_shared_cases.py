"""The small inputs on which an earlier version was wrong, where they are at hand. Other tests have their kinds."""

from pathlib import Path

import pytest

import metabolismgraph as mg

CASES = Path("../shared/cases")
CONFIG = mg.load_config("oscillatory_rank50", ["training.homeostasis_training=false"])

pytestmark = pytest.mark.skipif(not CASES.exists(), reason="the inputs are not at hand")


def fitted(name):
    observations = mg.read(CASES / name / "net.xml", CASES / name / "data.csv")
    result = mg.fit(observations, CONFIG)
    return result, result.rate_constants.set_index("reaction"), result.trust


@pytest.mark.parametrize(
    ("name", "right", "within"),
    [
        ("brusselator_100pts", {"auto": 1.0, "conv": 2.0}, 0.02),
        ("mm_mechanism_auto_forward", {"bind": 1.2, "free": 0.4, "turn": 0.9}, 0.02),
        ("molar_units_crash", {"on": 1e6}, 0.01),
        ("two_compartments", {"move": 0.005, "burn": 0.6}, 0.01),
        ("loss_called_determined", {"eat": 0.1}, 0.01),
    ],
)
def test_the_right_value(name, right, within):
    result, table, trust = fitted(name)
    assert trust.trustworthy, trust.why_not
    assert set(table.index[table["identifiable"]]) == set(right)
    for reaction, k in right.items():
        assert table.loc[reaction, "k"] == pytest.approx(k, rel=within)
    assert not result.homeostasis["resolved"].any() or name == "brusselator_100pts"


def test_a_table_with_line_ends_of_old_macintoshes_is_read():
    observations = mg.read(CASES / "cr_line_ends/net.xml", CASES / "cr_line_ends/data.csv")
    assert observations.n_frames > 10


@pytest.mark.parametrize(
    ("name", "right"),
    [("chain_1pct_noise", {"first": 0.7, "second": 0.25}), ("coarse_20pts", {"first": 100.0, "second": 20.0})],
)
def test_the_right_value_is_inside_its_interval(name, right):
    _, table, trust = fitted(name)
    assert trust.trustworthy, trust.why_not
    for reaction, k in right.items():
        assert table.loc[reaction, "lower"] * 0.9999 <= k <= table.loc[reaction, "upper"] * 1.0001
        assert table.loc[reaction, "k"] == pytest.approx(k, rel=0.02)


def test_a_steady_state_is_refused():
    with pytest.raises(mg.InputError, match="no species changes"):
        fitted("steady_state_crash")
