"""The proposer without a model: the strategy-selection table and the parameter order of the published design."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from metabolismgraph.config import Exploration
from metabolismgraph.explore.keys import CHANGEABLE, STRATEGY, TIME_STEP
from metabolismgraph.explore.proposal import IterationReading, Mode, Mutation, Proposal, Reading, Slot, Submission
from metabolismgraph.explore.proposers import rules_memory
from metabolismgraph.explore.proposers.base import Answer, Proposer
from metabolismgraph.explore.proposers.rules_steps import next_step, parameters
from metabolismgraph.explore.reward import slope_ratios
from metabolismgraph.explore.search_space import (
    RefusedError,
    changed,
    depends_on_time_step,
    own_strategies,
    settings_at,
    settings_of,
)
from metabolismgraph.explore.search_space import configuration as configured
from metabolismgraph.explore.settings import strategies_of_settings
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
_GOOD = 0.8  # reward from which a node is worth replicating at once
_UNBEATEN = 8  # iterations after which the leading node is replicated even if it is not good
_FLAT = 0.05  # a reward below that is stuck near zero
_NEAR = (0.5, 1.5)  # slope ratios that only need tuning
_FOCUS = ("slope-focus", "embedding-focus")
_FLAT_RUNS, _FAILED_RUNS, _NEAR_RUNS = 3, 4, 3


class RulesProposer(Proposer):
    """Exploits by default, replicates the leading node, switches strategy when flat or failing, adapts step sizes.

    The table of the published design, in the order of its conditions:
        the leading node has too few replicates: replicate it;
        the last 4 runs failed: explore, with an untried set of strategies;
        the last 3 runs are stuck near zero: strategy-switch, the same way;
        slopes move, embeddings are not separated: embedding-focus;
        embeddings are separated, slopes are off: slope-focus;
        slopes of all types were within 0.5-1.5 of the truth in the last 3 runs, or otherwise: exploit, the node with
        the highest UCB score, one parameter changed.

    A changed node trains at the rollout length of its parent, so that the parent is its control. Where none has the
    length of the slot, the control is run first.
    """

    name = "rules"

    def propose(self, state: State, iteration: int, slot: Slot, refusals: Sequence[str]) -> Answer[Proposal]:
        done = [i for i in state.iterations if i.counts]
        if not done or refusals:
            return Answer(_baseline(state))
        leading = _to_replicate(state)
        if leading is not None:
            return Answer(_replicate(leading))
        mode = _mode(state, done)
        if mode in {"explore", "strategy-switch"} or _turn_to_switch(state, mode):
            untried = next(_untried(state, iteration), None)
            if untried is not None:
                return Answer(_switch(state, iteration, untried, mode))
            mode = mode if mode in _FOCUS else "exploit"
        return Answer(_mutate(state, iteration, slot, mode))

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
        start = _way(state, state.root(block), leading.first.changes)
        why = f"node {leading.id} leads with a mean reward of {leading.mean:.3f}: the next block starts from it"
        literature = _references(rules_memory.strategies_of(state, leading))
        return Answer(Submission(start=start, rationale=why, reference=literature))


def _baseline(state: State) -> Proposal:
    if depends_on_time_step(configured(state, {}), state):
        why = "baseline: the same configuration in every slot shows what the rollout length does"
    else:
        why = "baseline: the same configuration with another seed in every slot shows how much the reward scatters"
    return Proposal(parent=None, mode="exploit", hypothesis=why)


def _replicate(node: Node) -> Proposal:
    why = f"node {node.id} leads with {node.mean or 0.0:.3f}: another seed shows whether that was chance"
    return Proposal(parent=node.id, mode="replicate", hypothesis=why)


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
    apart = rules_memory.separated(leading)
    if apart is False:
        return "embedding-focus"
    good = (leading.mean or 0.0) >= _GOOD or _near(done, leading)
    return "slope-focus" if apart and not good else "exploit"


def _near(done: Sequence[Iteration], leading: Node) -> bool:
    """Whether slopes only need tuning: all ratios were in 0.5-1.5 in the last runs, and runs still find better ones.

    By type, unlike in the published design: opposite errors cancel in the average.
    """
    latest = [tuple(slope_ratios(iteration.metrics).values()) for iteration in done[-_NEAR_RUNS:]]
    low, high = _NEAR
    near = all(ratios and all(r is not None and low <= r <= high for r in ratios) for ratios in latest)
    return len(latest) == _NEAR_RUNS and near and done[-1].number - leading.id < _UNBEATEN


def _turn_to_switch(state: State, mode: Mode) -> bool:
    """Whether a focus tries another set of strategies, in turn with changes of a node.

    For slopes the set comes first, for embeddings the contrastive loss.
    """
    focused = [i.proposed.proposal for i in state.iterations if i.proposed.proposal.mode == mode]
    switched = sum(proposal.parent is None for proposal in focused)
    return mode in _FOCUS and 2 * switched < len(focused) + (mode == "slope-focus")


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
    return Proposal(parent=None, mode=mode, mutations=changes, hypothesis=why)


def _mutate(state: State, iteration: int, slot: Slot, mode: Mode) -> Proposal:
    """One parameter of a node changed, by a step that learns from what worked; or first the control of that."""
    block = state.block_of(iteration)
    node = _parent(state, block, slot)
    parent = None if node is None else node.id
    before = state.node_changes(parent, block)
    config = configured(state, before)
    settings = settings_at(config, slot.time_step, state)
    if not any(settings_of(other.first, state) == settings for other in nodes(state)):
        why = f"control: the settings of the parent at T = {slot.time_step}, to compare changes with"
        return Proposal(parent=parent, mode=mode, hypothesis=why)
    if mode == "embedding-focus" and "contrastive" not in strategies_of_settings(settings):
        change = _strategy_mutation(state, before, (*(config.training.strategies or ()), "contrastive"))
        why = "slopes move, embeddings do not: equal response curves get equal embeddings"
        return Proposal(parent=parent, mode=mode, mutations=(change,), hypothesis=why)
    step = next_step(state, parent, before, parameters(mode, rollouts=depends_on_time_step(config, state)))
    if step.new == step.old:
        return _baseline(state) if node is None else _replicate(node)
    name, way = CHANGEABLE[step.key], "more" if step.new > step.old else "less"
    change = Mutation(param=name, old=step.old, new=step.new)
    why = f"{way} {name} helps: {step.worked} of {step.tried} changes of it did so far"
    return Proposal(parent=parent, mode=mode, mutations=(change,), hypothesis=why)


def _parent(state: State, block: int, slot: Slot) -> Node | None:
    """The node with the highest UCB score, of those at the rollout length of the slot if there are any; None: root."""
    listed = scores(state, block)
    lengths = {score.node.id: settings_of(score.node.first, state).get(TIME_STEP) for score in listed}
    here = [score for score in listed if lengths[score.node.id] in {None, slot.time_step}]
    # Among equal scores runs in flight still decide.
    found = min(here or listed, key=lambda score: (-score.ucb, score.visits), default=None)
    return None if found is None else found.node


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


def _strategy_mutation(state: State, before: dict[str, object], approach: Sequence[object]) -> Mutation:
    old = configured(state, before).model_dump(mode="json")["training"]["strategies"]
    return Mutation(param=CHANGEABLE[STRATEGY], old=old, new=list(approach))


def _references(approach: Sequence[str]) -> str:
    return "; ".join(STRATEGIES[name].reference for name in approach if name in STRATEGIES)


def make(settings: Exploration, folder: Path, record: Path | None) -> RulesProposer:
    """Make the proposer for the registry; the rules have no settings."""
    del settings, folder, record
    return RulesProposer()
