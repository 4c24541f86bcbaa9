"""Keys of random bytes, in files that only their owner can read."""

from __future__ import annotations

import secrets
from pathlib import Path

from metabolismgraph.errors import InputError
from metabolismgraph.files import write_bytes

LENGTH = 32  # bytes


def new_key() -> bytes:
    """A new key, from the random numbers of the operating system."""
    return secrets.token_bytes(LENGTH)


def write_key(path: Path, key: bytes) -> None:
    """Write a key, for its owner alone.

    Raises:
        OSError: it cannot be written.
    """
    write_bytes(path, key, mode=0o600)


def read_key(path: Path) -> bytes:
    """Read a key.

    Raises:
        InputError: the file is missing, cannot be read or is not a key.
    """
    try:
        key = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); a key is a file of {LENGTH} bytes") from None
    if len(key) != LENGTH:
        raise InputError(
            f"{path}: not a key ({len(key)} bytes, expected {LENGTH}); take it from a backup, or remove it"
        )
    return key
