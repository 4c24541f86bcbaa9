"""Points at which the estimation of parameters starts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import laplace, norm, qmc

from metabolismgraph.errors import InputError
from metabolismgraph.formats.petab import PetabProblem
from metabolismgraph.kinetic_models.scales import to_scale

_Quantile = Callable[[np.ndarray, float, float], np.ndarray]


def _uniform(p: Float[np.ndarray, " points"], low: float, high: float) -> Float[np.ndarray, " points"]:
    return low + (high - low) * p


_SHAPES: Mapping[str, _Quantile] = {"uniform": _uniform, "normal": norm.ppf, "laplace": laplace.ppf}


def draw_points(
    problem: PetabProblem,
    lower: Float[np.ndarray, " parameters"],
    upper: Float[np.ndarray, " parameters"],
    count: int,
    seed: int,
) -> Float[np.ndarray, "count parameters"]:
    """Points of a Latin hypercube, on the scales of the parameter table.

    A parameter is uniform between its bounds, or has the distribution of `initializationPriorType`, cut off at them.

    Args:
        lower, upper: bounds on the scales.

    Raises:
        InputError: a distribution is not known, or its parameters are not two numbers in order.
    """
    draws = qmc.LatinHypercube(len(lower), rng=seed).random(count)
    points: Float[np.ndarray, "count parameters"] = lower + (upper - lower) * draws
    for k, name in enumerate(problem.estimated):
        row: dict[str, Any] = dict(problem.parameters.loc[name])
        kind = row.get("initializationPriorType")
        if isinstance(kind, str):
            found = _drawn(problem, name, kind, row, draws[:, k])
            points[:, k] = np.clip(found, lower[k], upper[k])
    return points


def _drawn(
    problem: PetabProblem, name: str, kind: str, row: Mapping[str, Any], draws: Float[np.ndarray, " count"]
) -> Float[np.ndarray, " count"]:
    on_scale, logarithmic = kind.startswith("parameterScale"), kind.startswith("log")
    shape = kind.removeprefix("parameterScale").removeprefix("log").lower()
    if shape not in _SHAPES or kind == "logUniform":
        raise InputError(f"{problem.path}: parameter {name}: initializationPriorType {kind} is not known")
    first, second = two_numbers(problem, name, row, "initializationPriorParameters", shape)
    values: np.ndarray = _SHAPES[shape](draws, first, second)
    if on_scale:
        return values
    linear, scale = (np.exp(values) if logarithmic else values), str(row["parameterScale"])
    # What has no place on the scale is cut off at the lower bound.
    return np.array([to_scale(x, scale) if scale == "lin" or x > 0 else -math.inf for x in linear])


def two_numbers(
    problem: PetabProblem,
    name: str,
    row: Mapping[str, Any],
    column: str,
    shape: str,
    of_one: Callable[[float], tuple[float, float]] | None = None,
) -> tuple[float, float]:
    """The parameters of a distribution: ends of a uniform one, location and scale, or shape and scale of a gamma one.

    Args:
        of_one: both from the only number that the table has; None: the table has both.

    Raises:
        InputError: they are not two numbers in order, or not one number.
    """
    entry, wanted = str(row.get(column, "")), "two numbers, a;b" if of_one is None else "one number"
    try:
        numbers = [float(part) for part in entry.split(";")]
        first, second = numbers if of_one is None else of_one(*numbers)
    except (ValueError, TypeError):
        raise InputError(f"{problem.path}: parameter {name}: {column} is {entry!r}; expected {wanted}") from None
    if not (second > first if shape == "uniform" else second > 0) or (shape == "gamma" and not first > 0):
        which = "the number" if of_one is not None else "both numbers" if shape == "gamma" else "the second number"
        raise InputError(
            f"{problem.path}: parameter {name}: {column} is {entry!r}; {which} must be "
            f"{'larger than the first' if shape == 'uniform' else 'positive'}"
        )
    return first, second
