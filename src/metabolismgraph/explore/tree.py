"""The tree of an exploration: nodes, their replicates, and the UCB scores for the choice of the next parent.

A node is a configuration with its code. A run with another seed is a replicate of the same node, whose reward is the
mean over replicates. Pure functions of the state.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence

from scipy import stats

from metabolismgraph.explore.events import Proposed
from metabolismgraph.explore.state import Iteration, State

NEGLIGIBLE = 0.005  # a difference of rewards without relevance for the choice of a configuration


@dataclasses.dataclass(frozen=True)
class Node:
    """A configuration and code version, with all its runs.

    Attributes:
        id: its first iteration.
        parent: id of the parent node; None: root.
        runs: its iterations, those in flight included.
    """

    id: int
    parent: int | None
    runs: tuple[Iteration, ...]

    @functools.cached_property
    def rewards(self) -> tuple[float, ...]:
        """Rewards of its replicates in order; zero for runs that failed, none for those lost with their machine."""
        return tuple(run.scored.reward for run in self.runs if run.scored is not None and run.counts)

    @functools.cached_property
    def mean(self) -> float | None:
        """Mean reward over replicates; None without a reward."""
        return sum(self.rewards) / len(self.rewards) if self.rewards else None

    @property
    def first(self) -> Proposed:
        """Its first iteration as it was planned."""
        return self.runs[0].proposed

    @property
    def ended(self) -> int:
        """Runs that ended with metrics; others can build on a node only if there is one."""
        return sum(bool(run.metrics) for run in self.runs if run.scored is not None)

    @property
    def in_flight(self) -> int:
        """Runs without an outcome yet."""
        return sum(run.scored is None for run in self.runs)

    @property
    def classification(self) -> str:
        """The class of its replicates, `partial` where they differ; without one, `in flight` or `failed`."""
        found = {run.scored.classification for run in self.runs if run.scored is not None and run.counts}
        if not found:
            return "in flight" if self.in_flight else "failed"
        return found.pop() if len(found) == 1 else "partial"

    @property
    def status(self) -> str:
        """Its class without the suffix: converged, partial, failed, or in flight."""
        return self.classification.partition("-")[0]


@dataclasses.dataclass(frozen=True)
class Score:
    """UCB score of a node within a block.

    Attributes:
        parent: within the block; None: root, or outside the block.
        visits: runs of the node and of its descendants within the block, those in flight included.
    """

    node: Node
    parent: int | None
    visits: int
    ucb: float


def nodes(state: State) -> tuple[Node, ...]:
    """All nodes, by id."""
    runs: dict[int, list[Iteration]] = {}
    for iteration in state.iterations:
        runs.setdefault(iteration.node, []).append(iteration)
    return tuple(Node(id_, found[0].proposed.parent, tuple(found)) for id_, found in sorted(runs.items()))


def pooled_deviation(every: Iterable[Node]) -> float | None:
    """Standard deviation of a reward between replicates, pooled over nodes; None where no node has two.

    One node has too few replicates for a separate estimate: sums of squares and degrees of freedom are added up
    over all of them (Snedecor & Cochran 1989, pooled variance).
    """
    squares, freedom = 0.0, 0
    for node in every:
        if len(node.rewards) > 1 and node.mean is not None:
            squares += sum((reward - node.mean) ** 2 for reward in node.rewards)
            freedom += len(node.rewards) - 1
    return math.sqrt(squares / freedom) if freedom else None


def standard_error(node: Node, every: Iterable[Node]) -> float | None:
    """Standard error of a node's mean reward, from the pooled deviation; None for a node that was run once.

    How much one run scatters is not known from other nodes: rewards near 1 scatter least.
    """
    return _expected_error(node, every) if len(node.rewards) > 1 else None


def _expected_error(node: Node, every: Iterable[Node]) -> float | None:
    """The error that a node would have if it scattered as all others do."""
    deviation = pooled_deviation(every)
    return None if deviation is None or not node.rewards else deviation / math.sqrt(len(node.rewards))


def merit(node: Node, state: State, every: Sequence[Node]) -> float:
    """The reward by which a node is ranked, as `exploration.reward` says; zero without one.

    The lower bound is that of the 95 % interval of the mean reward with the pooled deviation, at least zero. Where no
    node has two replicates, it is the mean.
    """
    if node.mean is None:
        return 0.0
    if state.settings.reward == "worst":
        return min(node.rewards)
    error = _expected_error(node, every)
    if state.settings.reward == "mean" or error is None:
        return node.mean
    freedom = sum(max(len(other.rewards) - 1, 0) for other in every)
    return max(node.mean - float(stats.t.ppf(0.975, freedom)) * error, 0.0)


def differ(a: Node, b: Node, every: Sequence[Node]) -> bool:
    """Whether to treat two nodes as different in the search: by more than the expected error, and `NEGLIGIBLE`.

    This is not evidence of an effect, see `evidence.effects`.
    """
    if a.mean is None or b.mean is None:
        return a.mean != b.mean
    errors = [_expected_error(node, every) or 0.0 for node in (a, b)]
    return abs(a.mean - b.mean) > max(math.hypot(*errors), NEGLIGIBLE)


def candidate(state: State, replicates: int = 1) -> Node | None:
    """The node of the highest merit above zero, with any number of replicates; the first among equals.

    Args:
        replicates: smallest number of those that ended with metrics; runs that failed count in the mean only.
    """
    every = nodes(state)
    judged = [node for node in every if node.mean and node.ended >= replicates]
    return max(judged, key=lambda node: merit(node, state, every), default=None)


def best(state: State) -> Node | None:
    """The node of the highest merit among those with enough replicates; None without one."""
    return candidate(state, state.settings.replicates)


def settled(state: State) -> Node | None:
    """The best node if it is proven and no reward, at most 1, can exceed it by more than its error; else None."""
    found = best(state)
    if found is None or found.mean is None:
        return None
    error = standard_error(found, nodes(state)) or 0.0
    return found if 1.0 - merit(found, state, nodes(state)) <= max(error, NEGLIGIBLE) else None


def leader(state: State) -> Node | None:
    """The node that leads the best one by more than its error, and is not proven yet; None without one."""
    leading, found = candidate(state), best(state)
    if leading is None or (found is not None and not differ(leading, found, nodes(state))):
        return None
    return leading


def scores(state: State, block: int) -> tuple[Score, ...]:
    """UCB scores of the nodes with a reward in a block, highest first; ties in order of id.

    UCB_i = r_i + c σ √(ln N / V_i) (UCB1, Auer et al. 2002, for rewards whose spread σ is not one): r_i is the merit
    of the node, σ the standard deviation of the merits of these nodes, but not less than that between replicates;
    N all visits of the block, V_i those of the node and its descendants. Runs in flight count as visits
    (virtual loss, Chaslot et al. 2008), so that slots filled one after the other do not all get the same parent.
    """
    every = nodes(state)
    here = {node.id: sum(state.block_of(run.number) == block for run in node.runs) for node in every}
    listed = [node for node in every if here[node.id] and node.ended]
    parents = {node.id: node.parent if node.parent is not None and here.get(node.parent) else None for node in every}
    means = [merit(node, state, every) for node in listed]
    spread = max(_deviation(means), pooled_deviation(every) or 0.0)
    total = sum(here.values())
    found = []
    for node, mean in zip(listed, means, strict=True):
        visits = sum(n for id_, n in here.items() if n and _descends(id_, node.id, parents))
        bonus = state.settings.ucb_c * spread * math.sqrt(math.log(max(total, 1)) / visits)
        found.append(Score(node, parents[node.id], visits, mean + bonus))
    return tuple(sorted(found, key=lambda score: -score.ucb))


def _descends(id_: int | None, ancestor: int, parents: dict[int, int | None]) -> bool:
    # The loop ends, since a parent has a smaller id than its child.
    while id_ is not None and id_ > ancestor:
        id_ = parents[id_]
    return id_ == ancestor


def _deviation(values: Sequence[float]) -> float:
    if not values:
        return 0.0
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
