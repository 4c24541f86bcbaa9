"""The next parameter to change, with direction and step size; steps adapt to earlier results."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from metabolismgraph.config import Config
from metabolismgraph.explore.events import Changes
from metabolismgraph.explore.evidence import effects
from metabolismgraph.explore.planning import RefusedError, configuration, full_key
from metabolismgraph.explore.proposal import Mutation
from metabolismgraph.explore.search_space import Parameter, SearchSpace
from metabolismgraph.explore.state import State
from metabolismgraph.explore.tree import Node, nodes, pooled_deviation


@dataclasses.dataclass(frozen=True)
class Step:
    """A change of one parameter, with the numbers of earlier changes and of successes."""

    key: str
    old: Any
    new: Any
    tried: int
    worked: int


# Steps grow after a success; after a failure they shrink and change direction (Rechenberg 1973).
_GROW, _SHRINK, _SMALLEST, _LARGEST = 1.5, 0.75, 1.1, 10.0


def next_step(state: State, parent: int | None, before: Changes, order: Sequence[str]) -> Step | None:
    """The next step of the least changed parameter of this parent; among equals, the first in the order.

    None: no parameter has a step, for instance at the ends of their ranges.
    """
    every, space, config = nodes(state), state.space, configuration(state, before)
    taken = [key for node in every if node.parent == parent for key in _made_by(node, space)]
    deviation = pooled_deviation(every) or 0.0
    worked: dict[tuple[str, ...], list[bool]] = defaultdict(list)
    for effect in effects(state):
        # One pair is enough to choose a direction, not to claim anything.
        by_chance = deviation * math.sqrt(2 / len(effect.differences))
        worked[_keys(effect.change, space)].append(effect.mean > by_chance)
    steps = [_step(space.parameter(key), config.value(key), taken.count(key), worked[(key,)]) for key in order]
    return min((step for step in steps if step.new != step.old), key=lambda step: taken.count(step.key), default=None)


def forced_step(config: Config, parameter: Parameter, way: object) -> Any:
    """The new value of a parameter in a given direction, or the given value.

    Args:
        way: up, down, or a value.
    """
    if way not in ("up", "down"):
        return way
    return _moved(parameter, config.value(parameter.key), parameter.factor, up=way == "up")


def tried_keys(state: State) -> tuple[str, ...]:
    """Keys of all parameters that were changed so far."""
    return tuple(key for node in nodes(state) for key in _made_by(node, state.space))


def _made_by(node: Node, space: SearchSpace) -> tuple[str, ...]:
    return _keys(node.first.proposal.mutations, space)


def _keys(mutations: Iterable[Mutation], space: SearchSpace) -> tuple[str, ...]:
    return tuple(_key(mutation.param, space) for mutation in mutations)


def _key(param: str, space: SearchSpace) -> str:
    try:
        return full_key(param, space)
    except RefusedError:  # of an imported log
        return param


def _step(parameter: Parameter, old: Any, siblings: int, worked: Sequence[bool]) -> Step:
    """The next step of a parameter.

    Args:
        siblings: changes of it in other children of the same parent.
        worked: whether each of its earlier changes did.
    """
    factor, up = parameter.factor, parameter.first == "up"
    for success in worked:
        if success:
            factor = min(factor**_GROW, _LARGEST)
        else:
            up, factor = not up, max(factor**_SHRINK, _SMALLEST)
    # Further children of the same parent take the other direction, then larger steps.
    up, factor = up != bool(siblings % 2), factor ** (1 + siblings // 2)
    return Step(parameter.key, old, _moved(parameter, old, factor, up=up), len(worked), sum(worked))


def _moved(parameter: Parameter, old: Any, factor: float, *, up: bool) -> Any:
    """A value times or divided by a factor, within the range of the search; true and false change places."""
    if isinstance(old, bool):
        return not old
    if not parameter.is_number:
        return old
    low, high = parameter.searched
    if old <= 0:
        # A weight of zero has no factor, and a logarithm no zero: a tenth of the range.
        share = ((high or 0.0) - (low or 0.0)) / 10
        new = old + share if up else old - share
    else:
        new = old * factor if up else old / factor
    new = min(max(new, -math.inf if low is None else low), math.inf if high is None else high)
    return max(1, round(new)) if isinstance(parameter.default, int) else float(f"{new:.3g}")
