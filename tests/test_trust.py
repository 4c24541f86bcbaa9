import dataclasses

import numpy as np
import pytest
import scipy.integrate
from continuous import CHAIN, LOTKA_VOLTERRA, MICHAELIS_MENTEN, network_of, observe

import metabolismgraph as mg
from metabolismgraph.fitting import trust as trust_module
from metabolismgraph.system.network import Reaction, ReactionNetwork
from metabolismgraph.system.observations import Observations

CONFIG = mg.load_config("small", ["training.homeostasis_training=false"])
TIME = np.linspace(0, 30, 301)


def verdict(observations, config=CONFIG):
    return mg.fit(observations, config).trust


@pytest.mark.parametrize("system", [MICHAELIS_MENTEN, LOTKA_VOLTERRA, CHAIN])
def test_a_right_model_is_trusted(system):
    found = verdict(observe(system, np.linspace(0, 30, 1201)))
    assert found.trustworthy, found.why_not
    assert np.nanmax(found.rollout) < 1e-2


def test_a_missing_reaction_is_seen():
    reactions, k, start = LOTKA_VOLTERRA
    fewer = {name: r for name, r in reactions.items() if name != "eat"}
    found = verdict(observe((fewer, k, start), TIME, truth=(reactions, k)))
    assert not found.trustworthy
    assert any("H" in reason or "W" in reason for reason in found.why_not)


def test_a_wrong_order_is_seen_and_named():
    reactions, k, start = LOTKA_VOLTERRA
    wrong = {**reactions, "eat": ({"H": 2, "W": 1}, {"H": 1, "W": 2})}
    result = mg.fit(observe((wrong, k, start), TIME, truth=(reactions, k)), CONFIG)
    found = result.trust
    assert not found.trustworthy
    assert result.phase1.law_fails
    assert any("is rejected" in note and "rate_law=learned" in note for note in result.phase1.notes)


def test_the_law_that_holds_is_not_complained_about():
    result = mg.fit(observe(LOTKA_VOLTERRA, TIME), CONFIG)
    assert not result.phase1.law_fails


def test_a_law_that_is_learned_where_the_stated_one_fails_is_trusted():
    """A saturating reaction that the file states as mass action."""
    reactions = {"go": ({"A": 1, "B": 1}, {"B": 2})}
    time = np.linspace(0, 12, 241)

    def saturating(c):
        return c * 3.0 / (c + 2.0)

    def rate(_, c):
        go = 0.1 * saturating(c[0]) * saturating(c[1])
        return np.array([-go, go])

    tables = [
        scipy.integrate.solve_ivp(rate, (0, 12), s, t_eval=time, rtol=1e-11, atol=1e-13).y.T
        for s in ([9.0, 0.5], [4.0, 2.0], [2.0, 0.1])
    ]
    one = network_of({"go": reactions["go"]}, ["A", "B"], mass_action=False)
    data = Observations(one, np.tile(time, 3), np.repeat([0, 1, 2], len(time)), np.concatenate(tables))
    stated = dataclasses.replace(one, mass_action=np.ones(1, dtype=bool))
    found = verdict(dataclasses.replace(data, network=stated))
    assert not found.trustworthy
    assert verdict(data).trustworthy


def test_samples_too_far_apart_for_differences_are_integrated():
    fast = (CHAIN[0], {"first": 100.0, "second": 20.0}, CHAIN[2])
    result = mg.fit(observe(fast, np.linspace(0, 1, 20)), CONFIG)
    found = result.trust
    assert found.trustworthy  # by trajectories; differences of samples cannot tell
    table = result.rate_constants.set_index("reaction")
    for name, k in fast[1].items():
        assert table.loc[name, "k"] == pytest.approx(k, rel=1e-6)
        assert table.loc[name, "lower"] < k < table.loc[name, "upper"]
    by_differences = mg.fit(
        observe(fast, np.linspace(0, 1, 20)), CONFIG.override(["training.phase1_method=projection"])
    )
    assert any("too far apart for first" in reason for reason in by_differences.trust.why_not)
    assert not by_differences.rate_constants["identifiable"].any()


