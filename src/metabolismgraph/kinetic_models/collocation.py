"""Starts of a search whose states follow the measurements at first, and the rate equations more and more.

The rate equations are written by collocation, with the states at all nodes as further unknowns, and their defects are
terms of the sum of squares (generalised profiling, Ramsay et al. 2007). While defects cost little, states follow the
measurements, and parameters come from slopes: no simulation from a wrong point is needed. A fit of a whole
oscillation from far away misses its phase, and ends in a flat line.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import casadi as ca
import numpy as np
import pandas as pd
import scipy.linalg
from jaxtyping import Bool, Float, Int

from metabolismgraph.formats.petab import PetabProblem
from metabolismgraph.kinetic_models.likelihood import Likelihood
from metabolismgraph.kinetic_models.priors import Priors
from metabolismgraph.kinetic_models.sensitivities import SymbolicProblem, equations, numbers, observed
from metabolismgraph.kinetic_models.stages import Stage
from metabolismgraph.system.radau import MATRIX, NODES

_NOISE = 0.02  # that is assumed where it is estimated, in ranges of the measurements
_LEAST = 40  # elements of the first mesh
# Finer and finer meshes, and smaller and smaller defects, in sizes of the states; most steps of each.
_WAY = (
    *((1, defect, steps) for defect, steps in ((0.03, 300), (0.01, 60), (0.003, 60), (0.001, 60))),
    *((2, defect, 60) for defect in (0.003, 0.001, 0.0003)),
    *((4, defect, 60) for defect in (0.001, 0.0003, 0.0001)),
)
_LARGEST, _HOPELESS = _WAY[0][1], 100.0  # defects, and the cost of a measurement with them at which the way ends
_LOOSE, _STEPS = 1e4, 10  # defects, and most steps, while states follow the measurements alone
_MOST = 4e7  # numbers in the largest array, of the finest mesh
_TINY = 1e-12  # added to a diagonal
_FLOOR = 1e-6  # least amount of a species, in its sizes
_DAMPING, _LEAST_DAMPING, _SHORT, _MOST_DAMPING = 1e-3, 1e-10, 1.0, 1e8
_SMALL, _SMALL_STEPS = 1e-3, 3  # relative gain, and how many such steps end a stage


class _Mesh:
    """Elements of time with three nodes each.

    Attributes:
        edges: times of the ends of the elements.
        widths: of the elements.
        times: of the nodes.
    """

    def __init__(self, begin: float, times: Float[np.ndarray, " times"], finer: int):
        known = np.unique([begin, *times])
        width = (known[-1] - known[0]) / _LEAST
        counts = finer * np.ceil(np.diff(known) / width - 1e-9).astype(int)
        pieces = [np.linspace(a, b, n + 1)[1:] for a, b, n in zip(known, known[1:], counts, strict=False)]
        self.edges = np.concatenate([known[:1], *pieces])
        self.widths = np.diff(self.edges)
        self.times = (self.edges[:-1, None] + self.widths[:, None] * NODES).ravel()

    def __len__(self) -> int:
        return len(self.widths)

    def edges_at(self, times: Float[np.ndarray, " times"]) -> Int[np.ndarray, " times"]:
        """Numbers of the edges that are at some times."""
        found: np.ndarray = np.abs(self.edges[:, None] - times).argmin(axis=0)
        return found


class _Normal:
    """Gauss-Newton equations of an experiment, whose matrix is block tridiagonal in the states of the elements.

    Attributes:
        own, following: blocks of an element with itself, and with the next one.
        mixed: blocks of an element with the parameters.
        slope: gradient by the states.
        of_point, slope_of_point: matrix and gradient of the parameters.
    """

    def __init__(self, elements: int, states: int, parameters: int):
        block = 3 * states
        self._end = np.s_[2 * states :]
        self.own, self.following = np.zeros((elements + 1, block, block)), np.zeros((elements, block, block))
        self.mixed, self.slope = np.zeros((elements + 1, block, parameters)), np.zeros((elements + 1, block))
        self.of_point, self.slope_of_point = np.zeros((parameters, parameters)), np.zeros(parameters)
        # The copies of the start in the first row belong to nothing.
        self.own[0, : 2 * states, : 2 * states] = np.eye(2 * states)

    def add_defects(
        self,
        defects: Float[np.ndarray, "elements block"],
        by_own: Float[np.ndarray, "elements block block"],
        by_end: Float[np.ndarray, "block states"],
        by_point: Float[np.ndarray, "elements block parameters"],
    ) -> None:
        """Rows of elements, which depend on their own states and on those at the end of the element before."""
        turned = by_own.transpose(0, 2, 1)
        self.own[1:] += turned @ by_own
        self.own[:-1, self._end, self._end] += by_end.T @ by_end
        self.following[:, self._end] += by_end.T @ by_own
        self.mixed[1:] += turned @ by_point
        self.mixed[:-1, self._end] += by_end.T @ by_point
        self.slope[1:] += np.einsum("eki,ek->ei", by_own, defects)
        self.slope[:-1, self._end] += defects @ by_end
        self._add_of_point(by_point.reshape(defects.size, -1), defects.ravel())

    def add_residuals(
        self,
        residuals: Float[np.ndarray, " rows"],
        edges: Int[np.ndarray, " rows"],
        by_states: Float[np.ndarray, "rows states"],
        by_point: Float[np.ndarray, "rows parameters"],
    ) -> None:
        """Rows that depend on the states at one edge each."""
        np.add.at(self.own[:, self._end, self._end], edges, by_states[:, :, None] * by_states[:, None])
        np.add.at(self.mixed[:, self._end], edges, by_states[:, :, None] * by_point[:, None])
        np.add.at(self.slope[:, self._end], edges, by_states * residuals[:, None])
        self._add_of_point(by_point, residuals)

    def is_finite(self) -> bool:
        """Whether all derivatives exist."""
        return bool(np.isfinite(self.of_point).all() and np.isfinite(self.own).all() and np.isfinite(self.mixed).all())

    def _add_of_point(self, by_point: Float[np.ndarray, "rows parameters"], r: Float[np.ndarray, " rows"]) -> None:
        self.of_point += by_point.T @ by_point
        self.slope_of_point += by_point.T @ r


class _Eliminated:
    """The states of an experiment, eliminated from its damped equations by a block Cholesky decomposition.

    Attributes:
        of_point, slope_of_point: what is left for the parameters.
    """

    def __init__(self, normal: _Normal, damping: float):
        elements, block = len(normal.following), normal.own.shape[1]
        diagonal = np.einsum("eii->ei", normal.own)
        own = normal.own + (damping * diagonal + _TINY)[:, :, None] * np.eye(block)
        right = np.concatenate([normal.mixed, normal.slope[:, :, None]], axis=2)
        self._factors, self._links, self._solved = list[np.ndarray](), list[np.ndarray](), np.zeros_like(right)
        matrix, columns = own[0], right.shape[2]
        for e in range(elements + 1):
            factor = scipy.linalg.cholesky(matrix, lower=True, check_finite=False)
            rows = right[e] - self._links[-1].T @ self._solved[e - 1] if e else right[e]
            both = rows if e == elements else np.concatenate([rows, normal.following[e]], axis=1)
            solved = scipy.linalg.solve_triangular(factor, both, lower=True, check_finite=False)
            self._factors.append(factor)
            self._solved[e] = solved[:, :columns]
            if e < elements:
                self._links.append(solved[:, columns:])
                matrix = own[e + 1] - self._links[-1].T @ self._links[-1]
        all_rows = self._solved.reshape(-1, columns)
        self.of_point = normal.of_point - all_rows[:, :-1].T @ all_rows[:, :-1]
        self.slope_of_point = normal.slope_of_point - all_rows[:, :-1].T @ all_rows[:, -1]

    def step(self, of_point: Float[np.ndarray, " parameters"]) -> Float[np.ndarray, "edges block"]:
        """The step of the states that belongs to one of the parameters."""
        found = np.zeros(self._solved.shape[:2])
        for e in reversed(range(len(found))):
            right = -(self._solved[e][:, :-1] @ of_point + self._solved[e][:, -1])
            if e < len(found) - 1:
                right -= self._links[e] @ found[e + 1]
            found[e] = scipy.linalg.solve_triangular(self._factors[e], right, lower=True, trans=1, check_finite=False)
        return found


class _Experiment:
    """States, rate equations and measurements of an experiment of one period.

    Arrays of states have a row for each element: those at its three nodes, the last of which is its end. The first
    row is the start, three times.

    Attributes:
        states: their ids.
        sizes: of the states.
        rows: numbers of its rows of the measurement table.
        noise: of these rows.
    """

    def __init__(self, symbols: SymbolicProblem, stage: Stage, part: pd.DataFrame, likelihood: Likelihood):
        model, point = stage.model, symbols.point
        self._likelihood = likelihood
        self.states, self.rows, self._begin = model.states, part.index.to_numpy(), stage.begin
        time = part["time"].to_numpy(float)
        self._times, self._of_row = np.unique(time, return_inverse=True)
        count = len(model.states)
        y, t, sizes, ode = equations(model)
        rates = ca.substitute(ode, sizes, ca.SX.ones(count))
        matrices = [ca.jacobian(rates, y), ca.jacobian(rates, point)]
        self._places = [np.array(matrix.sparsity().get_triplet(), dtype=int) for matrix in matrices]
        slopes = [ca.vertcat(*matrix.nonzeros()) for matrix in matrices]
        self._rates = ca.Function("rates", [y, point, t], [ca.densify(rates)])
        self._slopes = ca.Function("slopes", [y, point, t], [ca.densify(rates), *slopes])
        start = ca.vertcat(*[ca.SX(x) for x in model.start])
        self._start = ca.Function("start", [point], [ca.densify(start), ca.densify(ca.jacobian(start, point))])
        seen = observed(symbols, dict.fromkeys(map(float, self._times), model), part)
        values, noise, at_times = seen.outputs[: len(part)], seen.outputs[len(part) :], seen.inputs[0]
        # A row depends on the states at its own time alone.
        by_states = ca.jtimes(values, at_times, ca.repmat(ca.SX.eye(count), len(self._times), 1))
        outputs = [values, noise, by_states, ca.jacobian(values, point)]
        self._observed = ca.Function("observed", [at_times, point], [ca.densify(x) for x in outputs])
        self._amounts = np.array([name in model.species for name in model.states])
        self.sizes, self.noise, self.mesh = np.ones(count), np.ones(len(part)), _Mesh(self._begin, self._times, 1)

    def begin(self, point: Float[np.ndarray, " parameters"]) -> Float[np.ndarray, "edges block"]:
        """States on the first mesh that stay as they are at the start."""
        self.mesh = _Mesh(self._begin, self._times, 1)
        self.sizes = np.ones(len(self.states))
        return np.tile(numbers(self._start(point)[0])[:, 0], (len(self.mesh) + 1, 3))

    def refine(self, states: Float[np.ndarray, "edges block"], finer: int) -> Float[np.ndarray, "finer block"]:
        """States on a finer mesh, which is that of the experiment from then on, by the polynomials of the elements."""
        old, self.mesh = self.mesh, _Mesh(self._begin, self._times, finer)
        nodes = np.append(0.0, NODES)
        known = np.concatenate([self._ends(states)[:-1, None], self._at_nodes(states)], axis=1)
        element = np.clip(np.searchsorted(old.edges, self.mesh.times) - 1, 0, len(old) - 1)
        place = (self.mesh.times - old.edges[element]) / old.widths[element]
        weights = [np.prod([(place - x) / (own - x) for x in nodes if x != own], axis=0) for own in nodes]
        found = np.einsum("kn,nks->ns", weights, known[element]).reshape(len(self.mesh), -1)
        return np.concatenate([states[:1], found])

    def allowed(self, states: Float[np.ndarray, "rows block"]) -> Float[np.ndarray, "rows block"]:
        """States without negative amounts of species."""
        least = np.where(self._amounts, _FLOOR * self.sizes, -math.inf)
        found: np.ndarray = np.maximum(states, np.tile(least, 3))
        return found

    def simulated(
        self, states: Float[np.ndarray, "edges block"], point: Float[np.ndarray, " parameters"]
    ) -> tuple[
        Float[np.ndarray, " rows"],
        Float[np.ndarray, " rows"],
        Float[np.ndarray, "rows states"],
        Float[np.ndarray, "rows parameters"],
    ]:
        """Simulated values and noise of the rows, and derivatives of the values by states and parameters."""
        ends = self._ends(states)[self.mesh.edges_at(self._times)]
        values, noise, by_states, by_point = (numbers(x) for x in self._observed(ends.ravel(), point))
        return values[:, 0], noise[:, 0], by_states, by_point

    def terms(
        self,
        states: Float[np.ndarray, "edges block"],
        point: Float[np.ndarray, " parameters"],
        defect: float,
        *,
        moving: bool,
    ) -> tuple[float, _Normal]:
        """Half the sum of squares of defects, relative to `defect` times the sizes, and of residuals; its equations.

        Args:
            moving: whether states change by their rates.
        """
        n, s, elements = len(point), len(self.states), len(self.mesh)
        weight = 1 / (defect * self.sizes)
        weights = np.tile(weight, 3)
        normal = _Normal(elements, s, n)
        rates, matrices = np.zeros((elements, 3, s)), [np.zeros((3 * elements, s, size)) for size in (s, n)]
        if moving:
            found = self._slopes.map(len(self.mesh.times))(*self._at(states, point))
            rates = numbers(found[0]).T.reshape(rates.shape)
            for matrix, (row, column), values in zip(matrices, self._places, found[1:], strict=True):
                matrix[:, row, column] = numbers(values).T
        by_nodes, by_point = (
            np.einsum(indices, -self.mesh.widths, MATRIX, matrix.reshape(elements, 3, s, -1), optimize=True)
            for indices, matrix in zip(("e,pq,eqij->epiqj", "e,pq,eqij->epij"), matrices, strict=True)
        )
        own = (by_nodes.reshape(elements, 3 * s, 3 * s) + np.eye(3 * s)) * weights[:, None]
        by_end = -np.tile(np.eye(s), (3, 1)) * weights[:, None]
        simulated, _, by_states, values_by_point = self.simulated(states, point)
        start, start_by_point = (numbers(x) for x in self._start(point))
        defects, first, residuals = self._misfits(states, rates, start[:, 0], simulated, weight)
        normal.add_defects(defects, own, by_end, by_point.reshape(elements, 3 * s, n) * weights[:, None])
        normal.add_residuals(first, np.zeros(s, dtype=int), -np.diag(weight), start_by_point * weight[:, None])
        factor = np.where(self._likelihood.exact, -self._likelihood.slopes(simulated, self.noise), 0.0)[:, None]
        edges = self.mesh.edges_at(self._times)[self._of_row]
        normal.add_residuals(residuals, edges, by_states * factor, values_by_point * factor)
        return _half_squares(defects, first, residuals), normal

    def cost(
        self,
        states: Float[np.ndarray, "edges block"],
        point: Float[np.ndarray, " parameters"],
        defect: float,
        *,
        moving: bool,
    ) -> float:
        """The sum of `terms` alone, for a fraction of the time."""
        rates = np.zeros((len(self.mesh), 3, len(self.states)))
        if moving:
            found = self._rates.map(len(self.mesh.times))(*self._at(states, point))
            rates = numbers(found).T.reshape(rates.shape)
        start, simulated = numbers(self._start(point)[0])[:, 0], self.simulated(states, point)[0]
        return _half_squares(*self._misfits(states, rates, start, simulated, 1 / (defect * self.sizes)))

    def _misfits(
        self,
        states: Float[np.ndarray, "edges block"],
        rates: Float[np.ndarray, "elements 3 states"],
        start: Float[np.ndarray, " states"],
        simulated: Float[np.ndarray, " rows"],
        weight: Float[np.ndarray, " states"],
    ) -> tuple[Float[np.ndarray, "elements block"], Float[np.ndarray, " states"], Float[np.ndarray, " rows"]]:
        """Weighted defects of the rate equations at the nodes, and of the start; residuals of values, not limits."""
        steps = np.einsum("e,pq,eqs->eps", self.mesh.widths, MATRIX, rates).reshape(len(self.mesh), -1)
        ends = self._ends(states)
        defects = (states[1:] - np.tile(ends[:-1], 3) - steps) * np.tile(weight, 3)
        residuals = np.where(self._likelihood.exact, self._likelihood.residuals(simulated, self.noise), 0.0)
        return defects, (start - ends[0]) * weight, residuals

    def _ends(self, states: Float[np.ndarray, "edges block"]) -> Float[np.ndarray, "edges states"]:
        return states[:, 2 * len(self.states) :]

    def _at_nodes(self, states: Float[np.ndarray, "edges block"]) -> Float[np.ndarray, "elements 3 states"]:
        return states[1:].reshape(len(states) - 1, 3, -1)

    def _at(
        self, states: Float[np.ndarray, "edges block"], point: Float[np.ndarray, " parameters"]
    ) -> tuple[Float[np.ndarray, "states nodes"], Float[np.ndarray, " parameters"], Float[np.ndarray, "1 nodes"]]:
        """Arguments of the rates at all nodes."""
        return states[1:].reshape(-1, len(self.states)).T, point, self.mesh.times[None]


class SoftCollocation:
    """The way from parameters to better ones, for problems whose experiments have one period each.

    Args:
        noise_scales: parameters to which the noise of some rows is proportional; see `Objective.noise_scales`.
        lower, upper: bounds of the parameters on the scales of the table.

    Attributes:
        possible: whether the experiments have one period, which begins and ends at finite times, and few enough
            states.
    """

    def __init__(
        self,
        problem: PetabProblem,
        fixed: Mapping[str, float],
        noise_scales: Mapping[int, Bool[np.ndarray, " rows"]],
        lower: Float[np.ndarray, " parameters"],
        upper: Float[np.ndarray, " parameters"],
    ):
        self._priors, self._likelihood, self._noise_scales = Priors(problem), Likelihood(problem), noise_scales
        self._lower, self._upper = lower, upper
        symbols = SymbolicProblem(problem, fixed)
        groups = [
            (symbols.measurements.stages(p, symbols.parameters), rows) for p, rows in symbols.measurements.groups()
        ]
        self.possible = all(len(stages) == 1 and _is_small(stages[0], rows, len(lower)) for stages, rows in groups)
        self._experiments = list[_Experiment]()
        for stages, rows in groups if self.possible else ():
            own = Likelihood(dataclasses.replace(problem, measurements=problem.measurements.iloc[rows.index]))
            self._experiments.append(_Experiment(symbols, stages[0], rows, own))

    def lead(
        self, point: Float[np.ndarray, " parameters"], deadline: float = math.inf
    ) -> Float[np.ndarray, " parameters"] | None:
        """Parameters with which the solution follows the measurements, from others; None if it cannot follow them.

        Args:
            deadline: CPU time of the process at which the way ends.
        """
        states = [experiment.begin(point) for experiment in self._experiments]
        self._assume_noise(states, point)
        at = _At(point, states)
        at = self._minimise(at, _LOOSE, _STEPS, deadline, moving=False)
        self._assume_sizes(at.states)
        at, mesh = self._allowed(at), 1
        for finer, defect, steps in _WAY:
            if finer != mesh:
                refined = [own.refine(x, finer) for own, x in zip(self._experiments, at.states, strict=True)]
                at, mesh = self._allowed(_At(at.point, refined)), finer
            at = self._minimise(at, defect, steps, deadline, moving=True)
            # As with reactions near equilibrium, which magnify the noise of the measurements.
            if (
                defect == _LARGEST
                and not self._cost(at, defect, moving=True) < _HOPELESS * self._likelihood.measured.size
            ):
                return None
        return at.point

    def _assume_noise(self, states: Sequence[np.ndarray], point: Float[np.ndarray, " parameters"]) -> None:
        """Noise that is proportional to a parameter becomes a share of the range of the measurements."""
        noise, likelihood = np.ones(len(self._likelihood.measured)), self._likelihood
        for experiment, x in zip(self._experiments, states, strict=True):
            noise[experiment.rows] = experiment.simulated(x, point)[1]
        for rows in self._noise_scales.values():
            size = likelihood.range_of(rows)
            if size > 0:
                noise[rows] *= _NOISE * size / float(noise[rows & likelihood.exact].mean())
        for experiment in self._experiments:
            experiment.noise = noise[experiment.rows]

    def _assume_sizes(self, states: Sequence[np.ndarray]) -> None:
        """Sizes of states are their largest values in all experiments, or typical ones where these are zero."""
        largest: dict[str, float] = {}
        for experiment, x in zip(self._experiments, states, strict=True):
            for name, values in zip(experiment.states, np.abs(x.reshape(-1, len(experiment.states))).T, strict=True):
                largest[name] = max(largest.get(name, 0.0), float(values.max()))
        typical = float(np.mean([size for size in largest.values() if size > 0] or [1.0]))
        for experiment in self._experiments:
            experiment.sizes = np.array([largest[name] or typical for name in experiment.states])

    def _allowed(self, at: _At) -> _At:
        return _At(at.point, [own.allowed(x) for own, x in zip(self._experiments, at.states, strict=True)])

    def _minimise(self, at: _At, defect: float, steps: int, deadline: float, *, moving: bool) -> _At:
        """Levenberg and Marquardt's method; the damping follows the gain (Nielsen 1999).

        Args:
            moving: whether states change by their rates; otherwise the parameters stay, too.
        """
        cost, normals = self._terms(at, defect, moving=moving)
        damping, growth, small = _DAMPING, 2.0, 0
        for _ in range(steps):
            if not math.isfinite(cost) or damping > _MOST_DAMPING or time.process_time() > deadline:
                break
            try:
                new, expected = self._step(at, normals, damping, moving=moving)
            except np.linalg.LinAlgError:
                damping *= 10
                continue
            changed = self._cost(new, defect, moving=moving)
            gain = cost - changed
            if gain > 0:
                at = new
                # A step that the damping makes short says nothing of what is left to gain.
                small = small + 1 if gain < _SMALL * max(1.0, abs(cost)) and damping < _SHORT else 0
                if small == _SMALL_STEPS:
                    break
                cost, normals = self._terms(at, defect, moving=moving)
                ratio = min(gain / expected, 1.0) if expected > 0 else 1.0
                damping, growth = max(damping * max(0.2, 1 - (2 * ratio - 1) ** 3), _LEAST_DAMPING), 2.0
            else:
                damping, growth = damping * growth, growth * 2
        return at

    def _terms(self, at: _At, defect: float, *, moving: bool) -> tuple[float, list[_Normal]]:
        with np.errstate(all="ignore"):
            found = [
                own.terms(x, at.point, defect, moving=moving)
                for own, x in zip(self._experiments, at.states, strict=True)
            ]
        cost, normals = self._priors.terms(at.point)[0] + sum(cost for cost, _ in found), [one for _, one in found]
        return (cost if all(normal.is_finite() for normal in normals) else math.inf), normals

    def _cost(self, at: _At, defect: float, *, moving: bool) -> float:
        with np.errstate(all="ignore"):
            found = self._priors.terms(at.point)[0] + sum(
                own.cost(x, at.point, defect, moving=moving)
                for own, x in zip(self._experiments, at.states, strict=True)
            )
        return found if math.isfinite(found) else math.inf

    def _step(self, at: _At, normals: Sequence[_Normal], damping: float, *, moving: bool) -> tuple[_At, float]:
        """Where a damped step within the bounds leads, and the expected gain.

        Raises:
            LinAlgError: the damping is too small.
        """
        eliminated = [_Eliminated(normal, damping) for normal in normals]
        _, slope, curvature = self._priors.terms(at.point)
        matrix = curvature + sum(one.of_point for one in eliminated)
        right = slope + sum(one.slope_of_point for one in eliminated)
        own = np.diag(matrix)
        matrix = matrix + np.diag(damping * np.maximum(own, _TINY))
        step, free = np.zeros(len(right)), (own > 0) & moving
        while free.any():
            step[:] = 0.0
            step[free] = -np.linalg.solve(matrix[np.ix_(free, free)], right[free])
            # Parameters at a bound that the step would cross stay there.
            stuck = free & (((at.point <= self._lower) & (step < 0)) | ((at.point >= self._upper) & (step > 0)))
            if not stuck.any():
                break
            free &= ~stuck
        steps = [one.step(step) for one in eliminated]
        slope = slope + sum(normal.slope_of_point for normal in normals)
        gain = -float(slope @ step) - sum(float((own.slope * x).sum()) for own, x in zip(normals, steps, strict=True))
        point = np.clip(at.point + step, self._lower, self._upper)
        states = [x + dx for x, dx in zip(at.states, steps, strict=True)]
        return (self._allowed(_At(point, states)) if moving else _At(point, states)), gain / 2


class _At(NamedTuple):
    """Parameters on the scales of the table, and the states of every experiment."""

    point: Float[np.ndarray, " parameters"]
    states: list[np.ndarray]


def _half_squares(*misfits: np.ndarray) -> float:
    return 0.5 * sum(float((x**2).sum()) for x in misfits)


def _is_small(stage: Stage, rows: pd.DataFrame, parameters: int) -> bool:
    times, states = rows["time"].to_numpy(float), len(stage.model.states)
    if not states or not np.isfinite([stage.begin, *times]).all() or times.max() <= stage.begin:
        return False
    elements = max(finer for finer, _, _ in _WAY) * (len(np.unique(times)) + _LEAST)
    return elements * 3 * states * (3 * states + parameters) < _MOST
