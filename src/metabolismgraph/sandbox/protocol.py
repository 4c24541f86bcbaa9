"""Events of a sealed process for its parent process: one JSON object per line of standard output.

The audit hook writes the event `leak` before it ends the process. Code that is not trusted can write to standard output
as well, so that the reader must check every event.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

_LONGEST = 1 << 20  # bytes of a line that is kept in memory


@runtime_checkable
class Stream(Protocol):
    """A stream of text, such as standard output."""

    def write(self, text: str, /) -> object: ...

    def flush(self) -> object: ...


@runtime_checkable
class Source(Protocol):
    """A stream of bytes, such as a pipe."""

    def readline(self, size: int, /) -> bytes: ...


def write_event(stream: Stream, **fields: object) -> None:
    """Send one event at once."""
    stream.write(json.dumps(fields) + "\n")
    stream.flush()


def read_events(stdout: Source) -> Iterator[dict[str, Any]]:
    """Yield the events among the lines of standard output; other lines, and very long ones, are ignored."""
    # A carriage return ends a line too: progress bars leave one.
    for line in (part for whole in _lines(stdout) for part in whole.splitlines()):
        try:
            event = json.loads(line.decode(errors="replace"))
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict):
            yield event


def _lines(stdout: Source) -> Iterator[bytes]:
    """The lines of a stream, of any length: without those that would not fit into memory."""
    middle = False
    while piece := stdout.readline(_LONGEST):
        ends = piece.endswith(b"\n") or len(piece) < _LONGEST
        if ends and not middle:
            yield piece
        middle = not ends
