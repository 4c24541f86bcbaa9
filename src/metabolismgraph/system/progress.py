"""Progress reports of a fit: a function of stage, completed share of the stage (0 to 1) and message."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float, str], None]


def silent(stage: str, done: float, message: str) -> None:
    """Report nothing."""
