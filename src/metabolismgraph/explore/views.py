"""The views of an exploration for people: files that are made from its journal, and can be rebuilt at any time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from metabolismgraph.errors import InputError
from metabolismgraph.explore.events import Event
from metabolismgraph.explore.journal import JOURNAL, Journal
from metabolismgraph.explore.published_format import analysis, memory, ucb_scores
from metabolismgraph.explore.report import render_report
from metabolismgraph.explore.state import State
from metabolismgraph.files import write_bytes
from metabolismgraph.runs.folder import REPORT


def render(events: Sequence[Event]) -> dict[str, str]:
    """The views in the published format after these events: file name -> content.

    Raises:
        InputError: the events do not begin with `opened`, or the name of the exploration is not a file name.
    """
    state = State.of(events)
    name = state.opened.name
    if Path(name).name != name or "\0" in name:
        raise InputError(
            f"the journal names the exploration {name!r}, which is not a file name; correct its first line"
        )
    log = analysis.render(events)
    return {
        f"{name}_analysis.md": log,
        f"{name}_ucb_scores.txt": ucb_scores.render(state, log),
        f"{name}_memory.md": memory.render(state),
    }


def write_views(folder: Path, events: Sequence[Event], *, live: bool = False) -> None:
    """Update the views in a folder, the page included; each is replaced as a whole, and only if it differs.

    Args:
        live: whether the exploration goes on, so that the page is to load itself again.

    Raises:
        InputError: as `render`, or a file cannot be written.
    """
    for name, text in (render(events) | {REPORT: render_report(folder, events, live=live)}).items():
        path = folder / name
        content = text.encode(errors="replace")
        try:
            if not path.is_file() or path.read_bytes() != content:
                write_bytes(path, content)
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written ({error.strerror}); make room or give access, then `explore rebuild`"
            ) from None


def rebuild(folder: Path) -> None:
    """Rebuild the views from the journal in a folder.

    Raises:
        InputError: the journal is missing or damaged, or a view cannot be written.
    """
    journal = Journal(folder / JOURNAL)
    write_views(folder, journal.read(), live=journal.is_held)
