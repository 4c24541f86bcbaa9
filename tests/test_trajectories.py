"""Fits of trajectories: integrators, derivatives, windows, noise, and what is recovered from bad data."""

import dataclasses
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import scipy.integrate
from continuous import BRUSSELATOR, LOTKA_VOLTERRA, observe
from continuous import network_of as network_from
from hypothesis import given, settings
from hypothesis import strategies as st
from test_architecture import FLOORS

import metabolismgraph as mg
from metabolismgraph.fitting.trust import judge_trust
from metabolismgraph.homeostasis.types_from_lines import find_types
from metabolismgraph.system.kinetics import Structure
from metabolismgraph.system.network import Reaction
from metabolismgraph.trajectories import choice as choice_module
from metabolismgraph.trajectories import fit as fit_module
from metabolismgraph.trajectories import integrators
from metabolismgraph.trajectories.check import check_trajectories
from metabolismgraph.trajectories.choice import probabilities
from metabolismgraph.trajectories.damping import Trial, damped_step
from metabolismgraph.trajectories.fit import Alternative, TrajectoryFit, fit_trajectories
from metabolismgraph.trajectories.gauss_newton import fit_windows
from metabolismgraph.trajectories.integrators import Collocation, CutEulerSteps, EulerSteps, RungeKutta
from metabolismgraph.trajectories.misfit import Measurements
from metabolismgraph.trajectories.noise import NoiseModel, noise_of_differences, smooth
from metabolismgraph.trajectories.problem import Problem
from metabolismgraph.trajectories.rates import RateEquation
from metabolismgraph.trajectories.sensitivities import growth
from metabolismgraph.trajectories.shooting import linearise, relax
from metabolismgraph.trajectories.substrate_spline import SubstrateSpline
from metabolismgraph.trajectories.tied_windows import fit_tied
from metabolismgraph.trajectories.ties import relax_pieces
from metabolismgraph.trajectories.weak_form import weak_form
from metabolismgraph.trajectories.windows import Windows
from metabolismgraph.uncertainty.held_out_lines import held_out_lines

INTEGRATORS = (EulerSteps(), EulerSteps(3), RungeKutta(2), Collocation(), Collocation(2))
KNOWN = True  # rate laws are mass action


def network_of(*reactions, species="ABC", fixed=()):
    written = [Reaction(f"r{j}", sub, net, known) for j, (sub, net, known) in enumerate(reactions)]
    return mg.ReactionNetwork.from_reactions("test", list(species), written, fixed)


# A + B -> 2 B with a learned law, B -> C, C + C -> A by mass action.
MIXED = network_of(
    ({"A": 1.0, "B": 1.0}, {"A": -1.0, "B": 1.0}, False),
    ({"B": 1.0}, {"B": -1.0, "C": 1.0}, KNOWN),
    ({"C": 2.0}, {"C": -2.0, "A": 2.0}, KNOWN),
)


# A nonlinear oscillator, the Brusselator.
OSCILLATOR = network_of(
    ({}, {"A": 1.0}, KNOWN),
    ({"A": 2.0, "B": 1.0}, {"A": 1.0, "B": -1.0}, KNOWN),
    ({"A": 1.0}, {"A": -1.0, "B": 1.0}, KNOWN),
    ({"A": 1.0}, {"A": -1.0}, KNOWN),
    species="AB",
)


def oscillations(k, dt, frames, noise):
    """Euler steps of the oscillator that are cut off at zero, as a simulator makes them, with noise."""
    c = np.empty((frames, 2))
    c[0] = 1.0, 2.0
    for t in range(frames - 1):
        a, b = c[t]
        flux = k * np.array([1.0, a * a * b, a, a])
        c[t + 1] = np.maximum(c[t] + dt * OSCILLATOR.stoichiometry @ flux, 0)
    return np.maximum(c + noise, 0), np.arange(frames) * dt


def equation_of(network, low=0.1, high=9.0):
    spline = SubstrateSpline.over(np.log(np.linspace(low, high, 400)))
    return RateEquation.of(Structure.of(network), spline, 1e-9)


def unknowns_of(equation, rng):
    theta = rng.normal(size=equation.unknowns.total) * 0.05
    theta[equation.unknowns.log_k] -= 1.0
    theta[equation.unknowns.law.start] = 1.0
    return theta


def observed(network, time, c):
    return mg.Observations(network, time, np.zeros(len(time), dtype=int), c)


def simulated(network, k, start, time, slope=0.0, offset=0.0):
    """Concentrations of mass action with homeostasis, by SciPy."""
    order, edges = network.edge_order, (network.edge_reaction, network.edge_species)

    def rate(_, c):
        flux = k * np.array([np.prod(c[edges[1][edges[0] == j]] ** order[edges[0] == j]) for j in range(len(k))])
        return network.stoichiometry @ flux + slope * c + offset

    found = scipy.integrate.solve_ivp(rate, (time[0], time[-1]), start, "LSODA", time, rtol=1e-10, atol=1e-12)
    return found.y.T


# --- rates and integrators


@pytest.mark.parametrize("below", [False, True], ids=["", "below zero"])
@pytest.mark.parametrize("integrator", INTEGRATORS, ids=lambda i: i.name)
def test_sensitivities_are_the_derivatives_of_the_numbers_computed(integrator, below):
    rng, equation = np.random.default_rng(0), equation_of(MIXED)
    theta, c, dt = unknowns_of(equation, rng), rng.uniform(0.5, 4, (4, 3)), np.array([0.1, 0.3, 0.05, 0.0])
    if below:  # as initial states of windows may be on the way
        c[np.arange(4), [0, 1, 2, 0]] *= -1.0
    found = np.zeros((4, 3, 3 + equation.unknowns.total))
    rows = np.tile(np.eye(3), (4, 1, 1))
    for pull_back in reversed(integrator.linearise(equation.bind(theta), c, dt, by_unknowns=True)):
        rows, by_unknowns = pull_back(rows)
        found[..., 3:] += by_unknowns
    found[..., :3] = rows

    def numbers(p):
        return integrator.advance(equation.bind(p[3:]), c + p[:3], dt)

    for column, unit in enumerate(np.eye(found.shape[-1]) * 1e-6):
        at = np.concatenate([np.zeros(3), theta])
        np.testing.assert_allclose(found[:, :, column], (numbers(at + unit) - numbers(at - unit)) / 2e-6, atol=1e-8)


