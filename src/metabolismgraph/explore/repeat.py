"""One run of an exploration, alone and again: the same configuration, seed, strategy files, data and Phase 1."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from metabolismgraph.errors import InputError, TrainingFailedError
from metabolismgraph.explore.engines.base import Engine
from metabolismgraph.explore.engines.completion import completed
from metabolismgraph.explore.engines.outcome import read_outcome
from metabolismgraph.explore.folder import ExplorationFolder
from metabolismgraph.explore.state import State

_OF_THE_MACHINE = {"training_time_min"}


def repeat(folder: ExplorationFolder, state: State, iteration: int, out: Path, engine: Engine) -> dict[str, Any]:
    """Run an iteration again in a folder of its own, and return its metrics; the exploration remains as it is.

    Raises:
        InputError: `out` is not empty or cannot be written.
        TrainingFailedError: the run ended without metrics.
    """
    try:
        if out.exists() and any(out.iterdir()):
            raise InputError(f"{out}: not empty; choose another --out")
        folder.describe(state.iterations[iteration - 1].proposed, state, out)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}); choose another --out") from None
    with closing(completed(engine, {iteration: out})) as ends:
        (ended,) = ends
    outcome = read_outcome(out)
    if outcome is None or outcome.metrics is None:
        reason = outcome.reason if outcome is not None else ended.reason
        raise TrainingFailedError(f"{out}: the run ended without metrics ({reason or 'no reason is known'})")
    return outcome.metrics


def differing(recorded: Mapping[str, Any], repeated: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The metrics of two runs that differ in any digit: name -> both values; times are left out."""
    names = dict.fromkeys([*recorded, *repeated])
    pairs = {name: (recorded.get(name), repeated.get(name)) for name in names if name not in _OF_THE_MACHINE}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
