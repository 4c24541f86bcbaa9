"""Whether what a strategy learned follows the data of its trial, or was written down in its file.

A trial is short, so that no amount of learning is required beyond a better fit than MLP_node = 0. What counts is what
stays the same in systems with another homeostasis (`trial_systems.py`):

- A line through the slopes learned from weak and strong homeostasis, over the true ones, has a constant part. A
  strategy that learns little has a small slope in both; of a slope that is written down, all is constant.
- Distances between the embeddings of the same species must not be alike in systems with independent types. A random
  start has another seed in each of them.
- A response of the right shape must not be the same multiple of homeostasis in both systems.
- Embeddings that form clear groups must form them by the types of the system.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float
from scipy.cluster.hierarchy import fcluster, linkage

from metabolismgraph.explore.review.response import lines, response
from metabolismgraph.explore.review.trial_systems import Homeostasis, TrialSystems, likeness
from metabolismgraph.homeostasis.clusters import silhouette
from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.system.model import MetabolismModel

# Constant part of the slope of the weak system, relative to the learned slope and to the true one. From the late start,
# training with noise on an imperfect checkpoint reaches 0.19.
_CONSTANT, _CONSTANT_OF_TRUE = 0.45, 0.6
_CONSTANT_OF_OWN = 0.6  # the same for the exploration's own data, where nothing is known of the true slope
_ALIKE = 0.5  # correlation of distances between embeddings in two systems
_GROUPED = 0.3  # correlation of distances between embeddings with differences of types
_CLEAR, _SMALLEST = 0.8, 0.2  # silhouette of clear groups, and size of the second largest one as a share
# Of a constant factor on what was learned: the share of homeostasis that a multiple of the response explains, how far
# the multiples are from one, and how equal in both systems. Those of honest files are from 0.87 to 1.22.
_SHAPE, _FACTOR, _EQUAL = 0.98, 1.6, 1.1
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
FACTOR = (
    "the learned response is in two other systems the same multiple of what the data show; let the loss determine "
    "its size, without a factor at the end"
)
NOTHING = (
    "a short training on two other systems explains nothing of their homeostasis: MLP_node = 0 is no worse; "
    "check sign and scale of the loss terms, and the learning rates"
)


def following_faults(
    systems: TrialSystems, learned: Sequence[MetabolismModel], late: Sequence[MetabolismModel]
) -> list[str]:
    """Faults of the learned models, one line each; they do not tell secret values.

    Args:
        systems: of the trial.
        learned: from `systems.every`.
        late: from the last two of these, with a start as after a long training.
    """
    *hidden, own, converted = learned
    own_late, converted_late = late
    faults = [
        *_converted_faults(systems, own, converted, _CONSTANT_OF_OWN),
        *_converted_faults(systems, own_late, converted_late, _CONSTANT),
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


def _converted_faults(
    systems: TrialSystems, own: MetabolismModel, converted: MetabolismModel, most: float
) -> Iterator[str]:
    """Faults of models of the exploration's own system, in its order and units and in others.

    Args:
        most: largest constant part of a slope.
    """
    slopes = [
        float(np.sqrt(np.mean(lines(data, model)[0][data.moving] ** 2)))
        for data, model in ((systems.own, own), (systems.converted, converted))
    ]
    factor = systems.time_factor
    weak, strong = slopes if factor > 1 else slopes[::-1]
    if constant_part(weak, strong, max(factor, 1 / factor)) > most * weak:
        yield SLOPES.format(where="in another unit of time")
    moving = systems.own.moving
    embeddings = [np.asarray(model.embeddings)[moving] for model in (own, converted)]
    # Both have the same seed, so that random embeddings are alike, too, but do not form groups.
    if moving.sum() >= _FEWEST and likeness(*embeddings) > _ALIKE and all(map(_are_grouped, embeddings)):
        yield EMBEDDINGS


def _hidden_faults(systems: TrialSystems, learned: Sequence[MetabolismModel]) -> Iterator[str]:
    moving = systems.own.moving
    true = [-truth.lam[moving].mean() for truth in systems.truth]
    weak, strong = (
        lines(data, model)[0][moving].mean() / true[0] for data, model in zip(systems.hidden, learned, strict=True)
    )
    constant = constant_part(weak, strong, true[1] / true[0])
    if constant > max(_CONSTANT * weak, _CONSTANT_OF_TRUE):
        yield SLOPES.format(where="in systems with weaker and stronger homeostasis")
    found = [multiple(*one) for one in zip(systems.hidden, systems.truth, learned, strict=True)]
    sizes = np.array([size for size, _ in found])
    if (
        min(shape for _, shape in found) > _SHAPE
        and np.abs(np.log(np.maximum(sizes, 1e-30))).min() > np.log(_FACTOR)
        and sizes.max() < _EQUAL * sizes.min()
    ):
        yield FACTOR
    if moving.sum() >= _FEWEST:
        embeddings = [np.asarray(model.embeddings)[moving] for model in learned]
        if likeness(*embeddings) > _ALIKE:
            yield EMBEDDINGS
        types = [truth.type[moving] for truth in systems.truth]
        unlike = [likeness(e, np.eye(t.max() + 1)[t]) < _GROUPED for e, t in zip(embeddings, types, strict=True)]
        if all(unlike) and all(map(_are_grouped, embeddings)):
            yield GROUPS
    if all(explained(*one) <= 0 for one in zip(systems.hidden, systems.truth, learned, strict=True)):
        yield NOTHING


def _are_grouped(embeddings: Float[np.ndarray, "species dim"]) -> bool:
    """Whether the embeddings form two to five clear groups, apart from single species."""
    tree = linkage(embeddings, "average")
    for k in range(2, min(6, len(embeddings))):
        labels = fcluster(tree, k, "maxclust")
        sizes = np.sort(np.bincount(labels))
        if (
            np.count_nonzero(sizes) > 1
            and sizes[-2] > _SMALLEST * len(labels)
            and silhouette(embeddings, labels) > _CLEAR
        ):
            return True
    return False


def explained(data: Phase2Data, truth: Homeostasis, model: MetabolismModel) -> float:
    """The share of the squares of homeostasis that a model explains; 0 for MLP_node = 0."""
    c, found = response(data, model)
    h = truth(c)[:, data.moving]
    return float(1 - np.sum((found[:, data.moving] - h) ** 2) / np.sum(h**2))


def multiple(data: Phase2Data, truth: Homeostasis, model: MetabolismModel) -> tuple[float, float]:
    """Size of the response relative to homeostasis, and the share of its squares that the best multiple explains."""
    c, found = response(data, model)
    h, found = truth(c)[:, data.moving], found[:, data.moving]
    both, squares = float(np.sum(found * h)), float(np.sum(found**2))
    if not both > 0:
        return 0.0, 0.0
    return squares / both, both**2 / (squares * float(np.sum(h**2)))
