"""Prior densities of the parameters of a PEtab problem (objectivePriorType)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from metabolismgraph.errors import InputError
from metabolismgraph.formats.petab import PetabProblem
from metabolismgraph.kinetic_models.scales import UNITS, from_scale
from metabolismgraph.kinetic_models.starts import two_numbers

# From a value on the scale of the parameter table: the variable whose distribution is normal, Laplace or uniform, its
# derivative, and how often the linear value divides its density, to make of it one on linear scale.
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


@dataclasses.dataclass(frozen=True)
class _Prior:
    """Density of one parameter: of a normal or Laplace distribution (centre, width), or a uniform one (ends)."""

    index: int
    scale: str
    variable: _Variable
    shape: str
    first: float
    second: float

    def terms(self, x: float) -> tuple[float, float, float]:
        """Negative logarithm of the density, its derivative, and a curvature that is not negative."""
        value, slope, divided = self.variable(x, self.scale)
        if self.shape == "uniform":
            inside = self.first <= value <= self.second
            return (math.log(self.second - self.first) if inside else math.inf), 0.0, 0.0
        z, by_x = (value - self.first) / self.second, slope / self.second
        if self.shape == "laplace":
            term, by_z = math.log(2 * self.second) + abs(z), math.copysign(1.0, z)
        else:
            term, by_z = 0.5 * math.log(2 * math.pi * self.second**2) + 0.5 * z**2, z
        return term + divided * value, by_z * by_x + divided * slope, by_x**2


class Priors:
    """The priors of all estimated parameters that have one.

    Raises:
        InputError: a type is not known, or its parameters are not two numbers in order.
    """

    def __init__(self, problem: PetabProblem):
        self._count = len(problem.estimated)
        self._priors = []
        for index, name in enumerate(problem.estimated):
            row: dict[str, Any] = dict(problem.parameters.loc[name])
            kind = row.get("objectivePriorType")
            if kind is None or pd.isna(kind):
                continue
            if kind not in _KINDS:
                known = ", ".join(_KINDS)
                raise InputError(f"{problem.path}: parameter {name}: prior {kind} is not known; known: {known}")
            variable, shape = _KINDS[kind]
            first, second = two_numbers(problem, name, row, "objectivePriorParameters", shape)
            self._priors.append(_Prior(index, str(row["parameterScale"]), variable, shape, first, second))

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
