"""Phase 1: rate constants and the substrate function, by variable projection."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.optimize
from jaxtyping import Bool, Float

from metabolismgraph.config import GraphModel, Training
from metabolismgraph.errors import InputError
from metabolismgraph.identifiability import Identifiability, analyse
from metabolismgraph.kinetics import Structure
from metabolismgraph.model import SubstrateFunction
from metabolismgraph.observations import Observations, Transitions
from metabolismgraph.regression import NormalEquations, follows_equation, make_rows
from metabolismgraph.train.progress import Progress, silent
from metabolismgraph.train.projection import (
    LinearFit,
    Problem,
    best_power_law,
    evaluate_loss,
    fit_linear,
    learn_substrate_function,
)
from metabolismgraph.train.undetermined import fill_undetermined

# Interpolations per evaluation of the loss while f is learned; more frames than that change nothing.
_LEARNING_POINTS = 25_000
# Learn f, look at the residuals, weigh species and drop outliers, learn again: at most so often.
_ROUNDS = 4
# A misfit below this share of a species' rms dc/dt is rounding or curvature of f, not an outlier.
_SMALL_MISFIT = 1e-3
# Bounds on how far the noise of one species may lie below the median's, so that none rules alone.
_LEAST_NOISE = 1e-2
# Beyond this correlation of neighbouring residuals the number of independent ones is anybody's guess.
_MOST_CORRELATED = 0.999
# An rms of dc/dt above this share left unexplained is worth a word.
_MUCH_UNEXPLAINED = 0.1
# A rate constant that is zero in a constrained solution is stored as this share of the smallest other.
_ZERO_RATE = 1e-3


@dataclasses.dataclass(frozen=True)
class Phase1Result:
    """What Phase 1 found.

    Attributes:
        mlp_sub: the substrate function.
        log_k: log10 of the rate constants.
        log_k_error: their standard errors; infinite where not identifiable.
        identifiability: what the data determine.
        slope, offset: nuisance homeostasis as the line slope * c + offset over the observed
            concentrations, in 1/time and concentration/time, with standard errors.
        noise: standard deviation of the residual dc/dt of each species, correlation in time counted in.
        keep: rows (transition, species) that were used.
        losses: log of the share of the weighted sum of squares left, per iteration.
        converged: whether learning f ended by itself.
        trapezoid: whether dc/dt is the mean over both ends of a step, and not its value at the start.
        notes: plain sentences on anything that a user should know.
    """

    mlp_sub: SubstrateFunction
    log_k: Float[np.ndarray, " reactions"]
    log_k_error: Float[np.ndarray, " reactions"]
    identifiability: Identifiability
    slope: Float[np.ndarray, " species"]
    offset: Float[np.ndarray, " species"]
    slope_error: Float[np.ndarray, " species"]
    offset_error: Float[np.ndarray, " species"]
    noise: Float[np.ndarray, " species"]
    keep: Bool[np.ndarray, "transitions species"]
    losses: Float[np.ndarray, " iterations"]
    converged: bool
    trapezoid: bool
    notes: tuple[str, ...]


def fit_reactions(
    observations: Observations, graph_model: GraphModel, training: Training, progress: Progress = silent
) -> Phase1Result:
    """Find every rate constant, the substrate function and a first estimate of homeostasis.

    Args:
        observations: what to learn from.
        graph_model, training: the configuration's sections of these names.
        progress: see `train.progress`.

    Raises:
        InputError: fewer equations than unknowns.
    """
    _check_size(observations, training)
    settled = _learn(observations, graph_model, training, progress)
    progress("phase 1", 1.0, "")
    data, keep = settled.data, settled.keep
    problem, transform = data.problem(keep, settled.weight)
    fitted = fit_linear(settled.mlp_sub, problem)
    if not bool(np.isfinite(np.asarray(fitted.k)).all()):
        raise InputError(
            f"network {observations.network.id}: the normal equations have no finite solution; concentrations that "
            "differ by less extreme factors (other units, for instance) may help"
        )
    identifiability = analyse(
        np.asarray(fitted.equations.matrix), np.asarray(fitted.equations.scale), training.identifiability_tolerance
    )
    k, k_notes = _rate_constants(fitted, identifiability, training)
    k_error, line_error = _standard_errors(fitted.equations, identifiability, transform, training)
    theta = np.asarray(fitted.equations.nuisance(jnp.asarray(k)))
    line = np.einsum("ipl,il->ip", _line_of(transform), theta[:, :2])
    return Phase1Result(
        mlp_sub=settled.mlp_sub,
        log_k=np.log10(k),
        log_k_error=np.where(identifiability.identifiable, k_error / (k * np.log(10.0)), np.inf),
        identifiability=identifiability,
        slope=line[:, 1],
        offset=line[:, 0],
        slope_error=line_error[:, 1],
        offset_error=line_error[:, 0],
        noise=np.sqrt(_noise_variance(settled.left, keep)),
        keep=keep,
        losses=np.array(settled.losses),
        converged=settled.converged,
        trapezoid=data.trapezoid,
        notes=(
            *_constant_notes(observations, data),
            *_row_notes(follows_equation(data.transitions), data.usable, keep, training),
            *k_notes,
            *_quality_notes(training, settled.losses, converged=settled.converged),
        ),
    )


class _Settled(NamedTuple):
    """Where learning f, weighing species and leaving out outliers have come to rest."""

    data: _Data
    mlp_sub: SubstrateFunction
    keep: Bool[np.ndarray, "transitions species"]
    weight: Float[np.ndarray, " species"]
    left: Float[np.ndarray, "transitions species"]
    losses: list[float]
    converged: bool


def _learn(observations: Observations, graph_model: GraphModel, training: Training, progress: Progress) -> _Settled:
    """Learn f, look at what is left, weigh species and drop outliers by it, until nothing changes."""
    data = _Data(observations, graph_model, training, trapezoid=training.derivative == "trapezoid")
    keep = data.usable
    weight: Float[np.ndarray, " species"] | None = None
    mlp_sub = best_power_law(data.initial_function(), data.problem(keep, weight, stride=data.stride)[0])
    losses: list[float] = []
    undecided = training.derivative == "auto"
    for _ in range(_ROUNDS):
        mlp_sub, found = learn_substrate_function(
            mlp_sub,
            data.problem(keep, weight, stride=data.stride)[0],
            max_iterations=training.phase1_max_iterations,
            tolerance=training.phase1_tolerance,
            progress=progress,
        )
        losses += found.losses
        if undecided:
            undecided = False
            if data.is_better_by_trapezoid(mlp_sub, keep):
                data = _Data(observations, graph_model, training, trapezoid=True)
                continue
        left = np.asarray(fit_linear(mlp_sub, data.problem(keep, weight)[0]).left)
        still = keep & ~_outliers(left, keep, data.transitions, training.outlier_threshold)
        unchanged = weight is not None and bool((still == keep).all())
        keep, weight = still, 1.0 / _noise_variance(left, still)
        if unchanged:
            break
    assert weight is not None  # only the first round may end early
    return _Settled(data, mlp_sub, keep, weight, left, losses, found.converged)


class _Data:
    """The transitions and how to make regression problems of them."""

    def __init__(self, observations: Observations, graph_model: GraphModel, training: Training, *, trapezoid: bool):
        self.trapezoid = trapezoid
        self.transitions = observations.transitions()
        # A species that never moves, declared fixed or not, has no equation: its own would be 0 = flux.
        self.constant = np.all(self.transitions.end == self.transitions.start, axis=0)
        self.fixed = observations.network.fixed | self.constant
        self.usable = follows_equation(self.transitions) & ~self.constant
        self.structure = Structure.of(observations.network)
        self.graph_model = graph_model
        self.training = training
        ends = 2 if trapezoid else 1
        points = ends * len(self.transitions.dt) * max(1, self.structure.pair_species.size)
        self.stride = training.phase1_frame_stride or max(1, points // _LEARNING_POINTS)

    def initial_function(self) -> SubstrateFunction:
        """MLP_sub with random weights, its input standardised by the data."""
        c = self.transitions.start
        log_c = np.log(c[c > 0]) if (c > 0).any() else np.zeros(1)
        return SubstrateFunction(
            self.graph_model.hidden_dim_sub,
            self.graph_model.n_layers_sub,
            center=float(log_c.mean()),
            width=max(float(log_c.std()), 1e-6),
            key=jax.random.fold_in(jax.random.key(self.training.seed), 1),
        )

    def problem(
        self,
        keep: Bool[np.ndarray, "transitions species"],
        weight: Float[np.ndarray, " species"] | None,
        stride: int = 1,
        *,
        trapezoid: bool | None = None,
    ) -> tuple[Problem, Float[np.ndarray, "species terms terms"]]:
        """Every stride-th transition as a problem, and the transform of its nuisance basis.

        Args:
            trapezoid: another rule than this object's own.
        """
        rows, transform = make_rows(
            self.transitions.select(slice(None, None, stride)),
            self.fixed,
            degree=self.training.nuisance_degree,
            trapezoid=self.trapezoid if trapezoid is None else trapezoid,
            keep=keep[::stride],
            weight=weight,
        )
        return Problem.of(rows, self.structure, self.graph_model.aggr_type), transform

    def is_better_by_trapezoid(self, mlp_sub: SubstrateFunction, keep: Bool[np.ndarray, "transitions species"]) -> bool:
        """Whether the trapezoid rule leaves less unexplained than the forward rule, for one f."""
        left = [
            evaluate_loss(mlp_sub, self.problem(keep, None, self.stride, trapezoid=rule)[0]) for rule in (False, True)
        ]
        return bool(left[1] < left[0])


def _check_size(observations: Observations, training: Training) -> None:
    network = observations.network
    moving = int((~network.fixed).sum())
    equations = len(observations.transitions().dt) * moving
    unknowns = network.n_reactions + moving * (training.nuisance_degree + 1)
    if network.n_reactions == 0 or moving == 0:
        raise InputError(f"network {network.id}: nothing to fit, it has no reaction or no species that may change")
    if equations < unknowns:
        raise InputError(
            f"{observations.n_frames} frames give {equations} equations for {unknowns} unknowns (rate constants and "
            f"homeostasis of {moving} species); at least {-(-unknowns // moving) + 1} frames are needed"
        )


def _outliers(
    left: Float[np.ndarray, "rows species"],
    keep: Bool[np.ndarray, "rows species"],
    transitions: Transitions,
    threshold: float,
) -> Bool[np.ndarray, "rows species"]:
    """Rows whose residual lies beyond `threshold` robust standard deviations and is no mere rounding."""
    used = keep | ~keep.any(axis=0)  # a species without a row in use has no spread, and no outlier either
    spread = 1.4826 * np.nanmedian(np.where(used, np.abs(left), np.nan), axis=0)
    size = np.sqrt(np.mean(transitions.derivative**2, axis=0, where=used))
    return np.asarray(keep & (np.abs(left) > np.maximum(threshold * spread, _SMALL_MISFIT * size)))


def _noise_variance(
    left: Float[np.ndarray, "rows species"], keep: Bool[np.ndarray, "rows species"]
) -> Float[np.ndarray, " species"]:
    """Variance that independent errors would need to make the estimates as uncertain as they are.

    What f misses is smooth in time: n rows with correlation rho from one to the next are worth
    n (1 - rho) / (1 + rho) independent ones (Bartlett 1946).
    """
    used = np.where(keep, left, 0.0)
    squares = np.sum(used**2, axis=0)
    rho = np.sum(used[1:] * used[:-1], axis=0) / np.maximum(squares, 1e-300)
    rho = np.clip(rho, 0.0, _MOST_CORRELATED)
    variance = squares / np.maximum(keep.sum(axis=0), 1) * (1 + rho) / (1 - rho)
    typical = np.median(variance[variance > 0]) if (variance > 0).any() else 1.0
    return np.asarray(np.maximum(variance, _LEAST_NOISE**2 * typical))


def _rate_constants(
    fitted: LinearFit, identifiability: Identifiability, training: Training
) -> tuple[Float[np.ndarray, " reactions"], list[str]]:
    """Positive rate constants: constrained where they must be, filled in where nothing is known."""
    k = np.asarray(fitted.k)
    known = identifiability.identifiable
    notes = []
    negative = known & (k <= 0)
    if negative.any():
        k = _non_negative(fitted.equations)
        notes.append(
            f"{int(negative.sum())} determined rate constants came out negative; all were solved again with k >= 0"
        )
    positive = k[known & (k > 0)]
    if positive.size == 0:
        positive = np.abs(k[k != 0]) if (k != 0).any() else np.ones(1)
    log_range = training.log_k_prior or (float(np.log10(positive.min())), float(np.log10(positive.max())))
    k = np.where(known & (k <= 0), _ZERO_RATE * positive.min(), k)
    rng = np.random.default_rng(training.seed)
    return fill_undetermined(k, identifiability, log_range, rng), notes


def _non_negative(equations: NormalEquations) -> Float[np.ndarray, " reactions"]:
    """The same least squares with k >= 0 (Lawson & Hanson 1974), through a square root of the normal matrix."""
    values, vectors = np.linalg.eigh(np.asarray(equations.matrix))
    root = np.sqrt(np.maximum(values, 1e-12 * values.max()))
    scaled, _ = scipy.optimize.nnls(root[:, None] * vectors.T, (vectors.T @ np.asarray(equations.rhs)) / root)
    return np.asarray(scaled / np.asarray(equations.scale))


def _standard_errors(
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
    terms = _line_of(transform)
    line = np.einsum("ipl,ilm,ipm->ip", terms, theta[:, :2, :2], terms)
    hidden = ~identifiability.identifiable
    return np.where(hidden, np.inf, np.sqrt(np.diag(covariance))), np.sqrt(np.maximum(line, 0.0))


def _line_of(transform: Float[np.ndarray, "species terms terms"]) -> Float[np.ndarray, "species 2 used"]:
    """What takes nuisance coefficients to offset and slope of the best line (slope 0 where degree is 0).

    The basis is orthonormal, so the best line consists of the constant and the linear term.
    """
    used = transform[:, :2, :2]
    return np.pad(used, ((0, 0), (0, 2 - used.shape[1]), (0, 0)))


def _constant_notes(observations: Observations, data: _Data) -> list[str]:
    undeclared = np.flatnonzero(data.constant & ~observations.network.fixed)
    if not undeclared.size:
        return []
    names = ", ".join(observations.network.species[i] for i in undeclared[:5])
    return [f"{undeclared.size} species never change and were taken as fixed: {names}{', ...' * (undeclared.size > 5)}"]


def _row_notes(nonzero: np.ndarray, follows: np.ndarray, keep: np.ndarray, training: Training) -> list[str]:
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


def _quality_notes(training: Training, losses: list[float], *, converged: bool) -> list[str]:
    notes = []
    if not converged:
        notes.append(
            f"Phase 1 did not converge within training.phase1_max_iterations = {training.phase1_max_iterations}"
        )
    unexplained = float(np.exp(losses[-1] / 2))
    if unexplained > _MUCH_UNEXPLAINED:
        notes.append(
            f"{unexplained:.0%} of dc/dt (rms) is left unexplained: network, rate law, sampling or noise do not fit "
            "the model, and what was recovered is not to be trusted"
        )
    return notes
