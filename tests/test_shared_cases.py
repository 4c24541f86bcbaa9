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


def test_noise_is_said_and_the_constants_are_near():
    _, table, trust = fitted("chain_1pct_noise")
    assert not trust.trustworthy
    for reaction, k in {"first": 0.7, "second": 0.25}.items():
        assert table.loc[reaction, "k"] == pytest.approx(k, rel=0.05)


def test_coarse_samples_are_said():
    _, table, trust = fitted("coarse_20pts")
    assert any("too far apart for first" in reason for reason in trust.why_not)
    assert not table.loc["first", "identifiable"]
    assert table["lower"].isna().all()


def test_a_steady_state_is_refused():
    with pytest.raises(mg.InputError, match="no species changes"):
        fitted("steady_state_crash")