@pytest.mark.parametrize(("kind", "order"), [(EulerSteps, 1), (RungeKutta, 4), (Collocation, 5)])
def test_integrators_have_their_orders(kind, order):
    # Mass action: a spline has a third derivative that jumps, which limits the order.
    known = dataclasses.replace(MIXED, mass_action=np.ones(3, dtype=bool))
    rng, equation = np.random.default_rng(1), equation_of(known)
    theta = np.zeros(equation.unknowns.total)
    theta[:3] = -1.0
    c, dt = rng.uniform(0.5, 4, (2, 3)), np.full(2, 1.0)
    rate = equation.bind(theta)
    exact = Collocation(128).advance(rate, c, dt)
    errors = [np.abs(kind(steps).advance(rate, c, dt) - exact).max() for steps in (2, 4)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.6)


def test_newton_steps_converge_from_negative_concentrations(monkeypatch):
    """With a slope of f where it is constant, they took all twelve steps, and were off by a millionth."""
    equation = equation_of(dataclasses.replace(MIXED, mass_action=np.ones(3, dtype=bool)))
    theta = np.zeros(equation.unknowns.total)
    theta[:3] = 1.0
    rate, c, dt = equation.bind(theta), np.array([[3.0, -0.2, 1.0], [-0.1, 2.0, -0.3]]), np.full(2, 0.5)
    exact = Collocation(8).advance(rate, c, dt)
    monkeypatch.setattr(integrators, "_NEWTON", 6)
    np.testing.assert_allclose(Collocation(8).advance(rate, c, dt), exact, rtol=1e-10)


def test_a_stiff_system_is_integrated():
    network = network_of(({"A": 1.0}, {"A": -1.0, "B": 1.0}, KNOWN), ({"B": 1.0}, {"B": -1.0, "C": 1.0}, KNOWN))
    equation = equation_of(network)
    theta = np.zeros(equation.unknowns.total)
    theta[:2] = np.log10([1e3, 1.0])
    c = Collocation(256).advance(equation.bind(theta), np.array([[5.0, 0.0, 0.0]]), np.ones(1))
    np.testing.assert_allclose(c[0], simulated(network, [1e3, 1.0], [5.0, 0, 0], np.array([0.0, 1.0]))[-1], atol=1e-3)


def test_a_law_that_is_learned_and_one_that_is_known_agree_on_mass_action():
    learned = dataclasses.replace(MIXED, mass_action=np.zeros(3, dtype=bool))
    one, other = equation_of(MIXED), equation_of(learned)
    c = np.random.default_rng(2).uniform(0.2, 8, (5, 3))
    rates = []
    for equation in (one, other):
        theta = np.zeros(equation.unknowns.total)
        # One learned law per order |s|, sorted: its exponent is the order.
        orders = [1.0] if equation is one else [1.0, 2.0]
        theta[equation.unknowns.law.start + np.arange(len(orders)) * equation.unknowns.size] = orders
        rates.append(equation.rates(theta, c).rate)
    np.testing.assert_allclose(*rates, rtol=1e-10)


@given(low=st.floats(-6, 1), width=st.floats(0.5, 6), at=st.floats(-20, 9))
@settings(max_examples=30)
def test_a_spline_is_zero_at_one_straight_beyond_its_knots_and_the_order_near_zero(low, width, at):
    spline = SubstrateSpline.over(np.linspace(low, low + width, 300))
    rng = np.random.default_rng(3)
    law = spline.law(rng.normal(size=spline.size), order=2.0)
    assert law(np.zeros(1))[0] == pytest.approx(0, abs=1e-8)
    beyond = np.array([spline.high + 1, spline.high + 2, spline.high + 3])
    assert np.ptp(np.diff(law(beyond)[0])) == pytest.approx(0, abs=1e-7)
    near_zero = min(at - (spline.low - np.log(10)), 0.0)
    value, slope = law(np.array([at]))
    np.testing.assert_allclose(value, spline(np.array([at])) @ _coefficients(law, spline) + 2 * near_zero, atol=1e-6)
    assert near_zero == 0 or slope == 2


def _coefficients(law, spline):
    grid = np.linspace(spline.low, spline.high, 200)
    return spline.coefficients_of(grid, law(grid)[0])


def test_steps_that_are_cut_off_have_the_derivatives_of_the_numbers_computed():
    rng, equation = np.random.default_rng(0), equation_of(MIXED)
    theta, c, dt = unknowns_of(equation, rng), rng.uniform(0.5, 4, (6, 3)), np.full(6, 9.0)
    step, rate = CutEulerSteps(2), equation.bind(theta)
    assert (EulerSteps(2).advance(rate, c, dt) < 0).any()
    then = step.advance(rate, c, dt)
    assert (then == 0).any()
    assert (then > 0).any()
    rows = np.tile(np.eye(3), (6, 1, 1))
    for pull_back in reversed(step.linearise(rate, c, dt, by_unknowns=False)):
        rows, _ = pull_back(rows)
    for column, unit in enumerate(np.eye(3) * 1e-6):
        difference = step.advance(rate, c + unit, dt) - step.advance(rate, c - unit, dt)
        np.testing.assert_allclose(rows[:, :, column], difference / 2e-6, atol=1e-6)


# --- windows and noise


def test_windows_cover_every_frame_once_and_no_step_between_runs():
    run = np.repeat([0, 1], [7, 5])
    time = np.concatenate([np.arange(7.0), np.arange(5.0)])
    data = mg.Observations(MIXED, time, run, np.ones((12, 3)))
    windows = Windows.cut(data, 3)
    assert sorted(windows.frame[windows.valid > 0]) == list(range(12))
    for frames, valid in zip(windows.frame, windows.valid, strict=True):
        assert len(set(run[frames[valid > 0]])) == 1
    assert windows.dt.sum() == sum(valid.sum() - 1 for valid in windows.valid)
    series = np.random.default_rng(0).normal(size=(12, 2))
    np.testing.assert_array_equal(windows.spread(series[windows.frame], 12), series)


@pytest.mark.parametrize("kind", ["additive", "proportional"])
def test_the_kind_of_noise_is_found(kind):
    rng = np.random.default_rng(4)
    c = np.exp(rng.normal(size=(600, 3)))
    sigma = np.full(c.shape, 0.1) if kind == "additive" else 0.1 * c
    found = NoiseModel.of_residuals(
        sigma * rng.normal(size=c.shape), c, np.ones(c.shape, bool), np.zeros(c.shape, bool), 3.0, np.full(3, 1e-9)
    )
    assert found.kind == kind
    np.testing.assert_allclose(found.sigma(c), sigma + 0.01 * found.scale, rtol=0.35)


