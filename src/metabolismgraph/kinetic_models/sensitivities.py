"""Simulated measurements of a PEtab problem, with their derivatives by its parameters."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import signal
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import casadi as ca
import numpy as np
import pandas as pd
from jaxtyping import Float

from metabolismgraph.formats.formula import Values
from metabolismgraph.formats.petab import PetabProblem
from metabolismgraph.kinetic_models.measurements import Measurements
from metabolismgraph.kinetic_models.model import KineticModel
from metabolismgraph.kinetic_models.scales import from_scale
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
        self._measurements = Measurements(problem, SYMBOLS)
        self.names = problem.estimated
        point = ca.SX.sym("point", len(self.names))
        scales = problem.parameters["parameterScale"]
        values = {name: from_scale(point[k], str(scales[name]), ca.exp) for k, name in enumerate(self.names)}
        parameters = {**fixed} | values
        self._groups = [
            (part.index.to_numpy(), _Group(self._measurements, first, then, part, point, parameters))
            for first, then, part in self._measurements.groups()
        ]

    def at(self, point: Float[np.ndarray, " parameters"], *, derivatives: bool, precise: bool = True) -> Simulated:
        """Simulated measurements for parameters on the scales of the parameter table.

        Args:
            precise: whether derivatives are as precise as values.

        Raises:
            SimulationFailedError: the integration fails, or a steady state is not reached.
        """
        rows, given = len(self._measurements.rows), np.asarray(point, dtype=float)
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
    """The measurements of one condition, with the steady state before it.

    Attributes:
        needed: numbers of the parameters on which they depend, which are the directions of derivatives.
    """

    def __init__(
        self,
        measurements: Measurements,
        first: str,
        then: str,
        part: pd.DataFrame,
        point: ca.SX,
        parameters: Mapping[str, Values],
    ):
        model = measurements.model(then, parameters)
        before = measurements.model(first, parameters) if first and model.states else None
        times = np.unique(part["time"].to_numpy(float))
        finite = times[np.isfinite(times)]
        self._start = _Map([ca.vertcat(*model.start)], [point])
        self._before = None if before is None else (_Map([ca.vertcat(*before.start)], [point]), _Rest(before, point))
        self._kept = np.array(measurements.kept(model, then), dtype=bool)
        self._course = Course(model, point, finite) if finite.size and model.states else None
        self._end = _Rest(model, point) if finite.size < times.size and model.states else None
        self._observed = _observed(measurements, model, part, times, point, parameters)
        models = [model] if before is None else [model, before]
        # Parameters of other conditions, and those of noise alone, need no sensitivities of states.
        of_states = [ca.which_depends(ca.vertcat(*m.start, _equations(m)[3]), point, 1, False) for m in models]
        self._moving = np.flatnonzero(np.any(of_states, axis=0))
        seen = np.flatnonzero(ca.which_depends(self._observed.outputs, point, 1, False))
        self.needed = np.union1d(self._moving, seen).astype(int)

    def at(self, given: Float[np.ndarray, " parameters"], *, derivatives: bool, precise: bool) -> Tracked:
        """Simulated values, then noise, of all rows."""
        directions = np.eye(len(given))
        moving, needed = (which if derivatives else which[:0] for which in (self._moving, self.needed))
        states = self._states(Tracked(given, directions[:, moving]), precise=precise)
        of_states = np.zeros((len(states.value), len(needed)))
        of_states[:, np.isin(needed, moving)] = states.derivative
        return self._observed([Tracked(states.value, of_states), Tracked(given, directions[:, needed])])

    def _states(self, point: Tracked, *, precise: bool) -> Tracked:
        """The states at all times, one time after the other."""
        start = self._start([point])
        if self._before is not None:
            initial, rest = self._before
            reached = rest(initial([point]), point)
            start = Tracked(
                np.where(self._kept, reached.value, start.value),
                np.where(self._kept[:, None], reached.derivative, start.derivative),
            )
        parts = [_untracked(np.zeros(0), point.derivative.shape[1])]
        if self._course is not None:
            parts.append(self._course(start, point, precise=precise))
        if self._end is not None:
            parts.append(self._end(start, point))
        return Tracked(
            np.concatenate([part.value for part in parts]), np.concatenate([part.derivative for part in parts])
        )


class _Map:
    """A function of vectors, whose forward derivatives are taken along with it.

    Args:
        outputs: columns of a matrix, whose entries are the result, column after column; symbols or constants.
        inputs: symbols.
    """

    def __init__(self, outputs: list[Any], inputs: list[Any]):
        self.outputs = ca.vec(ca.horzcat(*outputs))
        self._function = ca.Function("f", inputs, [self.outputs])
        self._forward: ca.Function | None = None

    def value(self, inputs: list[Float[np.ndarray, " _"]]) -> Float[np.ndarray, " entries"]:
        """The result alone."""
        return _numbers(self._function(*inputs))[:, 0]

    def __call__(self, inputs: list[Tracked], value: Float[np.ndarray, " entries"] | None = None) -> Tracked:
        """The result, which may be given if it is known, with its derivatives."""
        values = [x.value for x in inputs]
        output = self.value(values) if value is None else value
        count = inputs[0].derivative.shape[1]
        if not count:
            return _untracked(output, 0)
        if self._forward is None:
            self._forward = self._function.forward(count)
        return Tracked(output, _numbers(self._forward(*values, output, *[x.derivative for x in inputs])))


class Course:
    """The states at several times, from those at time zero."""

    def __init__(self, model: KineticModel, point: ca.SX, times: Float[np.ndarray, " times"]):
        rates, time_matters = _rates(model, point)
        switches = {}
        if time_matters and len(times) > 1:  # a rule may switch at a time, which a longer step could miss
            switches["max_step_size"] = float(np.diff(times).max())
        count = len(model.states)
        start, at, sizes = ca.MX.sym("start", count), ca.MX.sym("point", point.shape[0]), ca.MX.sym("sizes", count)
        y, time = ca.MX.sym("y", count), ca.MX.sym("t")
        equations = {"x": y, "p": ca.vertcat(at, sizes), "t": time, "ode": rates(y, at, sizes, time)}

        def course(options: Mapping[str, object]) -> _Map:
            solver = ca.integrator(
                "solver", "cvodes", equations, 0.0, [float(t) for t in times], {**options, **switches}
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
        y, time, sizes, ode = _equations(model)
        span = ca.SX.sym("span")
        # Over one unit of time that stands for the span.
        equations = {"x": y, "p": ca.vertcat(point, sizes, span), "ode": span * ca.substitute(ode, time, 1e300)}
        self._solver = ca.integrator("solver", "cvodes", equations, 0.0, 1.0, _OPTIONS)
        rate = ca.substitute(ca.substitute(ode, sizes, ca.SX.ones(len(model.states))), time, 1e300)
        self._rate = ca.Function("rate", [y, point], [rate, ca.jacobian(rate, y), ca.jacobian(rate, point)])

    def __call__(self, start: Tracked, point: Tracked) -> Tracked:
        y, span = start.value, _FIRST_SPAN
        while span < _LONGEST:
            sizes = _sizes(y)
            p = np.concatenate([point.value, sizes, [span]])
            before, y = y, sizes * _numbers(self._solver(x0=y / sizes, p=p)["xf"])[:, 0]
            size = np.maximum(np.abs(y), _AT_REST * np.abs(y).max())
            rate, by_states, by_point = (_numbers(x) for x in self._rate(y, point.value))
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


def _equations(model: KineticModel) -> tuple[ca.SX, ca.SX, ca.SX, ca.SX]:
    """Symbols of the states in units of their sizes, time and sizes; and rates of change."""
    count = len(model.states)
    y, time, sizes = ca.SX.sym("y", count), ca.SX.sym("t"), ca.SX.sym("sizes", count)
    environment = model.values(time, [y[i] * sizes[i] for i in range(count)])
    return y, time, sizes, ca.vertcat(*[rate(environment) for rate in model.rates]) / sizes


def _rates(model: KineticModel, point: ca.SX) -> tuple[ca.Function, bool]:
    """Rates of change, see `_equations`, as a function, and whether they depend on time.

    Its derivatives along many directions are products with its Jacobian, which is computed once.
    """
    y, time, sizes, ode = _equations(model)
    options = {"never_inline": True, "jac_penalty": 0}
    return ca.Function("rates", [y, point, sizes, time], [ca.densify(ode)], options), bool(ca.depends_on(ode, time))


def _observed(
    measurements: Measurements,
    model: KineticModel,
    part: pd.DataFrame,
    times: Float[np.ndarray, " times"],
    point: ca.SX,
    parameters: Mapping[str, Values],
) -> _Map:
    """Simulated values, then noise, of the rows of a group, from the states at all times and the parameters."""
    y = ca.SX.sym("y", len(model.states) * len(times))
    count = len(model.states)
    at = [model.values(ca.SX(t), [y[k * count + i] for i in range(count)]) for k, t in enumerate(times)]
    rows = [
        measurements.simulated(row, at[int(np.searchsorted(times, row["time"]))], parameters)
        for _, row in part.iterrows()
    ]
    return _Map([ca.vertcat(*column) for column in zip(*rows, strict=True)], [y, point])


def _untracked(value: Float[np.ndarray, " entries"], directions: int) -> Tracked:
    """A vector that does not depend on the parameters."""
    return Tracked(value, np.zeros((len(value), directions)))


def _sizes(states: Float[np.ndarray, " states"]) -> Float[np.ndarray, " states"]:
    """Sizes of states that absolute tolerances refer to: at first that of the largest one for all.

    A tolerance far below the rounding errors of larger states that feed a small one costs thousands of steps.
    """
    return np.full(len(states), np.abs(states).max(initial=0.0) or 1.0)


def _numbers(x: ca.DM) -> np.ndarray:
    return np.asarray(x.full() if hasattr(x, "full") else x, dtype=float)
