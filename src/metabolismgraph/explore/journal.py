"""The journal: append-only JSON lines, the only record of an exploration."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from pydantic import ValidationError

from metabolismgraph.errors import InputError
from metabolismgraph.explore.events import EVENT, Event
from metabolismgraph.json_lines import append_line, read_lines

JOURNAL = "journal.jsonl"
_LOCK_PATIENCE, _LONGER = 1.0, 30.0  # seconds; where the explorer that made the lock has ended


class HeldError(InputError):
    """Another explorer holds the journal."""


class Journal:
    """One file of one event per line; every line is on the disk before `append` returns.

    A last line that a crash left incomplete is removed when the next is written; a damaged line elsewhere is an error.
    Use `held` around appends, so that two explorers never write to the same journal.
    """

    def __init__(self, path: Path):
        self.path = path

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock the journal against other explorers.

        Raises:
            HeldError: another explorer holds the lock.
            InputError: the lock cannot be made.
        """
        path = self.path.with_suffix(".lock")
        try:
            opened = path.open("a+")
        except OSError as error:
            raise InputError(
                f"{path}: cannot be made ({error.strerror}); choose a folder that can be written"
            ) from None
        with opened as stream:
            # A killed explorer's lock lives on for a moment, in a child between its fork and its new program. On a busy
            # machine this moment is long.
            begin = time.monotonic()
            while not _lock(stream.fileno()):
                if time.monotonic() > begin + (_LONGER if _has_ended(stream) else _LOCK_PATIENCE):
                    raise HeldError(
                        f"{self.path.parent}: another explorer is running there; wait for it, or stop it first"
                    )
                time.sleep(0.02)
            stream.truncate(0)
            stream.write(str(os.getpid()))
            stream.flush()
            yield

    def append(self, event: Event) -> Event:
        """Write one event with the current time, and return it.

        Raises:
            InputError: it cannot be written; earlier events are undamaged.
        """
        stamped = event.model_copy(update={"time": datetime.now(UTC).isoformat(timespec="milliseconds")})
        try:
            append_line(self.path, stamped.model_dump_json())
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror}); make room or give access, then `explore resume`"
            ) from None
        return stamped

    def read(self) -> tuple[Event, ...]:
        """All events in order.

        Raises:
            InputError: there is no journal, or a line other than the last is damaged.
        """
        try:
            return tuple(read_lines(self.path, _event, "restore the file, or delete that line and all after it"))
        except FileNotFoundError:
            raise InputError(f"{self.path.parent}: no exploration here ({self.path.name} is missing)") from None


def _lock(descriptor: int) -> bool:
    """Whether this process now holds the lock of an open file."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _has_ended(stream: TextIO) -> bool:
    """Whether the process that wrote its number into a lock has ended; False if there is no number."""
    stream.seek(0)
    number = stream.read(20)
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except (ValueError, OverflowError, OSError):
        return False
    return False


def _event(value: object) -> Event:
    try:
        return EVENT.validate_python(value)
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"]) from None
