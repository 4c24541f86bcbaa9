"""The journal: append-only JSON lines, the single source of what happened in an exploration."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from metabolismgraph.errors import InputError
from metabolismgraph.explore.events import EVENT, Event

JOURNAL = "journal.jsonl"


class Journal:
    """One file of one event per line; every line is on the disk before `append` returns.

    A last line that a crash tore is cut off when the next is written; a damaged line elsewhere is an error.
    Use `held` around whatever appends, so that two explorers never write to the same one.
    """

    def __init__(self, path: Path):
        self.path = path

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep others from appending.

        Raises:
            InputError: somebody else does already, or there is no place for the lock.
        """
        path = self.path.with_suffix(".lock")
        try:
            opened = path.open("a")
        except OSError as error:
            raise InputError(
                f"{path}: cannot be made ({error.strerror}); choose a folder that can be written"
            ) from None
        with opened as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise InputError(
                    f"{self.path.parent}: another explorer is running there; wait for it, or stop it first"
                ) from None
            yield

    def append(self, event: Event) -> Event:
        """Write one event, stamped with the time, and return it so.

        Raises:
            InputError: it cannot be written; what was there before is still whole.
        """
        stamped = event.model_copy(update={"time": datetime.now(UTC).isoformat(timespec="milliseconds")})
        line = stamped.model_dump_json().encode() + b"\n"
        try:
            # Without a buffer: what a full disk left in one would be written on closing, after the cut.
            with self.path.open("ab", buffering=0) as stream:
                end = _end_of_last_line(self.path)
                if end < stream.tell():
                    stream.truncate(end)
                try:
                    written = 0
                    while written < len(line):
                        written += stream.write(line[written:])
                    os.fsync(stream.fileno())
                except OSError:
                    stream.truncate(end)
                    raise
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror}); make room or give access, then `explore resume`"
            ) from None
        return stamped

    def read(self) -> tuple[Event, ...]:
        """All events, from the first.

        Raises:
            InputError: there is no journal, or a line other than the last is damaged.
        """
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            raise InputError(f"{self.path.parent}: no exploration here ({self.path.name} is missing)") from None
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror})") from None
        # What follows the last line break was torn by a crash, or is nothing.
        return tuple(self._parsed(number, line) for number, line in enumerate(lines[:-1], start=1))

    def _parsed(self, number: int, line: bytes) -> Event:
        try:
            return EVENT.validate_python(json.loads(line))
        except (ValueError, ValidationError, RecursionError) as error:
            what = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "not JSON"
            raise InputError(
                f"{self.path}, line {number}: damaged ({what}); restore the file, or delete that line and all after it"
            ) from None


def _end_of_last_line(path: Path) -> int:
    """Length of the file up to and including its last line break."""
    block = 4096
    with path.open("rb") as stream:
        position = stream.seek(0, os.SEEK_END)
        while position > 0:
            start = max(0, position - block)
            stream.seek(start)
            found = stream.read(position - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            position = start
    return 0
