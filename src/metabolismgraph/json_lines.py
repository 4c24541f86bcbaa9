"""Append-only files with one JSON value per line; an incomplete last line, from a crash, is ignored."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from metabolismgraph.errors import InputError

T = TypeVar("T")
_BLOCK = 4096  # bytes


def last_line(path: Path) -> bytes:
    """The last complete line, without its line break; empty if there is none, or no file.

    Raises:
        OSError: the file cannot be read.
    """
    if not path.exists():
        return b""
    end = _end_of_line(path) - 1
    start = _end_of_line(path, end)
    with path.open("rb") as stream:
        stream.seek(start)
        return stream.read(max(0, end - start))


def append_line(path: Path, line: str) -> None:
    """Append one line, flushed to disk, in place of an incomplete last line.

    Raises:
        OSError: the line cannot be written; earlier lines are intact.
    """
    content = line.encode() + b"\n"
    # Unbuffered: if the disk is full, a buffer would be written on closing, after the file has been truncated.
    with path.open("ab", buffering=0) as stream:
        end = _end_of_line(path)
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
    """The results of `parse` for every complete line.

    Args:
        path: the file.
        parse: function of the JSON value of a line; raises ValueError for an invalid value.
        remedy: advice for a damaged line, as part of the message.

    Raises:
        InputError: a line is damaged, or the file cannot be read.
        FileNotFoundError: there is no such file.
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


def _end_of_line(path: Path, before: int | None = None) -> int:
    """Length of a file, or of its first `before` bytes, up to and including the last line break."""
    with path.open("rb") as stream:
        position = stream.seek(0, os.SEEK_END) if before is None else before
        while position > 0:
            start = max(0, position - _BLOCK)
            stream.seek(start)
            found = stream.read(position - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            position = start
    return 0
