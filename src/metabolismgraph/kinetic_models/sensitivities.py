"""Simulated measurements of a PEtab problem, with their derivatives by its parameters."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import casadi as ca
import numpy as np
import pandas as pd
from jaxtyping import Float

from metabolismgraph.formats.formula import Values
from metabolismgraph.formats.petab import PetabProblem
from metabolismgraph.formats.petab_v2 import Period
from metabolismgraph.kinetic_models.measurements import Measurements
from metabolismgraph.kinetic_models.model import KineticModel
from metabolismgraph.kinetic_models.scales import from_scale
from metabolismgraph.kinetic_models.stages import Stage
from metabolismgraph.kinetic_models.symbols import SYMBOLS

# The absolute tolerance is relative to the size of a state.
_OPTIONS = {
    "reltol": 1e-10,
    "abstol": 1e-14,
    "max_num_steps": 5000,
    # Newton's iteration leaves out how the Jacobian changes: the solution is the same, several times faster.
    "second_order_correction": False,
    "disable_internal_warnings": True,
    "show_eval_warnings": False,
}
# Far from the optimum, derivatives, which take most of the time, need not be as precise.
_ROUGH = _OPTIONS | {"reltol": 1e-6, "abstol": 1e-10}
# What the absolute tolerance may be at most, relative to the largest value of a state, which is known afterwards only.
_MOST_ABSOLUTE, _REPEATS = 1e-10, 3
_FIRST_SPAN, _LONGEST, _AT_REST = 10.0, 1e10, 1e-8  # times, and relative change of a state at rest
_FAR = 1e5  # step to a steady state, in times that it took to come to rest


class SimulationFailedError(Exception):
    """The simulation has no result at a point."""


@dataclasses.dataclass(frozen=True)
class Simulated:
    """Simulated measurements.

    Attributes:
        simulation, noise: as in `simulate_petab`.
        of_simulation, of_noise: derivatives by the parameters, without columns if they were not wanted.
    """

    simulation: Float[np.ndarray, " rows"]
    noise: Float[np.ndarray, " rows"]
    of_simulation: Float[np.ndarray, "rows directions"]
    of_noise: Float[np.ndarray, "rows directions"]


@dataclasses.dataclass(frozen=True)
class Tracked:
    """A vector with its derivatives along directions in the space of parameters, of which there may be none."""

    value: Float[np.ndarray, " entries"]
    derivative: Float[np.ndarray, "entries directions"]


class SymbolicProblem:
    """The measurements of a problem as functions of symbols.

    Args:
        fixed: values of the parameters that are not estimated, on linear scale.

    Attributes:
        measurements: with symbols.
        point: symbols of the estimated parameters, on the scales of the parameter table.
        parameters: all parameters on linear scale.

    Raises:
        InputError: as for `Measurements`.
    """

    def __init__(self, problem: PetabProblem, fixed: Mapping[str, float]):
        self.measurements = Measurements(problem, SYMBOLS)
        self.point = ca.SX.sym("point", len(problem.estimated))
        scales = problem.parameters["parameterScale"]
        values = {
            name: from_scale(self.point[k], str(scales[name]), ca.exp) for k, name in enumerate(problem.estimated)
        }
        self.parameters: Mapping[str, Values] = {**fixed} | values


class SimulatedMeasurements:
    """The simulated values and noise of all measurements, as functions of the estimated parameters.

    The differential equations and their forward sensitivities are solved by CVODES (Hindmarsh et al. 2005).

    Args:
        fixed: values of the other parameters, on linear scale.

    Attributes:
        names: of the estimated parameters.

    Raises:
        InputError: as for `Measurements`.
    """

    def __init__(self, problem: PetabProblem, fixed: Mapping[str, float]):
        symbols = SymbolicProblem(problem, fixed)
        self.names, self._rows = problem.estimated, len(symbols.measurements.rows)
        self._groups = [
            (part.index.to_numpy(), _Group(symbols, periods, part)) for periods, part in symbols.measurements.groups()
        ]

    def at(self, point: Float[np.ndarray, " parameters"], *, derivatives: bool, precise: bool = True) -> Simulated:
        """Simulated measurements for parameters on the scales of the parameter table.

        Args:
            precise: whether derivatives are as precise as values.

        Raises:
            SimulationFailedError: the integration fails, or a steady state is not reached.
        """
        rows, given = self._rows, np.asarray(point, dtype=float)
        found, slopes = np.full((2, rows), np.nan), np.zeros((2, rows, len(given) if derivatives else 0))
        for index, group in self._groups:
            try:
                # CasADi prints the inputs of a call that fails.
                with (
                    _late_interrupt(),
                    contextlib.redirect_stdout(io.StringIO()),
                    contextlib.redirect_stderr(io.StringIO()),
                ):
                    simulated = group.at(given, derivatives=derivatives, precise=precise)
            except (RuntimeError, np.linalg.LinAlgError) as error:
                raise SimulationFailedError from error
            found[:, index] = simulated.value.reshape(2, len(index))
            if derivatives:
                slopes[:, index[:, None], group.needed] = simulated.derivative.reshape(2, len(index), -1)
        return Simulated(*found, *slopes)


@contextlib.contextmanager
def _late_interrupt() -> Iterator[None]:
    """An interrupt comes at the end: CVODES would make a failed integration of it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: seen.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if seen:
            raise KeyboardInterrupt


