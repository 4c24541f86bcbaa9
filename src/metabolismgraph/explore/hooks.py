"""Programs of the user that are told of events: iterations, a new best node, the end.

A hook is run once for an event of this explorer, after the event is in the journal, and never for events read from it:
after a crash in between, the event has no call (at most once).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from metabolismgraph.config import Exploration
from metabolismgraph.errors import InputError
from metabolismgraph.explore.events import Event, Scored, Warned
from metabolismgraph.explore.state import State
from metabolismgraph.explore.tree import Node, best, nodes, standard_error
from metabolismgraph.processes import describe_exit, last_line, run, without_secrets
from metabolismgraph.text import one_line

_MOST_OUTPUT = 1 << 20  # bytes


def check_hooks(settings: Exploration) -> None:
    """Check that the programs of all hooks exist, and that no program is given a secret as an argument.

    Raises:
        InputError: one of them does not exist, or is given one.
    """
    hooks = {f"hooks.{name}": words for name, words in settings.hooks.items()}
    for name, words in {"command": settings.command, **hooks}.items():
        if any(without_secrets(word) != word for word in words):
            raise InputError(
                f"exploration.{name} holds the value of a secret environment variable, which the journal would keep; "
                "let the program read the variable"
            )
    for name, words in hooks.items():
        if shutil.which(words[0]) is None:
            program = one_line(words[0], 100)
            raise InputError(f"exploration.{name}: there is no program {program} that can be run; check its name")


class Hooks:
    """The hooks of an exploration.

    Args:
        folder: of the exploration.
    """

    def __init__(self, settings: Exploration, folder: Path):
        self._commands, self._seconds, self._folder = settings.hooks, settings.hook_timeout_s, folder

    def after(self, event: Event, before: State, state: State) -> Iterator[Warned]:
        """Run the hooks for an event; yields a warning for each one that failed.

        Args:
            before, state: without and with the event.
        """
        if not self._commands or not isinstance(event, Scored):
            return
        iteration = state.iterations[event.iteration - 1]
        about = {
            "iteration": event.iteration,
            "node": iteration.node,
            "state": event.state,
            "classification": event.classification,
            "reward": event.reward if iteration.counts else None,
        }
        yield from self._call("on_iteration", state, about)
        former, found = best(before), best(state)
        if found is not None and (former is None or former.id != found.id):
            yield from self._call("on_best", state, {"former": former and former.id})

    def end(self, state: State, reason: str) -> Iterator[Warned]:
        """Run the hook for the end of the explorer; yields a warning if it failed."""
        yield from self._call("on_end", state, {"reason": reason})

    def _call(self, hook: Any, state: State, about: Mapping[str, Any]) -> Iterator[Warned]:
        command = self._commands.get(hook)
        if command is None:
            return
        found = best(state)
        content = {
            "hook": hook,
            "name": state.opened.name,
            "folder": str(self._folder.absolute()),
            "iterations": sum(iteration.scored is not None for iteration in state.iterations),
            **about,
            "best": None if found is None else _described(found, state),
        }
        try:
            stdin = json.dumps(content, allow_nan=False).encode() + b"\n"
            completed = run(command, stdin=stdin, seconds=self._seconds, output=_MOST_OUTPUT)
        except OSError as error:
            yield Warned(about=f"hook {hook}", reason=f"{one_line(command[0], 100)} could not be run: {error.strerror}")
            return
        if completed.limit == "time":
            yield Warned(about=f"hook {hook}", reason=f"took longer than {self._seconds:g} s and was stopped")
        elif completed.limit or completed.code:
            how = "wrote too much and was stopped" if completed.limit else describe_exit(completed.code)
            message = last_line(completed.stderr) or "no message"
            yield Warned(about=f"hook {hook}", reason=one_line(without_secrets(f"{how} ({message})")))


def _described(node: Node, state: State) -> dict[str, Any]:
    """A node with its reward."""
    error = standard_error(node, nodes(state))
    return {"node": node.id, "reward": node.mean, "error": error, "runs": len(node.rewards)}
