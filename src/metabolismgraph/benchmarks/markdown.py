"""Markdown of the reports, and the numbers in their tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from metabolismgraph.metrics import Value


def table(heads: str, rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a table.

    Args:
        heads: names of the columns, separated by " | ".
        rows: cells.
    """
    lines = (" | ".join(str(cell) for cell in row) for row in rows)
    return [f"| {heads} |", "|---" * len(heads.split(" | ")) + "|", *(f"| {line} |" for line in lines)]


def spread(values: Sequence[float | int | None]) -> list[float | None]:
    """Median, least and largest; None without finite values."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    return [float(f(known)) for f in (np.median, min, max)] if known else [None, None, None]


def median(values: Sequence[float | int | None]) -> float | None:
    """Median of the finite values; None without any."""
    return spread(values)[0]


def shown_spread(spread: Sequence[float | None]) -> str:
    """A spread as text, median (least, largest)."""
    middle, low, high = (shown(value) for value in spread)
    return f"{middle} ({low}, {high})"


def shown(value: Value) -> str:
    """A value of a table; a dash for a missing one."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
