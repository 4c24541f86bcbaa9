"""Phase 1 by shooting: a fit of trajectories as a result of Phase 1."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from metabolismgraph.config import GraphModel, Training
from metabolismgraph.errors import InputError
from metabolismgraph.reactions.data import Phase1Data
from metabolismgraph.reactions.identifiability import Identifiability
from metabolismgraph.reactions.notes import setting_notes
from metabolismgraph.reactions.result import Phase1Result, TrajectoryEvidence
from metabolismgraph.reactions.unidentifiable import fill_all, without_groups
from metabolismgraph.reactions.verdict import Estimates, hidden_by_homeostasis, judge, promised_by_identify
from metabolismgraph.reactions.verdict import notes as determined_notes
from metabolismgraph.system.derivative_rules import Rule
from metabolismgraph.system.kinetics import Structure
from metabolismgraph.system.model import SubstrateFunction
from metabolismgraph.system.observations import Observations
from metabolismgraph.system.progress import Progress
from metabolismgraph.system.units import Units
from metabolismgraph.trajectories.fit import FOLLOWED, TrajectoryFit, fit_trajectories
from metabolismgraph.trajectories.noise import noise_of_differences
from metabolismgraph.trajectories.rates import LOG_10

_LAW_POINTS = 400  # concentrations at which MLP_sub is fitted to the learned spline
_BEYOND = 1.0  # range of these beyond the data, in log c
_LAW_RIDGE = 1e-10  # relative, of that fit
# What a note names: least probability of another integrator, and how much a rate constant differs, in standard errors.
_PROBABLE, _DIFFERENT = 0.05, 0.5


def why_not_shooting(graph_model: GraphModel) -> str:
    """What shooting needs and the configuration does not have; empty if it can be used."""
    if graph_model.aggr_type != "mul":
        return "graph_model.aggr_type: mul"
    return "" if graph_model.substrate_input == "log" else "graph_model.substrate_input: log"


def noise_of_derivative(observations: Observations) -> float:
    """Noise of forward differences relative to their rms, the median over species; from differences in time alone."""
    transitions = observations.transitions()
    noise = noise_of_differences(observations) * np.sqrt(2.0) / np.median(transitions.dt)
    rms = np.sqrt(np.mean(transitions.derivative**2, axis=0))
    moving = ~observations.network.fixed & (rms > 0)
    return float(np.median(noise[moving] / rms[moving])) if moving.any() else 0.0


@dataclasses.dataclass(frozen=True)
class ShootingSetting:
    """What is known before a fit of trajectories.

    Attributes:
        data: of Phase 1. Nothing that is used of it depends on its rule for dc/dt.
        structure: the network, with species that never change as fixed ones.
        promised, apart: results of `identify` with homeostasis and without.
        confounded: True for a reaction that is undetermined only because homeostasis is unknown.
        weak: True for a species whose homeostasis is kept small.
    """

    data: Phase1Data
    structure: Structure
    promised: Identifiability
    apart: Identifiability
    confounded: Bool[np.ndarray, " reactions"]
    weak: Bool[np.ndarray, " species"]

    @classmethod
    def of(cls, observations: Observations, graph_model: GraphModel, training: Training) -> ShootingSetting:
        """From observations in internal units."""
        network = observations.network
        data = Phase1Data(observations, graph_model, training, rule="forward")
        promised, apart = promised_by_identify(observations, graph_model, training)
        confounded = hidden_by_homeostasis(promised, apart)
        # A first-order loss and homeostasis are the same function of concentration. The common part is assigned to the
        # reaction, since homeostasis is assumed to be weaker.
        weak = (np.abs(network.stoichiometry[:, confounded]) > 0).any(axis=1) | (training.nuisance_degree == 0)
        structure = Structure.of(dataclasses.replace(network, fixed=data.fixed))
        return cls(data, structure, promised, apart, confounded, np.asarray(weak))


def fit_by_shooting(
    observations: Observations, graph_model: GraphModel, training: Training, progress: Progress, units: Units
) -> Phase1Result:
    """Estimate rate constants, substrate function and lines of homeostasis from trajectories.

    Args:
        observations: in `units`.

    Raises:
        InputError: the trajectories of the model cannot be integrated.
    """
    network = observations.network
    setting = ShootingSetting.of(observations, graph_model, training)
    data, promised, apart = setting.data, setting.promised, setting.apart
    rule: Rule | None = None if training.derivative == "auto" else training.derivative
    fit = fit_trajectories(observations, setting.structure, rule, progress, weak_homeostasis=setting.weak)
    best, unknowns = fit.best, fit.equation.unknowns
    theta, covariance = best.theta, fit.covariance
    k = 10.0 ** theta[unknowns.log_k]
    k_error = k * LOG_10 * np.sqrt(np.diag(covariance)[unknowns.log_k])
    m = len(k)
    nothing = np.zeros(m, dtype=bool)
    verdict = judge(promised, apart, Estimates(k, k_error, ~nothing, nothing, np.full(m, np.nan)))
    k = fill_all(
        k, without_groups(promised, setting.confounded), training, units.rate_constants(network), verdict.upper
    )
    evidence = _evidence(fit, observations)
    chosen: Rule = "cubic" if evidence.integrator.continuous or evidence.substeps > 1 else "forward"
    error = np.sqrt(np.diag(covariance))
    own = np.arange(network.n_species)
    spread = np.maximum(observations.concentration.std(axis=0), 1e-300)
    shares = [float(np.mean((stage.residual / spread)[stage.used] ** 2)) for stage in fit.stages]
    return Phase1Result(
        mlp_sub=_substrate_function(data.initial_function(), fit, setting.structure, observations),
        log_k=np.log10(k),
        log_k_error=verdict.log_k_error,
        identifiability=dataclasses.replace(promised, identifiable=verdict.determined),
        reasons=verdict.reason,
        upper=verdict.upper,
        mass_action=network.mass_action,
        law_fails=False,
        slope=np.where(data.fixed, 0.0, theta[unknowns.slope]),
        offset=np.where(data.fixed, 0.0, theta[unknowns.offset]),
        slope_error=error[unknowns.slope],
        offset_error=error[unknowns.offset],
        slope_offset_covariance=covariance[unknowns.slope, unknowns.offset][own, own],
        noise=np.sqrt(2.0) * fit.noise.scale / float(np.median(data.transitions.dt)),
        keep=data.usable,
        losses=np.log(np.maximum(shares, 1e-300)),
        alpha=1.0,
        converged=best.converged,
        rule=chosen,
        notes=(
            *setting_notes(data),
            _noise_note(fit, spread, ~data.fixed),
            *determined_notes(verdict, network.reactions),
        ),
        trajectories=evidence,
    )


def _evidence(fit: TrajectoryFit, observations: Observations) -> TrajectoryEvidence:
    """What the fit knows beyond its estimates, in internal units."""
    best, unknowns, spline = fit.best, fit.equation.unknowns, fit.equation.spline
    left = np.sqrt(np.mean(np.where(best.used, best.residual, 0.0) ** 2, axis=0))
    seen = np.log(observations.concentration[observations.concentration > 0])
    log_c = np.linspace(seen.min(), seen.max(), _LAW_POINTS)
    return TrajectoryEvidence(
        method=fit.integrator.method,
        substeps=fit.integrator.substeps,
        window=best.problem.windows.length,
        chi2=best.chi2,
        autocorrelation=best.autocorrelation,
        # Where the trajectories are not followed, the residual is more than the noise, and tells which species.
        noise=np.maximum(fit.noise.scale, left) if best.chi2 > FOLLOWED else fit.noise.scale,
        proportional=fit.noise.share,
        reference=np.broadcast_to(fit.noise.reference, (observations.network.n_species,)),
        noise_of_differences=fit.noise_of_differences,
        covariance=fit.covariance,
        law=best.theta[unknowns.law],
        law_concentration=np.exp(log_c),
        law_basis=spline(log_c) if unknowns.laws else np.zeros((len(log_c), 0)),
        refused=fit.refused.length if fit.refused else 0,
        growth=fit.refused.growth if fit.refused else np.inf,
    )


def _noise_note(fit: TrajectoryFit, spread: Float[np.ndarray, " species"], moving: Bool[np.ndarray, " species"]) -> str:
    """Noise, integrator and windows of a fit in words."""
    share = 100 * np.median((fit.noise.scale / spread)[moving])
    cubic = "training.derivative=cubic takes a continuous process"
    advice = "" if fit.integrator.continuous else f", as a simulator makes them ({cubic})"
    best, log_k = fit.best, fit.equation.unknowns.log_k
    error = np.sqrt(np.diag(best.covariance)[log_k])
    possible = ", ".join(
        f"{other.integrator.name} ({100 * other.probability:.0f} %)"
        for other in fit.alternatives
        if other.probability > _PROBABLE and (np.abs(other.moved[log_k]) > _DIFFERENT * error).any()
    )
    doubt = (
        f"; the data do not exclude {possible} either; the errors of rate constants allow for that" if possible else ""
    )
    return (
        f"trajectories: {fit.integrator.name}{advice}{doubt}; windows of up to {best.problem.windows.length} "
        f"frames; {fit.noise.kind} noise of {share:.2g} % of the standard deviation of a species (median)"
    )


def _substrate_function(
    untrained: object, fit: TrajectoryFit, structure: Structure, observations: Observations
) -> SubstrateFunction:
    """MLP_sub with the values of the learned splines.

    log f is linear in the skip path and in the last layer, so both are solved for, with the random hidden layers as
    they are.
    """
    if not isinstance(untrained, SubstrateFunction):
        raise InputError("training.phase1_method shooting needs graph_model.substrate_input: log")
    laws = fit.equation.laws(fit.best.theta)
    if not laws:
        return untrained.with_exponent(1.0)
    known, orders = structure.rate_laws.known, structure.rate_laws.order
    seen = np.log(observations.concentration[observations.concentration > 0])
    log_c = np.linspace(float(seen.min()) - _BEYOND, float(seen.max()) + _BEYOND, _LAW_POINTS)
    features, targets = [], []
    for order, law in zip(orders[~known], laws, strict=True):
        hidden, at_one = (
            np.asarray(untrained.perceptron.hidden(jnp.stack([(x - untrained.center) / untrained.width, s], axis=-1)))
            for x, s in (
                (jnp.asarray(log_c), jnp.full(len(log_c), order - 1.0)),
                (jnp.zeros(1), jnp.full(1, order - 1.0)),
            )
        )
        features.append(np.column_stack([order * log_c, log_c, hidden - at_one]))
        targets.append(law(log_c)[0])
    x, y = np.concatenate(features), np.concatenate(targets)
    size = np.linalg.norm(x, axis=0)
    scale = np.where(size > 0, size, 1.0)
    coefficients = np.linalg.lstsq(x / scale, y, rcond=_LAW_RIDGE)[0] / scale
    fitted: SubstrateFunction = eqx.tree_at(
        lambda f: (f.skip, f.perceptron.weights[-1]),
        untrained,
        (jnp.asarray(coefficients[:2]), jnp.asarray(coefficients[2:, None])),
    )
    return fitted
