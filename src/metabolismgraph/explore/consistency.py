"""Whether an event of a journal may follow those before it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from metabolismgraph.config import Config
from metabolismgraph.explore.events import (
    Approved,
    Event,
    Failed,
    Finished,
    Lost,
    Opened,
    Proposed,
    Remembered,
    Reviewed,
    Scored,
    Started,
    Validated,
)
from metabolismgraph.explore.keys import DATA_SEED, HELD_OUT_PART
from metabolismgraph.explore.search_space import DEFAULT, SearchSpace, shipped_space, space_of
from metabolismgraph.text import one_line

_VARIED = frozenset({DATA_SEED, HELD_OUT_PART})
_ROUNDING = 1e-9  # of a weighted mean
# What has happened to an iteration -> the event that must come before, and the words for both.
_BEFORE = {"started": "proposed", "ended": "started", "scored": "ended"}
_STATES = {"idea": {"failed"}, "machine": {"lost"}, None: {"scored", "negative", "nan"}}


class Consistency:
    """Checks events in their order. Those of imported logs are as the logs have them."""

    def __init__(self) -> None:
        self._space: SearchSpace | None = None
        self._stages: dict[int, str] = {}
        self._ends: dict[int, Finished | Failed] = {}
        self._nodes: set[int] = set()
        self._block = self._read = 0
        self._held: set[str] = set()
        self._landed: set[str] = set()

    def check(self, event: Event) -> None:
        """Check the next event.

        Raises:
            ValueError: it contradicts the events before it, in one line.
        """
        match event:
            case Opened():
                self._open(event)
            case Proposed():
                self._propose(event)
            case Started():
                self._advance(event.iteration, "started")
            case Lost():
                _demand(self._stages.get(event.iteration) == "started", f"iteration {event.iteration} does not run")
            case Finished() | Failed():
                self._advance(event.iteration, "ended")
                blamed = isinstance(event, Failed) and event.kind and event.cause == "idea"
                _demand(not blamed, "a job that a cluster lost is not a failure of the idea")
                self._ends[event.iteration] = event
            case Scored():
                self._advance(event.iteration, "scored")
                _check_verdict(event, self._ends[event.iteration])
            case Remembered():
                self._remember(event)
            case Validated():
                _demand(event.node in self._nodes, f"there is no node {event.node}")
                _demand(not event.variation.keys() - _VARIED, "variation names a setting that does not vary")
                _check_judgement(event)
            case Reviewed():
                self._review(event)
            case Approved(accepted=True) if event.digest in self._held:
                self._landed.add(event.digest)

    def _open(self, event: Opened) -> None:
        _demand(self._space is None, "an exploration begins only once")
        self._space = shipped_space(DEFAULT) if event.space is None else space_of(event.space, "space")
        _demand(event.primary in self._space.rewards, f"the search space has no reward {one_line(event.primary, 50)}")
        try:
            Config.model_validate(event.config)
        except ValidationError as error:
            raise ValueError(f"config: {one_line(error.errors()[0]['msg'])}") from None

    def _propose(self, event: Proposed) -> None:
        number, following = event.iteration, len(self._stages) + 1
        _demand(number == following, f"iteration {number} is proposed where {following} is the next one")
        self._check_keys(event.changes)
        _demand(not event.variation.keys() - _VARIED, "variation names a setting that does not vary")
        _demand(event.node == number or event.node in self._nodes, f"there is no node {event.node}")
        _demand(event.parent is None or event.parent in self._nodes, f"there is no node {event.parent} as a parent")
        _demand(self._landed.issuperset(event.files.values()), "files names a strategy file that was not accepted")
        self._nodes.add(event.node)
        self._stages[number] = "proposed"

    def _advance(self, number: int, stage: str) -> None:
        """Note that an iteration has reached a stage."""
        found = self._stages.get(number, "not proposed")
        _demand(found == _BEFORE[stage], f"iteration {number} is {stage}, but was {found} before")
        self._stages[number] = stage

    def _remember(self, event: Remembered) -> None:
        _demand(event.iteration > self._read, f"iteration {event.iteration} was read before")
        for reading in event.readings:
            found = self._stages.get(reading.iteration)
            _demand(found == "scored", f"iteration {reading.iteration} is read, but has no verdict")
        self._read = event.iteration

    def _review(self, event: Reviewed) -> None:
        _demand(event.block > self._block, f"block {event.block} begins after block {self._block}")
        self._check_keys(event.changes)
        for digest in filter(None, (event.landed, event.held)):
            _demand(event.file is not None and event.file.digest == digest, "the digest is not that of the file")
        self._block = event.block
        self._landed |= {event.landed} if event.landed else set()
        self._held |= {event.held} if event.held else set()

    def _check_keys(self, changes: Iterable[str]) -> None:
        """Check that changed settings belong to the search space."""
        for key in changes:
            known = self._space is None or key in self._space.keys
            _demand(known, f"changes names {one_line(key, 80)}, which the search space lacks")


def _check_verdict(scored: Scored, end: Finished | Failed) -> None:
    """Check the state and the reward of a verdict against the end of the run."""
    cause: Any = end.cause if isinstance(end, Failed) else None
    _demand(scored.state in _STATES[cause], f"the run {'failed' if cause else 'has metrics'}, but is {scored.state}")
    _check_judgement(scored)
    for part in scored.parts:
        _check_reward("scored", part)


def _check_judgement(event: Scored | Validated) -> None:
    _check_reward(event.state, event.reward)
    known = event.classification.partition("-")[0] in {"converged", "partial", "failed"}
    _demand(known, f"{one_line(event.classification, 50)} is not a class of runs")


def _check_reward(state: str, reward: float) -> None:
    most = 1 + _ROUNDING if state == "scored" else 0.0
    _demand(0 <= reward <= most, f"a reward of {reward:g} in state {state}")


def _demand(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
