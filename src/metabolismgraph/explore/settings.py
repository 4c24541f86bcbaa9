"""The settings of a run that have an effect on it. Configurations that differ in no such setting are the same node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metabolismgraph.config import Config, Training
from metabolismgraph.explore.events import Changes
from metabolismgraph.explore.keys import (
    BATCH,
    EPOCHS,
    LOOP,
    RATE_EMBEDDING,
    RATE_NODE,
    SIMILARITY,
    STEPS,
    STRATEGY,
    TIME_STEP,
)
from metabolismgraph.explore.search_space import SearchSpace
from metabolismgraph.homeostasis.strategies import STRATEGIES, Declared, draw_minibatches, entries
from metabolismgraph.homeostasis.strategies.base import Strategy

# Learning rates of 0 stand for others.
_RATES = {
    RATE_NODE: "rate_node_homeostasis",
    RATE_EMBEDDING: "rate_embedding_homeostasis",
    **{f"training.learning_rate_{name}": f"rate_{name}" for name in ("k", "node", "sub", "embedding")},
}
_ALL_FRAMES = "training uses all frames in every step"
_MINIBATCHES = "the number of steps of training in minibatches follows from data_augmentation_loop and batch_size"


def effective_settings(config: Config, found: Mapping[str, Declared], space: SearchSpace) -> Changes:
    """The settings of the search space with an effect, by dotted key, the rollout length included.

    Strategies are named, those of the default included, with the options that differ from their defaults. A learning
    rate of 0 is replaced by the one that it stands for.

    Args:
        found: the strategies of the configuration, or their declarations, by name.
    """
    training = config.training
    resolved = {key: getattr(training, name) for key, name in _RATES.items()}
    resolved[STRATEGY] = [_entry(name, options, found[name]) for name, options in entries(training)]
    without = reasons_without_effect(config, found, space)
    return {key: resolved.get(key, config.value(key)) for key in space.keys if key not in without}


def reasons_without_effect(config: Config, found: Mapping[str, Declared], space: SearchSpace) -> dict[str, str]:
    """The settings of a search space without an effect on training with a configuration, each with its reason."""
    without = _idle_in_phase2(found) if space.trains == "phase2" else _idle_in_descent(config.training)
    return {key: reason for key, reason in without.items() if key in space.keys}


def _idle_in_descent(training: Training) -> dict[str, str]:
    without = {}
    if not training.recurrent_training:
        without["training.time_step"] = "rollouts are off; set recurrent_training to true"
    if not training.coeff_k_floor:
        without["training.k_floor_threshold"] = "coeff_k_floor is 0"
    if all((training.learning_rate_k, training.learning_rate_node, training.learning_rate_sub)) and (
        training.learning_rate_embedding
    ):
        without["training.learning_rate_start"] = "every part has a learning rate of its own"
    return without


def _idle_in_phase2(found: Mapping[str, Declared]) -> dict[str, str]:
    if draw_minibatches(found):
        without = {STEPS: _MINIBATCHES}
    else:
        without = dict.fromkeys((TIME_STEP, BATCH, LOOP, EPOCHS), _ALL_FRAMES)
    # A strategy file may use the weight for a loss of its own.
    if "contrastive" not in found and all(isinstance(each, Strategy) for each in found.values()):
        without[SIMILARITY] = "it is the weight of the strategy contrastive"
    return without


def strategies_of_settings(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the strategies in effective settings."""
    return tuple(entry if isinstance(entry, str) else next(iter(entry)) for entry in settings.get(STRATEGY, ()))


def numbered(names: tuple[str, ...]) -> str:
    """Strategies by their numbers in the literature and their names; without one, training uses rollouts."""
    known = (f"{STRATEGIES[name].number} {name}" if name in STRATEGIES else name for name in names)
    return " + ".join(known) or "classical rollouts"


def _entry(name: str, options: Mapping[str, Any], declared: Declared) -> str | dict[str, Any]:
    """A strategy with the options that differ from their defaults."""
    if isinstance(declared, Strategy):
        given = declared.model_dump(mode="json", exclude_defaults=True)
    else:
        known = getattr(declared, "options", {}).get("properties", {})
        given = {key: value for key, value in options.items() if known.get(key, {}).get("default") != value}
    return {name: given} if given else name
