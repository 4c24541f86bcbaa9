"""Messages of researchers to an exploration: suggestions, pauses, decisions on strategy files.

A message is an event, written to the folder `inbox`. The explorer moves it to the journal, which only the explorer
writes to; while none runs, `delivery.deliver` moves it. Decisions on strategy files wait for the next boundary of
blocks.
"""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from metabolismgraph.errors import InputError
from metabolismgraph.explore.events import Approved, Event, Paused, Suggested, Warned
from metabolismgraph.files import write_bytes
from metabolismgraph.text import one_line

Message = Suggested | Paused | Approved
_MESSAGE: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="event")])
INBOX = "inbox"
RESEARCHER = "researcher"  # by whom an iteration is proposed that follows a suggestion
MOST_TEXT = 2000  # characters of a note


class Inbox:
    """A folder with one file per message, named by time; several processes may write to it, one takes messages."""

    def __init__(self, path: Path):
        self.path = path

    def put(self, message: Message) -> None:
        """Write a message.

        Raises:
            InputError: it cannot be written.
        """
        path = self.path / f"{message.id}.json"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_bytes(path, message.model_dump_json().encode())
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror}); make room or give access") from None

    def waiting(self) -> tuple[Message, ...]:
        """The messages, oldest first; damaged ones are left out."""
        return tuple(m for _, m in self._messages() if not isinstance(m, Warned))

    def take(self, events: Sequence[Event], *, decisions: bool) -> Iterator[Event]:
        """Yield the messages, oldest first, as events for the journal; each is removed once it has been recorded.

        Args:
            events: of the journal. A message that is there already, from before a crash, is only removed.
            decisions: whether to take decisions on strategy files as well: between blocks only.
        """
        for path, message in self._messages():
            if isinstance(message, Approved) and not decisions:
                continue
            if isinstance(message, Warned) or all(getattr(event, "id", None) != message.id for event in events):
                yield message
            path.unlink(missing_ok=True)

    def _messages(self) -> Iterator[tuple[Path, Message | Warned]]:
        """Yield every message with its file; a warning in place of a damaged one."""
        for path in sorted(self.path.glob("*.json")):
            try:
                yield path, _MESSAGE.validate_json(path.read_bytes())
            except FileNotFoundError:
                continue
            except ValidationError as error:
                reason = one_line(error.errors()[0]["msg"])
                yield path, Warned(about=f"{self.path.name}/{path.name}", reason=f"not a message ({reason})")
            except OSError as error:
                yield path, Warned(about=f"{self.path.name}/{path.name}", reason=f"cannot be read ({error.strerror})")


def new_id() -> str:
    """An id that sorts by time."""
    return f"{time.time_ns()}-{os.getpid()}"


def researcher() -> str:
    """Login name of the user, as far as known."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return RESEARCHER
