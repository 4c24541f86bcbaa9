"""Common parts of the views: numbers, names, and the note on the basis of scores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from metabolismgraph.explore.events import Opened, Proposed, Suggested
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
    """All differences of an iteration from its parent, in the format of a Mutation line."""
    if proposed.mutations:
        return visible(", ".join(str(each) for each in proposed.mutations))
    if proposed.proposal.mode == "test-principle":
        return f"none (tests the principle {visible(proposed.proposal.hypothesis)})"
    return "none (replicate)" if proposed.proposal.mode == "replicate" else "none"


def replicate_name(seed: int, variation: Mapping[str, int]) -> str:
    """What tells a replicate from the others: its seed, and other settings that differ."""
    return ", ".join([str(seed), *(f"{key} {value}" for key, value in variation.items())])


def suggestion(event: Suggested) -> str:
    """The proposal or note of a researcher, on one line."""
    proposal = event.proposal
    if proposal is None:
        return f"note: {visible(event.text)}"
    changes = visible(", ".join(map(str, proposal.mutations)))
    where = f"{proposal.mode}, parent={parent_of(proposal.parent)}, mutation {changes}"
    return f"{where}; hypothesis: {visible(proposal.hypothesis)}"


def set_name(names: Sequence[str]) -> str:
    """Name of a set of strategies; without strategies, training uses rollouts as published."""
    return " + ".join(names) or "classical rollouts"


def basis(opened: Opened) -> str:
    """The basis of scores on one line, with `oracle` if they use the truth."""
    if opened.metric is not None:
        return f"{visible(opened.metric)}: as in the imported log"
    if opened.oracle:
        return f"oracle: scored by {visible(opened.primary)}, which uses the truth"
    return f"{visible(opened.primary)}: scored by held-out rollouts; no truth is used"


def mean(values: Iterable[Any]) -> float | None:
    """Mean of the numbers among some metrics; None without numbers."""
    numbers = [float(v) for v in values if isinstance(v, (int, float)) and math.isfinite(v)]
    return sum(numbers) / len(numbers) if numbers else None