class _Group:
    """The measurements of one experiment.

    Attributes:
        needed: numbers of the parameters on which they depend, which are the directions of derivatives.
    """

    def __init__(self, symbols: SymbolicProblem, periods: Sequence[Period], part: pd.DataFrame):
        point, stages = symbols.point, symbols.measurements.stages(periods, symbols.parameters)
        times = np.unique(part["time"].to_numpy(float))
        self._start = _Map([ca.vertcat(*stages[0].model.start)], [point])
        self._legs = [_Leg(stage, times, point) for stage in stages] if stages[0].model.states else []
        models = {t: stage.model for stage in stages for t in map(float, stage.own(times))}
        self._observed = observed(symbols, models, part)
        # Parameters of other experiments, and those of noise alone, need no sensitivities of states.
        of_states = [self._start.outputs, *(equations(stage.model)[3] for stage in stages)]
        of_states += [leg.entered.outputs for leg in self._legs if leg.entered is not None]
        self._moving = np.flatnonzero(ca.which_depends(ca.vertcat(*of_states), point, 1, False))
        seen = np.flatnonzero(ca.which_depends(self._observed.outputs, point, 1, False))
        self.needed = np.union1d(self._moving, seen).astype(int)

    def at(self, given: Float[np.ndarray, " parameters"], *, derivatives: bool, precise: bool) -> Tracked:
        """Simulated values, then noise, of all rows."""
        directions = np.eye(len(given))
        moving, needed = (which if derivatives else which[:0] for which in (self._moving, self.needed))
        point = Tracked(given, directions[:, moving])
        state, parts = self._start([point]), [_untracked(np.zeros(0), len(moving))]
        for leg in self._legs:
            seen, state = leg(state, point, precise=precise)
            parts += seen
        of_states = np.zeros((sum(len(part.value) for part in parts), len(needed)))
        of_states[:, np.isin(needed, moving)] = np.concatenate([part.derivative for part in parts])
        states = Tracked(np.concatenate([part.value for part in parts]), of_states)
        return self._observed([states, Tracked(given, directions[:, needed])])


class _Leg:
    """The states over a period.

    Attributes:
        entered: the states at its start from those at the end of the period before, and the parameters; None in the
            first period.
    """

    def __init__(self, stage: Stage, times: Float[np.ndarray, " times"], point: ca.SX):
        model, self._count = stage.model, len(stage.model.states)
        self.entered: _Map | None = None
        if stage.entered is not None:
            y = ca.SX.sym("y", self._count)
            self.entered = _Map([ca.vertcat(*stage.entered(_each(y)))], [y, point])
        own = stage.own(times)
        at, self._last = own[np.isfinite(own)], math.isinf(stage.end)
        self._own = at.size
        at = at if self._last else np.union1d(at, [stage.end])
        before = math.isinf(stage.begin)
        self._stands = not before and at.size > 0 and at[-1] == stage.begin
        self._course = Course(model, point, at, stage.begin) if at.size and not before and not self._stands else None
        self._rest = _Rest(model, point) if before or not np.isfinite(own).all() else None

    def __call__(self, states: Tracked, point: Tracked, *, precise: bool) -> tuple[list[Tracked], Tracked]:
        """The states at the times of measurements, and at the end of the period."""
        start = states if self.entered is None else self.entered([states, point])
        seen, end = [], start
        if self._course is not None:
            found = self._course(start, point, precise=precise)
            end = Tracked(found.value[-self._count :], found.derivative[-self._count :])
            kept = self._own * self._count
            seen.append(Tracked(found.value[:kept], found.derivative[:kept]))
        elif self._stands and self._own:
            seen.append(start)
        if self._rest is not None:
            end = self._rest(start, point)
            if self._last:
                seen.append(end)
        return seen, end


