"""What a reaction model leaves of dc/dt, from which Phase 2 learns homeostasis, and all else that it may see."""

from __future__ import annotations

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, PRNGKeyArray

from metabolismgraph.config import GraphModel, Training
from metabolismgraph.errors import InputError
from metabolismgraph.reactions.normal_equations import follows_equation
from metabolismgraph.reactions.result import Phase1Result
from metabolismgraph.system.derivative_rules import StepQuadrature
from metabolismgraph.system.integrate import evaluate_rate
from metabolismgraph.system.kinetics import Structure
from metabolismgraph.system.observations import Observations, Transitions
from metabolismgraph.system.tabulated_reactions import TabulatedReactions
from metabolismgraph.system.units import Units


@dataclasses.dataclass(frozen=True)
class Residuals:
    """The residual of a reaction model, row by row, and the line through it of every species.

    Attributes:
        at: concentrations that the rows belong to.
        residual: dc/dt minus reactions, in concentration per time.
        keep: rows in use.
        noise: standard deviation of what is not homeostasis in the residual, per species.
        slope, offset: of the best line of each species in 1/time and concentration/time, with
            standard errors.
    """

    at: Float[np.ndarray, "transitions species"]
    residual: Float[np.ndarray, "transitions species"]
    keep: Bool[np.ndarray, "transitions species"]
    noise: Float[np.ndarray, " species"]
    slope: Float[np.ndarray, " species"]
    offset: Float[np.ndarray, " species"]
    slope_error: Float[np.ndarray, " species"]
    offset_error: Float[np.ndarray, " species"]

    @functools.cached_property
    def unit(self) -> float:
        """Root mean square of the residual; what MLP_node's output is measured in."""
        used = self.residual[self.keep]
        return max(float(np.sqrt(np.mean(used**2))), 1e-30) if used.size else 1.0


@dataclasses.dataclass(frozen=True)
class Phase2Data:
    """All that Phase 2 and its strategies may see: observations, a Phase 1 checkpoint, two sections of settings.

    Attributes:
        observations: the frames to learn from.
        phase1: the checkpoint; frozen.

    Raises:
        InputError: on construction, when the checkpoint belongs to another network.
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

    def in_units(self, units: Units) -> Phase2Data:
        """The same in units of one's own; both are the same where these are the units of the data."""
        if units == Units(1.0, 1.0):
            return self
        phase1 = self.phase1.in_units(units.inverse(), self.observations.network)
        return Phase2Data(units.observations(self.observations), phase1, self.graph_model, self.training)

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
        """Rows that follow the rate equation, of species that may change.

        What Phase 1 left out stays out, unless the checkpoint was made of other frames.
        """
        usable = follows_equation(self.transitions) & self.moving
        return np.asarray(usable & self.phase1.keep if self.phase1.keep.shape == usable.shape else usable)

    @functools.cached_property
    def reactions(self) -> TabulatedReactions:
        """The checkpoint's reaction term."""
        return TabulatedReactions.of(
            self.phase1.mlp_sub,
            10.0**self.phase1.log_k,
            self.structure,
            self.graph_model.aggr_type,
            self.observations.concentration,
        )

    @functools.cached_property
    def at(self) -> Float[np.ndarray, "transitions species"]:
        """Concentrations at which a row's dc/dt holds: the average over the nodes of the rule for dc/dt."""
        return self.quadrature.mean(self.observations.concentration)

    @functools.cached_property
    def residual(self) -> Float[np.ndarray, "transitions species"]:
        """dc/dt minus the checkpoint's reactions, in concentration per time."""
        return self.left_by(self.reactions)

    @functools.cached_property
    def quadrature(self) -> StepQuadrature:
        """The rule for dc/dt that Phase 1 found."""
        return StepQuadrature.of(self.observations, self.phase1.rule)

    def left_by(self, reactions: TabulatedReactions) -> Float[np.ndarray, "transitions species"]:
        """dc/dt minus that of some reactions, in concentration per time."""
        rates = np.asarray(evaluate_rate(eqx.Partial(reactions), jnp.asarray(self.observations.concentration)))
        return np.asarray(self.transitions.derivative - self.quadrature.mean(rates))

    @functools.cached_property
    def highest(self) -> Float[np.ndarray, " species"]:
        """Highest concentration of each species, never zero."""
        c = self.observations.concentration
        return np.asarray(np.maximum(c.max(axis=0), 1e-3 * c.max() + 1e-30))

    def key(self, purpose: int) -> PRNGKeyArray:
        """A random key of the configuration's seed; a different number for every purpose."""
        return jax.random.fold_in(jax.random.key(self.training.seed), purpose)

    def checkpoint_residuals(self) -> Residuals:
        """What the checkpoint leaves."""
        found = self.phase1
        lines = {name: getattr(found, name) for name in ("slope", "offset", "slope_error", "offset_error")}
        return Residuals(self.at, self.residual, self.keep, found.noise, **lines)
