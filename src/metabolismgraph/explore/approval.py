"""Decisions of researchers on strategy files that passed the review (`exploration.approve`)."""

from __future__ import annotations

from pathlib import Path

from metabolismgraph.errors import InputError
from metabolismgraph.explore.events import Approved, Reviewed
from metabolismgraph.explore.inbox import Message, new_id, researcher
from metabolismgraph.explore.planning import own_strategies
from metabolismgraph.explore.proposal import StrategyFile
from metabolismgraph.explore.state import State
from metabolismgraph.text import one_line

_REASON = 500  # characters at most


def held_file(state: State, name: str | None, waiting: tuple[Message, ...], folder: Path) -> Reviewed:
    """The review whose strategy file waits for approval.

    Args:
        name: of the strategy; None: the only one that waits.
        waiting: messages that the explorer has not taken yet; a file with a decision among them does not wait.
        folder: of the exploration, for messages.

    Raises:
        InputError: no file waits, none of that name, or several.
    """
    decided = {message.digest for message in waiting if isinstance(message, Approved)}
    found = {review.file.name: review for review in state.held if review.file and review.held not in decided}
    if not found:
        why = "" if state.settings.approve else " (exploration.approve is false)"
        raise InputError(f"{folder}: no strategy file waits for approval{why}")
    if name is None and len(found) > 1:
        raise InputError(f"{folder}: several strategy files wait for approval; name one of {', '.join(found)}")
    if name is not None and name not in found:
        raise InputError(f"{folder}: strategy {one_line(name, 50)} does not wait for approval; {', '.join(found)} does")
    return found[name] if name is not None else next(iter(found.values()))


def decide(review: Reviewed, no: str | None) -> Approved:
    """The decision on a strategy file.

    Args:
        no: why it is refused; None: it is accepted.

    Raises:
        InputError: the reason is empty.
    """
    assert review.file is not None
    assert review.held is not None
    reason = "" if no is None else one_line(no, _REASON)
    if no is not None and not reason:
        raise InputError("--no: the reason is empty; write what the proposer should change")
    about = {"name": review.file.name, "digest": review.held, "accepted": no is None, "reason": reason}
    return Approved(id=new_id(), by=researcher(), **about)


def former_version(state: State, name: str) -> StrategyFile | None:
    """The version of a strategy file that is in force."""
    review = own_strategies(state).get(name)
    return None if review is None else review.file
