"""Append-only files of one JSON value per line; what follows the last line break was torn by a crash and is ignored."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from metabolismgraph.errors import InputError

T = TypeVar("T")
_BLOCK = 4096  # bytes


def append_line(path: Path, line: str) -> None:
    """Write one line, on the disk before this returns, in place of a torn one.

    Raises:
        OSError: it cannot be written; the lines before are still whole.
    """
    content = line.encode() + b"\n"
    # Without a buffer: what a full disk left in one would be written on closing, after the cut.
    with path.open("ab", buffering=0) as stream:
        end = _end_of_last_line(path)
        if end < stream.tell():
            stream.truncate(end)
        try:
            written = 0
            while written < len(content):
                written += stream.write(content[written:])
            os.fsync(stream.fileno())
        except OSError:
            stream.truncate(end)
            raise


def read_lines(path: Path, parse: Callable[[Any], T], remedy: str) -> list[T]:
    """What `parse` makes of every whole line.

    Args:
        parse: takes the JSON value; raises ValueError with what is wrong.
        remedy: what to do about a damaged line.

    Raises:
        InputError: a line is damaged, or the file cannot be read.
        FileNotFoundError: there is none.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(parse(json.loads(line)))
        except (ValueError, RecursionError) as error:
            unread = isinstance(error, json.JSONDecodeError | UnicodeDecodeError | RecursionError)
            what = "not JSON" if unread else error
            raise InputError(f"{path}, line {number}: damaged ({what}); {remedy}") from None
    return found


def _end_of_last_line(path: Path) -> int:
    """Length of the file up to and including its last line break."""
    with path.open("rb") as stream:
        position = stream.seek(0, os.SEEK_END)
        while position > 0:
            start = max(0, position - _BLOCK)
            stream.seek(start)
            found = stream.read(position - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            position = start
    return 0
