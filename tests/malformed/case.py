"""A call of the command line with wrong input."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

Content = str | bytes


@dataclasses.dataclass(frozen=True)
class Case:
    """A call, and the files that it is given.

    Attributes:
        name: unique within the family.
        arguments: of the command line, in a new working folder.
        files: content by path in this folder.
        prepare: makes further files there, from the folder of templates: a finished run, an exploration, a data set.
        closed: what is closed: any of "stdout", "stderr", "reader of stdout".
        stdout: path that standard output goes to; None: a file.
        largest: bytes that a file may have, as on a full disk; None: any number.
        fails: the input is right, and the command fails for another reason, with code 1.
        right: the input is right, and must be accepted: what the others of the family are compared with.
        keeps: what was finished before the failure stays.
        seconds: of the processor that it may take.
    """

    name: str
    arguments: tuple[str, ...]
    files: Mapping[str, Content | Callable[[], Content]] = dataclasses.field(default_factory=dict)
    prepare: Callable[[Path, Path], None] | None = None
    closed: tuple[str, ...] = ()
    stdout: str | None = None
    largest: int | None = None
    fails: bool = False
    right: bool = False
    keeps: bool = False
    seconds: float = 30.0

    def write(self, folder: Path, templates: Path) -> None:
        """Make the working folder."""
        if self.prepare is not None:
            self.prepare(folder, templates)
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            given = content() if callable(content) else content
            path.write_bytes(given.encode("utf-8", "surrogatepass") if isinstance(given, str) else given)


def calls(name: str, files: Mapping, *commands: str, **given) -> list[Case]:
    """One case for every command, whose words are separated by spaces; the first word is part of the name."""
    return [Case(f"{name} {words.split()[0]}", tuple(words.split()), files, **given) for words in commands]
