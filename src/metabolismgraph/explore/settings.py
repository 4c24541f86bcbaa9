"""The settings of a run that have an effect on it. Configurations that differ in no such setting are the same node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metabolismgraph.config import Config
from metabolismgraph.explore.events import Changes
from metabolismgraph.explore.keys import (
    BATCH,
    CHANGEABLE,
    EPOCHS,
    LOOP,
    RATE_EMBEDDING,
    RATE_NODE,
    SIMILARITY,
    STEPS,
    STRATEGY,
    TIME_STEP,
)
from metabolismgraph.homeostasis.strategies import STRATEGIES, Declared, draw_minibatches, entries
from metabolismgraph.homeostasis.strategies.base import Strategy

_ALL_FRAMES = "training uses all frames in every step"
_MINIBATCHES = "the number of steps of training in minibatches follows from data_augmentation_loop and batch_size"


def effective_settings(config: Config, found: Mapping[str, Declared]) -> Changes:
    """The settings of the search space with an effect, by dotted key, the rollout length included.

    Strategies are named, those of the default included, with the options that differ from their defaults. A learning
    rate of 0 is replaced by the one that it stands for.

    Args:
        found: the strategies of the configuration, or their declarations, by name.
    """
    training = config.training
    dumped = config.model_dump(mode="json")["training"]
    values = {key: dumped[key.partition(".")[2]] for key in (*CHANGEABLE, TIME_STEP)}
    values[RATE_NODE], values[RATE_EMBEDDING] = training.rate_node_homeostasis, training.rate_embedding_homeostasis
    values[STRATEGY] = [_entry(name, options, found[name]) for name, options in entries(training)]
    without = reasons_without_effect(found)
    return {key: value for key, value in values.items() if key not in without}


def reasons_without_effect(found: Mapping[str, Declared]) -> dict[str, str]:
    """The settings without an effect on training with these strategies, each with its reason."""
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