def test_outliers_and_censored_values_have_bounded_scores():
    value = np.array([[100.0], [0.0], [1.0]])
    one = np.ones((3, 1))
    measured = Measurements(value, 0.1 * one, one, value == 0, robust=4.0)
    frames, valid = np.array([0, 1, 2]), np.ones(3)
    at = np.array([[1.0], [0.3], [1.05]])
    found = measured.misfit(frames, valid, at)
    assert found.score[0] == pytest.approx(4.0 / 0.1)  # linear beyond four standard deviations
    assert found.score[1] < 0  # a value cut at zero pulls downwards
    assert found.score[2] == pytest.approx(-0.05 / 0.01)
    step = 1e-6
    ahead, behind = (measured.misfit(frames, valid, at + s * step).loss for s in (1, -1))
    np.testing.assert_allclose(-(ahead - behind) / (2 * step), found.score[:, 0], rtol=1e-5)


# --- Gauss-Newton


def test_standard_errors_are_the_cramer_rao_bound():
    """The Schur complement against the inverse of the whole information matrix, written out by finite differences."""
    time = np.arange(12) * 0.2
    c = simulated(MIXED, [0.3, 0.5, 0.1], [4.0, 1.0, 2.0], time)
    equation, data = equation_of(MIXED), observed(MIXED, time, c)
    rng = np.random.default_rng(5)
    theta = unknowns_of(equation, rng)
    windows = Windows.cut(data, 6)
    sigma = np.full(c.shape, 0.1)
    deviation = np.ones(len(theta))
    measured = Measurements(c, sigma, np.ones(c.shape), np.zeros(c.shape, bool))
    problem = Problem(equation, Collocation(), windows, measured, (theta, deviation), np.ones(len(c), int))
    x = c[windows.starts]
    found = linearise(problem, theta, x)

    def residual(p):
        states, _ = problem.path(p[: len(theta)], p[len(theta) :].reshape(x.shape))
        return (windows.spread(states, len(c)) / 0.1).ravel()

    p = np.concatenate([theta, x.ravel()])
    jacobian = np.stack([(residual(p + d) - residual(p - d)) / 2e-6 for d in np.eye(len(p)) * 1e-6], axis=1)
    m = len(theta)
    h = jacobian.T @ jacobian
    schur = h[:m, :m] - h[:m, m:] @ np.linalg.solve(h[m:, m:], h[m:, :m])
    np.testing.assert_allclose(found.matrix, schur, rtol=1e-4, atol=1e-4 * np.abs(schur).max())


def test_tied_windows_become_one_trajectory():
    """With a gap far below the noise, the covariance is that of a single window over the whole series."""
    time = np.arange(25) * 0.2
    rng = np.random.default_rng(13)
    c = simulated(MIXED, [0.3, 0.5, 0.1], [4.0, 1.0, 2.0], time) + 0.01 * rng.normal(size=(25, 3))
    equation, data = equation_of(MIXED), observed(MIXED, time, c)
    theta = unknowns_of(equation, rng)
    theta[:3] = np.log10([0.3, 0.5, 0.1])
    sigma, deviation = np.full(c.shape, 0.01), np.full(len(theta), 0.1)
    measured = Measurements(c, sigma, np.ones(c.shape), np.zeros(c.shape, bool))
    given = equation, Collocation()
    rest = measured, (theta, deviation), np.ones(len(c), int)
    whole = Problem(*given, Windows.cut(data, 25), *rest)
    alone = fit_windows(whole, theta, c[whole.windows.starts], goal="end")
    parts = Problem(*given, Windows.cut(data, 6, tied=True), *rest)
    loose, tight = (
        fit_tied(parts, theta, c[parts.windows.starts], np.full(3, gap), "comparison") for gap in (0.01, 1e-7)
    )
    ends = tight.problem.path(tight.theta, tight.x)[0][:-1, -1]
    np.testing.assert_allclose(ends, tight.x[1:], atol=1e-6)
    np.testing.assert_allclose(tight.path, alone.path, atol=1e-4)
    error, of_one = (np.sqrt(np.diag(fit.covariance)) for fit in (tight, alone))
    np.testing.assert_allclose(error, of_one, rtol=0.02)
    assert (np.abs(tight.theta - alone.theta) < 0.2 * error).all()
    assert (np.sqrt(np.diag(loose.covariance)) > 0.99 * error).all()
    astray = c[parts.windows.starts]
    astray[2] *= 5  # a state that is far off does not lead the unknowns astray
    again = fit_tied(parts, theta, astray, np.full(3, 1e-7), "comparison")
    assert (np.abs(again.theta - tight.theta) < 0.2 * error).all()


def oscillator_problem(length, seed=0):
    """Windows of a noisy oscillation, and the unknowns."""
    k, sigma = np.array([1.0, 1.0, 2.5, 1.0]), 0.02
    c, time = oscillations(k, 0.2, 400, sigma * np.random.default_rng(seed).standard_normal((400, 2)))
    equation, data = equation_of(OSCILLATOR), observed(OSCILLATOR, time, c)
    theta = np.zeros(equation.unknowns.total)
    theta[:4] = np.log10(k)
    measured = Measurements.of(data, np.full(c.shape, sigma), equation.moving)
    prior, parts = (theta, np.full(len(theta), 0.1)), np.ones(len(c), int)
    return Problem(equation, EulerSteps(), Windows.cut(data, length), measured, prior, parts), theta


@pytest.mark.parametrize("state", [(3.0, 0.3), (5.0, 5.0)], ids=str)
def test_a_window_that_has_gone_astray_is_brought_back(state):
    """From there, steps of the initial state end in a local minimum, which would lead the unknowns astray."""
    problem, theta = oscillator_problem(40)
    start = problem.measurements.value[problem.windows.starts]
    far = np.where(np.arange(len(start))[:, None] == 2, state, start)
    _, alone = relax(problem, theta, far, 20)
    _, right = relax(problem, theta, start, 20)
    assert alone > 100 * right
    found, wanted = (fit_windows(problem, theta, x, goal="comparison") for x in (far, start))
    assert found.chi2 == pytest.approx(wanted.chi2, rel=1e-3)
    np.testing.assert_allclose(found.theta, wanted.theta, atol=1e-3)


