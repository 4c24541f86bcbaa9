"""The proposer without a model: the strategy-selection table and the parameter order of the published design."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from metabolismgraph.config import Exploration
from metabolismgraph.explore.proposal import IterationReading, Mode, Mutation, Proposal, Reading, Slot, Submission
from metabolismgraph.explore.proposers import rules_memory
from metabolismgraph.explore.proposers.base import Answer, Proposer
from metabolismgraph.explore.proposers.rules_steps import next_step, parameters
from metabolismgraph.explore.search_space import (
    CHANGEABLE,
    STRATEGY,
    TIME_STEP,
    RefusedError,
    changed,
    depends_on_time_step,
    own_strategies,
)
from metabolismgraph.explore.search_space import configuration as configured
from metabolismgraph.explore.state import Iteration, State
from metabolismgraph.explore.tree import Node, best, candidate, differ, nodes, scores
from metabolismgraph.homeostasis.strategies import STRATEGIES

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
_NO_STRATEGY = "hyperparameter-only"
_GOOD = 0.8  # reward from which a node is worth replicating at once
_UNBEATEN = 8  # iterations after which the leading node is replicated even if it is not good
_FLAT = 0.05  # a reward below that is stuck near zero
_FLAT_RUNS, _FAILED_RUNS = 3, 4


class RulesProposer(Proposer):
    """Exploits by default, replicates the leading node, switches strategy when flat or failing, adapts step sizes.

    The table of the published design, in the order of its conditions:
        the leading node has too few replicates: replicate it;
        the last 4 runs failed: explore, with an untried set of strategies;
        the last 3 runs are stuck near zero: strategy-switch, the same way;
        slopes move, embeddings are one cluster: embedding-focus;
        embeddings are separated, slopes are off: slope-focus;
        otherwise exploit: the node with the highest UCB score, one parameter changed.
    """

    name = "rules"

    def propose(self, state: State, iteration: int, slot: Slot, refusals: Sequence[str]) -> Answer[Proposal]:
        del slot
        done = [i for i in state.iterations if i.scored is not None]
        if not done or refusals:
            return Answer(_baseline())
        leading = _to_replicate(state)
        if leading is not None:
            return Answer(_replicate(leading))
        mode = _mode(state, done)
        if mode in {"explore", "strategy-switch"} or (mode == "slope-focus" and _turn_to_switch(state)):
            untried = next(_untried(state, iteration), None)
            if untried is not None:
                return Answer(_switch(state, iteration, untried, mode))
            mode = "slope-focus" if mode == "slope-focus" else "exploit"
        return Answer(_mutate(state, iteration, mode))

    def read(self, state: State, batch: Sequence[int], refusals: Sequence[str]) -> Answer[Reading]:
        del refusals
        readings = tuple(
            IterationReading(
                iteration=iteration.number,
                visual=rules_memory.visual(iteration, state.opened.primary),
                observation=rules_memory.observation(state, iteration),
            )
            for iteration in (state.iterations[i - 1] for i in batch)
        )
        return Answer(Reading(iterations=readings, memory=rules_memory.memory(state)))

    def review(self, state: State, block: int, refusals: Sequence[str]) -> Answer[Submission]:
        leading = candidate(state)
        if leading is None or refusals:
            return Answer(Submission(rationale="nothing has worked so far: the next block starts as this one did"))
        composed = None if (leading.mean or 0.0) >= _GOOD else _composed(state, block)
        if composed is not None:
            both = (_strategy_mutation(state, state.root(block), composed),)
            why = "the best sets so far do not suffice alone and decide on different parts, so both together"
            return Answer(Submission(start=both, rationale=why, reference=_references(composed)))
        start = _way(state, state.root(block), leading.runs[0].proposed.changes)
        why = f"node {leading.id} leads with a mean reward of {leading.mean:.3f}: the next block starts from it"
        literature = _references(rules_memory.strategies_of(state, leading))
        return Answer(Submission(start=start, rationale=why, reference=literature))


def _baseline() -> Proposal:
    why = "baseline: the same configuration in every slot shows what the rollout length does"
    return Proposal(parent=None, mode="exploit", strategy=_NO_STRATEGY, hypothesis=why)


def _replicate(node: Node) -> Proposal:
    why = f"node {node.id} leads with {node.mean or 0.0:.3f}: another seed shows whether that was chance"
    return Proposal(parent=node.id, mode="replicate", strategy=_NO_STRATEGY, hypothesis=why)


def _to_replicate(state: State) -> Node | None:
    """The leading node, as long as it has too few replicates to be called best.

    A node below `_GOOD` is replicated only if it has led for a while.
    """
    leading = candidate(state)
    if leading is None:
        return None
    since = sum(i.scored is not None and i.number > leading.id for i in state.iterations)
    if (leading.mean or 0.0) < _GOOD and since < _UNBEATEN:
        return None
    confirmed = best(state)
    if confirmed is not None and not differ(confirmed, leading, nodes(state)):
        return None
    enough = len(leading.rewards) + leading.in_flight >= state.settings.replicates
    return None if enough else leading


def _mode(state: State, done: Sequence[Iteration]) -> Mode:
    """The row of the strategy-selection table that applies."""
    verdicts = [i.scored for i in done if i.scored is not None]
    if len(verdicts) >= _FAILED_RUNS and all(v.classification == "failed" for v in verdicts[-_FAILED_RUNS:]):
        return "explore"
    if len(verdicts) >= _FLAT_RUNS and all(v.reward < _FLAT for v in verdicts[-_FLAT_RUNS:]):
        return "strategy-switch"
    leading = candidate(state)
    if leading is None:
        return "explore"
    reward, clusters = leading.mean or 0.0, rules_memory.clusters(leading)
    if clusters is not None and clusters < 2:
        return "embedding-focus"
    return "slope-focus" if clusters is not None and reward < _GOOD else "exploit"


def _turn_to_switch(state: State) -> bool:
    """Whether slope-focus tries another set of strategies; it alternates with another learning rate."""
    focused = [i.proposed.proposal for i in state.iterations if i.proposed.proposal.mode == "slope-focus"]
    switched = sum(CHANGEABLE[STRATEGY] in {m.param for m in p.mutations} for p in focused)
    return 2 * switched <= len(focused)


def _untried(state: State, iteration: int) -> Iterator[tuple[str, ...]]:
    """Yield untried approaches, strategy files of the exploration first; iterations in flight count as tried."""
    own = tuple((name, "contrastive") for name in own_strategies(state))
    return _new_ones(state, state.block_of(iteration), (*own, *APPROACHES))


def _new_ones(state: State, block: int, approaches: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """Yield the approaches that were not tried, and that the root of a block can be changed to."""
    tried = {frozenset(rules_memory.strategies_of(state, node)) for node in nodes(state)}
    before = state.root(block)
    for approach in approaches:
        if frozenset(approach) not in tried:
            with contextlib.suppress(RefusedError):
                changed(before, (_strategy_mutation(state, before, approach),), state)
                yield approach


def _switch(state: State, iteration: int, approach: tuple[str, ...], mode: Mode) -> Proposal:
    changes = (_strategy_mutation(state, state.root(state.block_of(iteration)), approach),)
    why = f"earlier strategies fail or are stuck; {' + '.join(approach)} trains in another way"
    return Proposal(parent=None, mode=mode, mutations=changes, strategy=_named(approach), hypothesis=why)


def _mutate(state: State, iteration: int, mode: Mode) -> Proposal:
    """One parameter of the node of the highest UCB score changed, by a step that learns from what worked."""
    block = state.block_of(iteration)
    listed = scores(state, block)
    # Among equal scores runs in flight still decide.
    parent = min(listed, key=lambda score: (-score.ucb, score.visits)).node.id if listed else None
    before = state.node_changes(parent, block)
    config = configured(state, before)
    names = list(config.training.strategies or ())
    if mode == "embedding-focus" and names and "contrastive" not in names:
        together = (*(entry for entry in names if isinstance(entry, str)), "contrastive")
        change = _strategy_mutation(state, before, together)
        why = "slopes move, embeddings do not: equal response curves get equal embeddings"
        return Proposal(parent=parent, mode=mode, mutations=(change,), strategy=_named(together), hypothesis=why)
    step = next_step(state, parent, before, parameters(mode, rollouts=depends_on_time_step(config)))
    name, way = CHANGEABLE[step.key], "more" if step.new > step.old else "less"
    change = Mutation(param=name, old=step.old, new=step.new)
    why = f"{way} {name} helps: {step.worked} of {step.tried} changes of it did so far"
    return Proposal(parent=parent, mode=mode, mutations=(change,), strategy=_NO_STRATEGY, hypothesis=why)


def _composed(state: State, block: int) -> tuple[str, ...] | None:
    """The best set of strategies together with the next best compatible one; None if all were tried."""
    ranked = [n for n in sorted(nodes(state), key=lambda n: -(n.mean or 0.0)) if n.mean]
    sets = list(dict.fromkeys(rules_memory.strategies_of(state, node) for node in ranked))
    return next(_new_ones(state, block, (tuple(dict.fromkeys((*sets[0], *other))) for other in sets[1:])), None)


def _way(state: State, before: dict[str, object], after: dict[str, object]) -> tuple[Mutation, ...]:
    """Mutations that lead from one configuration to another."""
    old, new = (configured(state, changes).model_dump(mode="json") for changes in (before, after))
    names = [(key, *key.split(".")) for key in dict.fromkeys((*before, *after)) if key != TIME_STEP]
    return tuple(
        Mutation(param=CHANGEABLE[key], old=old[section][name], new=new[section][name])
        for key, section, name in names
        if old[section][name] != new[section][name]
    )


def _strategy_mutation(state: State, before: dict[str, object], approach: Sequence[str]) -> Mutation:
    old = configured(state, before).model_dump(mode="json")["training"]["strategies"]
    return Mutation(param=CHANGEABLE[STRATEGY], old=old, new=list(approach))


def _named(approach: Sequence[str]) -> str:
    return " + ".join(f"{STRATEGIES[name].number} {name}" if name in STRATEGIES else name for name in approach)


def _references(approach: Sequence[str]) -> str:
    return "; ".join(STRATEGIES[name].reference for name in approach if name in STRATEGIES)


def make(settings: Exploration, folder: Path, record: Path | None) -> RulesProposer:
    """Make the proposer for the registry; the rules have no settings."""
    del settings, folder, record
    return RulesProposer()
