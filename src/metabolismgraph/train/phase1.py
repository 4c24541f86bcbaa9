"""Phase 1: rate constants and the substrate function.

By variable projection, here, or by gradient descent (`gradient`).
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.optimize
from jaxtyping import Float

from metabolismgraph.config import GraphModel, Training
from metabolismgraph.errors import InputError
from metabolismgraph.identifiability import Identifiability, analyse
from metabolismgraph.model import SubstrateFunction
from metabolismgraph.observations import Observations
from metabolismgraph.regression import NormalEquations, follows_equation
from metabolismgraph.train.gradient import descend
from metabolismgraph.train.minimise import Minimum
from metabolismgraph.train.progress import Progress, silent
from metabolismgraph.train.projection import (
    LinearFit,
    Problem,
    best_power_law,
    fit_linear,
    learn_substrate_function,
)
from metabolismgraph.train.settle import Settled, settle
from metabolismgraph.train.solution import (
    Phase1Data,
    Phase1Result,
    constant_notes,
    homeostatic_lines,
    noise_variance,
    row_notes,
    standard_errors,
    unexplained_note,
)
from metabolismgraph.train.undetermined import fill_undetermined

__all__ = ["Phase1Result", "fit_reactions"]

# A rate constant that is zero in a constrained solution is stored as this share of the smallest other.
_ZERO_RATE = 1e-3


def fit_reactions(
    observations: Observations, graph_model: GraphModel, training: Training, progress: Progress = silent
) -> Phase1Result:
    """Find every rate constant, the substrate function and a first estimate of homeostasis.

    Args:
        observations: what to learn from.
        graph_model, training: the configuration's sections of these names.
        progress: see `train.progress`.

    Raises:
        InputError: fewer equations than unknowns, or sections that ask for what the method cannot do.
    """
    _check_size(observations, training)
    if training.phase1_method == "gradient":
        return descend(observations, graph_model, training, progress).result
    return _fit_by_projection(observations, graph_model, training, progress)


def _fit_by_projection(
    observations: Observations, graph_model: GraphModel, training: Training, progress: Progress
) -> Phase1Result:
    settled = _settle(observations, graph_model, training, progress)
    progress("phase 1", 1.0, "")
    data, keep = settled.data, settled.keep
    problem, transform = data.problem(keep, settled.weight)
    fitted = fit_linear(settled.f, problem)
    if not bool(np.isfinite(np.asarray(fitted.k)).all()):
        raise InputError(
            f"network {observations.network.id}: the normal equations have no finite solution; concentrations that "
            "differ by less extreme factors (other units, for instance) may help"
        )
    identifiability = analyse(
        np.asarray(fitted.equations.matrix), np.asarray(fitted.equations.scale), training.identifiability_tolerance
    )
    k, k_notes = _rate_constants(fitted, identifiability, training)
    k_error, line_error = standard_errors(fitted.equations, identifiability, transform, training)
    line = homeostatic_lines(fitted.equations.nuisance(jnp.asarray(k)), transform)
    return Phase1Result(
        mlp_sub=settled.f,
        log_k=np.log10(k),
        log_k_error=np.where(identifiability.identifiable, k_error / (k * np.log(10.0)), np.inf),
        identifiability=identifiability,
        slope=line[:, 1],
        offset=line[:, 0],
        slope_error=line_error[:, 1],
        offset_error=line_error[:, 0],
        noise=np.sqrt(noise_variance(settled.left, keep)),
        keep=keep,
        losses=np.array(settled.losses),
        converged=settled.converged,
        trapezoid=data.trapezoid,
        notes=(
            *constant_notes(observations, data),
            *row_notes(follows_equation(data.transitions), data.usable, keep, training),
            *k_notes,
            *_convergence_notes(training, converged=settled.converged),
            *unexplained_note(settled.losses[-1]),
        ),
    )


def _settle(
    observations: Observations, graph_model: GraphModel, training: Training, progress: Progress
) -> Settled[SubstrateFunction]:
    """f by L-BFGS, from the best power law on."""

    def start(data: Phase1Data, problem: Problem) -> SubstrateFunction:
        untrained = data.initial_function()
        if not isinstance(untrained, SubstrateFunction):
            raise InputError(
                f"graph_model.substrate_input is {graph_model.substrate_input}, but training.phase1_method projection "
                "needs log; set the one to log, or the other to gradient"
            )
        return best_power_law(untrained, problem)

    def learn(f: SubstrateFunction, problem: Problem) -> Minimum[SubstrateFunction]:
        return learn_substrate_function(
            f,
            problem,
            max_iterations=training.phase1_max_iterations,
            tolerance=training.phase1_tolerance,
            progress=progress,
        )

    return settle(observations, graph_model, training, start, learn)


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


def _convergence_notes(training: Training, *, converged: bool) -> list[str]:
    if converged:
        return []
    return [f"Phase 1 did not converge within training.phase1_max_iterations = {training.phase1_max_iterations}"]
