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
from metabolismgraph.trajectories.integrators import METHODS, Integrator

# Least errors of slope and offset, relative to the largest one, and their largest correlation.
_LEAST_ERROR, _MOST_CORRELATED = 1e-3, 0.999


@dataclasses.dataclass(frozen=True)
class TrajectoryEvidence:
    """What a fit of trajectories knows beyond its estimates.

    Attributes:
        method: of the integrator between two frames, of `integrators.METHODS`.
        substeps: its steps between two frames.
        window: frames of the longest windows that were fitted.
        chi2: sum of squares of the residuals per value, in units of the variance of the noise.
        autocorrelation: of neighbouring residuals of each species; about 0 for noise.
        noise: standard deviation of the noise of each species at its reference concentration, in concentration.
        proportional: share of its variance that grows with the squared concentration; 0 for additive noise.
        reference: root mean square concentration of each species.
        noise_of_differences: upper bound of the noise, from differences in time without a model, in concentration.
        covariance: of log10 k, the slopes of all species, their offsets, and the coefficients of the learned rate laws.
        law: these coefficients, with log f = basis @ coefficients for every law in turn.
        law_concentration: concentrations at which the rate laws are given.
        law_basis: basis functions of log f there.
        refused: frames of windows that the fitted model could not follow; 0 if it could follow all.
        growth: by how much an error of an initial state grows over so many frames.
    """

    method: str
    substeps: int
    window: int
    chi2: float
    autocorrelation: Float[np.ndarray, " species"]
    noise: Float[np.ndarray, " species"]
    proportional: float
    reference: Float[np.ndarray, " species"]
    noise_of_differences: Float[np.ndarray, " species"]
    covariance: Float[np.ndarray, "unknowns unknowns"]
    law: Float[np.ndarray, " coefficients"]
    law_concentration: Float[np.ndarray, " points"]
    law_basis: Float[np.ndarray, "points functions"]
    refused: int = 0
    growth: float = np.inf

    @property
    def integrator(self) -> Integrator:
        """The integrator between two frames."""
        return METHODS[self.method](self.substeps)

    def log_law_error(self, c: Float[np.ndarray, " points"]) -> Float[np.ndarray, "laws points"]:
        """Standard error of log f of every learned law, by increasing order |s|, at some concentrations."""
        size = self.law_basis.shape[1]
        first = len(self.covariance) - len(self.law)
        own = [self.covariance[i : i + size, i : i + size] for i in range(first, len(self.covariance), max(size, 1))]
        variance = [np.einsum("pi,ij,pj->p", self.law_basis, one, self.law_basis) for one in own]
        at, given = np.log(c), np.log(self.law_concentration)
        errors = [np.interp(at, given, np.sqrt(np.maximum(one, 0.0))) for one in variance]
        return np.array(errors).reshape(len(own), -1)

    def in_units(self, units: Units) -> TrajectoryEvidence:
        """The same, converted from internal units to those of the data."""
        n = len(self.noise)
        unit = np.ones(len(self.covariance))
        lines = len(unit) - len(self.law) - 2 * n
        unit[lines : lines + 2 * n] = np.repeat([1 / units.time, units.rate], n)
        return dataclasses.replace(
            self,
            noise=self.noise * units.concentration,
            reference=self.reference * units.concentration,
            noise_of_differences=self.noise_of_differences * units.concentration,
            covariance=self.covariance * np.outer(unit, unit),
            law_concentration=self.law_concentration * units.concentration,
        )


@dataclasses.dataclass(frozen=True)
class WindowEvidence:
    """What a fit of implicit windows knows beyond its estimates.

    Attributes:
        noise: relative standard deviation of the concentrations that the residuals show, at least that of the
            integration.
        root: triangular root of the information on log10 k, for this noise.
    """

    noise: float
    root: Float[np.ndarray, "reactions reactions"]


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
        trajectories: evidence of a fit of trajectories; None for the other methods.
        windows: evidence of a fit of implicit windows; None for the other methods.
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
    trajectories: TrajectoryEvidence | None = None
    windows: WindowEvidence | None = None

    @property
    def line_errors(self) -> Float[np.ndarray, "lines lines"] | Float[np.ndarray, "species 2 2"]:
        """What is known of the errors of slopes and offsets, without zeros for what is not.

        `line_covariance` after a fit of trajectories, otherwise the covariance of slope and offset of each species.
        """
        return self.line_covariance if self.trajectories is not None else self._line_blocks

    @property
    def line_covariance(self) -> Float[np.ndarray, "lines lines"]:
        """Covariance of the slopes of all species, then of all offsets.

        Only a fit of trajectories knows that of different species.
        """
        n = len(self.slope)
        if self.trajectories is not None:
            m = len(self.log_k)
            return self.trajectories.covariance[m : m + 2 * n, m : m + 2 * n]
        covariance = np.zeros((2, n, 2, n))
        covariance[:, np.arange(n), :, np.arange(n)] = self._line_blocks
        return covariance.reshape(2 * n, 2 * n)

    @property
    def _line_blocks(self) -> Float[np.ndarray, "species 2 2"]:
        """Covariance of slope and offset of each species."""
        # Errors of a clean fit can be zero to rounding, but must not be a reason to tell species apart.
        slope = np.maximum(self.slope_error, _LEAST_ERROR * np.abs(self.slope).max() + 1e-300)
        offset = np.maximum(self.offset_error, _LEAST_ERROR * np.abs(self.offset).max() + 1e-300)
        most = _MOST_CORRELATED * slope * offset
        cross = np.clip(self.slope_offset_covariance, -most, most)
        return line_blocks(slope, offset, cross)

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
            trajectories=None if self.trajectories is None else self.trajectories.in_units(units),
        )


def line_blocks(
    slope_error: Float[np.ndarray, " species"],
    offset_error: Float[np.ndarray, " species"],
    covariance: Float[np.ndarray, " species"],
) -> Float[np.ndarray, "species 2 2"]:
    """Covariance matrices of slope and offset, from their standard errors and covariance."""
    blocks = np.array([[slope_error**2, covariance], [covariance, offset_error**2]])
    return np.asarray(np.moveaxis(blocks, -1, 0))