def test_pieces_lead_to_initial_states_from_anywhere():
    problem, theta = oscillator_problem(80)
    value = problem.measurements.value
    _, right = relax(problem, theta, value[problem.windows.starts], 20)
    far = np.full(value.shape, 5.0)
    _, alone = relax(problem, theta, far[problem.windows.starts], 20)
    found, loss = relax(problem, theta, relax_pieces(problem, theta, far), 20)
    assert alone > 10 * right
    assert loss == pytest.approx(right, rel=1e-3)
    assert found.shape == (5, 2)


@pytest.mark.parametrize(
    ("share", "damping"), [(1.0, 1e-3), (0.5, 1e-2), (0.1, 1e-1)], ids=["as predicted", "less", "little"]
)
def test_damping_follows_the_gain_of_a_step(share, damping):
    then, found = damped_step(_At(1.0), lambda _: Trial((), 1 / share / 100), lambda _: _At(0.99), damping=1e-2)
    assert then.loss == 0.99
    assert found == pytest.approx(damping)


def test_steps_are_damped_until_the_misfit_falls():
    tried = []

    def solve(damping):
        tried.append(damping)
        if len(tried) == 1:
            raise np.linalg.LinAlgError
        return Trial((), 1.0)

    losses = iter([np.nan, 2.0, 0.5])
    then, damping = damped_step(_At(1.0), solve, lambda _: _At(next(losses)), damping=0.0)
    assert then.loss == 0.5
    assert tried == pytest.approx([0, 1e-3, 1e-2, 1e-1])
    assert damping == tried[-1]
    assert damped_step(_At(1.0), lambda _: Trial((), 1.0), lambda _: _At(1.0), damping=0.0)[0] is None


class _At(NamedTuple):
    loss: float


def test_tied_windows_that_diverge_end_without_an_error():
    time = np.arange(25) * 0.2
    equation, data = equation_of(MIXED), observed(MIXED, time, np.ones((25, 3)))
    theta = unknowns_of(equation, np.random.default_rng(0))
    theta[equation.unknowns.log_k] = 30.0
    measured = Measurements(np.ones((25, 3)), np.full((25, 3), 0.01), np.ones((25, 3)), np.zeros((25, 3), bool))
    windows, prior = Windows.cut(data, 6, tied=True), (theta, np.full(len(theta), 0.1))
    problem = Problem(equation, EulerSteps(), windows, measured, prior, np.ones(25, int))
    with np.errstate(all="ignore"):
        found = fit_tied(problem, theta, np.ones((len(windows.frame), 3)), np.full(3, 0.01), "comparison")
    assert not found.chi2 < 1e6
    assert np.isfinite(found.covariance).all()


def test_tied_windows_end_with_their_run():
    data = mg.Observations(MIXED, np.r_[0:5, 0:4].astype(float), np.repeat([0, 1], [5, 4]), np.ones((9, 3)))
    windows = Windows.cut(data, 3, tied=True)
    assert windows.frame.tolist() == [[0, 1, 2, 3], [3, 4, 4, 4], [5, 6, 7, 7], [7, 8, 8, 8]]
    assert windows.valid.sum(axis=1).tolist() == [3, 2, 2, 2]
    assert windows.follows.tolist() == [True, False, True]
    assert windows.dt.sum() == 7


def test_growth_of_an_error_over_a_window():
    """Homeostasis with the wrong sign, and nothing else: errors grow exponentially."""
    time = np.arange(20) * 0.5
    equation, data = equation_of(CHAIN), observed(CHAIN, time, np.ones((20, 3)))
    theta = np.zeros(equation.unknowns.total)
    theta[equation.unknowns.log_k] = -12
    theta[equation.unknowns.slope] = 0.3
    measured = Measurements(np.ones((20, 3)), np.full((20, 3), 0.1), np.ones((20, 3)), np.zeros((20, 3), bool))
    windows = Windows.cut(data, 10)
    problem = Problem(equation, Collocation(), windows, measured, (theta, np.ones(len(theta))), np.ones(20, int))
    assert growth(problem, theta, np.ones((2, 3))) == pytest.approx(np.exp(0.3 * 4.5), rel=1e-4)


def test_intervals_cover_the_truth():
    """Forty data sets of a small system: errors in units of their standard errors have a spread of one."""
    network = network_of(({"A": 1.0}, {"A": -1.0, "B": 1.0}, KNOWN), ({"B": 2.0}, {"B": -2.0, "C": 1.0}, KNOWN))
    k, time = np.array([0.5, 0.2]), np.linspace(0, 8, 41)
    clean = simulated(network, k, [6.0, 1.0, 0.5], time)
    equation = equation_of(network)
    sigma, standardised = 0.05, []
    for seed in range(40):
        c = np.maximum(clean + sigma * np.random.default_rng(seed).normal(size=clean.shape), 1e-6)
        theta = np.zeros(equation.unknowns.total)
        theta[:2] = np.log10(k) + 0.05
        deviation = np.concatenate([np.ones(2), np.full(len(theta) - 2, 1e-6)])
        measured = Measurements(c, np.full(c.shape, sigma), np.ones(c.shape), np.zeros(c.shape, bool))
        windows = Windows.cut(observed(network, time, c), len(time))
        problem = Problem(equation, Collocation(), windows, measured, (theta * 0, deviation), np.ones(len(c), int))
        found = fit_windows(problem, theta, clean[windows.starts], goal="end")
        assert found.converged
        standardised.append((found.theta[:2] - np.log10(k)) / np.sqrt(np.diag(found.covariance)[:2]))
    z = np.array(standardised)
    assert np.mean(np.abs(z) < 1.96) > 0.87  # 80 intervals of 95 %: fewer than 70 covers have a chance of 1e-3
    assert np.sqrt(np.mean(z**2)) == pytest.approx(1, abs=0.25)


# --- what is recovered


CHAIN = network_of(({"A": 1.0}, {"A": -1.0, "B": 1.0}, KNOWN), ({"B": 1.0}, {"B": -1.0, "C": 1.0}, KNOWN))
DIMERS = network_of(
    ({"A": 1.0, "B": 1.0}, {"A": -1.0, "B": -1.0, "C": 1.0}, KNOWN),
    ({"C": 1.0}, {"A": 1.0, "B": 1.0, "C": -1.0}, KNOWN),
)
FAST = {"training.homeostasis_training": False}


