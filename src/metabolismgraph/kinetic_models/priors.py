"""Prior densities of the parameters of a PEtab problem (objectivePriorType, or priorDistribution of version 2)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from metabolismgraph.errors import InputError
from metabolismgraph.formats.petab import PetabProblem
from metabolismgraph.kinetic_models.scales import UNITS, from_scale
from metabolismgraph.kinetic_models.starts import two_numbers

# From a value on the scale of the parameter table: the variable whose distribution has a shape below, its
# derivative, and the power of the linear value that divides its density, to give a density on linear scale.
_Variable = Callable[[float, str], tuple[float, float, float]]


def _linear(x: float, scale: str) -> tuple[float, float, float]:
    value = from_scale(x, scale)
    return value, value * UNITS[scale] if scale in UNITS else 1.0, 0.0


def _logarithm(x: float, scale: str) -> tuple[float, float, float]:
    value, slope, _ = _linear(x, scale)
    if value <= 0:
        return math.nan, math.nan, math.nan
    return math.log(value), slope / value, 1.0


def _on_scale(x: float, _: str) -> tuple[float, float, float]:
    return x, 1.0, 0.0


_KINDS: Mapping[str, tuple[_Variable, str]] = {
    "normal": (_linear, "normal"),
    "laplace": (_linear, "laplace"),
    "uniform": (_linear, "uniform"),
    "logNormal": (_logarithm, "normal"),
    "logLaplace": (_logarithm, "laplace"),
    "parameterScaleNormal": (_on_scale, "normal"),
    "parameterScaleLaplace": (_on_scale, "laplace"),
    "parameterScaleUniform": (_on_scale, "uniform"),
}
_KINDS_2: Mapping[str, tuple[_Variable, str]] = {
    "cauchy": (_linear, "cauchy"),
    "chisquare": (_linear, "gamma"),
    "exponential": (_linear, "gamma"),
    "gamma": (_linear, "gamma"),
    "laplace": (_linear, "laplace"),
    "log-laplace": (_logarithm, "laplace"),
    "log-normal": (_logarithm, "normal"),
    "log-uniform": (_logarithm, "uniform"),
    "normal": (_linear, "normal"),
    "rayleigh": (_linear, "rayleigh"),
    "uniform": (_linear, "uniform"),
}
# From the one parameter of a distribution to the two of a more general one.
_ONE: Mapping[str, Callable[[float], tuple[float, float]]] = {
    "chisquare": lambda degrees: (degrees / 2, 2.0),
    "exponential": lambda scale: (1.0, scale),
    "rayleigh": lambda scale: (0.0, scale),
}


def _bell(x: float, centre: float, width: float) -> tuple[float, float, float]:
    z = (x - centre) / width
    return 0.5 * math.log(2 * math.pi * width**2) + 0.5 * z**2, z / width, 1 / width**2


def _peak(x: float, centre: float, width: float) -> tuple[float, float, float]:
    z = (x - centre) / width
    return math.log(2 * width) + abs(z), math.copysign(1.0, z) / width, 1 / width**2


def _box(x: float, low: float, high: float) -> tuple[float, float, float]:
    rounding = 1e-12 * (abs(low) + abs(high))  # of an end that comes from another scale
    return (math.log(high - low) if low - rounding <= x <= high + rounding else math.inf), 0.0, 0.0


def _cauchy(x: float, centre: float, width: float) -> tuple[float, float, float]:
    z = (x - centre) / width
    return math.log(math.pi * width * (1 + z**2)), 2 * z / (1 + z**2) / width, 2 / (1 + z**2) / width**2


def _gamma(x: float, order: float, scale: float) -> tuple[float, float, float]:
    if x <= 0:
        return math.inf, math.nan, math.nan
    term = math.lgamma(order) + order * math.log(scale) + x / scale - (order - 1) * math.log(x)
    return term, 1 / scale - (order - 1) / x, max(order - 1, 0.0) / x**2


def _rayleigh(x: float, _: float, scale: float) -> tuple[float, float, float]:
    if x <= 0:
        return math.inf, math.nan, math.nan
    return 2 * math.log(scale) - math.log(x) + 0.5 * (x / scale) ** 2, x / scale**2 - 1 / x, 1 / scale**2 + 1 / x**2


# Negative logarithm of a density, its derivative, and a curvature that is not negative; and the distribution.
_Shape = Callable[[float, float, float], tuple[float, float, float]]
_SHAPES: Mapping[str, tuple[_Shape, Callable[[float, float], Any]]] = {
    "normal": (_bell, stats.norm),
    "laplace": (_peak, stats.laplace),
    "uniform": (_box, lambda low, high: stats.uniform(low, high - low)),
    "cauchy": (_cauchy, stats.cauchy),
    "gamma": (_gamma, lambda order, scale: stats.gamma(order, scale=scale)),
    "rayleigh": (_rayleigh, stats.rayleigh),
}


@dataclasses.dataclass(frozen=True)
class _Prior:
    """Density of one parameter, by the two parameters of its shape.

    Attributes:
        mass: logarithm of the probability between the bounds, if the density is cut off there.
    """

    index: int
    scale: str
    variable: _Variable
    shape: str
    first: float
    second: float
    mass: float = 0.0

    def terms(self, x: float) -> tuple[float, float, float]:
        """Negative logarithm of the density, its derivative, and a curvature that is not negative."""
        value, slope, divided = self.variable(x, self.scale)
        term, by_value, bend = _SHAPES[self.shape][0](value, self.first, self.second)
        return term + divided * value + self.mass, (by_value + divided) * slope, bend * slope**2


class Priors:
    """The priors of all estimated parameters that have one.

    Raises:
        InputError: a type is not known, or its parameters are not two numbers in order.
    """

    def __init__(self, problem: PetabProblem):
        self._count = len(problem.estimated)
        rows = {name: dict(problem.parameters.loc[name]) for name in problem.estimated}
        made = _prior_2 if problem.experiments else _prior
        found = [made(problem, index, name, row) for index, (name, row) in enumerate(rows.items())]
        if problem.experiments and any(found):
            # Where some parameters have a prior, the others have a uniform one.
            found = [
                prior or _Prior(index, row["parameterScale"], _linear, "uniform", *_bounds(row))
                for index, (prior, row) in enumerate(zip(found, rows.values(), strict=True))
            ]
        self._priors = [prior for prior in found if prior is not None]

    def __bool__(self) -> bool:
        return bool(self._priors)

    def terms(
        self, point: Float[np.ndarray, " parameters"]
    ) -> tuple[float, Float[np.ndarray, " parameters"], Float[np.ndarray, "parameters parameters"]]:
        """Negative logarithm of the density on linear scale, gradient and curvature.

        Args:
            point: on the scales of the parameter table.
        """
        value, gradient, curvature = 0.0, np.zeros(self._count), np.zeros(self._count)
        for prior in self._priors:
            term, slope, bend = prior.terms(float(point[prior.index]))
            value += term
            gradient[prior.index], curvature[prior.index] = slope, bend
        return value, gradient, np.diag(curvature)


def _prior(problem: PetabProblem, index: int, name: str, row: Mapping[str, Any]) -> _Prior | None:
    """The prior of a parameter in version 1; None if there is none."""
    kind = row.get("objectivePriorType")
    if kind is None or pd.isna(kind):
        return None
    variable, shape = _known(problem, name, kind, _KINDS)
    numbers = two_numbers(problem, name, row, "objectivePriorParameters", shape)
    return _Prior(index, str(row["parameterScale"]), variable, shape, *numbers)


def _prior_2(problem: PetabProblem, index: int, name: str, row: Mapping[str, Any]) -> _Prior | None:
    """The prior of a parameter in version 2, cut off at the bounds; None if there is none."""
    kind = row.get("priorDistribution")
    if kind is None or pd.isna(kind):
        return None
    variable, shape = _known(problem, name, kind, _KINDS_2)
    first, second = two_numbers(problem, name, row, "priorParameters", shape, _ONE.get(str(kind)))
    low, high = _bounds(row)
    if kind == "log-uniform":
        first, second = (math.log(end) if end > 0 else math.nan for end in (first, second))
    if variable is _logarithm:
        low, high = (math.log(end) if end > 0 else -math.inf for end in (low, high))
    made = _SHAPES[shape][1](first, second)
    mass = made.sf(low) - made.sf(high) if made.cdf(low) > 0.5 else made.cdf(high) - made.cdf(low)
    if not mass > 0:
        raise InputError(f"{problem.path}: parameter {name}: the prior allows no value between the bounds")
    return _Prior(index, str(row["parameterScale"]), variable, shape, first, second, math.log(mass))


def _known(
    problem: PetabProblem, name: str, kind: str, kinds: Mapping[str, tuple[_Variable, str]]
) -> tuple[_Variable, str]:
    if kind not in kinds:
        raise InputError(f"{problem.path}: parameter {name}: prior {kind} is not known; known: {', '.join(kinds)}")
    return kinds[kind]


def _bounds(row: Mapping[str, Any]) -> tuple[float, float]:
    return float(row["lowerBound"]), float(row["upperBound"])
