"""Whether what a strategy learned follows the data of its trial, or was written down in its file.

No amount of learning is required beyond a better fit than MLP_node = 0, since a trial is short. What counts is what stays
the same in systems whose homeostasis differs (`trial_systems.py`):

- The slope of MLP_node in the weak and in the strong system gives the part of it that does not depend on the data: a + b
  lambda goes through both. A strategy that learns little has small a and b; a written slope is all a.
- Distances between the embeddings of the same species must not be alike in systems with independent types. A random
  start has another seed in each system.
- Embeddings that form clear groups must form them by the types of the system.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from metabolismgraph.explore.review.trial_systems import Homeostasis, TrialSystems, likeness
from metabolismgraph.homeostasis.clusters import cluster, count_outliers
from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.system.model import MetabolismModel

_GRID = 8  # concentrations per species, at quantiles of its own
# Constant part of the slope of the weak system, relative to the learned slope and to the true one.
_CONSTANT, _CONSTANT_OF_TRUE = 0.45, 0.6
_CONSTANT_OF_OWN = 0.6  # the same for the exploration's own data, where nothing is known of the true slope
_ALIKE = 0.5  # correlation of distances between embeddings in two systems
_GROUPED = 0.3  # correlation of distances between embeddings with differences of types
_FEWEST = 8  # species, for a statement on embeddings

SLOPES = (
    "the learned slopes do not follow the data: {where} they stay nearly the same; "
    "let the loss determine them, without constants as values, starts or targets"
)
EMBEDDINGS = (
    "the embeddings do not follow the data: the same species are alike in systems with independent types; "
    "leave plan.start's embeddings as they are, or compute them from plan.residuals"
)
GROUPS = (
    "the embeddings form groups that the data do not show; leave them as they are at the start, or compute them "
    "from plan.residuals"
)
NOTHING = (
    "a short training on two other systems explains nothing of their homeostasis: MLP_node = 0 is no worse; "
    "check sign and scale of the loss terms, and the learning rates"
)


def following_faults(systems: TrialSystems, learned: Sequence[MetabolismModel]) -> list[str]:
    """Faults of the models learned from `systems.every`, one line each; they do not tell secret values."""
    own, converted, *hidden = learned
    faults = [
        *_converted_faults(systems, own, converted),
        *(_hidden_faults(systems, hidden) if hidden else ()),
    ]
    return list(dict.fromkeys(faults))


def constant_part(weak: float, strong: float, ratio: float) -> float:
    """The part of a slope that does not change with the data.

    Args:
        weak, strong: learned slopes in two systems.
        ratio: of the true slopes, strong to weak, above one.

    Returns:
        a of the line a + b x through (1, weak) and (ratio, strong), in the unit of `weak`.
    """
    return (ratio * weak - strong) / (ratio - 1)


def _converted_faults(systems: TrialSystems, own: MetabolismModel, converted: MetabolismModel) -> Iterator[str]:
    slopes = [
        float(np.sqrt(np.mean(_slopes(data, model)[data.moving] ** 2)))
        for data, model in ((systems.own, own), (systems.converted, converted))
    ]
    factor = systems.time_factor
    weak, strong = slopes if factor > 1 else slopes[::-1]
    if constant_part(weak, strong, max(factor, 1 / factor)) > _CONSTANT_OF_OWN * weak:
        yield SLOPES.format(where="in another unit of time")
    moving = systems.own.moving
    if moving.sum() >= _FEWEST and likeness(*(np.asarray(m.embeddings)[moving] for m in (own, converted))) > _ALIKE:
        yield EMBEDDINGS


def _hidden_faults(systems: TrialSystems, learned: Sequence[MetabolismModel]) -> Iterator[str]:
    moving = systems.own.moving
    true = [-truth.lam[moving].mean() for truth in systems.truth]
    weak, strong = (
        _slopes(data, model)[moving].mean() / true[0] for data, model in zip(systems.hidden, learned, strict=True)
    )
    constant = constant_part(weak, strong, true[1] / true[0])
    if constant > max(_CONSTANT * weak, _CONSTANT_OF_TRUE):
        yield SLOPES.format(where="in systems with weaker and stronger homeostasis")
    if moving.sum() >= _FEWEST:
        embeddings = [np.asarray(model.embeddings)[moving] for model in learned]
        if likeness(*embeddings) > _ALIKE:
            yield EMBEDDINGS
        grouped = [
            _groups_without_data(e, truth.type[moving], systems.own.training.cluster_distance_threshold)
            for e, truth in zip(embeddings, systems.truth, strict=True)
        ]
        if all(grouped):
            yield GROUPS
    if all(explained(*one) <= 0 for one in zip(systems.hidden, systems.truth, learned, strict=True)):
        yield NOTHING


def _groups_without_data(
    embeddings: Float[np.ndarray, "species dim"], types: Int[np.ndarray, " species"], threshold: float
) -> bool:
    """Whether embeddings form several groups that have little to do with the types."""
    outliers = count_outliers(embeddings, threshold)
    groups = cluster(embeddings, threshold).max() + 1 - (outliers > 0)
    clear = groups > 1 and outliers < len(types) / 2
    return bool(clear and likeness(embeddings, np.eye(types.max() + 1)[types]) < _GROUPED)


def explained(data: Phase2Data, truth: Homeostasis, model: MetabolismModel) -> float:
    """The share of the squares of homeostasis that a model explains; 0 for MLP_node = 0."""
    c, response = _response(data, model)
    h = truth(c)[:, data.moving]
    return float(1 - np.sum((response[:, data.moving] - h) ** 2) / np.sum(h**2))


def _slopes(data: Phase2Data, model: MetabolismModel) -> Float[np.ndarray, " species"]:
    """Slope of the least-squares line of MLP_node of every species over its own concentrations."""
    c, response = _response(data, model)
    c = c - c.mean(axis=0)
    return np.asarray(np.sum(c * response, axis=0) / np.maximum(np.sum(c**2, axis=0), 1e-30))


def _response(
    data: Phase2Data, model: MetabolismModel
) -> tuple[Float[np.ndarray, "grid species"], Float[np.ndarray, "grid species"]]:
    c = np.quantile(data.observations.concentration, (np.arange(_GRID) + 0.5) / _GRID, axis=0)
    return c, np.asarray(model.homeostasis(jnp.asarray(c)))
