"""Linux Landlock: the kernel refuses every file that is not listed to this process, its threads and its children.

It needs no privilege and cannot be undone. Unlike checks inside the interpreter, it also restricts readers in C and
code that writes to the memory of the process. Numbers and structures: linux/landlock.h and
https://docs.kernel.org/userspace-api/landlock.html.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import stat
import struct
import sys

from metabolismgraph.sandbox import prctl

MISSING = (
    "strategy files are not executed here, since this kernel has no Landlock to confine them; use Linux 5.13 or newer, "
    "or give --unsafe-strategies"
)
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # system calls, the same on every architecture
_ASK_VERSION = 1
_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_READ = _EXECUTE | _READ_FILE | _READ_DIR
# No links, device nodes, sockets or programs, and no moves from or to another folder.
_WRITE = _READ_FILE | _READ_DIR | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _TRUNCATE
_DEVICE = _READ_FILE | _READ_DIR | _WRITE_FILE | _IOCTL_DEV
_FILE_RIGHTS = _EXECUTE | _READ_FILE | _WRITE_FILE | _TRUNCATE | _IOCTL_DEV
# By version of Landlock: rights on files, on TCP (bind, connect), and scopes (abstract sockets, signals).
_ALL_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_TCP = {4: 3}
_SCOPES = {6: 3}


@dataclasses.dataclass(frozen=True)
class Allowed:
    """Folders and files, with their contents; missing paths are ignored."""

    readable: tuple[str, ...]
    writable: tuple[str, ...]
    listed: tuple[str, ...]
    devices: tuple[str, ...]


def available() -> bool:
    """Whether the kernel has Landlock."""
    if sys.platform != "linux":
        return False
    return _call(ctypes.CDLL(None, use_errno=True), _CREATE_RULESET, None, 0, _ASK_VERSION) >= 1


def confine(allowed: Allowed) -> bool:
    """Restrict this process permanently, before it starts threads; False where the kernel has no Landlock."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    version = _call(libc, _CREATE_RULESET, None, 0, _ASK_VERSION)
    if version < 1:
        return False
    rights, tcp, scopes = (_latest(table, version) for table in (_ALL_RIGHTS, _TCP, _SCOPES))
    attributes = struct.pack("=QQQ", rights, tcp, scopes)[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = _call(libc, _CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        return False
    try:
        for paths, granted in (
            (allowed.readable, _READ),
            (allowed.writable, _WRITE),
            (allowed.listed, _READ_DIR),
            (allowed.devices, _DEVICE),
        ):
            for path in paths:
                _allow(libc, ruleset, path, granted & rights)
        prctl.renounce_privileges()
        return _call(libc, _RESTRICT_SELF, ruleset, 0) == 0
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= _FILE_RIGHTS
        _call(libc, _ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, place), 0)
    finally:
        os.close(place)


def _call(libc: ctypes.CDLL, number: int, *arguments: bytes | int | None) -> int:
    wide = (ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)
    return int(libc.syscall(ctypes.c_long(number), *wide))


def _latest(table: dict[int, int], version: int) -> int:
    """The entry of the last version not above this one; 0 before the first."""
    return max((value for since, value in table.items() if since <= version), default=0)
