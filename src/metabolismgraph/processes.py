"""Child processes with limits; each leads a process group and is killed together with the processes that it started."""

from __future__ import annotations

import contextlib
import math
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Literal, NamedTuple

Limit = Literal["time", "output"]
PIPE, NULL, STDOUT = subprocess.PIPE, subprocess.DEVNULL, subprocess.STDOUT
_TICK = 0.02  # seconds between two checks of limits
# Numbers of threads that libraries would otherwise take from the cores of the computer; the last is that of XLA.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")
# Variables of the environment that a child process of ours may need. Others, such as keys of services, it does not get.
_VARIABLES = frozenset(
    {"PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV"}
    | {"XDG_CACHE_HOME", "COLUMNS", "TERM", "NO_COLOR", "PYTHONDONTWRITEBYTECODE"}
    | set(THREADS)
)
_FAMILIES = (
    *("LC_", "CUDA_", "NVIDIA_", "XLA_", "JAX_", "OMP_", "OPENBLAS_", "MKL_", "MPL", "METABOLISMGRAPH_"),
    "COVERAGE_",
)
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL", re.IGNORECASE)
_SHORTEST_SECRET = 12  # characters; a shorter value may also be a word of a text
_BLOCK = 65_536  # bytes that are read from a pipe at once
_TAIL = 20_000  # bytes at the end of an output that are searched for its last line


def environment(*also: str, **more: str) -> dict[str, str]:
    """The environment of a child process that runs code of this package: a few variables of this process, and more.

    Args:
        also: further variables of this process; with an underscore at the end, the beginnings of their names.
        more: values by name.
    """
    families = (*_FAMILIES, *(name for name in also if name.endswith("_")))
    few = {
        name: value
        for name, value in os.environ.items()
        if (name in _VARIABLES or name in also or name.startswith(families)) and not _SECRET.search(name)
    }
    return few | more


def keep_to_cores() -> None:
    """Use no other cores than those that an engine of this computer gives."""
    cores = os.environ.get("METABOLISMGRAPH_CORES")
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})


def without_secrets(text: str) -> str:
    """A text in which values of this process's secret variables are replaced by their names in brackets."""
    for name, value in os.environ.items():
        if _SECRET.search(name) and len(value) >= _SHORTEST_SECRET and not value.startswith("/"):
            text = text.replace(value, f"[{name}]")
    return text


