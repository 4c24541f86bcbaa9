"""Runs of one node with fresh seeds, outside the tree, which show how reliable it is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from metabolismgraph.errors import InputError
from metabolismgraph.explore.engines.attempts import in_force, retire
from metabolismgraph.explore.engines.base import Engine
from metabolismgraph.explore.engines.completion import completed
from metabolismgraph.explore.engines.outcome import OUTCOME, read_outcome
from metabolismgraph.explore.events import Failed, Finished, Proposed, Validated
from metabolismgraph.explore.folder import ExplorationFolder
from metabolismgraph.explore.planning import replicate_of
from metabolismgraph.explore.reliability import Reliability, reliability
from metabolismgraph.explore.reward import score
from metabolismgraph.explore.start import check_parts
from metabolismgraph.explore.state import State
from metabolismgraph.explore.tree import nodes
from metabolismgraph.explore.views import write_views

_FIRST_FRESH = 1000  # number of the first replicate for validation; the search does not get so far


def validate(
    folder: ExplorationFolder,
    engine: Engine,
    node: int,
    runs: int,
    watch: Callable[[Validated], None] | None = None,
) -> Reliability:
    """Run a node with fresh seeds, as far as that was not done before.

    Args:
        runs: their total number.
        watch: called after every run; None: nothing is.

    Raises:
        InputError: there is no such node, it never ended with metrics, or the journal cannot be written.
    """
    with folder.journal.held():
        state = State.of(folder.journal.read())
        check_parts(state.config, runs)
        found = next((each for each in nodes(state) if each.id == node), None)
        if found is None or state.imported or not found.ended:
            known = ", ".join(str(each.id) for each in nodes(state) if each.ended and not state.imported)
            raise InputError(f"node {node}: no such node that can be run again (nodes: {known or 'none'})")
        done = {run.number for run in state.validations if run.node == node and run.state != "lost"}
        waiting = {}
        for number in range(runs):
            if number not in done:
                planned = _planned(found.first, state, number)
                place = folder.path / "validation" / f"{node:04d}" / f"{number:04d}"
                if not _has_result(place):
                    folder.describe(planned, state, place)
                waiting[number] = (planned, place)
        with closing(completed(engine, {number: place for number, (_, place) in waiting.items()})) as ends:
            for job in ends:
                planned, place = waiting[job.job]
                outcome = _outcome(node, place, job.reason, job.seconds)
                event = folder.journal.append(_validated(state, planned, job.job, outcome))
                assert isinstance(event, Validated)
                state = state.after(event)
                if watch is not None:
                    watch(event)
        write_views(folder.path, folder.journal.read())
    result = reliability(state, node)
    if result is None:
        raise InputError(f"node {node}: all runs were lost with their machine; run the same command again")
    return result


def _planned(first: Proposed, state: State, number: int) -> Proposed:
    seed, variation = replicate_of(state, _FIRST_FRESH + number)
    return first.model_copy(update={"seed": seed, "variation": variation})


def _has_result(place: Path) -> bool:
    """Whether a job has an outcome that is not the machine's fault; another one is removed, and so is its attempt."""
    try:
        found = read_outcome(place)
    except ValueError:
        found = None
    if found is not None and (found.metrics is not None or found.cause == "idea"):
        return True
    attempt = in_force(place)
    if (place / OUTCOME).exists() or (attempt is not None and attempt.loss is not None):
        retire(place)
    (place / OUTCOME).unlink(missing_ok=True)
    return False


def _outcome(node: int, place: Path, failure: str | None, seconds: float) -> Finished | Failed:
    try:
        found = read_outcome(place)
    except ValueError as error:
        return Failed(iteration=node, reason=str(error), seconds=seconds, cause="machine")
    if found is not None and found.metrics is not None:
        return Finished(iteration=node, metrics=found.metrics, seconds=found.seconds)
    if found is not None:
        return Failed(iteration=node, reason=str(found.reason), seconds=found.seconds, cause=found.cause)
    return Failed(iteration=node, reason=failure or "ended without a result", seconds=seconds, cause="machine")


def _validated(state: State, planned: Proposed, number: int, outcome: Finished | Failed) -> Validated:
    scored = score(outcome, state.space, state.opened.primary)
    return Validated(
        node=planned.node,
        number=number,
        seed=planned.seed,
        variation=planned.variation,
        metrics=outcome.metrics if isinstance(outcome, Finished) else {},
        reason=outcome.reason if isinstance(outcome, Failed) else None,
        seconds=outcome.seconds,
        state=scored.state,
        reward=scored.reward,
        classification=scored.classification,
    )
