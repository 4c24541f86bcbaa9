"""Random changes of valid content."""

from __future__ import annotations

import random

_PIECES = (
    b"<",
    b">",
    b"&",
    b'"',
    b"'",
    b"\0",
    b"\xff\xfe",
    b"\x1b[2J",
    b"-",
    b"1e999",
    b"nan",
    b"{",
    b"[",
    b",",
    b"\n",
    b"\r",
)


def mutated(content: bytes, seed: int) -> bytes:
    """Content with one, three or ten changes: other bytes, left out, repeated and inserted pieces."""
    rng = random.Random(seed)
    changed = bytearray(content)
    for _ in range(rng.choice((1, 3, 10))):
        place = rng.randrange(len(changed) + 1)
        kind = rng.randrange(5)
        if kind == 0 and place < len(changed):
            changed[place] = rng.randrange(256)
        elif kind == 1:
            del changed[place : place + rng.randrange(1, 40)]
        elif kind == 2:
            begin = rng.randrange(len(changed) + 1)
            changed[place:place] = changed[begin : begin + rng.randrange(1, 60)]
        elif kind == 3:
            del changed[place:]
        else:
            changed[place:place] = rng.choice(_PIECES)
    return bytes(changed)
