"""Answers from any program: the prompt on its standard input, JSON on its standard output."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from metabolismgraph.config import Exploration
from metabolismgraph.errors import InputError
from metabolismgraph.explore.proposers.asking import MOST_CHARACTERS, AskingProposer, Transport
from metabolismgraph.explore.proposers.base import Exchange, UnavailableError
from metabolismgraph.explore.proposers.prompt import Prompt
from metabolismgraph.processes import Completed, last_line, run
from metabolismgraph.text import one_line

_MOST_BYTES = 4 * MOST_CHARACTERS + 4  # of output; longer answers are refused when they are parsed


class CommandTransport(Transport):
    """Runs a program for every question.

    The program gets the environment of the explorer. It is ended with its child processes after its answer, at the time
    limit, or when its output is too long.

    Args:
        command: program and arguments.
        timeout_s: time limit of one question.

    Raises:
        InputError: on construction: the command is empty, or there is no such program.
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
        self.name = f"command ({Path(command[0]).name})"
        self._command, self._timeout_s = command, timeout_s

    def ask(self, prompt: Prompt, attempts: int = 1) -> Exchange:
        del attempts
        started = time.perf_counter()
        question = prompt.in_words().encode("utf-8", "backslashreplace")
        answer, message = "", ""
        try:
            completed = run(self._command, stdin=question, seconds=self._timeout_s, output=_MOST_BYTES)
        except OSError as error:
            problem = f"{self.name} could not be run: {error.strerror}"
        else:
            answer = completed.stdout.decode("utf-8", "backslashreplace")
            problem, message = self._problem(completed, answer), one_line(last_line(completed.stderr), 200)
        seconds = time.perf_counter() - started
        if problem:
            reason = one_line(f"{problem}: {message}" if message else problem)
            raise UnavailableError(reason, Exchange(None, reason, seconds=seconds))
        return Exchange(answer, seconds=seconds)

    def _problem(self, completed: Completed, answer: str) -> str:
        """The failure of a call of the program; empty without one."""
        if completed.limit == "time":
            return f"{self.name} gave no answer within {self._timeout_s:g} s"
        if completed.limit == "output":
            return f"{self.name} wrote more than {_MOST_BYTES} bytes"
        if completed.code < 0:
            return f"{self.name} was ended by signal {-completed.code}"
        if completed.code:
            return f"{self.name} ended with exit code {completed.code}"
        return "" if answer.strip() else f"{self.name} ended without output"


def make(settings: Exploration, folder: Path, record: Path | None) -> AskingProposer:
    """Make the proposer for the registry."""
    del record
    return AskingProposer(CommandTransport(settings.command, settings.llm_timeout_s), folder)
