"""The Cramér-Rao bound: against a formula, and against many fits of a tiny system."""

import numpy as np
import pytest

import metabolismgraph as mg
from metabolismgraph.system.kinetics import Structure
from metabolismgraph.system.network import Reaction
from metabolismgraph.trajectories.bound import cramer_rao_bound
from metabolismgraph.trajectories.gauss_newton import fit_windows
from metabolismgraph.trajectories.integrators import Collocation, EulerSteps
from metabolismgraph.trajectories.misfit import Measurements
from metabolismgraph.trajectories.problem import Problem
from metabolismgraph.trajectories.rates import LOG_10, RateEquation
from metabolismgraph.trajectories.substrate_spline import SubstrateSpline
from metabolismgraph.trajectories.windows import Windows

TIGHT = 1e-9  # prior on homeostasis that is known to be absent


def network_of(*reactions, species):
    written = [Reaction(f"r{j}", sub, net, mass_action=known) for j, (sub, net, known) in enumerate(reactions)]
    return mg.ReactionNetwork.from_reactions("tiny", list(species), written)


def power_law(log_c, order):
    return order * log_c


def bound_of(data, log_k, integrator, sigma, length, **more):
    n = data.network.n_species
    zero, noise = np.zeros(n), np.full(n, sigma)
    return cramer_rao_bound(
        data, Structure.of(data.network), power_law, log_k, (zero, zero), integrator, noise, length, **more
    )


def test_decay_of_one_species_as_by_the_formula():
    """A -> nothing: the information of k and of the initial state, inverted by hand."""
    k, start, sigma, time = 0.4, 3.0, 0.05, np.linspace(0, 5, 26)
    c = start * np.exp(-k * time)
    data = mg.Observations(
        network_of(({"A": 1.0}, {"A": -1.0}, True), species="A"), time, np.zeros(26, dtype=int), c[:, None]
    )
    found = bound_of(data, np.log10([k]), Collocation(2), sigma, 26, deviation=np.array([1e3, TIGHT, TIGHT]))
    by_k, by_start = -time * c * k * LOG_10, c / start
    information = by_k @ by_k - (by_k @ by_start) ** 2 / (by_start @ by_start)
    assert found.log_k[0] == pytest.approx(sigma / np.sqrt(information), rel=1e-5)
    assert found.lines.shape == (2, 2)


def test_shorter_windows_know_less_and_a_learned_law_costs():
    reaction = ({"A": 1.0, "B": 1.0}, {"A": -1.0, "B": 1.0})
    back = ({"B": 1.0}, {"A": 1.0, "B": -1.0})
    k, c = np.array([0.05, 0.1]), [np.array([4.0, 1.0])]
    for _ in range(80):
        flux = k * [c[-1][0] * c[-1][1], c[-1][1]]
        c.append(c[-1] + 0.1 * np.array([flux[1] - flux[0], flux[0] - flux[1]]))
    errors = {}
    for known in (True, False):
        network = network_of((*reaction, known), (*back, known), species="AB")
        data = mg.Observations(network, np.arange(81) * 0.1, np.zeros(81, dtype=int), np.array(c))
        for length in (9, 81):
            errors[known, length] = bound_of(data, np.log10(k), EulerSteps(), 0.01, length).log_k
    assert (errors[True, 81] < errors[True, 9]).all()
    assert (errors[True, 81] < errors[False, 81]).all()


def test_many_fits_scatter_as_the_bound_says():
    network = network_of(
        ({"A": 1.0}, {"A": -1.0, "B": 1.0}, True), ({"B": 2.0}, {"B": -2.0, "C": 1.0}, True), species="ABC"
    )
    k, time, sigma, repeats = np.array([0.5, 0.2]), np.arange(31) * 0.25, 0.02, 40
    equation = RateEquation.of(Structure.of(network), SubstrateSpline.over(np.zeros(1)), 1e-9)
    theta, deviation = np.zeros(equation.unknowns.total), np.full(equation.unknowns.total, TIGHT)
    theta[:2], deviation[:2] = np.log10(k), 1e3
    rate, clean = equation.bind(theta), [np.array([6.0, 1.0, 0.5])]
    for _ in time[1:]:
        clean.append(Collocation().advance(rate, clean[-1][None], np.full(1, 0.25))[0])
    run, clean = np.zeros(31, dtype=int), np.array(clean)
    data = mg.Observations(network, time, run, clean)
    bound = bound_of(data, np.log10(k), Collocation(), sigma, 31, deviation=deviation)
    rng, found = np.random.default_rng(0), []
    for _ in range(repeats):
        noisy = mg.Observations(network, time, run, np.maximum(clean + sigma * rng.standard_normal(clean.shape), 0))
        measured = Measurements.of(noisy, np.full(clean.shape, sigma), equation.moving)
        windows = Windows.cut(noisy, 31)
        problem = Problem(equation, Collocation(), windows, measured, (theta, deviation), np.ones(31, dtype=int))
        found.append(fit_windows(problem, theta, clean[windows.starts], goal="end").theta[:2])
    # The standard deviation of forty values has a sampling error of 11 %.
    np.testing.assert_allclose(np.std(found, axis=0), bound.log_k, rtol=0.35)
    assert (np.abs(np.mean(found, axis=0) - np.log10(k)) < 4 * bound.log_k / np.sqrt(repeats)).all()