def fitted(network, k, start, time, noise=0.0, proportional=0.0, scale=(1.0, 1.0), **changes):
    """The fit of a simulated system in other units of concentration and time."""
    clean = simulated(network, np.array(k), start, time)
    rng = np.random.default_rng(6)
    c = clean + (noise + proportional * clean) * rng.normal(size=clean.shape)
    data = observed(network, time * scale[1], np.maximum(c, 0) * scale[0])
    return mg.fit(data, mg.Config().replace(FAST | changes))


def check_covered(result, k):
    """Every k inside its interval, or a fit that says that it is not to be trusted."""
    table = result.rate_constants
    for row, true in zip(table.itertuples(), k, strict=True):
        assert not row.identifiable or row.lower * 0.999 <= true <= row.upper * 1.001, table
    return table


@pytest.mark.parametrize("frames", [16, 24, 40])
def test_samples_far_apart_give_the_truth_or_a_refusal(frames):
    time = np.linspace(0, 1.2, frames)
    result = fitted(CHAIN, [30.0, 6.0], [5.0, 0.0, 0.0], time)
    table = check_covered(result, [30.0, 6.0])
    if frames == 40:
        assert result.trust.trustworthy
        assert table["identifiable"].all()


def test_noise_is_found_and_covered():
    result = fitted(CHAIN, [0.7, 0.25], [10.0, 0.0, 0.0], np.linspace(0, 8, 101), proportional=0.02)
    assert result.phase1.trajectories.noise.shape == (3,)
    assert check_covered(result, [0.7, 0.25])["identifiable"].all()
    np.testing.assert_allclose(result.rate_constants["k"], [0.7, 0.25], rtol=0.05)


@pytest.mark.parametrize("concentration", [1e-9, 1.0, 1e6])
def test_units_change_nothing(concentration):
    time = np.linspace(0, 5, 61)
    factor = 1e3 if concentration != 1 else 1.0
    result = fitted(DIMERS, [0.3, 0.2], [3.0, 2.0, 0.0], time, noise=0.01, scale=(concentration, factor))
    k = np.array([0.3 / concentration, 0.2]) / factor
    check_covered(result, k)
    other = fitted(DIMERS, [0.3, 0.2], [3.0, 2.0, 0.0], time, noise=0.01)
    np.testing.assert_allclose(result.rate_constants["k"] / k, other.rate_constants["k"] / [0.3, 0.2], rtol=1e-3)


@pytest.fixture(scope="module")
def noisy():
    """The small benchmark with 1 % of noise: a data set and its truth."""
    data = mg.simulate(mg.load_config("small"))
    c = data.observations.concentration
    noise = 0.01 * c.std(axis=0) * np.random.default_rng(7).standard_normal(c.shape)
    return dataclasses.replace(data.observations, concentration=np.maximum(c + noise, 0)), data.truth


@pytest.mark.slow
def test_homeostasis_is_recovered_under_noise(noisy):
    observations, truth = noisy
    result = mg.fit(observations, mg.load_config("small"))
    metrics = mg.evaluate(result, truth).metrics
    assert result.trust.trustworthy
    assert result.phase1.trajectories.integrator == EulerSteps()
    assert result.phase1.trajectories.window > 480
    assert metrics["rate_constants_R2_identifiable"] > 0.999
    for kind in (0, 1):
        assert metrics[f"MLP_node_slope_ratio_{kind}"] == pytest.approx(1, abs=0.02)
        assert metrics[f"MLP_node_offset_ratio_{kind}"] == pytest.approx(1, abs=0.02)
    # Held-out trajectories tell right homeostasis from a wrong one, without the truth.
    assert mg.evaluate(result).metrics["held_out_skill"] > 0.99
    lines, slope, offset = held_out_lines(result), -truth.lam, truth.lam * truth.baseline
    assert lines.skill(slope, offset) == pytest.approx(1, abs=0.005)
    assert lines.skill(1.5 * slope, 1.5 * offset) == pytest.approx(0.75, abs=0.01)
    assert lines.skill(slope[::-1], offset[::-1]) < 0
    # Windows that are refused say something against the model, unless the system is chaotic.
    config = mg.load_config("small")
    for growth_over_window, said in ((50.0, True), (1e6, False)):
        evidence = dataclasses.replace(result.phase1.trajectories, refused=480, growth=growth_over_window)
        found = dataclasses.replace(result.phase1, trajectories=evidence)
        trust = judge_trust(observations, found, config.graph_model, config.training)
        assert ("the model cannot follow the trajectories over 480 frames" in trust.why_not) is said


def test_projection_stands_where_trajectories_are_not_followed_either():
    """Differences can leave out the few intervals in which a system jumps, and tell why a model does not fit."""
    reactions = {**LOTKA_VOLTERRA[0], "eat": ({"H": 2, "W": 1}, {"H": 1, "W": 2})}
    data = observe(LOTKA_VOLTERRA, np.linspace(0, 20, 201))
    wrong = dataclasses.replace(data, network=network_from(reactions, data.network.species))
    result = mg.fit(wrong, mg.load_config("small", ["training.homeostasis_training=false"]))
    assert result.phase1.trajectories is None
    assert "does not follow the data either; estimates are those of projection" in result.phase1.notes[-1]
    assert any("mass action, as stated in the network file, is rejected" in note for note in result.phase1.notes)
    assert not result.trust.trustworthy


def with_gaps(observations, share):
    """The same without a share of the values, drawn at random."""
    missing = np.random.default_rng(3).random(observations.concentration.shape) < share
    c = np.where(missing, np.nan, observations.concentration)
    return mg.Observations.with_gaps(observations.network, observations.time, observations.run, c)


@pytest.mark.slow
def test_half_of_the_values_suffice(noisy, tmp_path):
    observations, truth = noisy
    data = with_gaps(observations, 0.5)
    result = mg.fit(data, mg.load_config("small"))
    metrics = mg.evaluate(result, truth).metrics
    assert result.trust.trustworthy
    assert "Phase 1 by shooting, since values are missing" in result.phase1.notes
    assert metrics["rate_constants_R2_identifiable"] > 0.999
    assert metrics["embedding_cluster_acc"] == 1
    for kind in (0, 1):
        assert metrics[f"MLP_node_slope_ratio_{kind}"] == pytest.approx(1, abs=0.02)
    # Interpolated values are no standard for predictions.
    assert not {"held_out_derivative_R2", "held_out_rollout_error", "test_R2"} & set(metrics)
    with pytest.raises(mg.InputError, match="needs the strategy shooting, .* .found: orthogonalised."):
        mg.fit(data, mg.load_config("small", ["training.strategies=[orthogonalised]"]))


