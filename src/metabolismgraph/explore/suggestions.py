"""Suggestions of researchers: proposals in files, and notes, checked before they are sent."""

from __future__ import annotations

import json
from pathlib import Path

from metabolismgraph.config.yaml_text import parse_yaml
from metabolismgraph.errors import InputError
from metabolismgraph.explore.events import Suggested
from metabolismgraph.explore.inbox import MOST_TEXT, RESEARCHER, Message, new_id, researcher
from metabolismgraph.explore.planning import RefusedError, plan
from metabolismgraph.explore.proposal import Proposal
from metabolismgraph.explore.proposers.asking import parsed_proposal
from metabolismgraph.explore.proposers.base import Exchange, InvalidAnswerError
from metabolismgraph.explore.state import State
from metabolismgraph.files import read_bytes
from metabolismgraph.text import visible


def suggest_proposal(path: Path, state: State, waiting: tuple[Message, ...] = ()) -> Suggested:
    """The suggestion of the proposal in a file, YAML or JSON with the fields of `Proposal`.

    Args:
        waiting: messages that the explorer has not taken yet.

    Raises:
        InputError: the file holds no proposal, or the iteration that it asks for may not be run.
    """
    proposal = _read_proposal(path)
    before = [each for each in (*state.suggested, *waiting) if isinstance(each, Suggested) and each.proposal]
    try:
        plan(proposal, state, len(state.iterations) + len(before) + 1, by=RESEARCHER)
    except RefusedError as error:
        raise InputError(f"{path}: {error}") from None
    return Suggested(id=new_id(), by=researcher(), proposal=proposal)


def suggest_note(text: str) -> Suggested:
    """The suggestion that consists of a note for the next prompts.

    Raises:
        InputError: the note is empty or too long.
    """
    text = visible(text, "")
    if not text or len(text) > MOST_TEXT:
        raise InputError(f"--text: the note has {len(text)} characters, expected 1 to {MOST_TEXT}")
    return Suggested(id=new_id(), by=researcher(), text=text)


def _read_proposal(path: Path) -> Proposal:
    try:
        tree = parse_yaml(read_bytes(path).decode(), str(path))
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file; a proposal is YAML or JSON in UTF-8") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path}: holds no fields; a proposal has parent, mode, mutations and hypothesis")
    try:
        return parsed_proposal(Exchange(json.dumps(tree, default=str)))
    except InvalidAnswerError as error:
        raise InputError(f"{path}: {error}") from None
