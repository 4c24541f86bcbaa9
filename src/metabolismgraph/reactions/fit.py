"""Phase 1, rate constants and substrate function: by variable projection (here) or another method."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import scipy
from jaxtyping import Bool, Float

from metabolismgraph.config import GraphModel, Training
from metabolismgraph.errors import InputError
from metabolismgraph.reactions.by_implicit_windows import check_implicit, fit_by_implicit_windows
from metabolismgraph.reactions.by_shooting import fit_by_shooting, noise_of_derivative, why_not_shooting
from metabolismgraph.reactions.data import Phase1Data
from metabolismgraph.reactions.diagnostics import LAW_REJECTED, check_fit
from metabolismgraph.reactions.gradient import descend
from metabolismgraph.reactions.identifiability import analyse
from metabolismgraph.reactions.linear_model import LinearModel, Solution
from metabolismgraph.reactions.normal_matrix import RANK
from metabolismgraph.reactions.notes import data_notes
from metabolismgraph.reactions.projection import Problem
from metabolismgraph.reactions.result import Phase1Result
from metabolismgraph.reactions.reweighting import ReweightedFit, fit_reweighted
from metabolismgraph.reactions.search import best_power_law, learn_substrate_function
from metabolismgraph.reactions.uncertainty import noise_variance
from metabolismgraph.reactions.unidentifiable import fill_all, without_groups
from metabolismgraph.reactions.verdict import (
    TOO_COARSE,
    Estimates,
    hidden_by_homeostasis,
    judge,
    promised_by_identify,
)
from metabolismgraph.reactions.verdict import notes as determined_notes
from metabolismgraph.system.model import SubstrateFunction
from metabolismgraph.system.observations import Observations
from metabolismgraph.system.progress import Progress, silent
from metabolismgraph.system.threads import in_single_thread
from metabolismgraph.system.units import Units
from metabolismgraph.trajectories.fit import FOLLOWED

__all__ = ["Phase1Result", "fit_reactions"]

# The system is at a steady state if no species changes by more than this share of its concentration.
_STEADY = 1e-6
# With noise below the first share of rms dc/dt, projection is tried first; it stands if it leaves less than the second
# unexplained. Homeostasis can be hundreds of times weaker than dc/dt.
_NOISY, _EXPLAINED = 0.05, 1e-3
_EXCESS = 1.4  # residual relative to the noise above which trajectories are not followed
# Relative weight of the squares of homeostasis in the sum of squares. It is so small that it has an effect only along
# directions that the residual does not determine.
_HOMEOSTASIS_RIDGE = 1e-8


@in_single_thread
def fit_reactions(
    observations: Observations, graph_model: GraphModel, training: Training, progress: Progress = silent
) -> Phase1Result:
    """Estimate the rate constants, the substrate function and a line of homeostasis per species.

    Args:
        observations: the data to learn from.
        graph_model, training: sections of the configuration.
        progress: see `system.progress`.

    Returns:
        Estimates in the units of the data.

    Raises:
        InputError: all species are fixed or there is no reaction, data at a steady state, fewer equations than
            unknowns, no finite solution, or settings that the method does not support.
    """
    if training.phase1_method == "implicit":
        check_implicit(observations, training)
    check_size(observations, training)
    _check_gaps(observations, graph_model, training)
    if training.phase1_method == "gradient":
        return descend(observations, graph_model, training, progress).result
    units = Units.of(observations, graph_model)
    own = _fit_in_units(units.observations(observations), graph_model, training, progress, units)
    return own.in_units(units, observations.network)


def _fit_in_units(
    observations: Observations, graph_model: GraphModel, training: Training, progress: Progress, units: Units
) -> Phase1Result:
    """Phase 1 by one of its methods but gradient descent, on observations in `units`."""
    if training.phase1_method == "implicit":
        return fit_by_implicit_windows(observations, graph_model, training, progress)
    given = (observations, graph_model, training, progress, units)
    unsuitable = why_not_shooting(graph_model)
    if training.phase1_method == "shooting":
        if unsuitable:
            raise InputError(f"training.phase1_method is shooting, which needs {unsuitable}")
        return fit_by_shooting(*given)
    if training.phase1_method == "projection" or unsuitable:
        return _fit_by_projection(*given)
    return _fit_by_what_suits(*given)


def _fit_by_what_suits(
    observations: Observations, graph_model: GraphModel, training: Training, progress: Progress, units: Units
) -> Phase1Result:
    """Projection or shooting, whichever suits the data."""
    given = (observations, graph_model, training, progress, units)
    share = noise_of_derivative(observations)
    why, projected = f"noise is about {share:.2g} of dc/dt", None
    gaps = not observations.measured.all()
    if gaps:
        why = "values are missing"
    elif share < _NOISY:
        projected = _fit_by_projection(*given)
        left = float(np.exp(projected.losses[-1] / 2))
        coarse = TOO_COARSE in projected.reasons
        if left < _EXPLAINED and not coarse:
            return projected
        why = TOO_COARSE if coarse else f"differences of samples leave {left:.2g} of dc/dt unexplained"
    try:
        found = fit_by_shooting(*given)
    except InputError as error:
        if gaps:
            raise
        return _with_note(projected or _fit_by_projection(*given), f"{why}, but shooting failed ({error})")
    follows = _follows(found)
    if projected is not None and why != TOO_COARSE and not follows:
        # Differences of samples can leave out the few intervals in which a system jumps.
        return _with_note(projected, f"{why}, but a fit of trajectories does not follow the data either")
    # A stated rate law is tested by the projection; it matters where the trajectories are not followed either.
    fails = projected is not None and projected.law_fails and not follows
    law = [note for note in projected.notes if note.startswith(LAW_REJECTED)] if projected and fails else []
    notes = (f"Phase 1 by shooting, since {why}", *found.notes, *law)
    return dataclasses.replace(found, notes=notes, law_fails=fails)


def _with_note(projected: Phase1Result, why: str) -> Phase1Result:
    return dataclasses.replace(projected, notes=(*projected.notes, f"{why}; estimates are those of projection"))


def _follows(found: Phase1Result) -> bool:
    """Whether a fit of trajectories leaves no more than the noise of the data."""
    evidence = found.trajectories
    if evidence is None:
        return False
    excess = (evidence.noise / evidence.noise_of_differences)[found.keep.any(axis=0)]
    return evidence.chi2 < FOLLOWED and bool((excess < _EXCESS).all())


def _fit_by_projection(
    observations: Observations, graph_model: GraphModel, training: Training, progress: Progress, units: Units
) -> Phase1Result:
    """Phase 1 on observations in `units`. Only the prior on k, in units of the data, is converted here."""
    network = observations.network
    reweighted = _settle(observations, graph_model, training, progress)
    progress("phase 1", 1.0, "")
    data, keep = reweighted.rows, reweighted.keep
    model = data.linear_model(reweighted.f, keep, reweighted.weight)
    fitted = model.solve()
    if not bool(np.isfinite(fitted.k).all()):
        raise InputError(
            f"network {network.id}: the normal equations have no finite solution; check the data for "
            "concentrations of extremely different orders of magnitude"
        )
    promised, apart = promised_by_identify(observations, graph_model, training)
    # The threshold is rounding, not `identifiability_tolerance`: weak but significant directions get large standard
    # errors and are judged by these.
    seen = analyse(fitted.matrix, RANK)
    hidden = promised.joined(seen)
    k, at_bound, k_notes = _positive_rate_constants(fitted, hidden.identifiable)
    checked = check_fit(reweighted, model, fitted)
    estimates = Estimates(fitted.k, checked.error, hidden.identifiable, at_bound, checked.sampling_error)
    verdict = judge(promised, apart, estimates)
    confounded = hidden_by_homeostasis(promised, apart)
    # Negative and undetermined according to `identify`, but without a null direction in this fit along which it could
    # be made positive.
    faint = (k < 0) & ~hidden.identifiable & seen.identifiable
    if confounded.any() or faint.any():
        k = _with_least_homeostasis(model, fitted)
    k = fill_all(k, without_groups(seen, confounded), training, units.rate_constants(network), verdict.upper)
    unfinished = f"Phase 1 did not converge within training.phase1_max_iterations = {training.phase1_max_iterations}"
    return Phase1Result(
        mlp_sub=reweighted.f,
        log_k=np.log10(k),
        log_k_error=verdict.log_k_error,
        identifiability=dataclasses.replace(hidden, identifiable=verdict.determined),
        reasons=verdict.reason,
        upper=verdict.upper,
        mass_action=network.mass_action,
        law_fails=bool(checked.law_notes),
        **data.lines_with_errors(model.given(k).solve().theta, fitted.theta_covariance, checked.line_sampling_error),
        noise=np.sqrt(noise_variance(reweighted.residual, keep, data.signal)),
        keep=keep,
        losses=np.array(reweighted.losses),
        alpha=1.0,
        converged=reweighted.converged,
        rule=data.rule,
        notes=(
            *data_notes(data, keep),
            *k_notes,
            *determined_notes(verdict, network.reactions),
            *checked.law_notes,
            *([] if reweighted.converged else [unfinished]),
        ),
    )


def _settle(
    observations: Observations, graph_model: GraphModel, training: Training, progress: Progress
) -> ReweightedFit[SubstrateFunction]:
    """Learn f by L-BFGS, starting from the best power law."""

    def start(data: Phase1Data, problem: Problem) -> SubstrateFunction:
        untrained = data.initial_function()
        if not isinstance(untrained, SubstrateFunction):
            raise InputError(
                f"graph_model.substrate_input is {graph_model.substrate_input}, but training.phase1_method projection "
                "needs log; set substrate_input to log, or phase1_method to gradient"
            )
        return best_power_law(untrained, problem) if data.has_unknown_law else untrained.with_exponent(1.0)

    learn = functools.partial(
        learn_substrate_function,
        max_iterations=training.phase1_max_iterations,
        tolerance=training.phase1_tolerance,
        progress=progress,
    )
    return fit_reweighted(observations, graph_model, training, start, learn, compare=learn)


def check_size(observations: Observations, training: Training) -> None:
    """Refuse data that cannot determine anything.

    Raises:
        InputError: no reaction, no species that may change, a steady state, or fewer equations than unknowns.
    """
    network = observations.network
    moving = int((~network.fixed).sum())
    # One for every measured value but the first one of a species in a run.
    measured = observations.measured[:, ~network.fixed]
    equations = sum(
        int(np.maximum(measured[observations.run == r].sum(axis=0) - 1, 0).sum()) for r in set(observations.run)
    )
    lines = 0 if training.phase1_method == "implicit" else training.nuisance_degree + 1
    unknowns = network.n_reactions + moving * lines
    if network.n_reactions == 0 or moving == 0:
        raise InputError(f"network {network.id}: nothing to fit: there is no reaction, or all species are fixed")
    c = observations.concentration
    if (np.ptp(c, axis=0) <= _STEADY * c.max(axis=0)).all():
        raise InputError(
            f"network {network.id}: no species changes (none by more than {_STEADY:g} of its concentration), so no "
            "rate constant can be determined from these data; perturb the system, or start it from another state"
        )
    if equations < unknowns:
        homeostasis = f" and homeostasis of {moving} species" if lines else ""
        raise InputError(
            f"{observations.n_frames} frames give {equations} equations for {unknowns} unknowns (rate constants"
            f"{homeostasis}); at least {-(-unknowns // moving) + 1} frames are needed"
        )


def _check_gaps(observations: Observations, graph_model: GraphModel, training: Training) -> None:
    """Refuse data with gaps for a method that takes interpolated values for measured ones.

    Raises:
        InputError: the method is not a fit of trajectories, or the configuration does not allow one.
    """
    measured = observations.measured
    needed = why_not_shooting(graph_model)
    if training.phase1_method in ("shooting", "auto"):
        advice = f"set {needed}" if needed else ""
    else:
        advice = f"training.phase1_method is {training.phase1_method}; set it to shooting or auto"
    if advice and not measured.all():
        raise InputError(
            f"{int((~measured).sum())} of {measured.size} values are missing, which only a fit of trajectories does "
            f"not need: {advice}"
        )


def _positive_rate_constants(
    fitted: Solution, known: Bool[np.ndarray, " reactions"]
) -> tuple[Float[np.ndarray, " reactions"], Bool[np.ndarray, " reactions"], list[str]]:
    """Rate constants >= 0, True for those at the bound, and notes."""
    k = fitted.k
    # Only determined rate constants are constrained here: undetermined ones can be made positive along null directions.
    negative = known & (k <= 0)
    if not negative.any():
        return k, negative, []
    k = fitted.non_negative()
    note = f"{int(negative.sum())} determined rate constants came out negative; all were estimated again with k >= 0"
    return k, known & (k <= 0), [note]


def _with_least_homeostasis(model: LinearModel, fitted: Solution) -> Float[np.ndarray, " reactions"]:
    """Rate constants >= 0 with the least residual and, among these, the weakest homeostasis.

    A first-order loss and the linear part of homeostasis are the same function of concentration. The common part is
    assigned to the reaction, since homeostasis is assumed to be weaker. This does not make k identifiable.
    """
    # The basis is orthonormal, so the sum of squares of homeostasis is that of (total weight of the species) * theta^2,
    # and theta is affine in k. Added to the sum of squares of the residual, it gives one problem of least squares.
    columns = fitted.columns
    weight = np.sqrt(_HOMEOSTASIS_RIDGE * model.weight.sum(axis=0))
    at_zero = columns.theta(model.derivative, np.zeros_like(fitted.k))
    rows = scipy.sparse.diags_array(np.repeat(weight, at_zero.shape[1])) @ columns.theta_by_k
    return fitted.matrix.non_negative(columns.rhs, rows, -(weight[:, None] * at_zero).ravel())
