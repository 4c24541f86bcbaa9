"""Scales of the parameter table of a PEtab problem: lin, log, log10."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

# Derivatives of the natural logarithm of a parameter by its value on the scale.
UNITS: Mapping[str, float] = {"log": 1.0, "log10": math.log(10)}


def from_scale(value: Any, scale: str, exp: Callable[[Any], Any] = math.exp) -> Any:
    """A parameter on linear scale.

    Args:
        value: on the scale; a number or a symbol.
        exp: the exponential function of symbols.
    """
    return exp(value * UNITS[scale]) if scale in UNITS else value


def to_scale(value: float, scale: str) -> float:
    """A parameter on its scale.

    Raises:
        ValueError: it is not positive, on a logarithmic scale.
    """
    return math.log(value) / UNITS[scale] if scale in UNITS else float(value)
