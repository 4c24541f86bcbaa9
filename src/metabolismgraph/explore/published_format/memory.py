"""The latest working memory."""

from __future__ import annotations

from metabolismgraph.explore.published_format.lines import basis
from metabolismgraph.explore.state import State
from metabolismgraph.text import printable


def render(state: State) -> str:
    """The working memory, which proposers read before an iteration, after a line on the basis of scores."""
    text = printable(state.memory.strip("\n"))
    return f"> {basis(state.opened)}\n" + (f"\n{text}\n" if text else "")
