"""What Phase 1 found."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from metabolismgraph.reactions.identifiability import Identifiability
from metabolismgraph.system.derivative_rules import Rule
from metabolismgraph.system.model import AnySubstrateFunction
from metabolismgraph.system.network import ReactionNetwork
from metabolismgraph.system.units import Units


@dataclasses.dataclass(frozen=True)
class Phase1Result:
    """What Phase 1 found.

    Attributes:
        mlp_sub: the substrate function.
        log_k: log10 of the rate constants, in concentration^(1-order)/time.
        log_k_error: standard errors of log_k; infinite where not identifiable.
        identifiability: what the data determine; `identifiable` is the verdict on this fit.
        reasons: why a rate constant is not determined; empty where it is.
        upper: upper bound of a k that came out as zero, in the units of k; otherwise NaN.
        mass_action: reactions whose rate law was taken as known.
        law_fails: whether the data speak against a law that was taken as known.
        slope, offset: nuisance homeostasis as the line slope * c + offset over the observed
            concentrations, in 1/time and concentration/time, with standard errors and covariance.
        noise: standard deviation of the residual dc/dt of each species, correlation in time counted in.
        keep: rows (transition, species) that were used.
        losses: log of the share of the weighted sum of squares left, per iteration.
        converged: whether learning f ended by itself.
        rule: for dc/dt over a step, see `derivative_rules`.
        notes: plain sentences on anything that a user should know.
    """

    mlp_sub: AnySubstrateFunction
    log_k: Float[np.ndarray, " reactions"]
    log_k_error: Float[np.ndarray, " reactions"]
    identifiability: Identifiability
    reasons: tuple[str, ...]
    upper: Float[np.ndarray, " reactions"]
    mass_action: Bool[np.ndarray, " reactions"]
    law_fails: bool
    slope: Float[np.ndarray, " species"]
    offset: Float[np.ndarray, " species"]
    slope_error: Float[np.ndarray, " species"]
    offset_error: Float[np.ndarray, " species"]
    slope_offset_covariance: Float[np.ndarray, " species"]
    noise: Float[np.ndarray, " species"]
    keep: Bool[np.ndarray, "transitions species"]
    losses: Float[np.ndarray, " iterations"]
    converged: bool
    rule: Rule
    notes: tuple[str, ...]

    def in_units(self, units: Units, network: ReactionNetwork) -> Phase1Result:
        """What was found in units of one's own, in those of the data."""
        log_unit = units.rate_constants(network)
        return dataclasses.replace(
            self,
            mlp_sub=units.substrate_function(self.mlp_sub),
            log_k=self.log_k + log_unit,
            upper=self.upper * 10.0**log_unit,
            slope=self.slope / units.time,
            slope_error=self.slope_error / units.time,
            offset=self.offset * units.rate,
            offset_error=self.offset_error * units.rate,
            slope_offset_covariance=self.slope_offset_covariance * units.rate / units.time,
            noise=self.noise * units.rate,
        )