class _Map:
    """A function of vectors, whose forward derivatives are taken along with it.

    Args:
        outputs: columns of a matrix, whose entries are the result, column after column; symbols or constants.
        inputs: symbols.
    """

    def __init__(self, outputs: list[Any], inputs: list[Any]):
        self.inputs, self.outputs = inputs, ca.vec(ca.horzcat(*outputs))
        self._function = ca.Function("f", inputs, [self.outputs])
        self._forward: ca.Function | None = None

    def value(self, inputs: list[Float[np.ndarray, " _"]]) -> Float[np.ndarray, " entries"]:
        """The result alone."""
        return numbers(self._function(*inputs))[:, 0]

    def __call__(self, inputs: list[Tracked], value: Float[np.ndarray, " entries"] | None = None) -> Tracked:
        """The result, which may be given if it is known, with its derivatives."""
        values = [x.value for x in inputs]
        output = self.value(values) if value is None else value
        count = inputs[0].derivative.shape[1]
        if not count:
            return _untracked(output, 0)
        if self._forward is None:
            self._forward = self._function.forward(count)
        return Tracked(output, numbers(self._forward(*values, output, *[x.derivative for x in inputs])))


class Course:
    """The states at several times, from those at the start."""

    def __init__(self, model: KineticModel, point: ca.SX, times: Float[np.ndarray, " times"], begin: float = 0.0):
        rates, time_matters = _rates(model, point)
        switches = {}
        if time_matters:  # a rule may switch at a time, which a longer step could miss
            switches["max_step_size"] = float(np.diff([begin, *times]).max())
        count = len(model.states)
        start, at, sizes = ca.MX.sym("start", count), ca.MX.sym("point", point.shape[0]), ca.MX.sym("sizes", count)
        y, time = ca.MX.sym("y", count), ca.MX.sym("t")
        equations = {"x": y, "p": ca.vertcat(at, sizes), "t": time, "ode": rates(y, at, sizes, time)}

        def course(options: Mapping[str, object]) -> _Map:
            solver = ca.integrator(
                "solver", "cvodes", equations, begin, [float(t) for t in times], {**options, **switches}
            )
            found = solver(x0=start / sizes, p=ca.vertcat(at, sizes))["xf"] * ca.repmat(sizes, 1, len(times))
            return _Map([found], [start, at, sizes])

        self._precise, self._rough = course(_OPTIONS), course(_ROUGH)

    def __call__(self, start: Tracked, point: Tracked, *, precise: bool = True) -> Tracked:
        sizes = _sizes(start.value)
        for _ in range(_REPEATS):
            found = self._precise.value([start.value, point.value, sizes])
            largest = np.abs([*found.reshape(-1, len(sizes)), start.value]).max(axis=0)
            coarse = (_OPTIONS["abstol"] * sizes > _MOST_ABSOLUTE * largest) & (largest > 0)
            if not coarse.any():
                break
            sizes = np.where(coarse, largest, sizes)
        else:
            found = self._precise.value([start.value, point.value, sizes])
        course = self._precise if precise else self._rough
        return course([start, point, _untracked(sizes, point.derivative.shape[1])], found)


