"""The data of Phase 2: observations, a checkpoint, and the residual of dc/dt from which homeostasis is learned."""

from __future__ import annotations

import dataclasses
import functools
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float, PRNGKeyArray

from metabolismgraph.config import GraphModel, Training
from metabolismgraph.errors import InputError
from metabolismgraph.reactions.normal_equations import check_dense, follows_equation
from metabolismgraph.reactions.result import Phase1Result, line_blocks
from metabolismgraph.system.arrays import random_key
from metabolismgraph.system.derivative_rules import StepQuadrature
from metabolismgraph.system.kinetics import Structure
from metabolismgraph.system.model import PublishedSubstrateFunction
from metabolismgraph.system.model_rates import in_parts
from metabolismgraph.system.observations import Observations, Transitions
from metabolismgraph.system.tabulated_reactions import TabulatedReactions
from metabolismgraph.system.units import Units

# What copies of the reactions that are corrected on the data depend on, apart from data, checkpoint and options.
TRAINING_SETTINGS = ("derivative", "nuisance_degree", "outlier_threshold", "phase1_frame_stride")
MODEL_SETTINGS = ("aggr_type", "substrate_input")


@dataclasses.dataclass(frozen=True)
class Residuals:
    """The residual of a reaction model, and its least-squares line as a function of concentration per species.

    Attributes:
        at: concentration of each entry: the mean over the nodes of the rule for dc/dt.
        residual: dc/dt minus reactions, in concentration/time.
        keep: entries in use.
        noise: standard deviation of the residual without homeostasis, in concentration/time.
        slope, offset: of the line of each species, in 1/time and concentration/time.
        slope_error, offset_error: their standard errors.
        slope_offset_covariance: of the slope and the offset of a species.
    """

    LINE: ClassVar = ("slope", "offset", "slope_error", "offset_error", "slope_offset_covariance")

    at: Float[np.ndarray, "transitions species"]
    residual: Float[np.ndarray, "transitions species"]
    keep: Bool[np.ndarray, "transitions species"]
    noise: Float[np.ndarray, " species"]
    slope: Float[np.ndarray, " species"]
    offset: Float[np.ndarray, " species"]
    slope_error: Float[np.ndarray, " species"]
    offset_error: Float[np.ndarray, " species"]
    slope_offset_covariance: Float[np.ndarray, " species"]

    def copied(self) -> Residuals:
        """The same with arrays of its own, contiguous in memory."""
        return Residuals(
            **{each.name: np.array(getattr(self, each.name), order="C") for each in dataclasses.fields(self)}
        )

    @property
    def line_covariance(self) -> Float[np.ndarray, "species 2 2"]:
        """Covariance of slope and offset of each species."""
        slope, offset = self.slope_error, self.offset_error
        # Rounding, and errors that were estimated apart, could make it indefinite.
        cross = np.clip(self.slope_offset_covariance, -slope * offset, slope * offset)
        return line_blocks(slope, offset, cross)

    @functools.cached_property
    def unit(self) -> float:
        """Rms of the residual in concentration/time, the unit of the output of MLP_node."""
        used = self.residual[self.keep]
        return max(float(np.sqrt(np.mean(used**2))), 1e-30) if used.size else 1.0


