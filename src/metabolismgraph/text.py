"""Text of unknown origin, made safe for messages, files of lines and prompts."""

from __future__ import annotations

import hashlib
import json
import unicodedata

# Control and format characters, lone surrogates, line and paragraph separators: some readers end a line at them, and
# some change the appearance of a line (right-to-left override).
_INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def one_line(text: object, limit: int = 300) -> str:
    """A text as one line of at most `limit` characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def counted(number: int, noun: str) -> str:
    """A number with its noun.

    Example:
        >>> counted(1, "run"), counted(2, "run")
        ('1 run', '2 runs')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def visible(text: object, empty: str = "none") -> str:
    """One line without invisible characters, which could imitate another line of the same file.

    Args:
        empty: returned if nothing visible remains.
    """
    spaced = "".join(" " if unicodedata.category(c) in _INVISIBLE else c for c in str(text))
    return " ".join(spaced.split()) or empty


def printable(text: str, instead: str = " ") -> str:
    """Lines without control characters, which a terminal or git would interpret; each is replaced by `instead`."""
    return "".join(c if c.isprintable() or c == "\n" else instead for c in text)


class FencedText:
    """A message that consists of own text and of data, with the data between fences that no data can contain."""

    def __init__(self) -> None:
        self._parts: list[tuple[str | None, str]] = []

    def say(self, words: str) -> None:
        """Append own text."""
        self._parts.append((None, words))

    def data(self, title: str, content: str) -> None:
        """Append data with a title."""
        self._parts.append((title, printable(content)))

    def mark(self) -> str:
        """The identifier in the fences: a SHA-256 digest of all data. To contain it, data would have to predict it."""
        content = json.dumps([content for title, content in self._parts if title is not None])
        return hashlib.sha256(content.encode()).hexdigest()[:20]

    def fenced(self) -> str:
        """The complete message."""
        mark = self.mark()
        return "\n\n".join(
            words if title is None else f"[data {mark}: {title}]\n{words}\n[end {mark}]" for title, words in self._parts
        )
