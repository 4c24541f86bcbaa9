"""Delivery of messages of researchers: to the inbox of an exploration, and to its journal while no explorer runs."""

from __future__ import annotations

from pathlib import Path

from metabolismgraph.explore.events import Approved
from metabolismgraph.explore.inbox import INBOX, Inbox, Message
from metabolismgraph.explore.journal import JOURNAL, HeldError, Journal
from metabolismgraph.explore.views import write_views


def deliver(folder: Path, message: Message) -> bool:
    """Send a message to the exploration in a folder; returns whether it is in the journal already.

    Raises:
        InputError: it cannot be written.
    """
    inbox, journal = Inbox(folder / INBOX), Journal(folder / JOURNAL)
    inbox.put(message)
    try:
        with journal.held():
            events = list(journal.read())
            events += [journal.append(event) for event in inbox.take(events, decisions=False)]
            write_views(folder, events)
    except HeldError:
        return False
    return not isinstance(message, Approved)
