"""The changes that a proposal may make, and the resulting configuration, node and seed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from importlib import metadata
from typing import Any

from metabolismgraph.config import Config, nearest_name
from metabolismgraph.config.tree import KEYS
from metabolismgraph.errors import InputError
from metabolismgraph.explore.events import Changes, Proposed, Reviewed
from metabolismgraph.explore.keys import DATA_SEED, HELD_OUT_PART, STRATEGY, TIME_STEP
from metabolismgraph.explore.proposal import Mutation, Proposal, shown
from metabolismgraph.explore.review.admission import Declaration
from metabolismgraph.explore.search_space import Parameter, SearchSpace
from metabolismgraph.explore.settings import (
    effective_settings,
    numbered,
    reasons_without_effect,
    strategies_of_settings,
)
from metabolismgraph.explore.state import State
from metabolismgraph.explore.tree import Node, nodes
from metabolismgraph.homeostasis.strategies import STRATEGIES, Declared, chosen, draw_minibatches, entries, names
from metabolismgraph.homeostasis.strategies.base import Part

_SEED = "training.seed"
_HYPERPARAMETER_ONLY = re.compile(r"hyper-?parameters?[ -]only", re.IGNORECASE)
_MOST = 2**31 - 1  # largest whole number in training
_WHY_NOT = {
    "simulation": "the simulated system is fixed in an exploration",
    "dataset": "the data set is fixed in an exploration",
    "graph_model": "the model's architecture is fixed in this search space",
    "exploration": "an exploration does not change its own settings",
    "plotting": "figures are not a part of the exploration",
    _SEED: "seeds come from the configuration; to run a node again use mode replicate",
}
_WHY_NOT_IN_PHASE2 = {
    TIME_STEP: "it is fixed per slot",
    "training": "it belongs to the frozen Phase 1, to the metrics or to other fixed settings",
}
_WHY_NOT_OTHERWISE = {"training": "it is fixed in this search space"}


class RefusedError(InputError):
    """A proposal is refused; the message gives the reason in one line."""


def full_key(param: str, space: SearchSpace) -> str:
    """The configuration key of a mutation in a search space.

    Raises:
        RefusedError: it may not be changed, or does not exist.
    """
    if param in space.by_name:
        return space.by_name[param].key
    key = param if param in space.names or "." in param else f"training.{param}"
    if key in space.names:
        return key
    every = ", ".join(space.by_name)
    others = _WHY_NOT_IN_PHASE2 if space.trains == "phase2" else _WHY_NOT_OTHERWISE
    for wanted in (param, f"training.{param}"):
        for place, reason in {**_WHY_NOT, **others}.items():
            if wanted == place or (wanted.startswith(f"{place}.") and wanted in KEYS):
                raise RefusedError(f"{param} may not be changed: {reason} (may: {every})")
    near = nearest_name(param, [*space.by_name, *space.names])
    raise RefusedError(f"{param} is not a parameter; did you mean {near}? (all: {every})")


def plan(proposal: Proposal, state: State, iteration: int, *, by: str, note: str = "") -> Proposed:
    """Make the iteration that a proposal describes.

    Raises:
        RefusedError: it may not be run, or has no effect.
    """
    if proposal.mode not in state.space.modes:
        raise RefusedError(f"mode {proposal.mode} is not one of the moves ({', '.join(state.space.modes)})")
    if proposal.parent is not None:
        _check_parent(proposal.parent, state)
    if proposal.mode == "replicate":
        return _replicate(proposal, state, iteration, by=by, note=note)
    slot = state.slot(iteration)
    before = state.node_changes(proposal.parent, state.block_of(iteration))
    changes = changed(before, proposal.mutations, state)
    config = configuration(state, changes)
    settings = settings_at(config, slot.time_step, state)
    control = settings_at(configuration(state, before), slot.time_step, state)
    _check_effect(proposal, control, settings, config, state)
    strategy = _strategy_of(proposal, settings, state)
    changes.pop(TIME_STEP, None)
    if TIME_STEP in settings:
        changes[TIME_STEP] = slot.time_step
    files = files_of(config, state)
    code = code_of(files)
    same = next((n for n in nodes(state) if (settings_of(n.first, state), n.first.code) == (settings, code)), None)
    planned = Proposed(
        iteration=iteration,
        slot=slot.number,
        time_step=slot.time_step if state.space.time_step_by_slot else config.training.time_step,
        node=iteration,
        parent=proposal.parent,
        changes=changes,
        settings=settings,
        control=control if proposal.mutations else {},
        seed=state.config.training.seed,
        code=code,
        files=files,
        proposal=proposal,
        mutations=(*proposal.mutations, *_of_slot(before, settings)),
        strategy=strategy,
        by=by,
        note=note,
    )
    return planned if same is None else _again(same, planned, state)


def _replicate(proposal: Proposal, state: State, iteration: int, *, by: str, note: str) -> Proposed:
    if proposal.mutations:
        raise RefusedError("mode replicate changes nothing; leave mutations empty, or choose another mode")
    if proposal.parent is None:
        raise RefusedError("mode replicate needs a node as parent, which cannot be root")
    node = next(node for node in nodes(state) if node.id == proposal.parent)
    settings = settings_of(node.first, state)
    by_slot = state.space.time_step_by_slot
    own_time_step = state.slot(iteration).time_step if by_slot else node.first.time_step
    update = {
        "iteration": iteration,
        "slot": state.slot(iteration).number,
        # A node that depends on the rollout length keeps its own in every slot.
        "time_step": node.first.changes.get(TIME_STEP, own_time_step),
        "proposal": proposal,
        "mutations": (),
        "strategy": _strategy_of(proposal, settings, state),
        "by": by,
        "note": note,
        "time": "",
    }
    return _again(node, node.first.model_copy(update=update), state)


def _again(node: Node, planned: Proposed, state: State) -> Proposed:
    """The iteration as the next replicate of a node with the same settings and code."""
    seed, variation = replicate_of(state, len(node.runs))
    return planned.model_copy(
        update={"node": node.id, "parent": node.first.parent, "seed": seed, "variation": variation}
    )


def replicate_of(state: State, number: int) -> tuple[int, dict[str, int]]:
    """training.seed and the other settings of a replicate, the first one with number 0.

    What `exploration.replicates_vary` leaves out is the same in all of them.
    """
    vary, config = state.settings.replicates_vary, state.config
    variation = {}
    if number and "data_seed" in vary:
        variation[DATA_SEED] = config.simulation.seed + number
    if number and "held_out" in vary:
        variation[HELD_OUT_PART] = config.training.held_out_part + number
    return config.training.seed + (number if "training_seed" in vary else 0), variation


def _of_slot(before: Changes, settings: Changes) -> tuple[Mutation, ...]:
    """The change of the rollout length that the slot makes to the parent's configuration."""
    old, new = before.get(TIME_STEP), settings.get(TIME_STEP)
    if old is None or new is None or old == new:
        return ()
    return (Mutation(param=TIME_STEP.partition(".")[2], old=old, new=new),)


