"""Both phases in one call, and what they found."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Float

from metabolismgraph.config import Config, GraphModel, Training
from metabolismgraph.errors import InputError
from metabolismgraph.observations import Observations
from metabolismgraph.rate_law import assume_rate_laws
from metabolismgraph.train.evidence import Setting
from metabolismgraph.train.joint import refine
from metabolismgraph.train.phase1 import Phase1Result, fit_reactions
from metabolismgraph.train.phase2 import Phase2Result, fit_homeostasis
from metabolismgraph.train.progress import Progress, silent

if TYPE_CHECKING:
    from metabolismgraph.trust import Trust


@dataclasses.dataclass(frozen=True)
class FitResult:
    """What was learned from observations.

    Attributes:
        observations: all of them, with the held-out frames that training did not see.
        graph_model, training: the configuration's sections that it was learned with.
        phase1: rate constants, substrate function, identifiability, first homeostasis.
        phase2: MLP_node and embeddings; None where training.homeostasis_training is false.
        refined: the model after everything was unfrozen, where training.joint_refinement is true.
    """

    observations: Observations
    graph_model: GraphModel
    training: Training
    phase1: Phase1Result
    phase2: Phase2Result | None
    refined: Phase2Result | None = None

    @functools.cached_property
    def trust(self) -> Trust:
        """Whether the fit is to be trusted, and why not; see `trust.judge_trust`."""
        from metabolismgraph.trust import judge_trust  # noqa: PLC0415  (it builds on this module)

        return judge_trust(self)

    @property
    def rate_constants(self) -> pd.DataFrame:
        """A row per reaction: k with unit, error and interval, and why it is not determined where it is not.

        Without trust there are no intervals. See `answer.rate_constants_table` for the columns.
        """
        from metabolismgraph.answer import rate_constants_table  # noqa: PLC0415

        return rate_constants_table(self)

    @property
    def homeostasis(self) -> pd.DataFrame:
        """A row per species that may change: slope, offset and baseline of its homeostasis with errors, and its type.

        See `answer.homeostasis_table` for the columns.
        """
        from metabolismgraph.answer import homeostasis_table  # noqa: PLC0415

        return homeostasis_table(self)

    def rate_law(self, c: Float[np.ndarray, " points"], order: float = 1.0) -> Float[np.ndarray, " points"]:
        """The learned substrate function f at concentrations c > 0; f(1) = 1."""
        return np.asarray(jnp.exp(self.phase1.mlp_sub(jnp.log(jnp.asarray(c)), jnp.asarray(order))))


def fit(
    observations: Observations,
    config: Config | None = None,
    progress: Progress = silent,
    *,
    checkpoint: Phase1Result | None = None,
) -> FitResult:
    """Learn rate constants, rate law, homeostasis and types in this process.

    Args:
        observations: what was measured; the last `training.held_out_fraction` of the frames of every
            run is kept aside.
        config: `graph_model` and `training` are used; None: the defaults.
        progress: called with (stage, share done, message).
        checkpoint: a Phase 1 to start Phase 2 from, in place of one of our own.

    Raises:
        InputError: the observations are too few for the network, settings that make no sense, or a checkpoint
            of another network.
    """
    config = config or Config()
    graph_model, training = config.graph_model, config.training
    given = None if checkpoint is None else checkpoint.mass_action
    observations = assume_rate_laws(observations, graph_model, training, given)
    seen, _ = observations.split(training.held_out_fraction)
    if checkpoint is None and training.skip_phase1:
        raise InputError("training.skip_phase1 is true, but there is no checkpoint to start from; give one")
    phase1 = checkpoint or fit_reactions(seen, graph_model, training, progress)
    phase2 = refined = None
    if training.homeostasis_training:
        phase2 = fit_homeostasis(seen, phase1, graph_model, training, progress)
        if training.joint_refinement:
            refined = refine(Setting(seen, phase1, graph_model, training), phase2, progress)
    return FitResult(observations, graph_model, training, phase1, phase2, refined)