@pytest.mark.parametrize("method", ["projection", "gradient"])
def test_methods_that_need_every_value_refuse_gaps(noisy, method):
    data = with_gaps(noisy[0], 0.01)
    config = mg.load_config("small", [f"training.phase1_method={method}"])
    with pytest.raises(mg.InputError, match=f"values are missing, which .*phase1_method is {method}; set it to shoot"):
        mg.fit(data, config)


def test_interpolated_values_are_not_measurements():
    data = with_gaps(observed(CHAIN, np.arange(50.0), np.ones((50, 3))), 0.3)
    measurements = Measurements.of(data, np.ones((50, 3)), np.ones(3, dtype=bool))
    np.testing.assert_array_equal(measurements.weight > 0, data.measured)
    assert data.select(np.arange(50) < 9).measured.tolist() == data.measured[:9].tolist()


@pytest.mark.slow
def test_coarse_samples_of_euler_steps_are_recognised():
    # With this seed, the weak form finds rate constants below zero; near zero, no fit would lead back from there.
    data = mg.simulate(mg.load_config("small", ["simulation.seed=118"]))
    coarse = data.observations.select(np.arange(data.observations.n_frames) % 4 == 0)
    found = fit_trajectories(coarse, Structure.of(coarse.network))
    assert found.integrator == EulerSteps(4)
    slope = found.best.theta[found.equation.unknowns.slope]
    np.testing.assert_allclose(slope, -data.truth.lam, rtol=1e-3)


@pytest.mark.slow
def test_errors_of_many_euler_steps_do_not_pass_for_noise():
    """A continuous process leaves 1 % here, as much as 25 coarse samples can show of noise."""
    data = observe(BRUSSELATOR, np.linspace(0, 20, 31))
    dt, c = 20 / 30 / 32, [data.concentration[0]]
    for _ in range(30 * 32):
        x, y = c[-1]
        c.append(c[-1] + dt * np.array([1 + x**2 * y - 3.5 * x, 2.5 * x - x**2 * y]))
    data = dataclasses.replace(data, concentration=np.array(c)[::32])
    result = mg.fit(data, mg.load_config("small", ["training.homeostasis_training=false"]))
    assert result.phase1.trajectories.integrator == EulerSteps(32)
    table = result.rate_constants
    known = table["identifiable"].to_numpy()
    assert known.any()
    expected = table["reaction"].map(BRUSSELATOR[1])
    np.testing.assert_allclose(table["k"][known], expected[known], rtol=1e-6)


# A and B bind, are freed again, or turn into D, which becomes E, which is lost.
BINDING = (
    {
        "bind": ({"A": 1, "B": 1}, {"C": 1}),
        "free": ({"C": 1}, {"A": 1, "B": 1}),
        "turn": ({"C": 1}, {"D": 1}),
        "move": ({"D": 1}, {"E": 1}),
        "lose": ({"E": 1}, {}),
    },
    {"bind": 0.3, "free": 0.2, "turn": 0.5, "move": 0.35, "lose": 0.1},
    {"A": 5.0, "B": 4.0, "C": 0.0, "D": 0.0, "E": 0.0},
)


def fit_of_proportional_noise(exact, draw):
    noise = 1 + 0.02 * np.random.default_rng(draw).normal(size=exact.concentration.shape)
    data = dataclasses.replace(exact, concentration=np.maximum(exact.concentration * noise, 0).round(4))
    result = mg.fit(data, mg.load_config("small", ["training.homeostasis_training=false"]))
    bind = result.rate_constants.iloc[0]
    assert bind["identifiable"]
    assert bind["lower"] < 0.3 < bind["upper"]
    return " ".join(result.phase1.notes)


@pytest.mark.slow
@pytest.mark.parametrize("draw", [102, 105])
def test_proportional_noise_does_not_pass_for_euler_steps(draw):
    """The plain sum of squares, in which the largest concentrations count alone, took these for Euler steps."""
    notes = fit_of_proportional_noise(observe(BINDING, np.arange(0, 15.01, 0.25)), draw)
    assert "trajectories: Radau method" in notes


@pytest.mark.slow
@pytest.mark.parametrize(("number", "draw"), [(1, 100), (2, 108), (2, 110)])
def test_euler_steps_under_proportional_noise_are_recognised_and_named(number, draw):
    """With one more shape of the noise for one number of steps than for others, two were taken for one or four."""
    exact = observe(BINDING, np.arange(0, 15.01, 0.25))
    c, k = exact.concentration[0], np.array([0.3, 0.2, 0.5, 0.35, 0.1])
    path = [c]
    for _ in range(exact.n_frames - 1):
        for _ in range(number):
            flux = k * np.array([c[0] * c[1], c[2], c[2], c[3], c[4]])
            c = c + 0.25 / number * exact.network.stoichiometry @ flux
        path.append(c)
    notes = fit_of_proportional_noise(dataclasses.replace(exact, concentration=np.array(path)), draw)
    assert f"trajectories: Euler steps, {number} per frame, as a simulator makes them" in notes
    assert "training.derivative=cubic takes a continuous process" in notes


def test_fits_that_are_far_off_are_not_left_out():
    """1e18 is not less than 1e18 + 10 in double precision: no fit was left, which ended in an error."""

    class Pieces:
        fitted = SimpleNamespace(chi2=1e16, loss=1e18)

    pieces = Pieces()
    choice = object.__new__(choice_module._Choice)
    choice.of_pieces, choice.loss = set(), lambda stage: stage.fitted.loss
    choice.pieces, choice.tightened = lambda *_: pieces, lambda stage: stage
    assert choice.from_pieces([pieces], steps=False) == [pieces]


def test_errors_allow_for_integrators_that_the_data_do_not_exclude():
    apart, own = np.array([0.4, -0.2]), np.diag([0.01, 0.04])
    best = SimpleNamespace(covariance=own)
    alternatives = (Alternative(None, 0.25, apart),)
    found = TrajectoryFit(None, (best,), None, None, None, alternatives)
    np.testing.assert_allclose(found.covariance, own + 0.25 * np.outer(apart, apart))
    alone = dataclasses.replace(found, alternatives=())
    np.testing.assert_array_equal(alone.covariance, own)


