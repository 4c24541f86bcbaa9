"""The proposer without a model: the strategy-selection table and the parameter order of the published design."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from metabolismgraph.config import Config, Exploration
from metabolismgraph.explore.evidence import PAIRS, effects
from metabolismgraph.explore.keys import STRATEGY, TIME_STEP
from metabolismgraph.explore.planning import changed, configuration, depends_on_time_step, settings_at, settings_of
from metabolismgraph.explore.proposal import IterationReading, Mutation, Proposal, Reading, Slot, Submission
from metabolismgraph.explore.proposers import rules_memory
from metabolismgraph.explore.proposers.base import Answer, Proposer
from metabolismgraph.explore.proposers.rules_sets import change_to, composed_set, references, untried_sets
from metabolismgraph.explore.proposers.rules_steps import forced_step, next_step, tried_keys
from metabolismgraph.explore.reward import holds, quantities, slope_ratios
from metabolismgraph.explore.search_space import Move, Role
from metabolismgraph.explore.settings import strategies_of_settings
from metabolismgraph.explore.state import Iteration, State
from metabolismgraph.explore.tree import Node, best, candidate, differ, merit, nodes, scores

_GOOD = 0.8  # reward from which a node is worth replicating at once
_UNBEATEN = 8  # iterations after which the leading node is replicated even if it is not good
_NEAR = (0.5, 1.5)  # slope ratios that only need tuning
_NEAR_RUNS = 3
_EXPLORE = Move(mode="explore", why="nothing has worked so far", strategies="always")
_EXPLOIT = Move(mode="exploit", why="the default")


class RulesProposer(Proposer):
    """Exploits by default, replicates the leading node, makes the moves of the search space, adapts step sizes.

    In this order: the first batch of the search space; replicates of the leading node while it has too few; the first
    move whose conditions hold; otherwise exploit, the node that the role of the slot selects, one parameter changed.
    In Phase 2 the moves are the table of the published design.

    A changed node trains at the rollout length of its parent, so that the parent is its control. Where none has the
    length of the slot, the control is run first.
    """

    name = "rules"

    def propose(self, state: State, iteration: int, slot: Slot, refusals: Sequence[str]) -> Answer[Proposal]:
        done = [i for i in state.iterations if i.counts]
        if not done or refusals or iteration <= min(len(state.space.first_batch), state.settings.n_parallel):
            return Answer(_baseline(state) if refusals else _first(state, slot))
        role = state.space.slots[slot.number % len(state.space.slots)]
        if role == "principle" and (test := _test_of_a_principle(state)) is not None:
            return Answer(test)
        leading = _to_replicate(state) if role not in {"explore", "principle"} else None
        if leading is not None:
            return Answer(_replicate(leading))
        move = _move(state, done)
        if move.strategies == "always" or _turn_to_switch(state, move):
            untried = next(untried_sets(state, iteration), None)
            if untried is not None:
                return Answer(_switch(state, iteration, untried, move))
            move = _EXPLOIT if move.strategies == "always" else move
        return Answer(_mutate(state, iteration, slot, move, role))

    def read(self, state: State, batch: Sequence[int], refusals: Sequence[str]) -> Answer[Reading]:
        del refusals
        found = effects(state)
        readings = tuple(
            IterationReading(
                iteration=iteration.number,
                visual=rules_memory.visual(iteration, state),
                observation=rules_memory.observation(state, iteration, found),
            )
            for iteration in (state.iterations[i - 1] for i in batch)
        )
        return Answer(Reading(iterations=readings, memory=rules_memory.memory(state, found)))

    def review(self, state: State, block: int, refusals: Sequence[str]) -> Answer[Submission]:
        leading = candidate(state)
        if leading is None or refusals:
            return Answer(Submission(rationale="nothing has worked so far: the next block starts as this one did"))
        composed = None if (leading.mean or 0.0) >= _GOOD else composed_set(state, block)
        if composed is not None:
            both = (change_to(state, state.root(block), composed),)
            why = "the best sets so far do not suffice alone and decide on different parts, so both together"
            return Answer(Submission(start=both, rationale=why, reference=references(composed)))
        start = _way(state, state.root(block), leading.first.changes)
        why = f"node {leading.id} leads with a mean reward of {leading.mean:.3f}: the next block starts from it"
        literature = references(rules_memory.strategies_of(state, leading))
        return Answer(Submission(start=start, rationale=why, reference=literature))


def _first(state: State, slot: Slot) -> Proposal:
    """What a slot runs in the first batch."""
    batch = state.space.first_batch
    changes = batch[slot.number % len(batch)] if batch else {}
    mutations = _mutations(state, {}, changes)
    if not mutations:
        return _baseline(state)
    return Proposal(
        parent=None, mode="exploit", mutations=mutations, hypothesis="first batch: what this change of the start does"
    )


def _baseline(state: State) -> Proposal:
    if depends_on_time_step(configuration(state, {}), state):
        why = "baseline: the same configuration in every slot shows what the rollout length does"
    elif state.space.first_batch:
        why = "baseline: the start, unchanged"
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


def _test_of_a_principle(state: State) -> Proposal | None:
    """Another pair of runs for the effect with the fewest pairs, of the largest size among those; None without one."""
    found = [effect for effect in effects(state) if not (effect.treated.in_flight or effect.control.in_flight)]
    open_ = [effect for effect in found if len(effect.differences) < 2 * PAIRS]
    if not open_:
        return None
    effect = min(open_, key=lambda effect: (len(effect.differences), -abs(effect.mean)))
    node = min(effect.treated, effect.control, key=lambda node: len(node.runs))
    why = f"{', '.join(map(str, effect.change))} ({effect.mean:+.3f} in {effect.pairs} so far)"
    return Proposal(parent=node.id, mode="test-principle", hypothesis=why)


def _move(state: State, done: Sequence[Iteration]) -> Move:
    """The move of the search space that applies."""
    leading = candidate(state)
    for move in state.space.moves:
        if move.last is None and leading is None:
            return _EXPLORE
        if _applies(move, done, leading):
            return move
    return _EXPLOIT if leading is not None else _EXPLORE


def _applies(move: Move, done: Sequence[Iteration], leading: Node | None) -> bool:
    """Whether the conditions of a move hold, in the last runs or in the leading node."""
    if move.last is None:
        assert leading is not None  # otherwise the move is to explore
        told = [run for run in leading.runs if run.scored is not None and run.metrics]
        runs, rewards = told[-1:], [leading.mean or 0.0]
    else:
        runs = list(done[-move.last :])
        rewards = [run.scored.reward for run in runs if run.scored is not None]
    if len(runs) < (move.last or 1):
        return False
    if move.classes and any(run.scored is None or run.scored.classification not in move.classes for run in runs):
        return False
    if move.unless_near and leading is not None and _near(done, leading):
        return False
    found = (quantities(run.metrics, reward) for run, reward in zip(runs, rewards, strict=True))
    return all(holds(move.when, values) for values in found)


def _near(done: Sequence[Iteration], leading: Node) -> bool:
    """Whether slopes only need tuning: all ratios were in 0.5-1.5 in the last runs, and runs still find better ones.

    By type, unlike in the published design: opposite errors cancel in the average.
    """
    latest = [tuple(slope_ratios(iteration.metrics).values()) for iteration in done[-_NEAR_RUNS:]]
    low, high = _NEAR
    near = all(ratios and all(r is not None and low <= r <= high for r in ratios) for ratios in latest)
    return len(latest) == _NEAR_RUNS and near and done[-1].number - leading.id < _UNBEATEN


def _turn_to_switch(state: State, move: Move) -> bool:
    """Whether a move tries another set of strategies this time, in turn with changes of a node."""
    moved = [i.proposed.proposal for i in state.iterations if i.proposed.proposal.mode == move.mode]
    switched = sum(proposal.parent is None for proposal in moved)
    return move.strategies is not None and 2 * switched < len(moved) + (move.strategies == "first")


def _switch(state: State, iteration: int, approach: tuple[str, ...], move: Move) -> Proposal:
    changes = (change_to(state, state.root(state.block_of(iteration)), approach),)
    why = f"{move.why}: {' + '.join(approach)} trains in another way"
    return Proposal(parent=None, mode=move.mode, mutations=changes, hypothesis=why)


def _mutate(state: State, iteration: int, slot: Slot, move: Move, role: Role) -> Proposal:
    """A node changed as the move says, or by a step that learns from what worked; or first the control of that."""
    block = state.block_of(iteration)
    node = _parent(state, block, slot, role)
    parent = None if node is None else node.id
    before = state.node_changes(parent, block)
    config = configuration(state, before)
    settings = settings_at(config, slot.time_step, state)
    if not any(settings_of(other.first, state) == settings for other in nodes(state)):
        why = f"control: the settings of the parent at T = {slot.time_step}, to compare changes with"
        return Proposal(parent=parent, mode=move.mode, hypothesis=why)
    if move.require and move.require not in strategies_of_settings(settings):
        change = change_to(state, before, (*(config.training.strategies or ()), move.require))
        why = f"{move.why}: {move.require} is added"
        return Proposal(parent=parent, mode=move.mode, mutations=(change,), hypothesis=why)
    if role != "explore" and (told := _told(state, before, config, move, settings, slot)):
        return Proposal(parent=parent, mode=move.mode, mutations=told, hypothesis=move.why)
    step = next_step(state, parent, before, _order(state, move, role, settings))
    if step is None:
        return _baseline(state) if node is None else _replicate(node)
    parameter = state.space.parameter(step.key)
    way = "other" if isinstance(step.new, bool) else "more" if step.new > step.old else "less"
    change = Mutation(param=parameter.name, old=step.old, new=step.new)
    why = f"{way} {parameter.name} helps: {step.worked} of {step.tried} changes of it did so far"
    return Proposal(parent=parent, mode=_mode(move, role), mutations=(change,), hypothesis=why)


def _mode(move: Move, role: Role) -> str:
    """The mode of a step that was not told: where all changes of a move were tried, it is not that move."""
    told = move.extreme or any("any" not in each.values() for each in move.changes)
    return "explore" if role == "explore" else "exploit" if told else move.mode


def _order(state: State, move: Move, role: Role, settings: Mapping[str, object]) -> tuple[str, ...]:
    """Keys of the parameters to change, the first one first, without those that have no effect on these settings."""
    space = state.space
    if role == "explore":
        tried = set(tried_keys(state))
        order = sorted(
            (p.name for p in space.parameters if p.key != STRATEGY), key=lambda n: space.by_name[n].key in tried
        )
    else:
        first = [name for each in move.changes for name, way in each.items() if way == "any"]
        order = list(dict.fromkeys((*first, *space.order)))
    return tuple(key for name in order if (key := space.by_name[name].key) in settings)


def _told(
    state: State, before: Mapping[str, object], config: Config, move: Move, settings: Mapping[str, object], slot: Slot
) -> tuple[Mutation, ...]:
    """The first change of a move that leads to settings that were not tried; empty without one."""
    space = state.space
    wanted = [each for each in move.changes if "any" not in each.values()]
    if move.extreme:
        wanted += [{name: end} for name in space.order for end in (space.by_name[name].range or ()) if end is not None]
    tried = [settings_of(node.first, state) for node in nodes(state)]
    for each in wanted:
        values = {name: forced_step(config, space.by_name[name], way) for name, way in each.items()}
        mutations = _mutations(state, before, values)
        if mutations:
            found = configuration(state, changed(dict(before), mutations, state))
            if (after := settings_at(found, slot.time_step, state)) != settings and after not in tried:
                return mutations
    return ()


def _mutations(state: State, before: Mapping[str, object], values: Mapping[str, object]) -> tuple[Mutation, ...]:
    """Changes of parameters to these values, by short name; equal values are left out."""
    config = configuration(state, dict(before))
    pairs = ((name, config.value(state.space.by_name[name].key), new) for name, new in values.items())
    return tuple(Mutation(param=name, old=old, new=new) for name, old, new in pairs if old != new)


def _parent(state: State, block: int, slot: Slot, role: Role) -> Node | None:
    """The node that the role of a slot selects; None: root.

    For `ucb`, of the nodes at the rollout length of the slot if there are any.
    """
    listed = scores(state, block)
    if role == "explore":
        found = min(listed, key=lambda score: (score.visits, -(score.node.mean or 0.0)), default=None)
    elif role != "ucb":
        every = nodes(state)
        ranked = sorted((n for n in every if n.mean and n.ended), key=lambda n: -merit(n, state, every))
        return ranked[min(len(ranked) - 1, int(role == "second"))] if ranked else None
    else:
        lengths = {score.node.id: settings_of(score.node.first, state).get(TIME_STEP) for score in listed}
        here = [score for score in listed if lengths[score.node.id] in {None, slot.time_step}]
        # Among equal scores runs in flight still decide.
        found = min(here or listed, key=lambda score: (-score.ucb, score.visits), default=None)
    return None if found is None else found.node


def _way(state: State, before: dict[str, object], after: dict[str, object]) -> tuple[Mutation, ...]:
    """Mutations that lead from one configuration to another."""
    target = configuration(state, after)
    keys = [key for key in dict.fromkeys((*before, *after)) if key != TIME_STEP]
    return _mutations(state, before, {state.space.names[key]: target.value(key) for key in keys})


def make(settings: Exploration, folder: Path, record: Path | None) -> RulesProposer:
    """Make the proposer for the registry; the rules have no settings."""
    del settings, folder, record
    return RulesProposer()