class _Rest:
    """The states when they have come to rest."""

    def __init__(self, model: KineticModel, point: ca.SX):
        y, time, sizes, ode = equations(model)
        span = ca.SX.sym("span")
        # Over one unit of time that stands for the span.
        problem = {"x": y, "p": ca.vertcat(point, sizes, span), "ode": span * ca.substitute(ode, time, 1e300)}
        self._solver = ca.integrator("solver", "cvodes", problem, 0.0, 1.0, _OPTIONS)
        rate = ca.substitute(ca.substitute(ode, sizes, ca.SX.ones(len(model.states))), time, 1e300)
        self._rate = ca.Function("rate", [y, point], [rate, ca.jacobian(rate, y), ca.jacobian(rate, point)])

    def __call__(self, start: Tracked, point: Tracked) -> Tracked:
        y, span = start.value, _FIRST_SPAN
        while span < _LONGEST:
            sizes = _sizes(y)
            p = np.concatenate([point.value, sizes, [span]])
            before, y = y, sizes * numbers(self._solver(x0=y / sizes, p=p)["xf"])[:, 0]
            size = np.maximum(np.abs(y), _AT_REST * np.abs(y).max())
            rate, by_states, by_point = (numbers(x) for x in self._rate(y, point.value))
            if (np.abs(y - before) <= _AT_REST * size).all() and (np.abs(rate[:, 0]) * span <= _AT_REST * size).all():
                break
            span *= 10
        else:
            raise SimulationFailedError
        if not point.derivative.shape[1]:
            return Tracked(y, start.derivative)
        # Derivatives of one implicit Euler step of a length that leads to rest: those of the steady state, on which
        # conserved sums of states keep the derivatives of the start.
        step = _FAR * span
        right = start.derivative + step * by_point @ point.derivative
        return Tracked(y, np.linalg.solve(np.eye(len(y)) - step * by_states, right))


def equations(model: KineticModel) -> tuple[ca.SX, ca.SX, ca.SX, ca.SX]:
    """Symbols of the states in units of their sizes, time and sizes; and rates of change."""
    count = len(model.states)
    y, time, sizes = ca.SX.sym("y", count), ca.SX.sym("t"), ca.SX.sym("sizes", count)
    environment = model.values(time, _each(y * sizes))
    return y, time, sizes, ca.vertcat(*[rate(environment) for rate in model.rates]) / sizes


def _rates(model: KineticModel, point: ca.SX) -> tuple[ca.Function, bool]:
    """Rates of change, see `equations`, as a function, and whether they depend on time.

    Its derivatives along many directions are products with its Jacobian, which is computed once.
    """
    y, time, sizes, ode = equations(model)
    options = {"never_inline": True, "jac_penalty": 0}
    return ca.Function("rates", [y, point, sizes, time], [ca.densify(ode)], options), bool(ca.depends_on(ode, time))


def observed(symbols: SymbolicProblem, models: Mapping[float, KineticModel], part: pd.DataFrame) -> _Map:
    """Simulated values, then noise, of the rows of a group, from the states at all times and the parameters.

    Args:
        models: by time, in order.
    """
    y = [ca.SX.sym("y", len(model.states)) for model in models.values()]
    at = {t: model.values(ca.SX(t), _each(x)) for (t, model), x in zip(models.items(), y, strict=True)}
    rows = [
        symbols.measurements.simulated(row, at[float(row["time"])], symbols.parameters) for _, row in part.iterrows()
    ]
    return _Map([ca.vertcat(*column) for column in zip(*rows, strict=True)], [ca.vertcat(*y), symbols.point])


def _each(vector: ca.SX) -> list[ca.SX]:
    return [vector[i] for i in range(vector.shape[0])]


def _untracked(value: Float[np.ndarray, " entries"], directions: int) -> Tracked:
    """A vector that does not depend on the parameters."""
    return Tracked(value, np.zeros((len(value), directions)))


def _sizes(states: Float[np.ndarray, " states"]) -> Float[np.ndarray, " states"]:
    """Sizes of states that absolute tolerances refer to: at first that of the largest one for all.

    A tolerance far below the rounding errors of larger states that feed a small one costs thousands of steps.
    """
    return np.full(len(states), np.abs(states).max(initial=0.0) or 1.0)


def numbers(x: ca.DM) -> np.ndarray:
    """A matrix of CasADi as an array."""
    return np.asarray(x.full() if hasattr(x, "full") else x, dtype=float)
