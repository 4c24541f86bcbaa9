"""The next parameter to change, with direction and step size; steps adapt to earlier results."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from metabolismgraph.explore.events import Changes
from metabolismgraph.explore.evidence import effects
from metabolismgraph.explore.keys import BATCH, LOOP, RATE_EMBEDDING, RATE_NODE, STEPS
from metabolismgraph.explore.proposal import Mode
from metabolismgraph.explore.search_space import RefusedError, configuration, full_key
from metabolismgraph.explore.state import State
from metabolismgraph.explore.tree import Node, nodes, pooled_deviation


@dataclasses.dataclass(frozen=True)
class Parameter:
    """Settings for the search over a parameter.

    Attributes:
        factor: of the first change.
        up: whether the first change is upwards.
        low, high: bounds of the search, the typical range in the published design.
    """

    factor: float
    up: bool
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Step:
    """A change of one parameter, with the numbers of earlier changes and of successes."""

    key: str
    old: float
    new: float
    tried: int
    worked: int


PARAMETERS: Mapping[str, Parameter] = {
    RATE_NODE: Parameter(10**0.5, up=True, low=1e-4, high=1e-1),
    RATE_EMBEDDING: Parameter(10**0.5, up=True, low=1e-4, high=1e-1),
    LOOP: Parameter(2.0, up=True, low=1.0, high=5000.0),
    STEPS: Parameter(2.0, up=True, low=100.0, high=20_000.0),
    BATCH: Parameter(2.0, up=False, low=4.0, high=64.0),
}
# Steps grow after a success; after a failure they shrink and change direction (Rechenberg 1973).
_GROW, _SHRINK, _SMALLEST, _LARGEST = 1.5, 0.75, 1.1, 10.0


def parameters(mode: Mode, *, rollouts: bool) -> tuple[str, ...]:
    """Parameters with an effect in the order of the published design, those of the mode first."""
    order = (RATE_NODE, RATE_EMBEDDING, *((LOOP, BATCH) if rollouts else (STEPS,)))
    return (RATE_EMBEDDING, *(k for k in order if k != RATE_EMBEDDING)) if mode == "embedding-focus" else order


def next_step(state: State, parent: int | None, before: Changes, order: Sequence[str]) -> Step:
    """The next step of the least changed parameter of this parent; among equals, the first in the order."""
    children = [n for n in nodes(state) if n.parent == parent]
    taken = [key for node in children for key in _changed_keys(node)]
    config = configuration(state, before).model_dump(mode="json")["training"]
    steps = [_step(state, key, float(config[key.partition(".")[2]]), taken.count(key)) for key in order]
    # At the end of its range a parameter has no step.
    able = [step for step in steps if step.new != step.old] or steps
    return min(able, key=lambda step: taken.count(step.key))


def _changed_keys(node: Node) -> tuple[str, ...]:
    return tuple(_key(mutation.param) for mutation in node.first.proposal.mutations)


def _key(param: str) -> str:
    try:
        return full_key(param)
    except RefusedError:  # of an imported log
        return param


def _step(state: State, key: str, old: float, siblings: int) -> Step:
    parameter = PARAMETERS[key]
    factor, up, tried, worked = parameter.factor, parameter.up, 0, 0
    deviation = pooled_deviation(nodes(state)) or 0.0
    for effect in effects(state):
        if tuple(_key(mutation.param) for mutation in effect.change) != (key,):
            continue
        tried += 1
        # One pair is enough to choose a direction, not to claim anything.
        if effect.mean > deviation * math.sqrt(2 / len(effect.differences)):
            worked, factor = worked + 1, min(factor**_GROW, _LARGEST)
        else:
            up, factor = not up, max(factor**_SHRINK, _SMALLEST)
    # Further children of the same parent take the other direction, then larger steps.
    up, factor = up != bool(siblings % 2), factor ** (1 + siblings // 2)
    new = min(max(old * factor if up else old / factor, parameter.low), parameter.high)
    whole = key in {LOOP, BATCH, STEPS}
    return Step(key, old, max(1.0, float(round(new))) if whole else float(f"{new:.3g}"), tried, worked)
