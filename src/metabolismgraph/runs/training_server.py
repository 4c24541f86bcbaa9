"""A process that has imported what training needs, and forks for each training.

The imports of training take longer than the training of a small network. `run`, `fit` and each worker of an exploration
fork a server before they import the rest of the package; that of a worker serves all of its jobs. A training holds no
truth, no open files of others, and no modules that open files unseen. The kernel keeps the arguments and the
environment of the process that forked the server. Those of `run` and `fit` tell of data and secrets, so that their
trainings execute no strategy files; those of a worker tell nothing. Without a server, and where libraries do not
survive a fork (macOS), a training is a program of its own (`train_process.py`).

A server and its trainings stay in the process group of the process that they belong to, and end with it.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from metabolismgraph.garbage import share_with_forks
from metabolismgraph.processes import PIPE, Child
from metabolismgraph.runs import train_process
from metabolismgraph.sandbox import prctl
from metabolismgraph.sandbox.audit_hook import READERS
from metabolismgraph.system.threads import ONE_THREAD

_LONGEST = 1 << 17  # bytes of a message; an environment is in it
# What a training imports. None of it starts threads, or looks for devices: neither would survive a fork.
_MODULES = (
    *("jax", "scipy.optimize", "safetensors.numpy"),
    *("metabolismgraph.runs.train_folder", "metabolismgraph.system.compilation"),
)
_servers: list[TrainingServer] = []  # the one of this process, which its forks inherit


class ForkedTraining:
    """A training in a fork of a server, with those methods of `Child` that its caller needs.

    Args:
        channel: of the server.
        process: descriptor of the process that trains.
        stdout: its standard output.
    """

    def __init__(self, channel: socket.socket, process: int, stdout: IO[bytes]):
        self._channel, self._process, self.stdout = channel, process, stdout
        self._code: int | None = None

    def __enter__(self) -> ForkedTraining:  # noqa: PYI034 (beartype does not know Self in methods)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)
        self.wait()
        os.close(self._process)
        self.stdout.close()

    def wait(self) -> int:
        """Wait for the end of the training; returns its exit code, or minus the number of the signal that ended it."""
        if self._code is None:
            answer = b""
            with contextlib.suppress(ConnectionError):
                answer = self._channel.recv(_LONGEST)
            self._code = int(answer) if answer else -signal.SIGKILL  # the server was killed, and the training with it
        return self._code


class TrainingServer:
    """A server of this process: it runs one training at a time.

    Args:
        channel: to the server.
        process: its number; it is a child of this process.
        runs_files: whether its trainings may execute strategy files.
    """

    def __init__(self, channel: socket.socket, process: int, *, runs_files: bool):
        self._channel, self._process, self.runs_files = channel, process, runs_files
        self._owner: int | None = os.getpid()

    def start(self, request: Mapping[str, object], stderr: int) -> ForkedTraining | None:
        """Begin a training; returns None if the server has ended, or the request is too long for it.

        Args:
            request: arguments of `train_process.main`, and the environment `env`.
            stderr: descriptor of its error output.
        """
        message = json.dumps(request).encode()
        if len(message) > _LONGEST:
            return None
        source, target = os.pipe()
        stdout = open(source, "rb")  # noqa: PTH123, SIM115
        try:
            socket.send_fds(self._channel, [message], [target, stderr])
            process = socket.recv_fds(self._channel, 1, 1)[1]
        except OSError:
            process = []
        finally:
            os.close(target)
        if process:
            return ForkedTraining(self._channel, process[0], stdout)
        stdout.close()
        return None

    def close(self) -> None:
        """End the server, with its training; later trainings of this process are programs.

        A fork of the process that the server belongs to only forgets it.
        """
        _servers.clear()
        self._channel.close()
        if os.getpid() == self._owner:
            self._owner = None
            os.kill(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)


def start_training(
    folder: Path, shared: Path | None, *, kernel: bool, env: Mapping[str, str], stderr: int
) -> ForkedTraining | Child:
    """Begin a training in a fork of the server of this process, or as a program if there is none.

    Args:
        folder, shared, kernel: as for `train_process.main`.
        env: its complete environment.
        stderr: descriptor of its error output.

    Raises:
        OSError: it cannot be started.
    """
    request = {"folder": str(folder), "shared": None if shared is None else str(shared), "kernel": kernel}
    for server in _servers:
        if server.runs_files or not train_process.has_strategy_files(folder):
            training = server.start(request | {"env": dict(env)}, stderr)
            if training is not None:
                return training
    # In the same group, so that it ends with a job that is killed as a group; it cannot start processes itself.
    command = train_process.command(folder, shared, kernel=kernel)
    return Child(command, stdout=PIPE, stderr=stderr, env=env, own_group=False)


def fork_server(*, runs_files: bool = False) -> None:
    """Fork a server from this process, if it has not imported much yet.

    This function returns only in the calling process, whose linear algebra has one thread from then on, and so has that
    of its forks. In a training it ends with SystemExit.

    Args:
        runs_files: whether its trainings may execute strategy files. Only for a process whose arguments and environment
            tell nothing that such a file must not know.
    """
    # A fork lacks the threads of its parent, and holds all that the parent holds: too late once the work has begun.
    if not _can_fork() or "jax" in sys.modules or len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208
        return
    variables = _import()
    parent = os.getpid()
    ours, theirs = _channel()
    server = _fork()
    if server == 0:
        ours.close()
        sys.exit(_serve(theirs, parent, variables))
    theirs.close()
    if server is None:  # no more processes; if training cannot start either, it will say so
        ours.close()
        return

    _servers[:] = [TrainingServer(ours, server, runs_files=runs_files)]
    atexit.register(_servers[0].close)


def _fork() -> int | None:
    """Fork this process; returns the number of the child, 0 in the child, None if that is not possible."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    _reset_signals()
    # The child ignores interrupts, which may come before it has said so.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        number = os.fork()
        if number == 0:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    except OSError:
        return None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return number


