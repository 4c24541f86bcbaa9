"""The working memory, as it was last rewritten."""

from __future__ import annotations

from metabolismgraph.explore.published_format.lines import basis
from metabolismgraph.explore.state import State


def render(state: State) -> str:
    """What a proposer reads before an iteration, under a line on what scores rest on."""
    text = state.memory.strip("\n")
    return f"> {basis(state.opened)}\n" + (f"\n{text}\n" if text else "")