def _check_effect(proposal: Proposal, before: Changes, after: Changes, config: Config, state: State) -> None:
    keys = [full_key(mutation.param, state.space) for mutation in proposal.mutations]
    pairs = zip(keys, proposal.mutations, strict=True)
    idle = [(key, m) for key, m in pairs if key not in after or before.get(key) == after[key]]
    if idle:
        without = reasons_without_effect(config, declared_strategies(config, state), state.space)
        reason = without.get(idle[0][0], "it is the same setting")
        raise RefusedError(f"{idle[0][1]} has no effect: {reason}; leave it out, or change something else")


def _strategy_of(proposal: Proposal, settings: Changes, state: State) -> str:
    """What trains, by number and name; for another search space than that of Phase 2, all that it says.

    Raises:
        RefusedError: the proposal names something else.
    """
    given = proposal.strategy.strip()
    if not state.space.strategies:
        if given and not _HYPERPARAMETER_ONLY.fullmatch(given):
            raise RefusedError(f"strategy is {given}, but this search space has none; leave it empty")
        return "hyperparameter-only"
    trained = strategies_of_settings(settings)
    switched = any(full_key(mutation.param, state.space) == STRATEGY for mutation in proposal.mutations)
    only = _HYPERPARAMETER_ONLY.fullmatch(given)
    by_number = {str(kind.number): name for name, kind in STRATEGIES.items()}
    named = {by_number.get(word, word) for word in re.findall(r"[A-Za-z_]\w*|[0-9]+", given)}
    known = named & {*STRATEGIES, *trained}
    if only and switched:
        raise RefusedError(f"strategy says {given}, but strategies change; name them, or leave it empty")
    plain = re.search("rollout", given, re.IGNORECASE) and not trained
    if given and not only and not known and not plain:
        raise RefusedError(
            f"strategy {given} is not one of the list; it follows from the mutations: leave it empty, or write "
            f"{numbered(trained) if switched else 'hyperparameter-only'}"
        )
    if not only and known - {*trained}:
        raise RefusedError(
            f"strategy names {', '.join(sorted(known - {*trained}))}, which does not train here; this proposal trains "
            f"with {numbered(trained)}: leave it empty, or change strategies"
        )
    return numbered(trained) + ("" if switched or proposal.mode == "replicate" else ", hyperparameter-only")


