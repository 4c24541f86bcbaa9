"""A process beside a sealed one that decides on its files where the kernel asks it: Linux seccomp, user notification.

The audit hook sees what Python opens. Code in C and C++ has no audit events, and a refusal by Landlock has no report:
the code that was refused goes on. The kernel stops a sealed process at each system call that opens or changes a file by
name, and asks the watcher, which reads the name from the memory of that process. A file that is not allowed is
reported, and ends the process.

The kernel reads the name again when the call goes on. Another thread could exchange it meanwhile, if code has taken
over the memory of the process; that is left to Landlock. Numbers and structures: linux/seccomp.h.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import socket
import struct
from collections.abc import Mapping
from typing import NamedTuple, NoReturn

from metabolismgraph.sandbox import prctl
from metabolismgraph.sandbox.landlock import Allowed

_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # ioctl
_QUESTION, _ANSWER = struct.Struct("=QIIiIQ6Q"), struct.Struct("=QqiI")
_GO_ON = 1
_CURRENT_FOLDER = 0xFFFFFF9C  # AT_FDCWD, as an unsigned number of 32 bits
_PAGE, _LONGEST = 4096, 4096  # bytes; of a path
_MOST_LINKS = 40
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_REPORTED = 500  # characters of a path


class Call(NamedTuple):
    """A system call with names of files.

    Attributes:
        numbers: on x86_64 and aarch64.
        names: positions of the folder and the path among its arguments; None: there is no such argument.
        flags: position of the flags of open; None: the call changes the file.
    """

    numbers: tuple[int | None, int | None]
    names: tuple[tuple[int | None, int], ...]
    flags: int | None = None


CALLS = {
    "open": Call((2, None), ((None, 0),), 1),
    "openat": Call((257, 56), ((0, 1),), 2),
    "truncate": Call((76, 45), ((None, 0),)),
    "mkdir": Call((83, None), ((None, 0),)),
    "mkdirat": Call((258, 34), ((0, 1),)),
    "rmdir": Call((84, None), ((None, 0),)),
    "unlink": Call((87, None), ((None, 0),)),
    "unlinkat": Call((263, 35), ((0, 1),)),
    "rename": Call((82, None), ((None, 0), (None, 1))),
    "renameat": Call((264, 38), ((0, 1), (2, 3))),
    "renameat2": Call((316, 276), ((0, 1), (2, 3))),
}


def start(allowed: Allowed, report: int, calls: Mapping[int, str]) -> socket.socket:
    """Start the watcher of this process, before other threads run and before it is confined.

    Args:
        allowed: what this process may read and change.
        report: a descriptor of the parent process, for events (`protocol.py`).
        calls: names of the system calls about which the kernel asks, by number.

    Returns:
        where to send the descriptor from which the kernel's questions are read (`hand_over`).
    """
    ours, theirs = socket.socketpair()
    own = os.getpid()
    child = os.fork()
    if child == 0:
        ours.close()
        _watch(theirs, allowed, report, own, calls)
    theirs.close()
    prctl.let_read(child)
    return ours


def hand_over(channel: socket.socket, listener: int) -> None:
    """Give the watcher the kernel's questions, and wait until it answers them.

    Args:
        channel: from `start`.
        listener: the descriptor of the questions; it is closed.
    """
    socket.send_fds(channel, [b"?"], [listener])
    channel.recv(1)
    os.close(listener)


def _watch(channel: socket.socket, allowed: Allowed, report: int, watched: int, calls: Mapping[int, str]) -> NoReturn:
    try:
        prctl.end_with(watched)
        _, descriptors, *_ = socket.recv_fds(channel, 1, 1)
        if descriptors:
            channel.send(b"!")
            channel.close()
            _answer(descriptors[0], allowed, report, watched, calls)
    finally:
        os._exit(0)


def _answer(listener: int, allowed: Allowed, report: int, watched: int, calls: Mapping[int, str]) -> None:
    """Answer questions until the watched process has ended."""
    events = select.poll()
    events.register(listener, select.POLLIN)
    while not events.poll()[0][1] & (select.POLLHUP | select.POLLERR):
        question = bytearray(_QUESTION.size)
        try:
            fcntl.ioctl(listener, _RECEIVE, question)
            number, thread, _, call_number, _, _, *arguments = _QUESTION.unpack(question)
            name = calls[call_number]
            path = refused(CALLS[name], arguments, allowed, watched, thread)
            if path is not None:
                try:
                    line = json.dumps({"event": "leak", "tried": name, "on": path[:_REPORTED]})
                    os.write(report, f"\n{line}\n".encode())
                finally:
                    os.kill(watched, signal.SIGKILL)
            error, flags = (0, _GO_ON) if path is None else (-errno.EPERM, 0)
            fcntl.ioctl(listener, _SEND, _ANSWER.pack(number, 0, error, flags))
        except (FileNotFoundError, ProcessLookupError):
            continue  # the thread that was asked about has ended


def refused(call: Call, arguments: list[int], allowed: Allowed, watched: int, thread: int) -> str | None:
    """The path among the arguments of a call that is not allowed; None if there is none.

    Args:
        watched, thread: numbers of the process and of the thread that calls.
    """
    for folder, place in call.names:
        given = _read_text(thread, arguments[place])
        if not given:
            continue  # the kernel refuses it, too
        if not given.startswith("/"):
            at = _CURRENT_FOLDER if folder is None else arguments[folder] & 0xFFFFFFFF
            given = f"/proc/{thread}/{'cwd' if at == _CURRENT_FOLDER else f'fd/{at}'}/{given}"
        path = resolve(given, watched, thread)
        flags = _WRITES if call.flags is None else arguments[call.flags]
        if path is None or not _may(path, flags, allowed, (watched, thread)):
            return given if path is None else path
    return None


def resolve(path: str, watched: int, thread: int) -> str | None:
    """An absolute path without links, as the watched process sees it; None if it has too many."""
    pending = path.split("/")[::-1]
    done, links = "", 0
    while pending:
        name = pending.pop()
        if name == "..":
            done = done.rpartition("/")[0]
        if name in {"", ".", ".."}:
            continue
        if done == "/proc" and name in {"self", "thread-self"}:
            name = f"{watched}" if name == "self" else f"{watched}/task/{thread}"
        try:
            target = os.readlink(f"{done}/{name}")  # noqa: PTH115 (text without normalisation)
        except OSError:
            done += f"/{name}"
            continue
        links += 1
        if links > _MOST_LINKS:
            return None
        done = "" if target.startswith("/") else done
        pending += target.split("/")[::-1]
    return done or "/"


def _may(path: str, flags: int, allowed: Allowed, own: tuple[int, int]) -> bool:
    """Whether a resolved path may be opened or changed."""
    writes = flags & _WRITES
    if not (flags & os.O_CREAT or os.path.lexists(path)):
        return True  # there is nothing
    # The memory of a process is guarded by Landlock; libraries name their threads there.
    if path.startswith(tuple(f"/proc/{number}/" for number in own)):
        return True
    places = (*allowed.writable, *allowed.devices, *(() if writes else allowed.readable))
    inside = f"{path}/".startswith(tuple(f"{place.rstrip('/')}/" for place in places))
    return inside or (not writes and path in {place.rstrip("/") for place in allowed.listed})


def _read_text(thread: int, address: int) -> str:
    """The text that ends with a zero byte at an address of a process; empty if it cannot be read."""
    found = b""
    with contextlib.suppress(OSError), open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:  # noqa: PTH123
        while b"\0" not in found and len(found) <= _LONGEST:
            here = address + len(found)
            memory.seek(here)
            found += memory.read(_PAGE - here % _PAGE) or b"\0"
    return os.fsdecode(found.partition(b"\0")[0]) if b"\0" in found else ""
