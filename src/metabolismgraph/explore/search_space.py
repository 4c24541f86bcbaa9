"""The changes that a proposal may make, and the resulting configuration, node and seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from metabolismgraph.config import Config, nearest_name
from metabolismgraph.errors import InputError
from metabolismgraph.explore.events import Changes, Proposed, Reviewed
from metabolismgraph.explore.proposal import Mutation, Proposal
from metabolismgraph.explore.review.admission import Declaration
from metabolismgraph.explore.state import State
from metabolismgraph.explore.tree import nodes
from metabolismgraph.homeostasis.strategies import STRATEGIES, chosen, names
from metabolismgraph.homeostasis.strategies import depends_on_time_step as trains_on_windows

TIME_STEP = "training.homeostasis_time_step"
STRATEGY = "training.strategies"
_SEED = "training.seed"

# Keys that an exploration may change; all others are fixed, so that runs remain comparable.
CHANGEABLE: Mapping[str, str] = {
    "training.learning_rate_node_homeostasis": "lr_node_homeo",
    "training.learning_rate_embedding_homeostasis": "lr_emb_homeo",
    "training.data_augmentation_loop": "data_augmentation_loop",
    "training.batch_size": "batch_size",
    "training.n_epochs": "n_epochs",
    "training.phase2_steps": "phase2_steps",
    "training.coeff_similarity": "coeff_similarity",
    "training.embedding_start": "embedding_start",
    STRATEGY: "strategies",
}
_MOST = 2**31 - 1  # largest whole number in training
_BY_SHORT_NAME = {short: key for key, short in CHANGEABLE.items()}
_WHY_NOT = {
    "simulation": "the simulated system is fixed in an exploration",
    "dataset": "the data set is fixed in an exploration",
    "graph_model": "the model's architecture is fixed in an exploration",
    "exploration": "an exploration does not change its own settings",
    "plotting": "figures are not a part of the exploration",
    TIME_STEP: "it is fixed per slot",
    _SEED: "seeds come from the configuration; to run a node again use mode replicate",
    "training": "it belongs to the frozen Phase 1, to the metrics or to other fixed settings",
}


class RefusedError(InputError):
    """A proposal is refused; the message gives the reason in one line."""


def full_key(param: str) -> str:
    """The configuration key of a mutation.

    Raises:
        RefusedError: it may not be changed, or does not exist.
    """
    key = _BY_SHORT_NAME.get(param, param)
    key = key if key in CHANGEABLE or "." in key else f"training.{key}"
    if key in CHANGEABLE:
        return key
    for wanted in (param, f"training.{param}"):
        for place, reason in _WHY_NOT.items():
            if wanted == place or (wanted.startswith(f"{place}.") and _exists(wanted)):
                raise RefusedError(f"{param} may not be changed: {reason} (may: {', '.join(_BY_SHORT_NAME)})")
    near = nearest_name(param, [*_BY_SHORT_NAME, *CHANGEABLE])
    raise RefusedError(f"{param} is not a parameter; did you mean {near}? (all: {', '.join(_BY_SHORT_NAME)})")


def _exists(key: str) -> bool:
    section, _, name = key.partition(".")
    field = Config.model_fields.get(section)
    return field is not None and name in getattr(field.annotation, "model_fields", {})


def plan(proposal: Proposal, state: State, iteration: int, *, by: str, note: str = "") -> Proposed:
    """Make the iteration that a proposal describes.

    Raises:
        RefusedError: it may not be run.
    """
    slot, block = state.slot(iteration), state.block_of(iteration)
    parent = proposal.parent
    if parent is not None:
        _check_parent(parent, state)
    before = state.node_changes(parent, block)
    if proposal.mode == "replicate":
        return _replicate(proposal, state, iteration, by=by, note=note)
    changes = changed(before, proposal.mutations, state)
    config = configuration(state, changes)
    changes.pop(TIME_STEP, None)
    if depends_on_time_step(config):
        changes[TIME_STEP] = slot.time_step
    files = files_of(config, state)
    code = code_of(files)
    same = [n for n in nodes(state) if (n.runs[0].proposed.changes, n.runs[0].proposed.code) == (changes, code)]
    # The same configuration and code is the same node, and this iteration its replicate.
    node = same[0].id if same else iteration
    return Proposed(
        iteration=iteration,
        slot=slot.number,
        time_step=slot.time_step,
        node=node,
        parent=same[0].parent if same else parent,
        changes=changes,
        seed=state.config.training.seed + (len(same[0].runs) if same else 0),
        code=code,
        files=files,
        proposal=proposal,
        by=by,
        note=note,
    )


def _replicate(proposal: Proposal, state: State, iteration: int, *, by: str, note: str) -> Proposed:
    if proposal.mutations:
        raise RefusedError("mode replicate changes nothing; leave mutations empty, or choose another mode")
    if proposal.parent is None:
        raise RefusedError("mode replicate needs a node as parent, which cannot be root")
    node = next(node for node in nodes(state) if node.id == proposal.parent)
    first = node.runs[0].proposed
    return first.model_copy(
        update={
            "iteration": iteration,
            "slot": state.slot(iteration).number,
            # A node that depends on the rollout length keeps its own in every slot.
            "time_step": first.changes.get(TIME_STEP, state.slot(iteration).time_step),
            "seed": state.config.training.seed + len(node.runs),
            "proposal": proposal,
            "by": by,
            "note": note,
            "time": "",
        }
    )


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
        key = full_key(mutation.param)
        if key in new:
            raise RefusedError(f"{mutation}: {mutation.param} is changed twice; keep one change of it")
        old = _value(config, key)
        if _plain(mutation.old) != _plain(old):
            raise RefusedError(f"{mutation}: the old value of {mutation.param} is {json.dumps(old)}")
        new[key] = mutation.new
    changes = {**before, **new}
    config = configuration(state, changes)
    found = {key: _value(config, key) for key in changes}
    for key, value in found.items():
        if isinstance(value, int) and value > _MOST:
            raise RefusedError(f"{key} has {len(str(value))} digits, expected at most {_MOST}")
    return {key: value for key, value in found.items() if value != _value(state.config, key)}


def configuration(state: State, changes: Changes) -> Config:
    """The opened configuration with these changes.

    Raises:
        RefusedError: a value is out of range, or strategies do not go together.
    """
    try:
        config = state.config.replace(changes)
        check_strategies(config, state)
    except InputError as error:
        raise RefusedError(str(error).removeprefix("replace: ")) from None
    return config


def check_strategies(config: Config, state: State) -> None:
    """Check the strategies of a configuration, strategy files of the exploration by their declarations.

    Raises:
        InputError: there is no such strategy or option, or they do not go together.
    """
    names(config.training)  # refuses an entry without exactly one name
    entries = config.training.strategies
    if entries is None:
        return
    # Strategies that were rolled back are still valid in nodes that ran with them.
    ever = {review.file.name: review for review in state.reviews if review.landed and review.file}
    of_package = []
    for entry in entries:
        name, options = (entry, {}) if isinstance(entry, str) else next(iter(entry.items()))
        if name not in ever:
            of_package.append(entry)
        elif ever[name].declaration is not None:
            Declaration.model_validate_json(json.dumps(ever[name].declaration)).check(options)
    chosen(config.training.model_copy(update={"strategies": tuple(of_package)}))


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


def depends_on_time_step(config: Config) -> bool:
    """Whether training.homeostasis_time_step makes a difference.

    Strategy files of the exploration are assumed to depend on it.
    """
    own = any(name not in STRATEGIES for name in names(config.training))
    return own or trains_on_windows(config.training)


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


def _value(config: Config, key: str) -> Any:
    section, _, name = key.partition(".")
    return config.model_dump(mode="json")[section][name]


def _plain(value: Any) -> Any:
    """A value for comparison: 0.01, "0.01" and 1e-2 are the same."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return value
    try:
        return float(value)
    except (ValueError, OverflowError):
        return value.strip() if isinstance(value, str) else value
