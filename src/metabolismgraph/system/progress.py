"""How training tells the outside how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float, str], None]


def silent(stage: str, done: float, message: str) -> None:
    """Report nothing."""
