"""Markdown of the reports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(heads: str, rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a table.

    Args:
        heads: names of the columns, separated by " | ".
        rows: cells.
    """
    lines = (" | ".join(str(cell) for cell in row) for row in rows)
    return [f"| {heads} |", "|---" * len(heads.split(" | ")) + "|", *(f"| {line} |" for line in lines)]
