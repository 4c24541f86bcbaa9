"""Answers from any program: the prompt on its standard input, JSON on its standard output."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO

from metabolismgraph.errors import InputError
from metabolismgraph.explore.proposers.asking import MOST_CHARACTERS, Transport
from metabolismgraph.explore.proposers.base import Exchange, UnavailableError
from metabolismgraph.explore.proposers.prompt import Prompt
from metabolismgraph.text import one_line

_MOST_BYTES = 4 * MOST_CHARACTERS + 4  # of output; what is longer than an answer may be is refused by who reads it
_TICK = 0.02  # seconds between two looks at the program


class CommandTransport(Transport):
    """Runs a program for every question.

    It gets our environment. It and all that it started are ended when it has answered, takes too long or writes
    without end.

    Args:
        command: program and arguments.
        timeout_s: time limit of one question.

    Raises:
        InputError: on construction: there is no command, or no such program.
    """

    def __init__(self, command: tuple[str, ...], timeout_s: float):
        if not command or not command[0]:
            raise InputError(
                "exploration.command is empty; set it to a program and its arguments, such as [my-agent, --json]"
            )
        if shutil.which(command[0]) is None:
            raise InputError(
                f"exploration.command: there is no program {one_line(command[0], 100)} that can be run; check its name"
            )
        self._command, self._timeout_s = command, timeout_s

    @property
    def name(self) -> str:
        return f"command ({Path(self._command[0]).name})"

    def ask(self, prompt: Prompt) -> Exchange:
        started = time.perf_counter()
        # Files, not pipes: a program that reads nothing, or writes a lot, blocks nobody.
        with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            try:
                stdin.write(prompt.in_words().encode("utf-8", "backslashreplace"))
                stdin.seek(0)
                problem = self._run(stdin, stdout, stderr)
            except OSError as error:
                problem = f"{self.name} could not be run: {error.strerror}"
            seconds = time.perf_counter() - started
            answer = _read(stdout, 0).decode("utf-8", "backslashreplace")
            if not problem and not answer.strip():
                problem = f"{self.name} ended without output"
            if problem:
                reason = one_line(f"{problem}{_last_line(stderr)}")
                raise UnavailableError(reason, Exchange(None, reason, seconds=seconds))
            return Exchange(answer, seconds=seconds)

    def _run(self, stdin: IO[bytes], stdout: IO[bytes], stderr: IO[bytes]) -> str:
        """Run the program; what was wrong with it, if anything was."""
        until = time.monotonic() + self._timeout_s
        process = subprocess.Popen(self._command, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True)
        try:
            # The program is not waited for until its group has been ended: up to then its number is nobody else's.
            while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                if time.monotonic() > until:
                    return f"{self.name} gave no answer within {self._timeout_s:g} s"
                if max(os.fstat(stream.fileno()).st_size for stream in (stdout, stderr)) > _MOST_BYTES:
                    return f"{self.name} wrote more than {_MOST_BYTES} bytes"
                time.sleep(_TICK)
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
        if code < 0:
            return f"{self.name} was ended by signal {-code}"
        return f"{self.name} ended with exit code {code}" if code else ""


def _read(stream: IO[bytes], at: int) -> bytes:
    stream.seek(at)
    return stream.read(_MOST_BYTES)


def _last_line(stderr: IO[bytes]) -> str:
    """The last thing that a program complained of."""
    size = stderr.seek(0, os.SEEK_END)
    lines = _read(stderr, max(0, size - 2000)).decode("utf-8", "replace").strip().splitlines()
    return f": {one_line(lines[-1], 200)}" if lines else ""