def _check_parent(parent: int, state: State) -> None:
    runs = [iteration for iteration in state.iterations if iteration.node == parent]
    if not runs:
        raise RefusedError(f"parent {parent}: there is no such node; take one of the UCB scores, or root")
    if not any(run.scored for run in runs):
        raise RefusedError(f"parent {parent} has not finished yet; take a node with a score, or root")


def changed(before: Changes, mutations: Sequence[Mutation], state: State) -> Changes:
    """Differences from the opened configuration after these mutations; values as the model reads them.

    Raises:
        RefusedError: a key that may not be changed, an old value that is not the parent's, a new one out of range.
    """
    config = configuration(state, before)
    new: Changes = {}
    for mutation in mutations:
        key = full_key(mutation.param, state.space)
        if key in new:
            raise RefusedError(f"{mutation}: {mutation.param} is changed twice; keep one change of it")
        old = config.value(key)
        if _plain(mutation.old) != _plain(old):
            raise RefusedError(f"{mutation}: the old value of {mutation.param} is {json.dumps(old)}")
        _check_range(mutation, state.space.parameter(key))
        new[key] = mutation.new
    changes = {**before, **new}
    config = configuration(state, changes)
    found = {key: config.value(key) for key in changes}
    for key, value in found.items():
        if isinstance(value, int) and value > _MOST:
            raise RefusedError(f"{key} has {len(str(value))} digits, expected at most {_MOST}")
    return {key: value for key, value in found.items() if value != state.config.value(key)}


def _check_range(mutation: Mutation, parameter: Parameter) -> None:
    low, high = parameter.range or (None, None)
    value = _plain(mutation.new)
    if isinstance(value, float) and ((low is not None and value < low) or (high is not None and value > high)):
        raise RefusedError(f"{mutation}: {parameter.name} may be from {shown(low)} to {shown(high)}")


def configuration(state: State, changes: Changes) -> Config:
    """The opened configuration with these changes.

    Raises:
        RefusedError: a value is out of range, or strategies do not go together.
    """
    try:
        config = state.config.replace(changes)
        declared_strategies(config, state)
    except InputError as error:
        raise RefusedError(str(error).removeprefix("replace: ")) from None
    return config


