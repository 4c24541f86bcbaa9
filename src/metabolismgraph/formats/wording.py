"""Words of notes: lists of names, and sentences for one and for several."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any


def some(names: Sequence[Any], limit: int = 5) -> str:
    """The first names, as text."""
    return ", ".join(str(name) for name in names[:limit]) + (", ..." if len(names) > limit else "")


def counted(wording: str, names: Sequence[Any], count: int | None = None, limit: int = 5) -> str:
    """A note such as "2 reactions were split (A, B).".

    Args:
        wording: with [words for one|words for several].
        names: what is counted, as far as it has names.
        count: if different from the number of names.
        limit: number of names in the note.
    """
    count = len(names) if count is None else count
    words = re.sub(r"\[(.*?)\|(.*?)\]", r"\1" if count == 1 else r"\2", wording)
    return f"{count} {words}{f' ({some(names, limit)})' if names else ''}."
