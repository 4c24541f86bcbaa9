"""Phase 1 for stiff networks of mass action: windows of two frames, integrated implicitly."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from metabolismgraph.config import GraphModel, Training
from metabolismgraph.errors import InputError
from metabolismgraph.reactions.data import Phase1Data
from metabolismgraph.reactions.identifiability import identify
from metabolismgraph.reactions.notes import unread_notes
from metabolismgraph.reactions.result import Phase1Result, WindowEvidence
from metabolismgraph.reactions.verdict import NOT_REPRODUCED, NOT_TRUSTED, Estimates, Verdict, judge
from metabolismgraph.reactions.verdict import notes as determined_notes
from metabolismgraph.system.model import SubstrateFunction
from metabolismgraph.system.observations import Observations
from metabolismgraph.system.progress import Progress
from metabolismgraph.trajectories.implicit_fit import ImplicitFit, fit_from_elsewhere, fit_implicitly
from metabolismgraph.trajectories.implicit_windows import LOG_10

# Least noise for standard errors, relative: that of the integration. Below it, errors of the integration pass for
# information on rate constants that the data do not determine.
_LEAST_NOISE = 1e-6
# Decades by which the results of two starts, and the last step, may differ for a rate constant that is determined.
_AGREE = 0.05
_CONSTANT = 1e-6  # relative change of a fixed species within a run


def check_implicit(observations: Observations, training: Training) -> None:
    """Refuse what the method does not support.

    Raises:
        InputError: an unknown rate law, missing values, homeostasis, or a fixed species that changes within a run.
    """
    network = observations.network
    where = "training.phase1_method is implicit"
    unknown = [name for name, known in zip(network.reactions, network.mass_action, strict=True) if not known]
    if unknown:
        shown = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
        raise InputError(
            f"{where}, which needs mass action as the known rate law of every reaction (not of {shown}); set "
            "graph_model.rate_law to mass_action, or phase1_method to auto"
        )
    if training.homeostasis_training:
        raise InputError(f"{where}, which takes homeostasis as absent; set training.homeostasis_training to false")
    missing = int((~observations.measured).sum())
    if missing:
        raise InputError(
            f"{where}, which needs every value, and {missing} of {observations.measured.size} are missing; fill them "
            "in, or set phase1_method to shooting"
        )
    for r in np.unique(observations.run):
        c = observations.concentration[observations.run == r]
        moved = np.flatnonzero(network.fixed & (np.ptp(c, axis=0) > _CONSTANT * c.max(axis=0)))
        if moved.size:
            name = network.species[moved[0]]
            raise InputError(
                f"{where}, which takes a fixed species as constant within a run, and {name} changes in run {r}; set "
                "phase1_method to shooting"
            )


def fit_by_implicit_windows(
    observations: Observations, graph_model: GraphModel, training: Training, progress: Progress
) -> Phase1Result:
    """Estimate the rate constants of a stiff network whose rate laws are mass action, without homeostasis.

    Two fits from different starts must agree on a rate constant that is called determined.

    Args:
        observations: in internal units.
        graph_model, training: sections of the configuration.
        progress: see `system.progress`.

    Raises:
        InputError: as for `check_implicit`.
    """
    network = observations.network
    data = Phase1Data(observations, graph_model, training, rule="cubic")
    untrained = data.initial_function()
    if not isinstance(untrained, SubstrateFunction):
        raise InputError("training.phase1_method is implicit, which needs graph_model.substrate_input: log")
    first = fit_implicitly(observations, progress)
    second = fit_from_elsewhere(observations, first, training.seed, progress)
    progress("phase 1", 1.0, "")
    best, other = (first, second) if first.left <= second.left else (second, first)
    promised = identify(
        network,
        observations,
        aggregation=graph_model.aggr_type,
        homeostasis=False,
        tolerance=training.identifiability_tolerance,
    )
    noise, m = max(best.misfit.noise, _LEAST_NOISE), len(best.k)
    error = best.misfit.errors(noise)
    nothing = np.zeros(m, dtype=bool)
    estimates = Estimates(best.k, best.k * LOG_10 * error, ~nothing, nothing, np.full(m, np.nan))
    verdict = judge(promised, promised, estimates)
    if best.converged:
        verdict = _without(verdict, ~_reproduced(best, other, error), NOT_REPRODUCED)
    else:  # standard errors hold at a minimum only
        verdict = _without(verdict, ~nothing, NOT_TRUSTED)
    still = np.zeros(network.n_species)
    unknown = np.full(network.n_species, np.inf)
    equation_noise = np.zeros(network.n_species)
    steps = data.transitions.dt
    moving = np.flatnonzero(~network.fixed & (network.stoichiometry != 0).any(axis=1))
    residual = best.misfit.residual
    equation_noise[moving] = np.sqrt(np.nan_to_num(np.nanmean((residual / steps[:, None]) ** 2, axis=0)))
    root = best.misfit.root[:m, :m] * (best.misfit.noise / noise)
    unfinished = "Phase 1 did not converge: steps of the rate constants were still proposed at the end"
    return Phase1Result(
        mlp_sub=untrained.with_exponent(1.0),
        log_k=np.log10(best.k),
        log_k_error=verdict.log_k_error,
        identifiability=dataclasses.replace(promised, identifiable=verdict.determined),
        reasons=verdict.reason,
        upper=verdict.upper,
        mass_action=network.mass_action,
        law_fails=False,
        slope=still,
        offset=still,
        slope_error=unknown,
        offset_error=unknown,
        slope_offset_covariance=still,
        noise=equation_noise,
        keep=data.usable,
        losses=np.array(best.losses),
        alpha=1.0,
        converged=best.converged,
        rule=data.rule,
        notes=(
            *unread_notes(training),
            f"implicit windows: {len(steps)} of two frames; the residual is {best.left:.2g} of the concentrations",
            *determined_notes(verdict, network.reactions),
            *([] if best.converged else [unfinished]),
        ),
        windows=WindowEvidence(noise=noise, root=root),
    )


def _reproduced(
    best: ImplicitFit, other: ImplicitFit, error: Float[np.ndarray, " reactions"]
) -> Bool[np.ndarray, " reactions"]:
    """True where both ends agree, and the last step was small."""
    apart = np.abs(np.log10(best.k / other.k))
    limit = np.maximum(_AGREE, np.minimum(error, 5 * _AGREE))
    return np.asarray((apart <= limit) & (best.last_step <= limit))


def _without(verdict: Verdict, doubted: Bool[np.ndarray, " reactions"], why: str) -> Verdict:
    """The verdict, with some rate constants as not determined for a reason."""
    lost = verdict.determined & doubted
    reason = np.where(lost, why, np.array(verdict.reason, dtype=object))
    return dataclasses.replace(
        verdict,
        determined=verdict.determined & ~lost,
        reason=tuple(str(text) for text in reason),
        log_k_error=np.where(lost, np.inf, verdict.log_k_error),
        lost=verdict.lost | lost,
    )
