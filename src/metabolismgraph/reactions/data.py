"""The data of Phase 1 as regression problems."""

from __future__ import annotations

import functools
from typing import NamedTuple, TypedDict

import numpy as np
from jaxtyping import Bool, Float

from metabolismgraph.config import GraphModel, Training
from metabolismgraph.errors import InputError
from metabolismgraph.reactions.linear_model import LinearModel
from metabolismgraph.reactions.normal_equations import (
    Nodes,
    default_weight,
    follows_equation,
    make_rows,
    orthonormal_basis,
)
from metabolismgraph.reactions.projection import Problem
from metabolismgraph.system.arrays import generator
from metabolismgraph.system.derivative_rules import Rule, StepQuadrature
from metabolismgraph.system.kinetics import LogFunction, Structure
from metabolismgraph.system.last_result import keep_last_result
from metabolismgraph.system.model import AnySubstrateFunction, new_substrate_function
from metabolismgraph.system.observations import Observations
from metabolismgraph.system.tabulated_reactions import TabulatedReactions

# A species is constant if its range is below this share of its concentration: solver errors at a steady state.
_CONSTANT = 1e-9
_WEIGHTS = 1  # purpose of random numbers
# Interpolations of f per evaluation of the loss. f has few parameters, so more frames do not improve it noticeably.
_LEARNING_POINTS = 25_000
# Least number of rows for that, and of equations per unknown.
_LEAST_ROWS, _EQUATIONS = 64, 4


class Lines(TypedDict):
    """Lines of homeostasis, by their names in `Phase1Result`."""

    slope: Float[np.ndarray, " species"]
    offset: Float[np.ndarray, " species"]
    slope_error: Float[np.ndarray, " species"]
    offset_error: Float[np.ndarray, " species"]
    slope_offset_covariance: Float[np.ndarray, " species"]


class Unexplained(NamedTuple):
    """What the least-squares fit for one f leaves of dc/dt.

    Attributes:
        residual: dc/dt minus the model, in concentration/time, for all entries.
        log_share: log of the unexplained share of the weighted sum of squares of the entries in use.
    """

    residual: Float[np.ndarray, "transitions species"]
    log_share: float


