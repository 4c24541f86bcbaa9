"""Text of unknown origin, made harmless for where it goes: a message, a file of lines, a prompt."""

from __future__ import annotations

import hashlib
import json
import unicodedata

# Control and format characters, lone surrogates, line and paragraph separators: they end a line in some readers, or
# make it look like another (writing from right to left).
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def one_line(text: object, limit: int = 300) -> str:
    """A message on one line, cut at `limit` characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def visible(text: object, empty: str = "none") -> str:
    """One line without invisible characters, so that it cannot pass for another line of the same file."""
    spaced = "".join(" " if unicodedata.category(c) in _UNSEEN else c for c in str(text))
    return " ".join(spaced.split()) or empty


def printable(text: str, instead: str = " ") -> str:
    """Lines without characters that a terminal, or git, takes for more than text."""
    return "".join(c if c.isprintable() or c == "\n" else instead for c in text)


class FencedText:
    """A message in the making: our own words, and data between fences that they cannot contain."""

    def __init__(self) -> None:
        self._parts: list[tuple[str | None, str]] = []

    def say(self, words: str) -> None:
        self._parts.append((None, words))

    def data(self, title: str, content: str) -> None:
        self._parts.append((title, printable(content)))

    def mark(self) -> str:
        """What the fences carry: a digest of all data, which data cannot contain but by breaking SHA-256."""
        content = json.dumps([content for title, content in self._parts if title is not None])
        return hashlib.sha256(content.encode()).hexdigest()[:20]

    def fenced(self) -> str:
        mark = self.mark()
        return "\n\n".join(
            words if title is None else f"[data {mark}: {title}]\n{words}\n[end {mark}]" for title, words in self._parts
        )
