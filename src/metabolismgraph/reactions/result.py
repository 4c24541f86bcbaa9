"""The result of Phase 1."""

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
    """The result of Phase 1.

    Attributes:
        mlp_sub: the substrate function.
        log_k: log10 of the rate constants, in concentration^(1-order)/time.
        log_k_error: standard errors of log_k (dimensionless); infinite where not identifiable.
        identifiability: determined combinations; `identifiable` is the verdict on this fit.
        reasons: why a rate constant is not determined; empty where it is determined.
        upper: upper end of the 95 % interval of a k that is at its bound of zero, in the unit of k; otherwise NaN.
        mass_action: True for reactions with mass action as a known rate law.
        law_fails: whether the data reject a rate law that was assumed to be known.
        slope, offset: nuisance homeostasis as the line slope * c + offset over the observed
            concentrations, in 1/time and concentration/time.
        slope_error, offset_error: standard errors in the same units.
        slope_offset_covariance: covariance of slope and offset of a species.
        noise: standard deviation of dc/dt of each species, in concentration/time, corrected for autocorrelation.
        keep: entries (transition, species) in use.
        losses: log of the unexplained share of the weighted sum of squares, per iteration.
        converged: whether the minimisation over f converged.
        rule: rule for dc/dt over a step, see `derivative_rules`.
        notes: plain sentences for the user.
        alpha: f(1, 1) as the method learned it, before it was divided out of f and multiplied into k. Ideally 1; it is
            1 by construction where the method fixes it.
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
    alpha: float = 1.0

    def in_units(self, units: Units, network: ReactionNetwork) -> Phase1Result:
        """A result in internal units, converted to the units of the data."""
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
