"""Starts by collocation: derivatives, meshes, and oscillations from points far away."""

import math

import numpy as np
import pytest
from test_petab import TABLES, YAML, problem  # noqa: F401 (a fixture)
from test_petab_fit import HEADER, SHARED
from test_sbml import document, reaction, species

import metabolismgraph as mg
from metabolismgraph.formats.petab import read_petab
from metabolismgraph.kinetic_models.collocation import SoftCollocation
from metabolismgraph.kinetic_models.objective import Objective
from metabolismgraph.kinetic_models.sensitivities import SimulationFailedError
from metabolismgraph.kinetic_models.starts import draw_points

# Predator and prey (Lotka 1925; Volterra 1926).
CYCLE = document(
    [
        reaction("birth", "", "X", "c * a * X"),
        reaction("eat", "X", "Y", "c * b * X * Y"),
        reaction("death", "Y", "", "c * d * Y"),
    ],
    kinds=[species("X"), species("Y")],
    parameters={"a": 1.0, "b": 1.0, "d": 1.0},
)
TRUE = {"a": 2.0, "b": 1.0, "d": 1.5, "start": 0.6, "sd_x": 0.05}
PARAMETERS = HEADER + "".join(
    f"{name}\tlog10\t{low}\t{high}\t{value}\t1\n"
    for name, value, low, high in (
        *((name, TRUE[name], 0.01, 100) for name in "abd"),
        ("start", 0.6, 0.06, 6),
        ("sd_x", 0.05, 0.001, 10),
    )
)
TIMES = np.linspace(0, 12, 49)


@pytest.fixture
def cycle(problem):  # noqa: F811
    """Only the prey is measured, over more than three periods."""

    def write(values, **more):
        rows = "".join(f"x\tonly\t{v:.12g}\t{t:g}\n" for t, v in zip(TIMES, values, strict=True))
        tables = {
            "conditions": "conditionId\tX\tY\nonly\tstart\t1.2\n",
            "observables": "observableId\tobservableFormula\tnoiseFormula\nx\tX\tsd_x\n",
            "parameters": PARAMETERS,
            "measurements": "observableId\tsimulationConditionId\tmeasurement\ttime\n" + rows,
        }
        return problem(model=CYCLE, **tables | more)

    return write


def true_values(cycle):
    path = cycle(np.ones(len(TIMES)))
    return mg.simulate_petab(path, TRUE)["simulation"].to_numpy()


def collocation_of(path):
    objective = Objective(read_petab(path))
    return objective, SoftCollocation(
        objective.problem, objective.fixed, objective.noise_scales, objective.lower, objective.upper
    )


@pytest.mark.parametrize("transformation", ["lin", "log10"])
def test_derivatives(cycle, transformation):
    values = true_values(cycle)
    path = cycle(
        values,
        observables="observableId\tobservableFormula\tobservableTransformation\tnoiseFormula\n"
        f"x\tX * a\t{transformation}\tsd_x\n",
    )
    objective, collocation = collocation_of(path)
    (own,) = collocation._experiments
    point, rng = objective.nearest(TRUE)[0], np.random.default_rng(0)
    states = own.begin(point)
    states[1:] *= rng.uniform(0.5, 2.0, states[1:].shape)
    own.sizes = np.array([2.0, 3.0])
    cost, normal = own.terms(states, point, 0.1, moving=True)
    assert cost == pytest.approx(own.cost(states, point, 0.1, moving=True), rel=1e-12)
    h = 1e-6
    for k, slope in enumerate(normal.slope_of_point):
        step = h * np.eye(len(point))[k]
        up, down = (own.cost(states, point + s, 0.1, moving=True) for s in (step, -step))
        assert (up - down) / (2 * h) == pytest.approx(slope, rel=1e-5, abs=1e-4)
    for row, column in ((0, 4), (1, 0), (5, 3), (20, 4), (48, 5)):
        step = np.zeros_like(states)
        step[row, column] = h
        up, down = (own.cost(states + s, point, 0.1, moving=True) for s in (step, -step))
        assert (up - down) / (2 * h) == pytest.approx(normal.slope[row, column], rel=1e-5, abs=1e-4)


def test_a_finer_mesh_has_the_same_polynomials(cycle):
    objective, collocation = collocation_of(cycle(true_values(cycle)))
    (own,) = collocation._experiments
    own.begin(objective.nearest(TRUE)[0])

    def cubic(t):
        return np.stack([5 + t - 0.3 * t**2 + 0.02 * t**3, 9 - 0.5 * t], axis=-1)

    def on_mesh():
        nodes = cubic(own.mesh.times).reshape(len(own.mesh), -1)
        return np.concatenate([np.tile(cubic(np.zeros(1)), (1, 3)), nodes])

    coarse = on_mesh()
    fine = own.refine(coarse, 4)
    assert len(fine) == 4 * (len(coarse) - 1) + 1
    np.testing.assert_allclose(fine, on_mesh(), rtol=1e-9)


def test_oscillations_from_far_away(cycle):
    """Rate constants from four decades, one of two species measured, over several periods."""
    noise = np.random.default_rng(1).normal(0, TRUE["sd_x"], len(TIMES))
    path = cycle(true_values(cycle) + noise)
    objective, collocation = collocation_of(path)
    best = objective(objective.nearest(TRUE)[0])[0]
    points = draw_points(objective.problem, objective.lower, objective.upper, 4, 0)
    led = [objective.refined(collocation.lead(point))[0] for point in points]
    likeliest = min(objective.refined(point)[0] for point in points)
    assert likeliest > best + 50  # so that the way was long
    assert np.sum(np.array(led) < best + 5) >= 2


def test_it_is_not_possible_for_steady_states(cycle):
    rows = "observableId\tsimulationConditionId\tmeasurement\ttime\nx\tonly\t1\tinf\n"
    _, collocation = collocation_of(cycle(true_values(cycle), measurements=rows))
    assert not collocation.possible


def test_a_point_without_derivatives_leads_nowhere(cycle):
    """The logarithm of a negative number."""
    path = cycle(
        true_values(cycle),
        observables="observableId\tobservableFormula\tnoiseFormula\nx\tlog(-X)\tsd_x\n",
    )
    objective = Objective(read_petab(path))
    point = objective.nearest(TRUE)[0]
    collocation = SoftCollocation(objective.problem, objective.fixed, {}, objective.lower, objective.upper)
    assert collocation.lead(point) is None


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared models")
def test_a_benchmark_problem():
    """Boehm et al. 2014: three sums of six species, relative, 16 times."""
    path = SHARED / "petab" / "Boehm_JProteomeRes2014" / "Boehm_JProteomeRes2014.yaml"
    objective, collocation = collocation_of(path)
    points = draw_points(objective.problem, objective.lower, objective.upper, 4, 0)

    def after(point):
        """The objective; infinite where no way, or one to a model that cannot be simulated, was found."""
        try:
            return math.inf if point is None else objective.refined(point)[0]
        except SimulationFailedError:
            return math.inf

    led, before = (min(map(after, some)) for some in (map(collocation.lead, points), points))
    assert led < before - 50
