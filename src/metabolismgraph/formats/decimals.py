"""Arithmetic of stoichiometric coefficients."""

from __future__ import annotations

from decimal import Decimal


def add(a: float, b: float) -> float:
    """a + b in decimal arithmetic, so that 0.4 - 0.3 is 0.1, as expected for coefficients."""
    return float(Decimal(repr(float(a))) + Decimal(repr(float(b))))
