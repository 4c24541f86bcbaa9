"""What both methods of Phase 1 share: their result, the data as regression problems, errors and notes."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
from jaxtyping import Array, Bool, Float

from metabolismgraph.config import GraphModel, Training
from metabolismgraph.derivative_rules import Rule, StepQuadrature
from metabolismgraph.identifiability import Identifiability
from metabolismgraph.kinetics import LogFunction, Structure
from metabolismgraph.linear_model import LinearModel
from metabolismgraph.model import AnySubstrateFunction, new_substrate_function
from metabolismgraph.network import ReactionNetwork
from metabolismgraph.observations import Observations
from metabolismgraph.rate_table import RateTable
from metabolismgraph.regression import (
    Nodes,
    NormalEquations,
    default_weight,
    follows_equation,
    make_rows,
    orthonormal_basis,
)
from metabolismgraph.train.projection import Problem
from metabolismgraph.units import Units

# A range below this share of the concentration itself is what solvers leave of a steady state.
_STILL = 1e-9
# Interpolations per evaluation of the loss while f is learned; more frames than that change nothing.
_LEARNING_POINTS = 25_000
# Bounds on how far the noise of one species may lie below the median's, so that none rules alone.
_LEAST_NOISE = 1e-2
# Beyond this correlation of neighbouring residuals the number of independent ones is anybody's guess.
_MOST_CORRELATED = 0.999


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


class Phase1Data:
    """The transitions and how to make regression problems of them."""

    def __init__(self, observations: Observations, graph_model: GraphModel, training: Training, *, rule: Rule):
        self.rule = rule
        self.observations = observations
        self.quadrature = StepQuadrature.of(observations, rule)
        self.nodes = Nodes(observations.concentration[self.quadrature.frame], self.quadrature.weight)
        self.transitions = observations.transitions()
        # A species that never moves, declared fixed or not, has no equation: its own would be 0 = flux.
        c = observations.concentration
        self.constant = np.ptp(c, axis=0) <= _STILL * np.abs(c).max(axis=0)
        self.fixed = observations.network.fixed | self.constant
        self.usable = follows_equation(self.transitions) & ~self.constant
        self.structure = Structure.of(observations.network)
        self.graph_model = graph_model
        self.training = training
        points = len(self.transitions.dt) * max(1, self.structure.pair_species.size)
        self.stride = training.phase1_frame_stride or max(1, points // _LEARNING_POINTS)

    def thinned(self) -> Phase1Data:
        """Every second frame of every run, under the same rule."""
        run = self.observations.run
        position = np.arange(len(run)) - np.searchsorted(run, run)
        half = self.observations.select(position % 2 == 0)
        return Phase1Data(half, self.graph_model, self.training, rule=self.rule)

    @functools.cached_property
    def signal(self) -> Float[np.ndarray, " species"]:
        """Root mean square of dc/dt of each species, of one that never moves that of the others."""
        y = np.where(self.usable, self.transitions.derivative, 0.0)
        size = np.sqrt(np.sum(y**2, axis=0) / np.maximum(self.usable.sum(axis=0), 1))
        return np.asarray(np.where(size > 0, size, np.median(size[size > 0]) if (size > 0).any() else 1.0))

    @property
    def has_unknown_law(self) -> bool:
        """Whether there is any f to learn."""
        return not bool(self.structure.rate_laws.known.all())

    @functools.cached_property
    def homeostasis_basis(
        self,
    ) -> tuple[Float[np.ndarray, "transitions species terms"], Float[np.ndarray, "species terms terms"]]:
        """The nuisance basis of every species, and its transform, see `regression.orthonormal_basis`."""
        return orthonormal_basis(self.nodes.mean_concentration, self.training.nuisance_degree)

    def homeostatic_lines(self, theta: Float[np.ndarray, "species terms"]) -> Float[np.ndarray, "species 2"]:
        """Offset and slope of the best line of every species' nuisance homeostasis."""
        return homeostatic_lines(theta, self.homeostasis_basis[1])

    def line_covariance(self, theta: Float[np.ndarray, "species terms terms"]) -> Float[np.ndarray, "species 2 2"]:
        """Covariance of offset and slope of `homeostatic_lines`, from that of theta."""
        return line_covariance(theta, self.homeostasis_basis[1])

    def rate_table(self, f: LogFunction) -> RateTable:
        """The rate laws with f for those that are not known, for NumPy."""
        k = np.ones(self.observations.network.n_reactions)
        return RateTable.of(f, k, self.structure, self.graph_model.aggr_type, self.observations.concentration)

    def linear_model(
        self,
        f: LogFunction,
        keep: Bool[np.ndarray, "transitions species"],
        weight: Float[np.ndarray, " species"] | None = None,
    ) -> LinearModel:
        """All transitions as a linear regression, f given.

        Args:
            weight: of each species; None: 1 / mean square of its dc/dt.
        """
        y = self.transitions.derivative
        weights = np.where(keep & ~self.fixed, default_weight(y, keep) if weight is None else weight, 0.0)
        return LinearModel.of(self.rate_table(f), self.nodes, y, weights, self.homeostasis_basis[0])

    def initial_function(self) -> AnySubstrateFunction:
        """MLP_sub with random weights, its input standardised by the data."""
        c = self.transitions.start
        key = jax.random.fold_in(jax.random.key(self.training.seed), 1)
        return new_substrate_function(self.graph_model, c[c > 0], key)

    def problem(
        self,
        keep: Bool[np.ndarray, "transitions species"],
        weight: Float[np.ndarray, " species"] | None,
        stride: int = 1,
    ) -> tuple[Problem, Float[np.ndarray, "species terms terms"]]:
        """Every stride-th transition as a problem, and the transform of its nuisance basis."""
        rows, transform = make_rows(
            self.transitions.select(slice(None, None, stride)),
            self.fixed,
            degree=self.training.nuisance_degree,
            nodes=self.nodes.select(slice(None, None, stride)),
            keep=keep[::stride],
            weight=weight,
        )
        return Problem.of(rows, self.structure, self.graph_model.aggr_type), transform


