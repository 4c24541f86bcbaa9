"""Whole files in and out of memory, with errors a user can act on."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

from metabolismgraph.errors import InputError
from metabolismgraph.text import one_line

_GZIP = b"\x1f\x8b"


def read_bytes(path: Path) -> bytes:
    """The content of a file, unpacked if it is gzipped.

    Raises:
        InputError: it is missing, a folder, empty, not readable or a damaged gzip file.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except IsADirectoryError:
        raise InputError(f"{path}: this is a folder; name the file in it") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if not content:
        raise InputError(f"{path}: the file is empty")
    if path.suffix != ".gz" and not content.startswith(_GZIP):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not a readable gzip file ({one_line(error)}); create it again") from None


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: under a temporary name in the same folder, flushed, then renamed."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
