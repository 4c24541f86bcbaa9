import numpy as np
import pytest
from continuous import BRUSSELATOR, CHAIN, EPIDEMIC, LOTKA_VOLTERRA, MICHAELIS_MENTEN, observe

import metabolismgraph as mg
from metabolismgraph.system.derivative_rules import StepQuadrature
from metabolismgraph.system.observations import Observations

QUICK = ["training.homeostasis_training=false"]


def frames(time, run=None):
    network = mg.ReactionNetwork.from_reactions("one", ["A"], [])
    run = np.zeros(len(time), dtype=np.int64) if run is None else run
    return Observations(network, np.asarray(time), run, np.ones((len(time), 1)))


@pytest.mark.parametrize(("rule", "degree"), [("forward", 0), ("trapezoid", 1), ("cubic", 3)])
def test_a_rule_averages_polynomials_of_its_degree_exactly_whatever_the_spacing(rule, degree):
    rng = np.random.default_rng(0)
    time = np.cumsum(rng.uniform(0.1, 2.0, 30))
    run = np.repeat([0, 1, 2], [12, 13, 5])
    data = frames(time, run)
    polynomial = np.polynomial.Polynomial(rng.normal(size=degree + 1))
    start = data.transitions().frame
    integral = polynomial.integ()
    exact = (integral(time[start + 1]) - integral(time[start])) / (time[start + 1] - time[start])
    found = StepQuadrature.of(data, rule).mean(polynomial(time)[:, None])[:, 0]
    np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("rule", "order"), [("forward", 1), ("trapezoid", 2), ("cubic", 4)])
def test_errors_fall_with_the_order_of_the_rule(rule, order):
    def error(n):
        time = np.linspace(0.0, 2.0, n + 1)
        data = frames(time)
        exact = (np.exp(time[1:]) - np.exp(time[:-1])) / np.diff(time)
        return np.abs(StepQuadrature.of(data, rule).mean(np.exp(time)[:, None])[:, 0] - exact).max()

    sizes = np.array([20, 40, 80, 160])
    slope = np.polyfit(np.log(sizes), np.log([error(n) for n in sizes]), 1)[0]
    # At the ends of a run the cubic's frames lie to one side: the same order, with a larger constant.
    assert -slope == pytest.approx(order, abs=0.15)


def test_runs_never_mix_and_short_ones_use_what_they_have():
    data = frames(np.array([0.0, 1.0, 0.0, 1.0, 2.0]), np.array([0, 0, 1, 1, 1]))
    found = StepQuadrature.of(data, "cubic")
    for node, weight in zip(found.frame.T, found.weight.T, strict=True):
        assert len(set(data.run[node[weight != 0]])) == 1
    np.testing.assert_allclose(found.weight.sum(axis=0), 1.0)


@pytest.mark.parametrize(
    ("system", "time"),
    [
        (MICHAELIS_MENTEN, np.linspace(0, 30, 1201)),
        (EPIDEMIC, np.linspace(0, 100, 1001)),
        (BRUSSELATOR, np.linspace(0, 30, 601)),
        (LOTKA_VOLTERRA, np.linspace(0, 30, 301)),
    ],
    ids=["michaelis_menten", "slow_epidemic", "brusselator", "lotka_volterra"],
)
def test_continuous_data_are_the_ordinary_case(system, time):
    result = mg.fit(observe(system, time), mg.load_config("small", QUICK))
    assert result.phase1.rule == "cubic"
    table = result.rate_constants.set_index("reaction")
    known = table[table["identifiable"]]
    assert len(known)
    for name, row in known.iterrows():
        assert row["k"] == pytest.approx(system[1][name], rel=0.01), name


def test_euler_steps_are_found_by_themselves(small, small_config):
    result = mg.fit(small.observations, small_config.override(QUICK))
    assert result.phase1.rule == "forward"


def test_a_linear_process_is_not_taken_for_euler_steps():
    """Its samples follow a discrete linear map exactly, and so the forward rule, with wrong rate constants."""
    result = mg.fit(observe(CHAIN, np.linspace(0, 12, 61)), mg.load_config("small", QUICK))
    assert result.phase1.rule != "forward"
    table = result.rate_constants.set_index("reaction")
    for name, k in CHAIN[1].items():
        assert table.loc[name, "k"] == pytest.approx(k, rel=0.01)