def noise_variance(
    left: Float[np.ndarray, "rows species"],
    keep: Bool[np.ndarray, "rows species"],
    signal: Float[np.ndarray, " species"] | float = 1.0,
) -> Float[np.ndarray, " species"]:
    """Variance that independent errors would need to make the estimates as uncertain as they are.

    What f misses is smooth in time: n rows with correlation rho from one to the next are worth
    n (1 - rho) / (1 + rho) independent ones (Bartlett 1946).

    Args:
        signal: rms dc/dt of each species; the noise of none lies far below the others' as a share of it.
    """
    used = np.where(keep, left, 0.0)
    squares = np.sum(used**2, axis=0)
    rho = np.sum(used[1:] * used[:-1], axis=0) / np.maximum(squares, 1e-300)
    rho = np.clip(rho, 0.0, _MOST_CORRELATED)
    variance = squares / np.maximum(keep.sum(axis=0), 1) * (1 + rho) / (1 - rho)
    square = np.maximum(np.broadcast_to(signal, variance.shape) ** 2, 1e-300)
    there = variance > 0
    typical = np.median((variance / square)[there]) if there.any() else 1.0
    return np.asarray(np.maximum(variance, _LEAST_NOISE**2 * typical * square))


def standard_errors(
    equations: NormalEquations,
    identifiability: Identifiability,
    transform: Float[np.ndarray, "species terms terms"],
    training: Training,
) -> tuple[Float[np.ndarray, " reactions"], Float[np.ndarray, "species 2"]]:
    """Of k, and of offset and slope of every species; rows are weighed by 1/variance already."""
    values, vectors = np.linalg.eigh(np.asarray(equations.matrix))
    seen = values > training.identifiability_tolerance
    scaled = vectors[:, seen] / np.asarray(equations.scale)[:, None]
    covariance = (scaled / values[seen]) @ scaled.T
    inverse, coupling = np.asarray(equations.inverse_nuisance), np.asarray(equations.coupling)
    through_k = np.einsum("jil,jq,qim->ilm", coupling, covariance, coupling, optimize=True)
    theta = inverse + inverse @ through_k @ inverse
    hidden = ~identifiability.identifiable
    return np.where(hidden, np.inf, np.sqrt(np.diag(covariance))), line_errors(theta, transform)


def homeostatic_lines(
    theta: Float[np.ndarray, "species terms"] | Float[Array, "species terms"],
    transform: Float[np.ndarray, "species terms terms"],
) -> Float[np.ndarray, "species 2"]:
    """Offset and slope of the best line of every species' nuisance homeostasis."""
    return np.asarray(np.einsum("ipl,il->ip", _line_of(transform), np.asarray(theta)[:, :2]))


def line_errors(
    covariance: Float[np.ndarray, "species terms terms"], transform: Float[np.ndarray, "species terms terms"]
) -> Float[np.ndarray, "species 2"]:
    """Standard errors of `homeostatic_lines`, from the covariance of theta."""
    variance = np.einsum("ipp->ip", line_covariance(covariance, transform))
    return np.asarray(np.sqrt(np.maximum(variance, 0.0)))


def line_covariance(
    covariance: Float[np.ndarray, "species terms terms"], transform: Float[np.ndarray, "species terms terms"]
) -> Float[np.ndarray, "species 2 2"]:
    """Covariance of offset and slope of `homeostatic_lines`, from that of theta."""
    terms = _line_of(transform)
    return np.asarray(np.einsum("ipl,ilm,iqm->ipq", terms, covariance[:, :2, :2], terms))


def _line_of(transform: Float[np.ndarray, "species terms terms"]) -> Float[np.ndarray, "species 2 used"]:
    """What takes nuisance coefficients to offset and slope of the best line (slope 0 where degree is 0).

    The basis is orthonormal, so the best line consists of the constant and the linear term.
    """
    used = transform[:, :2, :2]
    return np.pad(used, ((0, 0), (0, 2 - used.shape[1]), (0, 0)))


def constant_notes(observations: Observations, data: Phase1Data) -> list[str]:
    """Name the species that were taken as fixed because they never change."""
    undeclared = np.flatnonzero(data.constant & ~observations.network.fixed)
    if not undeclared.size:
        return []
    names = ", ".join(observations.network.species[i] for i in undeclared[:5])
    return [f"{undeclared.size} species never change and were taken as fixed: {names}{', ...' * (undeclared.size > 5)}"]


def row_notes(nonzero: np.ndarray, follows: np.ndarray, keep: np.ndarray, training: Training) -> list[str]:
    """Say how many rows were left out, and why."""
    notes = []
    if not nonzero.all():
        notes.append(f"{int((~nonzero).sum())} changes into or out of an exact zero were left out")
    outliers = int((follows & ~keep).sum())
    if outliers:
        notes.append(
            f"{outliers} of {keep.size} changes did not fit the rate equation and were left out "
            f"(beyond training.outlier_threshold = {training.outlier_threshold:g} robust standard deviations)"
        )
    return notes