@dataclasses.dataclass(frozen=True)
class Phase2Data:
    """The data that Phase 2 and its strategies may use.

    Attributes:
        observations: the frames to learn from.
        phase1: the checkpoint; frozen.
        graph_model, training: sections of the configuration.

    Raises:
        InputError: on construction, if the checkpoint belongs to another network, or cannot be refined jointly.
    """

    observations: Observations
    phase1: Phase1Result
    graph_model: GraphModel
    training: Training

    def __post_init__(self) -> None:
        network = self.observations.network
        found = (len(self.phase1.log_k), len(self.phase1.slope))
        if found != (network.n_reactions, network.n_species):
            raise InputError(
                f"checkpoint: made for {found[0]} reactions and {found[1]} species, but the network has "
                f"{network.n_reactions} and {network.n_species}; use one of the same network"
            )
        if self.training.joint_refinement:
            check_dense(network.n_reactions, "training.joint_refinement")
        if self.training.joint_refinement and isinstance(self.phase1.mlp_sub, PublishedSubstrateFunction):
            raise InputError(
                "training.joint_refinement is true, which a converted checkpoint does not allow; set it to false"
            )

    def in_units(self, units: Units) -> Phase2Data:
        """The data converted to internal units; unchanged if these are the units of the data."""
        if units == Units(1.0, 1.0):
            return self
        phase1 = self.phase1.in_units(units.inverse(), self.observations.network)
        return Phase2Data(units.observations(self.observations), phase1, self.graph_model, self.training)

    def settings_of_copies(self) -> tuple[GraphModel, Training]:
        """The sections of the configuration, with defaults for all settings that corrected copies do not depend on."""
        model = {name: getattr(self.graph_model, name) for name in MODEL_SETTINGS}
        training = {name: getattr(self.training, name) for name in TRAINING_SETTINGS}
        return GraphModel().model_copy(update=model), Training().model_copy(update=training)

    @functools.cached_property
    def structure(self) -> Structure:
        return Structure.of(self.observations.network)

    @functools.cached_property
    def transitions(self) -> Transitions:
        return self.observations.transitions()

    @functools.cached_property
    def moving(self) -> Bool[np.ndarray, " species"]:
        return np.asarray(~self.observations.network.fixed)

    @functools.cached_property
    def keep(self) -> Bool[np.ndarray, "transitions species"]:
        """Entries that follow the rate equation, of species that are not fixed.

        Entries that Phase 1 left out are excluded too, unless the checkpoint was made from other frames.
        """
        usable = follows_equation(self.transitions) & self.moving
        return np.asarray(usable & self.phase1.keep if self.phase1.keep.shape == usable.shape else usable)

    @functools.cached_property
    def reactions(self) -> TabulatedReactions:
        """The reactions of the checkpoint."""
        return TabulatedReactions.of(
            self.phase1.mlp_sub,
            10.0**self.phase1.log_k,
            self.structure,
            self.graph_model.aggr_type,
            self.observations.concentration,
        )

    @functools.cached_property
    def at(self) -> Float[np.ndarray, "transitions species"]:
        """Concentration of each transition: the mean over the nodes of the rule for dc/dt."""
        return self.quadrature.mean(self.observations.concentration)

    @functools.cached_property
    def residual(self) -> Float[np.ndarray, "transitions species"]:
        """dc/dt minus the reactions of the checkpoint, in concentration/time."""
        return self.left_by(self.reactions)

    @functools.cached_property
    def quadrature(self) -> StepQuadrature:
        """The rule for dc/dt that Phase 1 selected."""
        return StepQuadrature.of(self.observations, self.phase1.rule)

    def left_by(self, reactions: TabulatedReactions) -> Float[np.ndarray, "transitions species"]:
        """dc/dt minus the given reactions, in concentration/time."""
        rates = in_parts(reactions, self.observations.concentration)
        return np.asarray(self.transitions.derivative - self.quadrature.mean(rates))

    @functools.cached_property
    def highest(self) -> Float[np.ndarray, " species"]:
        """Highest concentration of each species, with a positive lower bound."""
        c = self.observations.concentration
        return np.asarray(np.maximum(c.max(axis=0), 1e-3 * c.max() + 1e-30))

    def key(self, purpose: int) -> PRNGKeyArray:
        """A random key from the seed of the configuration and a number that is different for every purpose."""
        return random_key(self.training.seed, purpose)

    def checkpoint_residuals(self) -> Residuals:
        """The residual of the checkpoint, with the lines of homeostasis of Phase 1."""
        line = {name: getattr(self.phase1, name) for name in Residuals.LINE}
        return Residuals(self.at, self.residual, self.keep, self.phase1.noise, **line)