def test_probabilities_of_integrators_follow_from_likelihoods():
    """A continuous process is preferred: it needs no reason why somebody simulated."""
    losses = {"continuous": 5.0, "euler": 0.0, "hopeless": 50.0}
    fits = [SimpleNamespace(fitted=name, continuous=name == "continuous") for name in losses]
    found = probabilities(SimpleNamespace(loss=losses.get), fits)
    assert found.sum() == pytest.approx(1)
    assert found[0] / found[1] == pytest.approx(2 * np.exp(3 - 5))  # two kinds of Euler steps
    assert found[2] < 1e-20


@pytest.mark.slow
def test_tied_windows_decide_between_integrators_and_lead_out_of_local_minima():
    """Under 10 % of noise, windows of 8 frames do not tell them apart, and longer and longer free ones get stuck."""
    data = mg.simulate(mg.load_config("small", ["simulation.seed=0"]))
    c = data.observations.concentration
    noise = 0.1 * c.std(axis=0) * np.random.default_rng(0).standard_normal(c.shape)
    noisy = dataclasses.replace(data.observations, concentration=np.maximum(c + noise, 0))
    noisy = noisy.select(~noisy.held_out(0.2))
    found = fit_trajectories(noisy, Structure.of(noisy.network))
    assert found.integrator == EulerSteps()
    assert found.refused is None
    assert found.best.problem.windows.length > 128
    slope = found.best.theta[found.equation.unknowns.slope]
    error = np.sqrt(np.diag(found.best.covariance)[found.equation.unknowns.slope])
    assert np.mean(np.abs(slope + data.truth.lam) < 3 * error) > 0.9


def test_a_start_of_a_rate_constant_is_not_below_what_data_can_tell_from_zero():
    time = np.arange(200) * 0.05
    clean = simulated(MIXED, [0.3, 0.5, 1e-6], [4.0, 1.0, 2.0], time)
    noise = np.random.default_rng(3).normal(size=clean.shape)
    starts = []
    for size in (0.001, 0.1):
        data = observed(MIXED, time, np.maximum(clean + size * noise, 0))
        sigma = np.full(3, size)
        theta = weak_form(data, equation_of(MIXED), smooth(data, sigma), sigma, "trapezoid")
        starts.append(theta[2])
    assert starts[0] < starts[1] - 1


@pytest.mark.slow
def test_a_missing_reaction_is_noticed():
    rng = np.random.default_rng(8)
    time = np.linspace(0, 12, 161)
    clean = simulated(MIXED, np.array([0.3, 0.5, 0.1]), [4.0, 1.0, 2.0], time)
    data = observed(MIXED, time, clean + 0.01 * clean.std(axis=0) * rng.normal(size=clean.shape))
    # C + C -> A is left out of the network, so that A only falls.
    less = network_of(*[(r.substrates, r.net, KNOWN) for r in MIXED.to_reactions()[:2]])
    config = mg.Config().replace(FAST)
    known = dataclasses.replace(MIXED, mass_action=np.ones(3, dtype=bool))
    assert mg.fit(dataclasses.replace(data, network=known), config).trust.trustworthy
    assert not mg.fit(dataclasses.replace(data, network=less), config).trust.trustworthy


def test_noise_of_differences_is_an_upper_bound():
    rng = np.random.default_rng(9)
    time = np.arange(400) * 0.5  # coarse: the dynamics reach the differences
    clean = np.stack([3 + np.sin(time), 5 + np.cos(time), 4 + np.sin(2 * time)], axis=1)
    data = observed(MIXED, time, clean + 0.02 * rng.normal(size=clean.shape))
    assert (noise_of_differences(data) > 0.018).all()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.8])
def test_noise_is_found_between_gaps_and_at_uneven_times(share):
    rng = np.random.default_rng(2)
    time = np.cumsum(rng.uniform(0.5, 1.5, 3000))
    c = 5 + np.sin(time[:, None] / 100 + np.arange(3)) + 0.1 * rng.standard_normal((3000, 3))
    np.testing.assert_allclose(noise_of_differences(with_gaps(observed(CHAIN, time, c), share)), 0.1, rtol=0.15)


def test_smoothing_uses_measured_values_alone():
    time = np.arange(400.0)
    truth = 3 + np.sin(time[:, None] / 40 + np.arange(3))
    data = with_gaps(observed(CHAIN, time, truth + 0.05 * np.random.default_rng(1).standard_normal(truth.shape)), 0.4)
    error = smooth(data, np.full(3, 0.05)) - truth
    assert np.sqrt(np.mean(error**2)) < 0.025
    wild = dataclasses.replace(data, concentration=np.where(data.measured, data.concentration, 1e3))
    np.testing.assert_allclose(smooth(wild, np.full(3, 0.05)), smooth(data, np.full(3, 0.05)))


def test_noise_is_found_where_values_were_cut_at_zero():
    """Species that are near zero for most of the time, or always, or never."""
    rng = np.random.default_rng(10)
    time = np.arange(4000) * 0.01
    clean = np.stack([np.maximum(np.sin(time), 0), np.zeros(len(time)), 3 + np.sin(time)], axis=1)
    data = observed(MIXED, time, np.maximum(clean + 0.1 * rng.normal(size=clean.shape), 0))
    np.testing.assert_allclose(noise_of_differences(data), 0.1, rtol=0.15)


def test_noise_is_found_of_species_with_rare_peaks():
    """Few differences are clear of zero; with these alone, the estimate would be off by up to 50 %."""
    rng, time = np.random.default_rng(11), np.arange(1200)
    peaks = 4 * np.exp(-(((time + 20) % 240 - 120) ** 2) / 18) + 0.03
    clean = np.repeat(peaks[:, None], 60, axis=1)
    network = mg.ReactionNetwork.from_reactions("peaks", [f"A{i}" for i in range(60)], [])
    data = observed(network, time.astype(float), np.maximum(clean + 0.05 * rng.normal(size=clean.shape), 0))
    ratio = noise_of_differences(data) / 0.05
    # A residual of 1.5 times this noise counts against a model.
    assert ratio.min() > 1 / 1.5
    assert ratio.max() < 1.5
    assert np.log(ratio).std() < 0.14


