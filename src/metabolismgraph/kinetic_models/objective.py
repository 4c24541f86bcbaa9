"""What the estimation of parameters minimises."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from metabolismgraph.errors import InputError
from metabolismgraph.formats.petab import PetabProblem
from metabolismgraph.kinetic_models.collocation import SoftCollocation
from metabolismgraph.kinetic_models.likelihood import Likelihood
from metabolismgraph.kinetic_models.priors import Priors
from metabolismgraph.kinetic_models.scales import UNITS, from_scale, to_scale
from metabolismgraph.kinetic_models.sensitivities import Simulated, SimulatedMeasurements, SimulationFailedError
from metabolismgraph.kinetic_models.starts import draw_points

_PROBES, _ENOUGH = 50, 3  # points at which parameters of noise are told, and how many of them must be simulated
_INSIDE = 1e-3  # least distance of a start from a bound, in ranges between bounds
_CALM, _CALMER = 0.1, 0.01  # noise that is assumed on the way, and at its end, in ranges of the measurements
_FIRST, _LONGER, _LEAST = 4, 1.5, 8  # times of the first part of a series, growth of the parts, and times of a series


class Objective:
    """The negative logarithm of the likelihood and of priors, on the scales of the parameter table.

    Attributes:
        evaluations: their number.
        precise: see `SimulatedMeasurements.at`.
    """

    def __init__(self, problem: PetabProblem):
        self.problem = problem
        self.lower, self.upper = _bounds(problem)
        self.names = problem.estimated
        self.scales = problem.parameters.loc[list(self.names), "parameterScale"].astype(str).tolist()
        self.fixed = {name: value for name, value in problem.nominal.items() if name not in self.names}
        self._simulated = SimulatedMeasurements(problem, self.fixed)
        self.likelihood = Likelihood(problem)
        self.priors = Priors(problem)
        self.evaluations = 0
        self.precise = True

    @property
    def quantity(self) -> str:
        """What is minimised."""
        return "-log posterior" if self.priors else "-log L"

    def __call__(self, point: Float[np.ndarray, " parameters"]) -> tuple[float, np.ndarray, np.ndarray]:
        """Value, gradient and information, with priors; infinite, without a gradient, where the simulation fails."""
        self.evaluations += 1
        try:
            at = self.simulated(point)
        except SimulationFailedError:
            at = None
        if at is not None:
            value = -float(self.likelihood.log_densities(at.simulation, at.noise).sum())
            gradient, information = self.likelihood.gradient(at.simulation, at.noise, at.of_simulation, at.of_noise)
            prior = self.priors.terms(point)
            value, gradient, information = value + prior[0], gradient + prior[1], information + prior[2]
            if np.isfinite([value, *gradient, *information.flat]).all():
                return value, gradient, information
        # A gradient of zero would pass for convergence.
        return math.inf, np.full(len(point), np.nan), np.eye(len(point))

    def simulated(self, point: Float[np.ndarray, " parameters"]) -> Simulated:
        """The simulated measurements with their derivatives."""
        return self._simulated.at(point, derivatives=True, precise=self.precise)

    def simulated_only(self, point: Float[np.ndarray, " parameters"]) -> Simulated:
        """The simulated measurements without derivatives.

        Raises:
            SimulationFailedError: there is no simulation at the point.
        """
        return self._simulated.at(point, derivatives=False)

    def refined(self, point: Float[np.ndarray, " parameters"]) -> tuple[float, Float[np.ndarray, " parameters"]]:
        """A point with the likeliest values of the parameters that only scale the noise, and the objective there.

        These have a closed form where the rows are measured values, not limits. A value that is much too small makes a
        start useless: all other parameters then follow the measurements that happen to agree most.

        Raises:
            SimulationFailedError: there is no simulation at the point.
        """
        at = self.simulated_only(point)
        z = self.likelihood.residuals(at.simulation, at.noise)
        found, noise = point.copy(), at.noise.copy()
        for k, rows in self.noise_scales.items():
            residuals = z[rows & self.likelihood.exact]
            factor = math.sqrt(float(np.mean(residuals**2))) if residuals.any() else 1.0
            found[k] = self.scaled(point, k, factor)
            unit = UNITS.get(self.scales[k])
            noise[rows] *= found[k] / point[k] if unit is None else math.exp((found[k] - point[k]) * unit)
        return self.priors.terms(found)[0] - float(self.likelihood.log_densities(at.simulation, noise).sum()), found

    def scaled(self, point: Float[np.ndarray, " parameters"], k: int, factor: float) -> float:
        """A parameter, on its scale, that is multiplied by a factor, within the bounds."""
        unit, margin = UNITS.get(self.scales[k]), _INSIDE * (self.upper[k] - self.lower[k])
        wanted = point[k] * factor if unit is None else point[k] + math.log(factor) / unit
        return float(np.clip(wanted, self.lower[k] + margin, self.upper[k] - margin))

    @property
    def _times(self) -> Float[np.ndarray, " times"]:
        """Finite times of measurements."""
        times = self.problem.measurements["time"].to_numpy(float)
        found: np.ndarray = np.unique(times[np.isfinite(times)])
        return found

    @functools.cached_property
    def parts(self) -> list[Part]:
        """The problem with the measurements until some time only, for longer and longer times; empty for few times."""
        times, known = self.problem.measurements["time"].to_numpy(float), self._times
        if len(known) < _LEAST:
            return []
        counts = [_FIRST]
        while counts[-1] * _LONGER < len(known):
            counts.append(int(counts[-1] * _LONGER))
        series = [*(np.flatnonzero(times <= known[count - 1]) for count in counts), np.arange(len(times))]
        parts = [Part(self, rows, _CALM) for rows in series]
        return [*parts, parts[-1].with_noise(_CALMER)]

    @functools.cached_property
    def collocation(self) -> SoftCollocation | None:
        """The same problem with the states as further unknowns; None where this is not possible, or for few times."""
        if len(self._times) < _LEAST:
            return None
        found = SoftCollocation(self.problem, self.fixed, self.noise_scales, self.lower, self.upper)
        return found if found.possible else None

    @functools.cached_property
    def noise_scales(self) -> dict[int, Bool[np.ndarray, " rows"]]:
        """Parameters to which the noise of some measurements is proportional and which do nothing else; these rows.

        They are told by the derivatives at random points, the same ones in every process.
        """
        seen, found = 0, dict[int, np.ndarray]()
        for point in draw_points(self.problem, self.lower, self.upper, _PROBES, 0):
            try:
                at = self.simulated(point)
            except SimulationFailedError:
                continue
            relative = at.of_noise / at.noise[:, None]
            now = {}
            for k, scale in enumerate(self.scales):
                rows = relative[:, k] != 0
                unit = UNITS.get(scale, 1 / point[k] if point[k] else 0.0)
                if rows.any() and not at.of_simulation[:, k].any() and np.allclose(relative[rows, k], unit, rtol=1e-6):
                    now[k] = rows
            found = {k: now[k] for k in now if seen == 0 or (k in found and (found[k] == now[k]).all())}
            seen += 1
            if seen == _ENOUGH:
                return found
        return {}

    def nearest(self, values: Mapping[str, float]) -> Float[np.ndarray, "1 parameters"]:
        """The point between the bounds that is nearest to some values on linear scale.

        Raises:
            InputError: a value is missing, or has no place on its scale.
        """
        margin, wanted = _INSIDE * (self.upper - self.lower), list[float]()
        for name, scale in zip(self.names, self.scales, strict=True):
            if name not in values:
                raise InputError(f"{self.problem.path}: a start has no value of parameter {name}")
            try:
                wanted.append(to_scale(values[name], scale))
            except ValueError:
                raise InputError(
                    f"{self.problem.path}: a start has {name} = {values[name]:g} on {scale} scale"
                ) from None
        return np.clip(wanted, self.lower + margin, self.upper - margin)[None]

    def linear(self, point: Float[np.ndarray, " parameters"]) -> dict[str, float]:
        """The parameters on linear scale."""
        return {n: from_scale(float(x), s) for n, s, x in zip(self.names, self.scales, point, strict=True)}


class Part:
    """Some measurements of a problem, with noise that is large enough to show the way from afar, and held.

    With noise that is estimated, what fits first has ever smaller noise, and hinders all others.

    Args:
        whole: the whole problem.
        rows: of the measurement table.

    Attributes:
        noise: in ranges of the measurements.
        free: parameters that are not those of the noise.
        lower, upper: their bounds.
    """

    def __init__(self, whole: Objective, rows: Int[np.ndarray, " rows"], noise: float):
        self._whole, self._rows, self.noise = whole, rows, noise
        problem = whole.problem
        self._objective = Objective(dataclasses.replace(problem, measurements=problem.measurements.iloc[rows]))
        self._objective.precise = False
        self.free = np.array([k for k in range(len(whole.names)) if k not in whole.noise_scales], dtype=int)
        self.lower, self.upper = whole.lower[self.free], whole.upper[self.free]
        self._point = np.array([])

    def with_noise(self, noise: float) -> Part:
        """The same measurements with other noise."""
        part = copy.copy(self)
        part.noise = noise
        return part

    def begin(self, point: Float[np.ndarray, " parameters"]) -> None:
        """Hold the parameters of the noise from now on.

        Raises:
            SimulationFailedError: there is no simulation at the point.
        """
        at = self._objective.simulated_only(point)
        likelihood, found = self._objective.likelihood, point.copy()
        for k, rows in self._whole.noise_scales.items():
            here = rows[self._rows] & likelihood.exact
            size = likelihood.range_of(here)
            if size > 0:
                found[k] = self._whole.scaled(point, k, self.noise * size / float(at.noise[here].mean()))
        self._point = found

    def whole_point(self, free: Float[np.ndarray, " free"]) -> Float[np.ndarray, " parameters"]:
        """All parameters."""
        point = self._point.copy()
        point[self.free] = free
        return point

    def __call__(self, free: Float[np.ndarray, " free"]) -> tuple[float, np.ndarray, np.ndarray]:
        """Value, gradient and information, as those of an objective."""
        self._whole.evaluations += 1
        value, gradient, information = self._objective(self.whole_point(free))
        return value, gradient[self.free], information[np.ix_(self.free, self.free)]


def _bounds(problem: PetabProblem) -> tuple[Float[np.ndarray, " parameters"], Float[np.ndarray, " parameters"]]:
    """Lower and upper bounds on the scales of the parameter table."""
    if not problem.estimated:
        raise InputError(f"{problem.path}: no parameter has estimate 1; there is nothing to estimate")
    bounds = []
    for name in problem.estimated:
        row: dict[str, Any] = dict(problem.parameters.loc[name])
        scale, low, high = str(row["parameterScale"]), float(row["lowerBound"]), float(row["upperBound"])
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise InputError(f"{problem.path}: parameter {name}: bounds must be finite and in order, not {low}, {high}")
        if scale != "lin" and low <= 0:
            raise InputError(f"{problem.path}: parameter {name}: a bound on {scale} scale must be positive, not {low}")
        bounds.append([to_scale(low, scale), to_scale(high, scale)])
    lower, upper = np.array(bounds).T
    return lower, upper
