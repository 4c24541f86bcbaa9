"""Reading and writing of complete files, with error messages for the user."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gzip
import io
import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metabolismgraph.errors import InputError
from metabolismgraph.text import one_line

ROOM = 1 << 25  # bytes; the files that a run writes are smaller
_OF_DISKS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE})
_GZIP = b"\x1f\x8b"
_LARGEST = 1 << 30  # bytes of a file that is read as a whole, after decompression


def read_bytes(path: Path) -> bytes:
    """The content of a file, decompressed if it is a gzip file.

    Raises:
        InputError: the file is missing, empty, too large, unreadable or a damaged gzip file, or the path is a folder.
    """
    try:
        with path.open("rb") as stream:
            content = _limited(stream, path)
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
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as unpacked:
            return _limited(unpacked, path)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not a readable gzip file ({one_line(error)}); create it again") from None


def _limited(stream: io.BufferedIOBase, path: Path) -> bytes:
    """The content of a file, if it is not larger than any that is read."""
    content = stream.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise InputError(f"{path}: holds more than {_LARGEST >> 20} MB; split it into several files")
    return content


def check_new_file(path: Path, *, overwrite: bool) -> None:
    """Check that a file can be written, before work is done for it.

    Raises:
        InputError: it exists and is not to be replaced, it is a folder, or its folder does not exist.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; choose another name")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; choose another name, or give --overwrite")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}; make it, or choose another name")


def write_bytes(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """Write a file completely or not at all: under a temporary name in the same folder, flushed to disk, then renamed.

    Args:
        mode: permissions; None: the usual ones.

    Raises:
        OSError: the file cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        # A sealed process may not use os.open, which does not report what a relative path is relative to.
        opener = None if mode is None else lambda name, flags: os.open(name, flags, mode)
        with open(part, "wb", opener=opener) as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder as far as possible, also one that is deeper than the stack, where `shutil.rmtree` fails.

    Folders in it are moved up first, to names such as .1.part.
    """
    pending, moved = [folder], 0
    while pending:
        place = pending.pop()
        with contextlib.suppress(OSError):
            for entry in list(os.scandir(place)):
                with contextlib.suppress(OSError):
                    if not entry.is_dir(follow_symlinks=False):
                        Path(entry.path).unlink()
                        continue
                    moved += 1
                    pending.append(Path(entry.path).replace(folder / f".{moved}.part"))
            if place != folder:
                place.rmdir()
    with contextlib.suppress(OSError):
        folder.rmdir()


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder that takes the place of another one, or of none, when all of its files are written.

    Raises:
        InputError: it cannot be written.
    """
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        yield part
        shutil.rmtree(folder, ignore_errors=True)
        part.replace(folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def lack_of_room(folder: Path, size: int = ROOM) -> str:
    """Why a file of that size [bytes] cannot be written in a folder; empty if it can."""
    probe = folder / f".room.{os.getpid()}.part"
    try:
        with probe.open("wb") as stream:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(stream.fileno(), 0, size)
            else:
                stream.write(bytes(size))
                stream.flush()
                os.fsync(stream.fileno())
    except OSError as error:
        return error.strerror or "it cannot be written"
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    return ""


def is_fault_of_disk(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised in place of, says that a disk is full, damaged or gone."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _OF_DISKS:
            return True
        error = error.__cause__ or error.__context__
    return False


def is_locked(path: Path) -> bool:
    """Whether a process of this computer holds the lock of a file; False if there is no file."""
    try:
        with path.open() as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Wait until no other process holds a lock file, and hold it."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
