"""Strategy files to be rolled back: those whose trainings all failed."""

from __future__ import annotations

from metabolismgraph.explore.events import Failed
from metabolismgraph.explore.planning import own_strategies
from metabolismgraph.explore.state import State

_FEWEST = 2  # runs; a single failure may have another cause


def failing_files(state: State) -> dict[str, tuple[str, ...]]:
    """Strategy files in force whose trainings all failed, by name, with the reasons."""
    found = {}
    for name, review in own_strategies(state).items():
        runs = [i for i in state.iterations if i.proposed.files.get(name) == review.landed]
        if len(runs) >= _FEWEST and all(i.scored is not None and i.scored.state in {"failed", "nan"} for i in runs):
            reasons = (i.outcome.reason if isinstance(i.outcome, Failed) else "its metrics are NaN" for i in runs)
            found[name] = tuple(dict.fromkeys(reasons))
    return found