class Child:
    """A running program. As a context manager, it kills the program at the end, also after an interrupt.

    Args:
        command: program and arguments.
        stdin: with `PIPE`, the program can call `end_with_parent`.
        stdout, stderr: as for `subprocess.Popen`.
        cwd: working directory.
        env: complete environment; None: that of this process.
        own_group: True: the program leads a new process group, which is killed as a whole. False: it stays in the
            group of this process, receives its interrupts, and is killed alone.

    Raises:
        OSError: the program cannot be started.
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
    def stdin(self) -> IO[bytes]:
        """Standard input, if it is a `PIPE`."""
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def stdout(self) -> IO[bytes]:
        """Standard output, if it is a `PIPE`."""
        assert self._process.stdout is not None
        return self._process.stdout

    def poll(self) -> int | None:
        """The exit code, or minus the number of the signal that ended the program; None while it runs."""
        return self._status(block=False)

    def wait(self) -> int:
        """Wait for the end of the program; returns the same as `poll`."""
        code = self._status(block=True)
        assert code is not None
        return code

    def kill(self) -> None:
        """Kill the program, and its group, if it still runs."""
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
        # `Popen.wait` gives a program in this group, which receives the same interrupt, time to end. There is no waitid
        # on macOS before Python 3.13.
        if not self._own_group or not hasattr(os, "waitid"):
            return self._process.wait() if block else self._process.poll()
        if self._process.returncode is not None:
            return self._process.returncode
        # WNOWAIT keeps the process as a zombie until `kill`: its number, also that of the group, is not reused before.
        found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | (0 if block else os.WNOHANG))
        if found is None:
            return None
        return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


@contextlib.contextmanager
def excerpt(path: Path, most: int = 1_000_000) -> Iterator[int]:
    """A pipe for the output of a program, of which a file keeps the beginning and the end.

    Leave the context after the program has ended: it waits for the end of the output.

    Args:
        path: the file.
        most: number of bytes of the beginning.

    Yields:
        The descriptor to write to.

    Raises:
        OSError: the file cannot be made.
    """
    with path.open("wb", buffering=0) as kept:
        source, target = os.pipe()
        copying = threading.Thread(target=_copy_ends, args=(source, kept, most), daemon=True)
        copying.start()
        try:
            yield target
        finally:
            os.close(target)
            copying.join()


def _copy_ends(source: int, kept: IO[bytes], most: int) -> None:
    left, end, skipped = most, b"", 0
    with open(source, "rb", buffering=0) as stream:
        while block := stream.read(_BLOCK):
            head, rest = block[:left], block[left:]
            left -= len(head)
            skipped += max(0, len(end) + len(rest) - _TAIL)
            end = (end + rest)[-_TAIL:]
            with contextlib.suppress(OSError):  # the disk is full: the program must not wait for this
                kept.write(head)
    with contextlib.suppress(OSError):
        kept.write((f"\n[{skipped} bytes are left out]\n".encode() if skipped else b"") + end)


class Completed(NamedTuple):
    """The result of a program.

    Attributes:
        code: exit code, as for `Child.poll`.
        limit: the limit for which the program was killed; None: it ended by itself.
        stdout: standard output; its beginning, if output is limited.
        stderr: error output; its end, if output is limited.
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
    """Run a program; processes that it started are killed when it ends.

    Args:
        command: program and arguments.
        stdin: standard input.
        seconds: time limit.
        output: largest number of bytes of standard output, and of error output.
        cwd: working directory.
        env: complete environment; None: that of this process.

    Raises:
        OSError: the program cannot be started.
    """
    # Files instead of pipes: a program that does not read its input, or writes a lot, does not block.
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        given.write(stdin)
        given.seek(0)
        source = given if stdin else NULL  # a file of this process only where it is needed
        with Child(command, stdin=source, stdout=stdout, stderr=stderr, cwd=cwd, env=env) as child:
            limit = _limit_reached(child, seconds, output, (stdout, stderr))
        stdout.seek(0)
        return Completed(child.wait(), limit, stdout.read(-1 if output is None else output), _end(stderr, output))


def _limit_reached(child: Child, seconds: float, output: int | None, streams: Sequence[IO[bytes]]) -> Limit | None:
    """Wait until the program ends or reaches a limit; returns the limit."""
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
    """Kill this process and its group as soon as the parent, which started it with stdin=PIPE, ends."""
    threading.Thread(target=_watch_parent, daemon=True).start()


def _watch_parent() -> None:
    # The parent never writes to the pipe, so reading returns only when its end is closed. (sys.stdin would be locked by
    # this thread at the end of the process.)
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)


# Signals of a program that goes wrong by itself; all others are from people, schedulers or a kernel without memory.
_OF_ITS_OWN = frozenset(
    {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSYS, signal.SIGTRAP}
)


def killed_from_outside(code: int) -> bool:
    """Whether an exit code is that of a program which was killed, not of one that went wrong by itself."""
    return code < 0 and -code not in _OF_ITS_OWN


def describe_exit(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"ended with code {code}"
    names = {member.value: member.name for member in signal.Signals}
    return f"was killed by {names.get(-code, f'signal {-code}')}"


def last_line(output: bytes | Path) -> str:
    """The last line of the output of a program, given as bytes or as a file; "" if there is none."""
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
    """The last `most` bytes of a file; None: all."""
    stream.seek(0 if most is None else max(0, _size(stream) - most))
    return stream.read()


def cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