def test_a_steady_state_is_refused():
    observations = observe(CHAIN, TIME)
    still = dataclasses.replace(observations, concentration=np.full_like(observations.concentration, 2.0))
    with pytest.raises(mg.InputError, match=r"no species changes .* perturb the system"):
        mg.fit(still, CONFIG)


def test_noise_is_not_taken_for_a_wrong_model_nor_for_a_good_one():
    observations = observe(CHAIN, np.linspace(0, 12, 601))
    rng = np.random.default_rng(1)
    noisy = observations.concentration * (1 + 0.01 * rng.standard_normal(observations.concentration.shape))
    data = dataclasses.replace(observations, concentration=noisy)
    result = mg.fit(data, CONFIG)
    assert result.trust.trustworthy
    np.testing.assert_allclose(result.rate_constants["k"], list(CHAIN[1].values()), rtol=0.02)
    by_differences = mg.fit(data, CONFIG.override(["training.phase1_method=projection"])).trust
    assert "residual of dc/dt" in by_differences.why_not[0]
    assert np.nanmean(by_differences.misfit / by_differences.unexplained) < 0.7  # most of it is called noise


def test_a_model_that_blows_up_is_far_off_and_takes_no_time(monkeypatch):
    # Checks of shapes make an evaluation of dc/dt here a hundred times as slow as elsewhere.
    monkeypatch.setattr(trust_module, "_MAX_EVALUATIONS", 500)
    observations = observe(LOTKA_VOLTERRA, TIME)
    result = mg.fit(observations, CONFIG)
    wild = dataclasses.replace(result.phase1, log_k=result.phase1.log_k + 4.0)
    found = dataclasses.replace(result, phase1=wild).trust
    assert np.nanmax(found.rollout) == 1e3
    assert not found.trustworthy


def test_rounding_is_not_taken_for_a_wrong_model():
    """A species close to its baseline, whose dc/dt is of the size of the rounding of the data."""
    cycle = [Reaction(a + b, {a: 1.0, b: 1.0}, {a: -1.0, b: 1.0}) for a, b in ("AB", "BC", "CA")]
    network = ReactionNetwork.from_reactions("cycle", list("ABCZ"), cycle)
    c, k = np.zeros((1001, 4)), np.array([0.05, 0.04, 0.06])
    c[0] = 3.0, 2.0, 4.0, 4.001
    for t in range(1000):
        v = k * c[t, :3] * c[t, [1, 2, 0]]
        c[t + 1] = c[t] + 0.1 * (network.stoichiometry @ v - 0.001 * (c[t] - 4.0))
    rounded = c.astype(np.float32).astype(float)
    observations = Observations(network, 0.1 * np.arange(1001), np.zeros(1001, int), rounded)
    assert np.abs(np.diff(rounded[:, 3])).max() < 5e-7  # a unit or two in the last place
    assert verdict(observations).why_not == ()
    # Noise of the same relative size in all species is not rounding, if the values are not of single precision.
    noisy = c * (1 + 3e-6 * np.random.default_rng(0).standard_normal(c.shape))
    found = verdict(dataclasses.replace(observations, concentration=noisy))
    assert any("Z" in reason for reason in found.why_not)


def test_without_held_out_frames_it_says_what_to_do():
    config = CONFIG.override(["training.held_out_fraction=0"])
    assert "raise training.held_out_fraction" in " ".join(mg.fit(observe(CHAIN, TIME), config).trust.why_not)


@pytest.mark.parametrize(
    ("worst", "said"),
    [
        (0.0123, "residual up to 1.23 % of the signal (A)"),
        (12.34, "residual up to 1230 % of the signal (A)"),
        (999.0, "residual up to 99900 % of the signal (A)"),
        (3.6e15, "residual more than 1000 times the signal (A)"),
        (np.inf, "residual more than 1000 times the signal (A)"),
    ],
)
def test_an_error_is_a_percentage_that_can_be_read(worst, said):
    errors = np.array([worst, np.nan, 0.001])
    assert trust_module._complaint(errors, 0.01, "residual {share} the signal ({names})", ("A", "B", "C")) == [said]
