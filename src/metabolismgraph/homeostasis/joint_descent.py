"""Joint training, as published (Allier 2026): all parameters of the model in one gradient descent."""

from __future__ import annotations

import numpy as np

from metabolismgraph.config import GraphModel, Training
from metabolismgraph.homeostasis.fit import Phase2Result
from metabolismgraph.reactions.gradient import descend
from metabolismgraph.reactions.result import Phase1Result
from metabolismgraph.system.model_rates import mean_homeostasis
from metabolismgraph.system.observations import Observations
from metabolismgraph.system.progress import Progress, silent


def fit_jointly(
    observations: Observations, graph_model: GraphModel, training: Training, progress: Progress = silent
) -> tuple[Phase1Result, Phase2Result]:
    """Train everything at once; no Phase 2 follows.

    Homeostasis is hundreds of times weaker than the reactions, which can make up for it. The phases one after the other
    recover both far more accurately. This method is for comparison with published results.

    Args:
        observations: the data to learn from.
        graph_model, training: sections of the configuration.
        progress: see `system.progress`.

    Raises:
        InputError: the method does not support the configuration, or the loss is not a number.
    """
    found = descend(observations, graph_model, training, progress)
    phase2 = Phase2Result(
        model=found.model,
        # Mean misfits of pieces of the descent, one entry per gradient step as in Phase 2.
        losses=np.repeat(found.misfit, found.steps),
        loss_unit="(concentration/time)²",
        components={},
        node_magnitude=mean_homeostasis(found.model, observations.concentration),
        notes=(),
    )
    return found.result, phase2