@pytest.mark.slow
def test_the_true_model_passes_the_check_of_trajectories():
    """A species with peaks has local minima over windows of 32 frames, which shorter ones do not have."""
    config = mg.load_config("oscillatory_rank50")
    data = mg.simulate(config)
    c, truth = data.observations.concentration, data.truth
    sigma = 0.01 * c.std(axis=0)
    noise = sigma * np.random.default_rng(102).standard_normal(c.shape)
    noisy = dataclasses.replace(data.observations, concentration=np.maximum(c + noise, 0))
    held = noisy.select(noisy.held_out(0.2))
    line = (-truth.lam, truth.lam * truth.baseline)
    structure, model = Structure.of(held.network), NoiseModel(sigma)
    found = check_trajectories(held, structure, lambda x, s: s * x, np.log10(truth.k), line, EulerSteps(), model, 32)
    np.testing.assert_array_less(found.chi2, 1.4)


@pytest.mark.parametrize(("strength", "dt"), [(3.5, 0.15), (3.0, 0.2)], ids=["often", "rarely"])
def test_data_that_a_simulator_cut_off_at_zero_are_followed(strength, dt):
    k, rng = np.array([1.0, 1.0, strength, 1.0]), np.random.default_rng(21)
    clean, time = oscillations(k, dt, 600, 0.0)
    noisy, _ = oscillations(k, dt, 600, 0.02 * clean.std(axis=0) * rng.standard_normal((600, 2)))
    found = fit_trajectories(observed(OSCILLATOR, time, noisy), Structure.of(OSCILLATOR), "forward")
    assert found.integrator == CutEulerSteps()
    assert found.best.problem.windows.length > 100
    unknowns = found.equation.unknowns
    error = np.sqrt(np.diag(found.best.covariance))[unknowns.log_k]
    assert (np.abs(found.best.theta[unknowns.log_k] - np.log10(k)) < 4 * error).all()
    np.testing.assert_allclose(10 ** found.best.theta[unknowns.log_k][1:3], k[1:3], rtol=0.01)


def test_windows_stay_short_where_errors_grow(monkeypatch):
    """Whatever is longer than usual is fitted only if an error of an initial state stays small over it."""
    time = np.arange(81) * 0.1
    c = simulated(CHAIN, [0.7, 0.25], [4.0, 1.0, 0.0], time)
    data = observed(CHAIN, time, c + 0.01 * np.random.default_rng(12).normal(size=c.shape))
    lengths = []
    for most in (1e4, 1e-4):
        monkeypatch.setattr(fit_module, "_USUAL", 32)
        monkeypatch.setattr(fit_module, "_MOST_GROWTH", most)
        found = fit_trajectories(data, Structure.of(CHAIN), "cubic")
        assert found.refused is None
        lengths.append(found.best.problem.windows.length)
    assert lengths == [81, 27]


def test_types_that_cannot_be_told_apart_are_one():
    rng = np.random.default_rng(10)
    slope = np.repeat([-0.001, -0.002], 10) + 0.01 * rng.normal(size=20)
    offset = np.repeat([0.004, 0.012], 10) + 0.05 * rng.normal(size=20)
    found = find_types(slope, offset, np.diag(np.repeat([1e-4, 2.5e-3], 20)))
    assert len(found.line) == 1
    assert found.plausible


def majority(member_of, truth):
    """The most frequent true type in the type of every species."""
    return np.array([np.bincount(truth[member_of == own]).argmax() for own in member_of])


def test_errors_that_species_share_do_not_decide_their_types():
    """Errors of a group are equal but for a small part, so differences within it tell the types apart."""
    rng = np.random.default_rng(3)
    truth, group = rng.integers(2, size=40), np.arange(40) % 4
    shared, own = 4e-4, 1e-4
    of_slope = shared**2 * (group[:, None] == group) + own**2 * np.eye(40)
    covariance = np.kron(np.diag([1.0, 100.0]), of_slope)
    wrong, numbers = np.zeros((10, 2)), []
    for attempt in wrong:
        # By Cholesky: other factors of a matrix with equal eigenvalues are different on every processor.
        error = rng.multivariate_normal(np.zeros(80), covariance, method="cholesky").reshape(2, 40)
        slope, offset = np.array([-0.001, -0.002])[truth] + error[0], np.array([0.004, 0.012])[truth] + error[1]
        for i, known in enumerate((covariance, np.diag(np.diag(covariance)))):
            found = find_types(slope, offset, known)
            attempt[i] = np.sum(truth != majority(found.member_of, truth))
            numbers.append(len(found.line))
    assert numbers[::2] == [2] * 10
    together, alone = wrong.mean(axis=0)
    assert together < 0.2 * alone


CHECKED = """
import jaxtyping
with jaxtyping.install_import_hook("metabolismgraph", "beartype.beartype"):
    import dataclasses, numpy as np, metabolismgraph as mg
    from metabolismgraph.system.kinetics import Structure
    from metabolismgraph.trajectories.fit import fit_trajectories
    from metabolismgraph.trajectories.integrators import Collocation, RungeKutta
config = mg.load_config("small", ["simulation.n_metabolites=4", "simulation.n_reactions=3", "simulation.n_frames=12"])
data = mg.simulate(config).observations
noise = 1e-3 * data.concentration.std(axis=0) * np.random.default_rng(0).standard_normal(data.concentration.shape)
data = dataclasses.replace(data, concentration=np.maximum(data.concentration + noise, 0))
found = fit_trajectories(data, Structure.of(data.network))
c = data.concentration[:2]
for integrator in (Collocation(), RungeKutta()):
    rate = found.equation.bind(found.best.theta)
    for pull_back in integrator.linearise(rate, c, np.full(2, 0.1), by_unknowns=True):
        pull_back(np.zeros((2, 3, 4)))
print(found.integrator.name, len(found.stages))
"""


def test_shapes_are_as_annotated():
    """A whole fit under the checks that the rest of the package is under in every test."""
    done = subprocess.run([sys.executable, "-c", CHECKED], capture_output=True, text=True, check=False)
    assert "per frame" in done.stdout, done.stderr[-2000:]


def test_everything_else_is_checked_in_every_test():
    options = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    listed = next(o for o in options["addopts"] if o.startswith("--jaxtyping-packages=")).partition("=")[2].split(",")
    without = {"trajectories", "cli", "errors", "json_lines", "processes"}  # the others hold no arrays
    assert {name.partition(".")[2] for name in listed} - {"beartype"} == set(FLOORS) - without
