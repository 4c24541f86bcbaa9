"""The journal: append-only JSON lines, the only record of an exploration.

Every line ends with `chain`, the SHA-256 digest of the chain of the line before it (nothing for the first) and of its
own other content as canonical JSON (sorted keys, no spaces, ASCII). A line that was edited, added, moved or taken away
is noticed thereby, except at the end. There is no key: somebody who can write to the journal could read one, too.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from pydantic import ValidationError

from metabolismgraph.errors import InputError
from metabolismgraph.explore.consistency import Consistency
from metabolismgraph.explore.events import EVENT, Event
from metabolismgraph.files import is_locked
from metabolismgraph.json_lines import append_line, last_line, read_lines

JOURNAL = "journal.jsonl"
_REMEDY = "restore the file, or delete that line and all after it"
_NO_DIGESTS = "written by an earlier version, without digests; changes of its lines by hand are not noticed"
_LOCK_PATIENCE, _LONGER = 1.0, 30.0  # seconds; where the explorer that made the lock has ended


class HeldError(InputError):
    """Another explorer holds the journal."""


class Journal:
    """One file of one event per line; every line is on the disk before `append` returns.

    A last line that a crash left incomplete is removed when the next is written; any other damaged line is an error.
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

    @property
    def is_held(self) -> bool:
        """Whether an explorer on this computer works on it now."""
        return is_locked(self.path.with_suffix(".lock"))

    def append(self, event: Event) -> Event:
        """Write one event with the current time, and return it.

        Raises:
            InputError: it cannot be written, or the last line is damaged; earlier events are undamaged.
        """
        stamped = event.model_copy(update={"time": datetime.now(UTC).isoformat(timespec="milliseconds")})
        line = stamped.model_dump_json()
        try:
            chain = self._last_chain()
            chain.follow(json.loads(line))
            append_line(self.path, f'{line[:-1]},"chain":"{chain.digest}"}}')
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror}); make room or give access, then `explore resume`"
            ) from None
        return stamped

    def read(self) -> tuple[Event, ...]:
        """All events in order. Warns of a journal without digests.

        Raises:
            InputError: there is no journal, or a line other than an incomplete last one is damaged: it is no event,
                its digest is not the one that follows from the lines up to it, or it contradicts them.
        """
        chain, consistency = _Chain(), Consistency()

        def parse(value: object) -> Event:
            chain.follow(value)
            event = _event(value)
            consistency.check(event)
            return event

        try:
            found = tuple(read_lines(self.path, parse, _REMEDY))
        except FileNotFoundError:
            raise InputError(f"{self.path.parent}: no exploration here ({self.path.name} is missing)") from None
        if found and not chain.begun:
            warnings.warn(f"{self.path}: {_NO_DIGESTS}", stacklevel=1)
        return found

    def _last_chain(self) -> _Chain:
        """The chain up to the last line; that of a journal without digests begins with all of its lines."""
        chain, line = _Chain(), last_line(self.path)
        try:
            chain.digest = json.loads(line)["chain"] if line else ""
        except (ValueError, KeyError, TypeError, RecursionError):
            read_lines(self.path, chain.follow, _REMEDY)
        return chain


class _Chain:
    """The digest of the lines so far.

    Attributes:
        begun: whether the last line has a digest; then all further ones must have one.
    """

    def __init__(self) -> None:
        self.digest, self.begun = "", False

    def follow(self, content: Any) -> None:
        """Take the digest out of the next line.

        Raises:
            ValueError: it is missing, or not the one that follows.
        """
        if not isinstance(content, dict):
            raise ValueError("expected an object with fields")  # noqa: TRY004
        given = content.pop("chain", None)
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        self.digest = hashlib.sha256(f"{self.digest}{canonical}".encode()).hexdigest()
        if given is None and self.begun:
            raise ValueError("it has no digest, unlike the lines before it")
        if given is not None and given != self.digest:
            raise ValueError("its digest does not follow: it was changed, or lines before it are missing or added")
        self.begun = given is not None


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