def declared_strategies(config: Config, state: State) -> dict[str, Declared]:
    """The strategies of a configuration; strategy files of the exploration, which are not executed, by declarations.

    Raises:
        InputError: there is no such strategy or option, or they do not go together.
    """
    # Strategies that were rolled back are still valid in nodes that ran with them.
    ever = {review.file.name: review for review in state.reviews if review.landed and review.file}
    of_package: list[str | dict[str, Any]] = []
    of_files: dict[str, Declaration | _Undeclared] = {}
    for name, options in entries(config.training):
        if name not in ever:
            of_package.append({name: options})
            continue
        declared = ever[name].declaration
        of_files[name] = Declaration.model_validate_json(json.dumps(declared)) if declared else _Undeclared()
        of_files[name].check(options)
    found: dict[str, Declared] = {**chosen(config.training.model_copy(update={"strategies": tuple(of_package)}))}
    return {**found, **of_files}


class _Undeclared:
    """A strategy file of an older journal, without a declaration: it may depend on everything."""

    sets: Collection[Part] = frozenset({"objective"})
    draws_minibatches: bool = True

    def check(self, options: Mapping[str, Any]) -> None:
        """Accept all options."""


def own_strategies(state: State) -> dict[str, Reviewed]:
    """Strategy files that are in force, by name, with the review that accepted them."""
    found: dict[str, Reviewed] = {}
    for review in state.reviews:
        for name, digest in review.rolled_back.items():
            found.pop(name, None)
            earlier = [r for r in state.reviews if r.file and r.file.name == name and r.landed == digest]
            if earlier:
                found[name] = earlier[-1]
        if review.landed and review.file:
            found[review.file.name] = review
    return found


def depends_on_time_step(config: Config, state: State) -> bool:
    """Whether training.homeostasis_time_step makes a difference."""
    return state.space.time_step_by_slot and draw_minibatches(declared_strategies(config, state))


def settings_at(config: Config, time_step: int, state: State) -> Changes:
    """The effective settings of a configuration in a slot with this rollout length."""
    at = config.replace({TIME_STEP: time_step}) if state.space.time_step_by_slot else config
    return effective_settings(at, declared_strategies(config, state), state.space)


def settings_of(proposed: Proposed, state: State) -> Changes:
    """The effective settings of an iteration; empty for one of an imported log."""
    if proposed.settings or state.imported:
        return proposed.settings
    return settings_at(configuration(state, proposed.changes), proposed.time_step, state)


def control_of(proposed: Proposed, state: State) -> Changes:
    """The effective settings of the parent's configuration at the rollout length of an iteration."""
    if proposed.control or state.imported:
        return proposed.control
    before = state.node_changes(proposed.proposal.parent, state.block_of(proposed.iteration))
    return settings_at(configuration(state, before), proposed.time_step, state)


def files_of(config: Config, state: State) -> dict[str, str]:
    """Strategy files of a configuration: name -> sha256 of the source.

    Raises:
        RefusedError: one of them was rolled back.
    """
    own = own_strategies(state)
    gone = [name for name in names(config.training) if name not in STRATEGIES and name not in own]
    if gone:
        raise RefusedError(f"strategy {gone[0]} was rolled back, since its trainings failed; choose another one")
    return {name: str(own[name].landed) for name in names(config.training) if name in own}


def code_of(files: Mapping[str, str]) -> str:
    """Digest of the package version and the strategy files of a run."""
    content = json.dumps({"version": metadata.version("metabolismgraph"), "files": dict(sorted(files.items()))})
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def node_digest(proposed: Proposed) -> str:
    """Digest of settings and code, which are the same in all runs of a node."""
    content = json.dumps([proposed.settings, proposed.code], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    """A value for comparison: 0.01, "0.01" and 1e-2 are the same."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return value
    try:
        return float(value)
    except (ValueError, OverflowError):
        return value.strip() if isinstance(value, str) else value
