import dataclasses

import numpy as np
import pytest
import scipy.integrate
from continuous import CHAIN, network_of, observe

import metabolismgraph as mg
from metabolismgraph.reactions.verdict import NOT_REPRODUCED, SPANS_A_DECADE
from metabolismgraph.runs.checkpoint import load_phase1, save_phase1
from metabolismgraph.trajectories.implicit_step import MassAction, integrate_window

# Robertson 1966, with rate constants over nine decades.
ROBERTSON = (
    {"slow": ({"A": 1}, {"B": 1}), "fast": ({"B": 2}, {"B": 1, "C": 1}), "back": ({"B": 1, "C": 1}, {"A": 1, "C": 1})},
    {"slow": 0.04, "fast": 3e7, "back": 1e4},
    {"A": 1.0, "B": 0.0, "C": 0.0},
)
# A pair of reactions that is at equilibrium in every frame, and a slow one.
PAIR = (
    {"there": ({"A": 1, "D": 1}, {"B": 1}), "back": ({"B": 1}, {"A": 1, "D": 1}), "out": ({"B": 1}, {"C": 1})},
    {"there": 4e6, "back": 1e6, "out": 0.3},
    {"A": 1.0, "D": 1.0, "B": 4.0, "C": 0.0},
)
SETTINGS = (
    "training.phase1_method=implicit",
    "training.homeostasis_training=false",
    "graph_model.rate_law=mass_action",
)
LOG_SPACED = np.concatenate([[0.0], np.geomspace(1e-5, 1e5, 36)])


def fit(observations, *more):
    return mg.fit(observations, mg.load_config("small", [*SETTINGS, *more]))


def noisy(observations, share, seed=0):
    factor = 1 + share * np.random.default_rng(seed).standard_normal(observations.concentration.shape)
    return dataclasses.replace(observations, concentration=np.maximum(observations.concentration * factor, 0.0))


@pytest.fixture(scope="module")
def robertson():
    return observe(ROBERTSON, LOG_SPACED)


@pytest.fixture(scope="module")
def fitted(robertson):
    return fit(robertson, "training.held_out_fraction=0.1")


def test_robertson_is_recovered(fitted):
    table = fitted.rate_constants
    assert table["identifiable"].all()
    assert table["k"].to_numpy() == pytest.approx([0.04, 3e7, 1e4], rel=0.01)
    assert (table["lower"] < table["k"]).all()
    assert fitted.trust.trustworthy, fitted.trust.why_not


def test_a_checkpoint_keeps_the_evidence(fitted, tmp_path):
    save_phase1(tmp_path / "phase1", fitted.phase1, 1.0)
    again = load_phase1(tmp_path / "phase1", fitted.graph_model)
    assert again.windows.noise == fitted.phase1.windows.noise
    np.testing.assert_array_equal(again.windows.root, fitted.phase1.windows.root)


def test_wrong_rate_constants_are_not_trusted(fitted):
    moved = dataclasses.replace(fitted.phase1, log_k=fitted.phase1.log_k + np.array([0.2, 0.0, 0.0]))
    assert not dataclasses.replace(fitted, phase1=moved).trust.trustworthy


def test_a_wrong_rate_law_is_not_trusted():
    real = {"first": ({"A": 1}, {"B": 1}), "second": ({"B": 2}, {"B": 1, "C": 1})}
    data = observe(CHAIN, np.linspace(0.0, 8.0, 25), truth=(real, {"first": 0.7, "second": 0.25}))
    assert not fit(data).trust.trustworthy


def test_of_a_pair_at_equilibrium_only_the_ratio_is_known():
    found = fit(observe(PAIR, np.linspace(0.0, 10.0, 60), starts=[{}, {"A": 0.5, "D": 2.0}])).phase1
    known = dict(zip(("there", "back", "out"), found.identifiability.identifiable, strict=True))
    assert known == {"there": False, "back": False, "out": True}
    assert 10 ** found.log_k[2] == pytest.approx(0.3, rel=0.01)
    assert 10 ** (found.log_k[0] - found.log_k[1]) == pytest.approx(4.0, rel=0.01)
    assert np.isinf(found.log_k_error[:2]).all()
    assert {*found.reasons[:2]} <= {NOT_REPRODUCED, SPANS_A_DECADE, "only in combination", "no effect in the data"}


