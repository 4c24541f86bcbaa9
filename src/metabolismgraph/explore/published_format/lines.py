"""What the views share: numbers, names, and the note on what scores rest on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from metabolismgraph.explore.events import Opened, Proposed
from metabolismgraph.text import visible


def decimals(value: object) -> str:
    """A metric: 4 decimals, whole numbers plain, NaN as nan."""
    if value is None:
        return "nan"
    if isinstance(value, float):
        return f"{value:.4f}" if math.isfinite(value) else str(value)
    return visible(value)


def parent_of(node: int | None) -> str:
    return "root" if node is None else str(node)


def mutation(proposed: Proposed) -> str:
    """The changes of a proposal, as they stand in a Mutation line."""
    proposal = proposed.proposal
    if proposal.mutations:
        return visible(", ".join(str(each) for each in proposal.mutations))
    return "none (replicate)" if proposal.mode == "replicate" else "none"


def set_name(names: Sequence[str]) -> str:
    """Strategies that train together; without any, training uses rollouts as published."""
    return " + ".join(names) or "classical rollouts"


def basis(opened: Opened) -> str:
    """What scores rest on, in one line that says `oracle` where it is the truth."""
    if opened.oracle:
        return f"oracle: scored by {opened.primary}, which uses the truth"
    return f"{opened.primary}: scored by held-out rollouts; no truth is used"


def mean(values: Iterable[Any]) -> float | None:
    """Mean of the numbers among some metrics; None where there is none."""
    numbers = [float(v) for v in values if isinstance(v, (int, float)) and math.isfinite(v)]
    return sum(numbers) / len(numbers) if numbers else None