def _can_fork() -> bool:
    # On macOS, libraries do not survive a fork. Old kernels, and some containers, have no descriptors of processes.
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return False
    try:
        own = os.pidfd_open(os.getpid())
    except OSError:
        return False
    try:
        signal.pidfd_send_signal(own, 0)
    except OSError:
        return False
    finally:
        os.close(own)
    return True


def _channel() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _reset_signals() -> None:
    """A process that ignores the signal of the end of a child does not learn how it has ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _import() -> dict[str, str]:
    """Import what a training needs, with one thread; returns the variables that libraries set meanwhile."""
    given = dict(os.environ)
    os.environ.update(ONE_THREAD)  # NumPy reads it when it is imported
    before = set(os.environ)
    # As in a sealed process, libraries find no modules that open files unseen: the import of None fails.
    absent = READERS - set(sys.modules)
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    for name in _MODULES:
        importlib.import_module(name)
    for name in absent:
        del sys.modules[name]
    share_with_forks()
    added = {name: value for name, value in os.environ.items() if name not in before}
    os.environ.clear()
    os.environ.update(given | added)
    return added


def _serve(channel: socket.socket, parent: int, variables: Mapping[str, str]) -> int:
    """Fork for every request, until the channel is closed; returns, in the process of a training, its exit code.

    Args:
        parent: number of the process that the server ends with.
        variables: of a training's environment, as libraries have set them.
    """
    prctl.end_with(parent)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):
        os.dup2(nothing, number)
    # What else the parent has open, a program would not inherit.
    os.closerange(3, channel.fileno())
    os.closerange(channel.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
    own = os.getpid()
    while True:
        request, descriptors, *_ = socket.recv_fds(channel, _LONGEST, 2)
        if not request:
            os._exit(0)  # there is nothing to clean up
        process = os.fork()
        if not process:
            channel.close()
            prctl.end_with(own)
            asked = json.loads(request)
            return _train(asked | {"env": {**variables, **asked["env"]}}, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        reference = os.pidfd_open(process)
        socket.send_fds(channel, [b"!"], [reference])
        os.close(reference)
        channel.send(str(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])).encode())


def _train(request: dict[str, Any], descriptors: list[int]) -> int:
    """Become the process of a training, as if it were a program; returns its exit code."""
    for number, descriptor in enumerate(descriptors, start=1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout, sys.stderr = (
        open(number, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
        for number in (1, 2)
    )
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.argv[:], sys.orig_argv[:] = sys.argv[:1], sys.orig_argv[:1]
    if not sys.flags.safe_path:
        sys.path.pop(0)  # files of the user must not replace modules
    os.environ.clear()
    os.environ.update(request["env"])
    from metabolismgraph.system.compilation import read_cache_settings  # noqa: PLC0415 (a server has imported JAX)

    read_cache_settings()
    shared = request["shared"]
    try:
        return train_process.main(
            Path(request["folder"]), None if shared is None else Path(shared), kernel=request["kernel"]
        )
    except Exception:
        traceback.print_exc()
        return 1
