"""Who decides what an exploration does next, one file each."""

from __future__ import annotations

from pathlib import Path

from metabolismgraph.config import Exploration
from metabolismgraph.errors import InputError
from metabolismgraph.explore.journal import JOURNAL, Journal
from metabolismgraph.explore.proposers.base import Proposer

NAMES = ("rules", "llm", "command", "replay")


def make_proposer(name: str, settings: Exploration, folder: Path, record: Path | None = None) -> Proposer:
    """The proposer of that name.

    Args:
        folder: of the exploration.
        record: of the exploration whose answers `replay` gives again.

    Raises:
        InputError: there is none, or it lacks something.
    """
    # What one proposer needs is not asked of those who use another.
    if name == "rules":
        from metabolismgraph.explore.proposers.rules import RulesProposer  # noqa: PLC0415

        return RulesProposer()
    if name == "replay":
        from metabolismgraph.explore.proposers.replay import ReplayProposer  # noqa: PLC0415

        if record is None:
            raise InputError("proposer replay needs --record DIR, the exploration whose answers are given again")
        return ReplayProposer(Journal(record / JOURNAL).read())
    if name not in NAMES:
        raise InputError(f"proposer {name}: there is none of that name (all: {', '.join(NAMES)})")
    from metabolismgraph.explore.proposers.asking import AskingProposer  # noqa: PLC0415
    from metabolismgraph.explore.proposers.command import CommandTransport  # noqa: PLC0415
    from metabolismgraph.explore.proposers.llm import LLMTransport  # noqa: PLC0415

    if name == "command":
        return AskingProposer(CommandTransport(settings.command, settings.llm_timeout_s), folder)
    return AskingProposer(LLMTransport(settings), folder)