def test_one_percent_of_noise_widens_the_intervals(robertson):
    found = fit(noisy(robertson, 0.01), "training.held_out_fraction=0.1")
    error = np.abs(found.phase1.log_k - np.log10([0.04, 3e7, 1e4]))
    known = found.phase1.identifiability.identifiable
    assert known.any()
    assert (error[known] < 4 * found.phase1.log_k_error[known]).all()
    assert (found.phase1.log_k_error[known] > 1e-4).all()
    assert found.trust.trustworthy, found.trust.why_not


def test_the_same_seed_gives_the_same_result():
    data = observe(CHAIN, np.linspace(0.0, 5.0, 20))
    one, other = (fit(data).phase1.log_k for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert 10**one == pytest.approx([0.7, 0.25], rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["graph_model.rate_law=learned"], "needs mass action as the known rate law of every reaction"),
        (["training.homeostasis_training=true"], "set training.homeostasis_training to false"),
    ],
)
def test_settings_that_are_refused(robertson, changes, message):
    with pytest.raises(mg.InputError, match=message) as caught:
        fit(robertson, *changes)
    assert "\n" not in str(caught.value)


def test_gaps_are_refused(robertson):
    c = robertson.concentration.copy()
    c[5, 1] = np.nan
    gaps = mg.Observations.with_gaps(robertson.network, robertson.time, robertson.run, c)
    with pytest.raises(mg.InputError, match="1 of 90 are missing"):
        fit(gaps)


def test_a_driven_species_is_refused():
    network = network_of(CHAIN[0], list(CHAIN[2]), fixed=["A"])
    data = dataclasses.replace(observe(CHAIN, np.linspace(0.0, 5.0, 30)), network=network)
    with pytest.raises(mg.InputError, match="A changes in run 0"):
        fit(data)


@pytest.mark.parametrize("duration", [1e-3, 1.0, 1e3])
def test_windows_agree_with_scipy(robertson, duration):
    equation, k = MassAction.of(robertson.network), np.array([0.04, 3e7, 1e4])
    start = np.array([0.9, 2e-5, 0.1])
    typical = np.array([1.0, 4e-5, 1.0])
    exact = scipy.integrate.solve_ivp(
        lambda _, c: equation.rate(c, k),
        (0.0, duration),
        start,
        method="Radau",
        rtol=1e-9,
        atol=1e-13,
        jac=lambda _, c: equation.jacobian(c, k),
    ).y[:, -1]
    found = integrate_window(equation, start, duration, k, 1e-7, typical, most_steps=1000)
    np.testing.assert_allclose(found.state, exact, rtol=1e-6)


def test_sensitivities_agree_with_finite_differences(robertson):
    equation, k = MassAction.of(robertson.network), np.array([0.04, 3e7, 1e4])
    start, typical = np.array([0.9, 2e-5, 0.1]), np.array([1.0, 4e-5, 1.0])

    def end(c, rates):
        return integrate_window(equation, c, 0.5, rates, 1e-7, typical)

    found, step = end(start, k), 1e-4
    for j in range(3):
        up, down = (end(start, k * np.exp(sign * step * np.eye(3)[j])).state for sign in (1, -1))
        np.testing.assert_allclose(found.by_log_k[:, j] / typical, (up - down) / (2 * step) / typical, atol=1e-5)
        size = step * start[j]
        up, down = (end(start + sign * size * np.eye(3)[j], k).state for sign in (1, -1))
        expected = (up - down) / (2 * size)
        np.testing.assert_allclose(found.by_start[:, j], expected, rtol=1e-4, atol=1e-6)


def test_orders_and_volumes_enter_the_rate():
    network = network_of(
        {"join": ({"A": 2, "B": 1}, {"C": 1}), "split": ({"C": 1}, {"A": 2, "B": 1})},
        ["A", "B", "C"],
        volume={"C": 2.0},
    )
    equation = MassAction.of(network)
    c, k = np.array([2.0, 3.0, 5.0]), np.array([1.0, 0.5])
    np.testing.assert_allclose(equation.rate(c, k), network.stoichiometry @ np.array([12.0, 2.5]))
    numeric = np.column_stack(
        [(equation.rate(c + 1e-6 * e, k) - equation.rate(c - 1e-6 * e, k)) / 2e-6 for e in np.eye(3)]
    )
    np.testing.assert_allclose(equation.jacobian(c, k), numeric, rtol=1e-6, atol=1e-7)
