"""The sets of strategies that the rules try."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence

from metabolismgraph.explore.events import Changes
from metabolismgraph.explore.keys import STRATEGY
from metabolismgraph.explore.planning import RefusedError, changed, configuration, own_strategies
from metabolismgraph.explore.proposal import Mutation
from metabolismgraph.explore.proposers.rules_memory import strategies_of
from metabolismgraph.explore.state import State
from metabolismgraph.explore.tree import nodes
from metabolismgraph.homeostasis.strategies import STRATEGIES, names

# Sets of strategies to switch to, first the one of highest priority in the published design and those that train in
# seconds. All of them pull embeddings with similar responses together, since types are to be found as well.
APPROACHES: tuple[tuple[str, ...], ...] = (
    ("residual", "contrastive"),
    ("orthogonalised", "contrastive"),
    ("weak_form", "orthogonalised", "contrastive"),
    ("separate", "warmup", "contrastive"),
    ("amplification", "contrastive"),
    ("multi_scale", "contrastive"),
    ("curriculum", "contrastive"),
    ("accumulation", "warmup", "contrastive"),
    ("weak_form", "contrastive"),
)


def untried_sets(state: State, iteration: int) -> Iterator[tuple[str, ...]]:
    """Yield untried approaches, strategy files of the exploration first; iterations in flight count as tried."""
    if not state.space.strategies:
        return
    own = tuple((name, "contrastive") for name in own_strategies(state))
    yield from _new_ones(state, state.block_of(iteration), (*own, *APPROACHES))


def _new_ones(state: State, block: int, approaches: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """Yield the approaches that were not tried, and that the root of a block can be changed to."""
    before = state.root(block)
    tried = {frozenset(strategies_of(state, node)) for node in nodes(state)}
    # The root of a block may name a set that no node has run yet: it is no change.
    tried.add(frozenset(names(configuration(state, before).training)))
    for approach in approaches:
        if frozenset(approach) not in tried:
            with contextlib.suppress(RefusedError):
                changed(before, (change_to(state, before, approach),), state)
                yield approach


def composed_set(state: State, block: int) -> tuple[str, ...] | None:
    """The best set of strategies together with the next best compatible one; None if all were tried."""
    ranked = [n for n in sorted(nodes(state), key=lambda n: -(n.mean or 0.0)) if n.mean]
    sets = list(dict.fromkeys(strategies_of(state, node) for node in ranked))
    return next(_new_ones(state, block, (tuple(dict.fromkeys((*sets[0], *other))) for other in sets[1:])), None)


def change_to(state: State, before: Changes, approach: Sequence[object]) -> Mutation:
    old = configuration(state, before).value(STRATEGY)
    return Mutation(param=state.space.names[STRATEGY], old=old, new=list(approach))


def references(approach: Sequence[str]) -> str:
    return "; ".join(STRATEGIES[name].reference for name in approach if name in STRATEGIES)