class Phase1Data:
    """The transitions under one rule for dc/dt, and regression problems made from them.

    Attributes:
        fixed: True for a species without an equation, because it is declared fixed or constant.
        usable: False for entries that do not follow the rate equation, and for constant species.
        stride: every stride-th transition is used to learn f.
    """

    def __init__(self, observations: Observations, graph_model: GraphModel, training: Training, *, rule: Rule):
        self.rule = rule
        self.observations = observations
        self.quadrature = StepQuadrature.of(observations, rule)
        self.nodes = Nodes(observations.concentration[self.quadrature.frame], self.quadrature.weight)
        self.transitions = observations.transitions()
        # A constant species has no equation. Its dc/dt is 0 up to rounding, and the weight 1/variance would be huge.
        c = observations.concentration
        self.constant = np.ptp(c, axis=0) <= _CONSTANT * np.abs(c).max(axis=0)
        self.fixed = observations.network.fixed | self.constant
        self.usable = follows_equation(self.transitions) & ~self.constant
        self.structure = Structure.of(observations.network)
        self.graph_model = graph_model
        self.training = training
        # f is needed once per transition and pair, see `Structure`.
        rows, pairs = len(self.transitions.dt), max(1, self.structure.pair_species.size)
        species, reactions = self.structure.n_species, self.structure.n_reactions
        # Every row has an equation for each species. k and the lines of homeostasis are solved on the same rows, and
        # with hardly more equations than unknowns they would take up the errors of f.
        enough = max(_LEAST_ROWS, -(-_EQUATIONS * (reactions + 2 * species) // max(species, 1)))
        self.stride = training.phase1_frame_stride or max(1, min(rows * pairs // _LEARNING_POINTS, rows // enough))

    def thinned(self) -> Phase1Data:
        """Every second frame of every run, under the same rule for dc/dt."""
        run = self.observations.run
        position = np.arange(len(run)) - np.searchsorted(run, run)
        half = self.observations.select(position % 2 == 0)
        return Phase1Data(half, self.graph_model, self.training, rule=self.rule)

    @functools.cached_property
    def signal(self) -> Float[np.ndarray, " species"]:
        """Rms of dc/dt of each species, in concentration/time; where it is zero, the median of the others."""
        y = np.where(self.usable, self.transitions.derivative, 0.0)
        size = np.sqrt(np.sum(y**2, axis=0) / np.maximum(self.usable.sum(axis=0), 1))
        return np.asarray(np.where(size > 0, size, np.median(size[size > 0]) if (size > 0).any() else 1.0))

    @property
    def has_unknown_law(self) -> bool:
        """Whether any f is to be learned."""
        return not bool(self.structure.rate_laws.known.all())

    @functools.cached_property
    def homeostasis_basis(
        self,
    ) -> tuple[Float[np.ndarray, "transitions species terms"], Float[np.ndarray, "species terms terms"]]:
        """The nuisance basis of every species, and its transform, see `normal_equations.orthonormal_basis`."""
        return orthonormal_basis(self.nodes.mean_concentration, self.training.nuisance_degree)

    def homeostatic_lines(self, theta: Float[np.ndarray, "species terms"]) -> Float[np.ndarray, "species 2"]:
        """Offset (concentration/time) and slope (1/time) of the least-squares line of each nuisance homeostasis."""
        return np.asarray(np.einsum("ipl,il->ip", self._line_terms, theta[:, :2]))

    def line_covariance(self, theta: Float[np.ndarray, "species terms terms"]) -> Float[np.ndarray, "species 2 2"]:
        """Covariance of offset and slope of `homeostatic_lines`, from the covariance of theta."""
        terms = self._line_terms
        return np.asarray(np.einsum("ipl,ilm,iqm->ipq", terms, theta[:, :2, :2], terms))

    def lines_with_errors(
        self,
        theta: Float[np.ndarray, "species terms"],
        covariance: Float[np.ndarray, "species terms terms"],
        sampling_error: Float[np.ndarray, "species 2"] | float = 0.0,
    ) -> Lines:
        """Slope and offset of every species with their errors, by their names in `Phase1Result`."""
        line, of_line = self.homeostatic_lines(theta), self.line_covariance(covariance)
        # Sampling errors of slope and offset are added in quadrature, as uncorrelated.
        error = np.sqrt(np.maximum(np.einsum("ipp->ip", of_line), 0.0) + sampling_error**2)
        return {
            "slope": line[:, 1],
            "offset": line[:, 0],
            "slope_error": error[:, 1],
            "offset_error": error[:, 0],
            "slope_offset_covariance": of_line[:, 0, 1],
        }

    @property
    def _line_terms(self) -> Float[np.ndarray, "species 2 used"]:
        """Matrix from nuisance coefficients to offset and slope of the least-squares line (slope 0 for degree 0).

        The basis is orthonormal, so this line is the sum of the constant and the linear term.
        """
        used = self.homeostasis_basis[1][:, :2, :2]
        return np.pad(used, ((0, 0), (0, 2 - used.shape[1]), (0, 0)))

    @keep_last_result
    def tabulated_reactions(self, f: LogFunction) -> TabulatedReactions:
        """Tables of the rate laws, with f for those to be learned and k = 1."""
        k = np.ones(self.observations.network.n_reactions)
        return TabulatedReactions.of(f, k, self.structure, self.graph_model.aggr_type, self.observations.concentration)

    def linear_model(
        self,
        f: LogFunction,
        keep: Bool[np.ndarray, "transitions species"],
        weight: Float[np.ndarray, " species"] | None = None,
    ) -> LinearModel:
        """All transitions as a linear regression, given f.

        Args:
            keep: entries in use.
            weight: of each species; None: 1 / mean square of its dc/dt.
        """
        y = self.transitions.derivative
        weights = np.where(keep & ~self.fixed, default_weight(y, keep) if weight is None else weight, 0.0)
        stoichiometry = self.structure.sparse_stoichiometry
        return LinearModel(self._substrate_factors(f), y, weights, self.homeostasis_basis[0], stoichiometry)

    @keep_last_result
    def unexplained(self, f: LogFunction) -> Unexplained:
        """What f leaves of all usable entries, with the weights of `linear_model`."""
        found = self.linear_model(f, self.usable).solve()
        return Unexplained(found.residual, found.log_share)

    def mean_substrate_factors(self, table: TabulatedReactions) -> Float[np.ndarray, "transitions reactions"]:
        """V of every transition in concentration^order, averaged over the nodes of the rule for dc/dt."""
        return self.quadrature.mean(table.substrate_factors(self.observations.concentration))

    @keep_last_result
    def _substrate_factors(self, f: LogFunction) -> Float[np.ndarray, "transitions reactions"]:
        """The same for the tables of f."""
        return self.mean_substrate_factors(self.tabulated_reactions(f))

    def initial_function(self) -> AnySubstrateFunction:
        """MLP_sub with random weights, and its input standardised by the data.

        Raises:
            InputError: Phase 1 cannot train the MLP_sub of the configuration.
        """
        if self.graph_model.substrate_input == "published":
            raise InputError(
                "graph_model.substrate_input is published, which Phase 1 cannot train; give a converted checkpoint "
                "with --checkpoint, or set it to log"
            )
        c = self.transitions.start
        return new_substrate_function(self.graph_model, c[c > 0], generator(self.training.seed, _WEIGHTS))

    def problem(
        self,
        keep: Bool[np.ndarray, "transitions species"],
        weight: Float[np.ndarray, " species"] | None,
        stride: int = 1,
    ) -> Problem:
        """Every stride-th transition as a problem of variable projection; arguments as in `linear_model`."""
        # A species that no reaction changes says nothing of f. Its dc/dt may be rounding, and relative to that large.
        unchanged = np.diff(self.structure.sparse_stoichiometry.indptr) == 0
        rows, _ = make_rows(
            self.transitions.select(slice(None, None, stride)),
            self.fixed | unchanged,
            degree=self.training.nuisance_degree,
            nodes=self.nodes.select(slice(None, None, stride)),
            keep=keep[::stride],
            weight=weight,
        )
        return Problem.of(rows, self.structure, self.graph_model.aggr_type)
