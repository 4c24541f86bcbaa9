"""The result of both phases of a fit."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from metabolismgraph.config import GraphModel, Training
from metabolismgraph.fitting.parameters import parameters_table
from metabolismgraph.fitting.tables import homeostasis_table, rate_constants_table
from metabolismgraph.fitting.trust import Trust, judge_trust
from metabolismgraph.homeostasis.clusters import cluster_moving
from metabolismgraph.homeostasis.fit import Phase2Result
from metabolismgraph.overview import Overview, Rows
from metabolismgraph.reactions.fit import Phase1Result
from metabolismgraph.system.observations import Observations

_SHOWN = ("reaction", "equation", "k", "lower", "upper", "unit", "identifiable")


@dataclasses.dataclass(frozen=True, repr=False)
class FitResult(Overview):
    """The result of a fit.

    `rate_constants` and `homeostasis` are the estimates as data frames. Read `trust` first.

    Attributes:
        observations: all observations, including the held-out frames.
        graph_model, training: sections of the configuration of this fit.
        phase1: rate constants, substrate function, identifiability, lines of homeostasis.
        phase2: MLP_node and embeddings; None if training.homeostasis_training is false.
        refined: the model after joint refinement; None if training.joint_refinement is false.

    Example:
        >>> import metabolismgraph as mg
        >>> config = mg.load_config("small", ["training.homeostasis_training=false"])
        >>> result = mg.fit(mg.simulate(config).observations, config)
        >>> result.trust.trustworthy, result.phase1.rule
        (True, 'forward')
        >>> result.rate_constants[["reaction", "k", "unit"]].shape
        (72, 3)
        >>> result.rate_law(np.array([1.0, 2.0])).round(3)
        array([1., 2.])
    """

    observations: Observations
    graph_model: GraphModel
    training: Training
    phase1: Phase1Result
    phase2: Phase2Result | None
    refined: Phase2Result | None = None

    def _overview(self) -> tuple[str, Rows]:
        network, known = self.observations.network, self.phase1.identifiability.identifiable
        homeostasis = self.homeostasis
        rows = [
            ("network", f"{network.n_species} species, {network.n_reactions} reactions"),
            ("data", f"{self.observations.n_frames} frames"),
            ("trusted", "yes" if self.trust.trustworthy else f"no: {'; '.join(self.trust.why_not)}"),
            ("rate constants that are determined", f"{int(known.sum())} of {len(known)}"),
            ("homeostasis that is resolved", f"{int(homeostasis['resolved'].sum())} of {len(homeostasis)} species"),
            ("types of homeostasis", self._types_in_words(homeostasis)),
        ]
        return "fit", rows

    def _types_in_words(self, homeostasis: pd.DataFrame) -> object:
        if self.types is None:
            return "no Phase 2"
        # Embeddings have clusters without any homeostasis, too.
        return len(np.unique(self.types[self.types >= 0])) if homeostasis["resolved"].any() else "none resolved"

    def _frame(self) -> pd.DataFrame:
        return self.rate_constants[list(_SHOWN)]

    @functools.cached_property
    def trust(self) -> Trust:
        """Whether the fit is to be trusted, and why not; see `judge_trust`."""
        return judge_trust(self.observations, self.phase1, self.graph_model, self.training)

    @property
    def rate_constants(self) -> pd.DataFrame:
        """A row per reaction: k with unit, standard error and interval, or the reason why it is not determined.

        There are no intervals if the fit is not to be trusted. See `rate_constants_table` for the columns.
        """
        return rate_constants_table(
            self.observations.network,
            self.phase1,
            aggregation=self.graph_model.aggr_type,
            trustworthy=self.trust.trustworthy,
        )

    @property
    def homeostasis(self) -> pd.DataFrame:
        """A row per species that is not fixed: slope, offset and baseline of its homeostasis with errors, and its type.

        See `homeostasis_table` for the columns.
        """
        return homeostasis_table(self.observations.network, self.phase1, self.types, trustworthy=self.trust.trustworthy)

    @property
    def parameters(self) -> pd.DataFrame:
        """A row per rate constant, line of homeostasis and type, with standard error, 95 % interval and class.

        See `parameters_table` for the columns.
        """
        return parameters_table(
            self.observations.network,
            self.phase1,
            self.types,
            aggregation=self.graph_model.aggr_type,
            trustworthy=self.trust.trustworthy,
        )

    @property
    def types(self) -> Int[np.ndarray, " species"] | None:
        """Cluster of each species' embedding, from 0; -1 for a fixed species. None without Phase 2."""
        if self.phase2 is None:
            return None
        moving = ~self.observations.network.fixed
        embeddings = np.asarray(self.phase2.model.embeddings)
        return cluster_moving(embeddings, moving, self.training.cluster_distance_threshold)

    def rate_law(self, c: Float[np.ndarray, " points"], order: float = 1.0) -> Float[np.ndarray, " points"]:
        """The learned substrate function f, in concentration^order.

        Args:
            c: concentrations > 0, in the unit of the data.
            order: |s| of the substrate.
        """
        return np.asarray(np.exp(self.phase1.mlp_sub(np.log(c), np.full(c.shape, order))))
