"""Events of a sealed process for the one that started it: one JSON object per line of standard output.

The audit hook writes its own, `leak`, before it ends the process. Code that is not trusted can write there too: an
event is a claim, to be checked by its reader.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import IO, Any, TextIO


def write_event(stream: TextIO, **fields: object) -> None:
    """Send one event at once."""
    stream.write(json.dumps(fields) + "\n")
    stream.flush()


def read_events(stdout: IO[bytes]) -> Iterator[dict[str, Any]]:
    """The events among the lines of standard output, as they come; other lines are passed over."""
    for line in io.TextIOWrapper(stdout, encoding="utf-8", errors="replace"):
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict):
            yield event
