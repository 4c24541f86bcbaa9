"""Child processes: each leads a process group, is held to limits and is killed with all that it started."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Literal, NamedTuple

Limit = Literal["time", "output"]
PIPE, NULL, STDOUT = subprocess.PIPE, subprocess.DEVNULL, subprocess.STDOUT
_TICK = 0.02  # seconds between two looks at a process with limits
_TAIL = 20_000  # bytes of output in which its last line is looked for


class Child:
    """A running program; as a context, it is killed on leaving, interrupts included.

    Args:
        command: program and arguments.
        stdin: with `PIPE`, the program can call `end_with_parent`.
        env: all of its environment; None: ours.
        own_group: lead a process group of its own, which is killed as a whole; False: stay in ours, be interrupted and
            killed with us, and be killed alone here.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdin: IO[bytes] | int = NULL,
        stdout: IO[bytes] | int | None = None,
        stderr: IO[bytes] | int | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        own_group: bool = True,
    ):
        self._own_group = own_group
        self._process = subprocess.Popen(
            command, stdin=stdin, stdout=stdout, stderr=stderr, cwd=cwd, env=env, start_new_session=own_group
        )

    def __enter__(self) -> Child:  # noqa: PYI034 (beartype does not know Self in methods)
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def stdout(self) -> IO[bytes]:
        """What it writes, where `PIPE` was asked for."""
        assert self._process.stdout is not None
        return self._process.stdout

    def poll(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None while it runs."""
        return self._status(block=False)

    def wait(self) -> int:
        """As `poll`, once it has ended."""
        code = self._status(block=True)
        assert code is not None
        return code

    def kill(self) -> None:
        """End it at once, if it still runs, with its group."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if self._own_group:
                    os.killpg(self.pid, signal.SIGKILL)
                else:
                    self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _status(self, *, block: bool) -> int | None:
        # `Popen.wait` lets a program that is interrupted with us end by itself. No waitid: macOS before Python 3.13.
        if not self._own_group or not hasattr(os, "waitid"):
            return self._process.wait() if block else self._process.poll()
        if self._process.returncode is not None:
            return self._process.returncode
        # The process stays a zombie until its group has been killed: up to then its number is nobody else's.
        found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | (0 if block else os.WNOHANG))
        if found is None:
            return None
        return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


class Completed(NamedTuple):
    """A program that is over.

    Attributes:
        code: as `Child.poll`.
        limit: the one at which it was killed, if any.
        stdout: standard output, its beginning where output is limited.
        stderr: error output, its end where output is limited.
    """

    code: int
    limit: Limit | None
    stdout: bytes
    stderr: bytes


def run(
    command: Sequence[str],
    *,
    stdin: bytes = b"",
    seconds: float = math.inf,
    output: int | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Completed:
    """Run a program to its end; nothing that it started lives on.

    Args:
        seconds: time limit.
        output: largest number of bytes of standard output, and of error output.
        env: all of its environment; None: ours.

    Raises:
        OSError: it cannot be started.
    """
    # Files, not pipes: a program that reads nothing, or writes a lot, blocks nobody.
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        given.write(stdin)
        given.seek(0)
        with Child(command, stdin=given, stdout=stdout, stderr=stderr, cwd=cwd, env=env) as child:
            limit = _limit_reached(child, seconds, output, (stdout, stderr))
        stdout.seek(0)
        return Completed(child.wait(), limit, stdout.read(-1 if output is None else output), _end(stderr, output))


def _limit_reached(child: Child, seconds: float, output: int | None, streams: Sequence[IO[bytes]]) -> Limit | None:
    """Wait until a program ends, or for the limit that it reaches first."""
    if seconds == math.inf and output is None:
        child.wait()
    until = time.monotonic() + seconds
    while child.poll() is None:
        if time.monotonic() > until:
            return "time"
        if output is not None and max(map(_size, streams)) > output:
            return "output"
        time.sleep(_TICK)
    return None


def end_with_parent() -> None:
    """Kill this process and its group as soon as the one that started it with stdin=PIPE is gone."""
    threading.Thread(target=_watch_parent, daemon=True).start()


def _watch_parent() -> None:
    # Nobody writes to the pipe: it ends when the other end is closed. (sys.stdin would be locked by this thread when
    # the process ends.)
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)


def describe_exit(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"ended with code {code}"
    names = {member.value: member.name for member in signal.Signals}
    return f"was killed by {names.get(-code, f'signal {-code}')}"


def last_line(output: bytes | Path) -> str:
    """The last line of a program's output, given as it is or as a file; "" if there is none."""
    try:
        if isinstance(output, Path):
            with output.open("rb") as stream:
                output = _end(stream, _TAIL)
    except OSError:
        return ""
    lines = output[-_TAIL:].decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def _size(stream: IO[bytes]) -> int:
    return os.fstat(stream.fileno()).st_size


def _end(stream: IO[bytes], most: int | None) -> bytes:
    stream.seek(0 if most is None else max(0, _size(stream) - most))
    return stream.read()
