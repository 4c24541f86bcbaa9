"""Evaluation of a fit; the only module that has access to both the truth and a trained model.

`metrics` is the content of metrics.json and analysis.log. `data` contains all arrays of the figures, with
named dimensions.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Float, Int

from metabolismgraph.config import Training
from metabolismgraph.errors import InputError, check_argument
from metabolismgraph.evaluation.variables import describe
from metabolismgraph.fitting.parameters import lines_of_types
from metabolismgraph.fitting.result import FitResult
from metabolismgraph.fitting.trust import Trust
from metabolismgraph.ground_truth.agreement import cluster_accuracy, r_squared, squared_correlation
from metabolismgraph.ground_truth.truth import Truth
from metabolismgraph.homeostasis.clusters import cluster_moving, count_outliers, silhouette
from metabolismgraph.homeostasis.fit import Phase2Result
from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.strategies.orthogonalised import refine_reactions
from metabolismgraph.metrics import REFINED, Value, classify, find
from metabolismgraph.overview import Overview, Rows
from metabolismgraph.reactions.fit import Phase1Result
from metabolismgraph.reactions.verdict import TWO_SIDED
from metabolismgraph.system.arrays import on_device
from metabolismgraph.system.assumed_rate_laws import rate_law_notes
from metabolismgraph.system.derivative_rules import Rule, StepQuadrature
from metabolismgraph.system.integrate import rollout
from metabolismgraph.system.kinetics import Structure
from metabolismgraph.system.model import MetabolismModel
from metabolismgraph.system.model_rates import ModelRates, in_parts
from metabolismgraph.system.observations import Observations, Transitions
from metabolismgraph.system.threads import in_single_thread
from metabolismgraph.uncertainty.held_out_lines import held_out_lines

Variables = dict[str, tuple[Any, ...]]  # dimensions, values and, for some, attributes
SWEEP = (0.0, 40.0)  # range of concentrations of the line through MLP_node, as published
_SWEEP_POINTS = 50
_LAW_POINTS = 200
_OUTLIER = 0.3  # |error of log10 k| above which a reaction is an outlier
_HORIZON = 16  # Euler steps of a held-out rollout
_OF_RATE_CONSTANTS = ("log_k", "log_k_error", "identifiable", "group", "true_log_k")
_ENERGY = 0.99  # share of the squared norm that defines the activity rank


@dataclasses.dataclass(frozen=True, repr=False)
class Evaluation(Overview):
    """The evaluation of a fit.

    Attributes:
        metrics: by name; None if a metric is undefined, such as the silhouette of a single cluster.
        data: all arrays of the figures, with dimensions species, reaction, frame, transition, sweep,
            law_order, law_point, dim, component.
        notes: plain sentences of the readers and of both phases.
        trust: whether the fit is to be trusted, and the errors of every species.
        snapshots: metrics and arrays of homeostasis of the models on the way, by their numbers of gradient steps.
        rate_constants: see `FitResult.rate_constants`; without intervals if the fit is not to be trusted.
        homeostasis: see `FitResult.homeostasis`.
        parameters: see `FitResult.parameters`.

    Example:
        >>> import metabolismgraph as mg
        >>> config = mg.load_config("small", ["training.homeostasis_training=false"])
        >>> data = mg.simulate(config)
        >>> evaluation = mg.evaluate(mg.fit(data.observations, config), data.truth)
        >>> evaluation.metrics["rate_constants_R2_identifiable"] > 0.9999
        True
        >>> evaluation.data["log_k"].dims
        ('reaction',)
    """

    metrics: dict[str, Value]
    data: xr.Dataset
    notes: tuple[str, ...]
    trust: Trust
    rate_constants: pd.DataFrame
    homeostasis: pd.DataFrame
    parameters: pd.DataFrame
    snapshots: Mapping[int, tuple[Mapping[str, Value], xr.Dataset]] = dataclasses.field(default_factory=dict)

    def _overview(self) -> tuple[str, Rows]:
        why_not = "; ".join(self.trust.why_not)
        rows: list[tuple[str, object]] = [("trusted", f"no: {why_not}" if why_not else "yes")]
        for name, value in self.metrics.items():
            metric = find(name)
            if metric is not None and metric.summary and value is not None:
                shown = f"{value:.4g}" if isinstance(value, float) else value
                rows.append((f"{name}: {metric.meaning}", f"{shown} {metric.unit}".strip()))
        rows += [("note", note) for note in self.notes]
        return "evaluation", rows


@in_single_thread
def evaluate(result: FitResult, truth: Truth | None = None) -> Evaluation:
    """Evaluate a trained model on its data and, if available, against the truth.

    Args:
        result: result of `fit`.
        truth: None for real data.

    Raises:
        InputError: a species or reaction of the network is missing in the truth.

    Example:
        >>> import metabolismgraph as mg
        >>> config = mg.load_config("small", ["training.homeostasis_training=false"])
        >>> result = mg.fit(mg.simulate(config).observations, config)
        >>> metrics = mg.evaluate(result).metrics  # without the truth: what can be said of real data
        >>> metrics["trustworthy"], "rate_constants_R2" in metrics
        (True, False)
    """
    check_argument("result", result, FitResult, "call mg.fit first")
    observations, phase1, phase2 = result.observations, result.phase1, result.phase2
    network = observations.network
    if truth is not None:
        truth = truth.aligned(network.species, network.reactions)
    data = _reaction_data(phase1, network.reactions, truth)
    trust = result.trust
    data |= {
        f"{name}_error": ("species", getattr(trust, name)) for name in ("unexplained", "misfit", "held_out", "rollout")
    }
    if trust.fitted is not None:
        data["fitted_concentration"] = (("frame", "species"), trust.fitted)
    metrics: dict[str, Value] = {
        "trustworthy": trust.trustworthy,
        "why_not": list(trust.why_not),
        "derivative_rule": phase1.rule,
        "final_loss": float(np.exp(phase1.losses[-1])),
        "phase1_iterations": len(phase1.losses),
        "phase1_converged": int(phase1.converged),
        "n_unidentifiable": int((~phase1.identifiability.identifiable).sum()),
        "alpha": phase1.alpha,
    }
    metrics |= _rank_metrics(observations, data)
    data["held_out"] = ("frame", observations.held_out(*result.training.held_out))
    if truth is not None:
        metrics |= rate_constant_metrics(phase1.log_k, np.log10(truth.k), phase1.identifiability.identifiable)
    metrics |= _rate_law_metrics(observations, phase1, truth, data)
    if trust.trustworthy and "law_f" in data:
        data |= _rate_law_band(phase1, data)
    if phase2 is not None:
        found, drawn = homeostasis_metrics(observations, phase2, result.training, truth)
        metrics |= found
        data |= drawn
        metrics |= _prediction_metrics(result, phase2.model, data)
        metrics |= _degeneracy(metrics) | _lines_of_types(result)
        if truth is None:
            metrics |= _held_out_skill(result, phase2.model)
    if result.refined is not None:
        metrics |= {
            f"{REFINED}{name}": value for name, value in _refined_metrics(result, result.refined, truth).items()
        }
    dataset = xr.Dataset(data, coords={"species": list(network.species), "reaction": list(network.reactions)})
    notes = (*observations.notes, *rate_law_notes(observations), *phase1.notes, *(phase2.notes if phase2 else ()))
    return Evaluation(
        metrics=metrics,
        data=describe(dataset),
        notes=notes,
        trust=trust,
        rate_constants=result.rate_constants,
        homeostasis=result.homeostasis,
        parameters=result.parameters,
        snapshots=_snapshots(result, truth, data),
    )


def _snapshots(
    result: FitResult, truth: Truth | None, data: Variables
) -> dict[int, tuple[Mapping[str, Value], xr.Dataset]]:
    """Homeostasis of the models on the way, with what the figures show besides."""
    if result.phase2 is None:
        return {}
    network = result.observations.network
    found: dict[int, tuple[Mapping[str, Value], xr.Dataset]] = {}
    shared = {name: data[name] for name in _OF_RATE_CONSTANTS if name in data}
    for step, model in result.phase2.snapshots.items():
        then = dataclasses.replace(result.phase2, model=model, losses=result.phase2.losses[:step], components={})
        metrics, drawn = homeostasis_metrics(result.observations, then, result.training, truth)
        dataset = xr.Dataset(
            drawn | shared, coords={"species": list(network.species), "reaction": list(network.reactions)}
        )
        found[step] = (metrics, describe(dataset))
    return found


def _degeneracy(metrics: Mapping[str, Value]) -> dict[str, Value]:
    """How much better the model predicts than its rate constants agree with the truth: networks make up for them."""
    values = metrics.get("test_pearson"), metrics.get("rate_constants_R2")
    pearson, r2 = (value if isinstance(value, float) else math.nan for value in values)
    return {} if math.isnan(pearson - r2) else {"degeneracy_gap": pearson - r2}


def _lines_of_types(result: FitResult) -> dict[str, Value]:
    """lambda and baseline of every type with their standard errors, in a fit that is to be trusted."""
    if result.types is None or not result.trust.trustworthy:
        return {}
    found, metrics = result.phase1, dict[str, Value]()
    lines = lines_of_types(found.slope, found.offset, found.line_errors, result.types)
    for g, (values, covariance) in lines.items():
        for i, name in enumerate(("lambda", "baseline")):
            known = bool(np.isfinite(values[i]))
            metrics[f"{name}_cluster_{g}"] = float(values[i]) if known else None
            metrics[f"{name}_error_cluster_{g}"] = float(np.sqrt(covariance[i, i])) if known else None
    return metrics


def _refined_metrics(result: FitResult, refined: Phase2Result, truth: Truth | None) -> dict[str, Value]:
    """The metrics of the model after joint refinement."""
    metrics, _ = homeostasis_metrics(result.observations, refined, result.training, truth)
    if truth is not None:
        known = result.phase1.identifiability.identifiable
        metrics |= rate_constant_metrics(np.asarray(refined.model.log_k), np.log10(truth.k), known)
    return metrics | _prediction_metrics(result, refined.model, {})


def rate_constant_metrics(
    log_k: Float[np.ndarray, " reactions"],
    true_log_k: Float[np.ndarray, " reactions"],
    identifiable: Bool[np.ndarray, " reactions"],
) -> dict[str, Value]:
    """Agreement of learned and true log10 k, over all reactions (as published) and over the identifiable ones."""
    error = log_k - true_log_k
    outlier = np.abs(error) > _OUTLIER
    # If most reactions are outliers, the R2 of the others would be meaningless; none is trimmed.
    trimmed = ~outlier if outlier.sum() <= len(error) / 2 else np.ones_like(outlier)
    known = np.abs(error[identifiable])
    return {
        "rate_constants_R2": r_squared(log_k, true_log_k),
        "rate_constants_R2_identifiable": r_squared(log_k[identifiable], true_log_k[identifiable]),
        "log_k_median_error_identifiable": float(np.median(known)) if known.size else math.nan,
        "log_k_max_error_identifiable": float(known.max()) if known.size else math.nan,
        "trimmed_R2": r_squared(log_k[trimmed], true_log_k[trimmed]),
        "rate_constants_R2_of_line": squared_correlation(log_k, true_log_k),
        "trimmed_R2_of_line": squared_correlation(log_k[trimmed], true_log_k[trimmed]),
        "n_outliers": int(outlier.sum()),
        "slope": float(np.polyfit(true_log_k, log_k, 1)[0]) if len(error) > 1 else math.nan,
    }


def _reaction_data(phase1: Phase1Result, reactions: tuple[str, ...], truth: Truth | None) -> Variables:
    groups = np.full(len(reactions), -1)
    for g, members in enumerate(phase1.identifiability.groups):
        groups[list(members)] = g
    data = {
        "log_k": ("reaction", phase1.log_k, {"long_name": "log10 rate constant"}),
        "log_k_error": ("reaction", phase1.log_k_error),
        "identifiable": ("reaction", phase1.identifiability.identifiable),
        "group": ("reaction", groups, {"long_name": "reactions determined only in combination; -1"}),
        "phase1_loss": ("phase1_iteration", np.exp(phase1.losses)),
    }
    if truth is not None:
        data["true_log_k"] = ("reaction", np.log10(truth.k))
    return data


def _rank_metrics(observations: Observations, data: Variables) -> dict[str, Value]:
    c = observations.concentration
    # From the smaller Gram matrix: values below 1e-8 of the largest are rounding, as they are in data.
    squares = np.linalg.eigvalsh(c @ c.T if c.shape[0] < c.shape[1] else c.T @ c)[::-1]
    values = np.sqrt(np.maximum(squares, 0.0))
    share = np.cumsum(values**2) / np.sum(values**2)
    data["singular_value"] = ("component", values)
    data["concentration"] = (("frame", "species"), np.where(observations.measured, observations.concentration, np.nan))
    data["time"] = ("frame", observations.time)
    data["run"] = ("frame", observations.run)
    return {"activity_rank": int(np.searchsorted(share, _ENERGY) + 1)}


def _rate_law_metrics(
    observations: Observations, phase1: Phase1Result, truth: Truth | None, data: Variables
) -> dict[str, Value]:
    """The learned and the true substrate function over the observed substrate concentrations."""
    network = observations.network
    learned = ~network.mass_action[network.edge_reaction]
    seen = observations.concentration[:, np.unique(network.edge_species[learned])]
    seen = seen[seen > 0]
    if not learned.any() or seen.size == 0:
        return {}
    c = np.geomspace(seen.min(), seen.max(), _LAW_POINTS)
    orders = np.unique(network.edge_order[learned])
    log_f = np.stack([phase1.mlp_sub(np.log(c), np.full(c.shape, s)) for s in orders])
    data["law_concentration"] = ("law_point", c)
    data["law_f"] = (("law_order", "law_point"), np.exp(log_f))
    data["law_order"] = ("law_order", orders)
    if truth is None:
        return {}
    true = np.stack([_true_law(truth, c, s) for s in orders])
    data["true_law_f"] = (("law_order", "law_point"), true)
    # In log f: over five decades, R2 of f itself would depend only on the largest concentrations.
    return {
        "MLP_sub_R2": r_squared(log_f.ravel(), np.log(true).ravel()),
        "MLP_sub_corr": float(np.corrcoef(log_f.ravel(), np.log(true).ravel())[0, 1]),
    }


def _rate_law_band(phase1: Phase1Result, data: Variables) -> Variables:
    """95 % band of the learned substrate function, where the fit knows its error."""
    evidence, f = phase1.trajectories, data["law_f"][1]
    if evidence is None or not len(evidence.law):
        return {}
    factor = np.exp(TWO_SIDED * evidence.log_law_error(data["law_concentration"][1]))
    dims = ("law_order", "law_point")
    return {"law_f_lower": (dims, f / factor), "law_f_upper": (dims, f * factor)}


def _true_law(truth: Truth, c: Float[np.ndarray, " points"], order: float) -> Float[np.ndarray, " points"]:
    """The true substrate function, interpolated in logarithms."""
    if truth.rate_law is None:
        return np.asarray(c**order)
    table = truth.rate_law[np.isclose(truth.rate_law[:, 0], order)]
    if not len(table):
        raise InputError(f"truth: rate_law.csv has no rows for the order {order:g} of the network; add them")
    return np.asarray(np.exp(np.interp(np.log(c), np.log(table[:, 1]), np.log(table[:, 2]))))


def _lines(
    model: MetabolismModel, low: Float[np.ndarray, " species"], high: Float[np.ndarray, " species"]
) -> tuple[Float[np.ndarray, " species"], Float[np.ndarray, " species"], np.ndarray, np.ndarray]:
    """Slope and offset of the least-squares line of MLP_node per species, the concentrations, and MLP_node there."""
    c = np.linspace(low, high, _SWEEP_POINTS)
    y = in_parts(model.homeostasis, c)
    centred = c - c.mean(axis=0)
    spread = np.maximum(np.sum(centred**2, axis=0), 1e-300)
    slope = np.sum(centred * y, axis=0) / spread
    return slope, y.mean(axis=0) - slope * c.mean(axis=0), c, y


def homeostasis_metrics(
    observations: Observations, phase2: Phase2Result, training: Training, truth: Truth | None = None
) -> tuple[dict[str, Value], Variables]:
    """Metrics of learned homeostasis and types, and the arrays of their figures.

    Args:
        observations: all observations, including held-out frames.
        phase2: result of Phase 2.
        training: cluster_distance_threshold is used.
        truth: in the order of the network; None for real data.
    """
    network, model = observations.network, phase2.model
    n = network.n_species
    # The published range allows comparisons for the benchmark systems; for real data, the observed range is relevant.
    sweep = SWEEP if truth is not None else (0.0, float(observations.concentration.max()))
    slope, offset, grid, curves = _lines(model, np.full(n, sweep[0]), np.full(n, sweep[1]))
    low, high = observations.concentration.min(axis=0), observations.concentration.max(axis=0)
    seen_slope, seen_offset, _, _ = _lines(model, low, high)
    moving = ~network.fixed
    embeddings = np.asarray(model.embeddings)
    clusters = cluster_moving(embeddings, moving, training.cluster_distance_threshold)
    data = {
        "sweep": ("sweep", grid[:, 0]),
        "node_curve": (("species", "sweep"), curves.T),
        "slope": ("species", slope),
        "offset": ("species", offset),
        "slope_observed": ("species", seen_slope),
        "offset_observed": ("species", seen_offset),
        "lowest": ("species", low),
        "highest": ("species", high),
        "moving": ("species", moving),
        "embedding": (("species", "dim"), embeddings),
        "cluster": ("species", clusters),
        "phase2_loss": ("phase2_step", phase2.losses, {"units": phase2.loss_unit}),
    }
    if phase2.components:
        components = np.stack(list(phase2.components.values()))
        data["component_name"] = ("component_name", list(phase2.components))
        data["phase2_components"] = (("component_name", "phase2_gradient_step"), components)
    several = len(np.unique(clusters[moving])) > 1
    metrics: dict[str, Value] = {
        "phase2_loss": float(phase2.losses[-1]),
        "phase2_node_magnitude": phase2.node_magnitude,
        "phase2_gain": phase2.gain,
        "embedding_n_clusters": len(np.unique(clusters[moving])),
        "embedding_n_unassigned": count_outliers(embeddings[moving], training.cluster_distance_threshold),
        "embedding_silhouette": silhouette(embeddings[moving], clusters[moving]) if several else None,
    }
    if truth is None:
        # Without known types, metrics are per cluster.
        for g in np.unique(clusters[moving]):
            members = clusters == g
            metrics[f"MLP_node_slope_cluster_{g}"] = float(slope[members].mean())
            metrics[f"MLP_node_offset_cluster_{g}"] = float(offset[members].mean())
        return metrics, data
    data |= {
        "true_type": ("species", truth.type),
        "true_slope": ("species", -truth.lam),
        "true_offset": ("species", truth.lam * truth.baseline),
    }
    metrics |= _type_metrics({"": (slope, offset), "_observed": (seen_slope, seen_offset)}, truth, moving)
    metrics["embedding_cluster_acc"] = cluster_accuracy(clusters[moving], truth.type[moving])
    return metrics, data


def _type_metrics(
    lines: Mapping[str, tuple[Float[np.ndarray, " species"], Float[np.ndarray, " species"]]],
    truth: Truth,
    moving: Bool[np.ndarray, " species"],
) -> dict[str, Value]:
    """Learned and true homeostasis of every type; `lines` are slope and offset by suffix of the metric."""
    metrics: dict[str, Value] = {}
    ratios = []
    for t in np.unique(truth.type[moving]):
        members = moving & (truth.type == t)
        true_slope, true_offset = -truth.lam[members].mean(), (truth.lam * truth.baseline)[members].mean()
        for suffix, (slope, offset) in lines.items():
            metrics[f"MLP_node_slope_ratio_{t}{suffix}"] = _ratio(slope[members].mean(), true_slope)
            metrics[f"MLP_node_offset_ratio_{t}{suffix}"] = _ratio(offset[members].mean(), true_offset)
            metrics[f"MLP_node_slope_{t}{suffix}"] = float(slope[members].mean())
            metrics[f"MLP_node_offset_{t}{suffix}"] = float(offset[members].mean())
        metrics[f"MLP_node_gt_slope_{t}"] = float(true_slope)
        metrics[f"MLP_node_gt_offset_{t}"] = float(true_offset)
        ratios.append(_ratio(lines[""][0][members].mean(), true_slope))
    average = float(np.mean(ratios))
    without_homeostasis = not truth.lam[moving].any()
    return metrics | {
        "avg_slope_ratio": average,
        "classification": "not applicable" if without_homeostasis else classify(average),
    }


def _ratio(learned: float, true: float) -> float:
    return float(learned / true) if true else math.nan


def _prediction_metrics(result: FitResult, model: MetabolismModel, data: Variables) -> dict[str, Value]:
    """dc/dt in all frames, and errors of dc/dt and of rollouts in held-out frames.

    Without errors where concentrations are missing: these were interpolated, and are no standard for predictions.
    """
    observations, rule = result.observations, result.phase1.rule
    structure = Structure.of(observations.network)
    transitions = observations.transitions()
    rates = ModelRates.of(model, structure, observations.concentration)
    predicted = StepQuadrature.of(observations, rule).mean(rates(observations.concentration))
    measured = observations.measured[transitions.frame] & observations.measured[transitions.frame + 1]
    data["derivative"] = (("transition", "species"), np.where(measured, transitions.derivative, np.nan))
    data["predicted_derivative"] = (("transition", "species"), predicted)
    data["transition_time"] = ("transition", observations.time[transitions.frame])
    unseen = observations.held_out(*result.training.held_out)[transitions.frame]
    if not unseen.any() or not observations.measured.all():
        return {}
    moving = ~observations.network.fixed
    t = transitions.select(unseen)
    error = (predicted[unseen] - t.derivative)[:, moving]
    metrics: dict[str, Value] = {
        "held_out_frames": int(unseen.sum()),
        "held_out_derivative_R2": float(1 - np.sum(error**2) / max(np.sum(t.derivative[:, moving] ** 2), 1e-300)),
    }
    steps = _windows(t)
    if steps is not None:
        error = _final_errors(rates, t, steps, moving, rule)[:, moving]
        change = (t.end[steps[-1]] - t.start[steps[0]])[:, moving]
        metrics["held_out_rollout_error"] = float(np.sqrt(np.sum(error**2) / max(np.sum(change**2), 1e-300)))
    begins = np.flatnonzero(np.diff(t.frame, prepend=-2) != 1)
    lengths = np.diff(begins, append=len(t.dt))
    # As long as the longest run; beyond the end of a run, states have no meaning.
    all_steps = begins + np.minimum(np.arange(lengths.max())[:, None], lengths - 1)
    states = _roll(rates, t, all_steps, moving, rule)
    shown = np.full(observations.concentration.shape, np.nan)
    shown[t.frame[begins]] = t.start[begins]
    for begin, length, run in zip(begins, lengths, np.moveaxis(states, 1, 0), strict=True):
        shown[t.frame[begin : begin + length] + 1] = run[:length]
    shown[~observations.held_out(*result.training.held_out)] = np.nan  # where a step leads into a training frame
    data["predicted_concentration"] = (("frame", "species"), shown)
    shortest = int(lengths.min())
    seen = t.end[begins[None, :] + np.arange(shortest)[:, None]]
    return metrics | _test_metrics(states[:shortest, :, moving].ravel(), seen[..., moving].ravel())


def _test_metrics(predicted: Float[np.ndarray, " values"], seen: Float[np.ndarray, " values"]) -> dict[str, Value]:
    """R2 and correlation of one long rollout per run over the held-out frames, as published.

    All rollouts have the length of the shortest one, and all species and frames count together.
    """
    if not np.isfinite(predicted).all():
        return {"test_R2": None, "test_pearson": None}
    varies = min(predicted.std(), seen.std()) > 0
    return {
        "test_R2": r_squared(predicted, seen),
        "test_pearson": float(np.corrcoef(predicted, seen)[0, 1]) if varies else None,
    }


def _windows(t: Transitions) -> Int[np.ndarray, "steps starts"] | None:
    """Indices of the transitions of consecutive rollouts of `_HORIZON` steps; None if every run is shorter."""
    starts = [
        f
        for f in range(0, len(t.dt) - _HORIZON + 1, _HORIZON)
        if t.frame[f + _HORIZON - 1] - t.frame[f] == _HORIZON - 1
    ]
    return np.array(starts)[None, :] + np.arange(_HORIZON)[:, None] if starts else None


def _held_out_skill(result: FitResult, model: MetabolismModel) -> dict[str, Value]:
    """The share of the squared error in held-out frames that homeostasis removes (a skill score, Murphy 1988).

    After a fit of trajectories, noise hides homeostasis in dc/dt, and its lines are compared with those of the held-out
    trajectories.
    """
    lines = held_out_lines(result)
    if lines is None:
        return _rollout_skill(result, model)
    c = result.observations.concentration
    slope, offset, _, _ = _lines(model, c.min(axis=0), c.max(axis=0))
    skill = lines.skill(slope, offset)
    return {"held_out_skill": skill} if np.isfinite(skill) else {}


def _rollout_skill(result: FitResult, model: MetabolismModel) -> dict[str, Value]:
    """The share of the squared error of held-out rollouts that homeostasis removes.

    Errors of the reactions of the checkpoint can exceed homeostasis, and a wrong homeostasis that compensates them
    would predict better than the correct one. The rollouts therefore use copies of the reactions that are corrected on
    the held-out frames, together with separate lines of homeostasis. The homeostasis to be evaluated was learned from
    the other frames (cross-fitting, Chernozhukov et al. 2018). The truth is not required. Empty if there are too few
    held-out frames.
    """
    _, unseen = result.observations.split(*result.training.held_out)
    if unseen is None:
        return {}
    try:
        # The rule for dc/dt was chosen from more frames than these.
        training = result.training.model_copy(update={"derivative": result.phase1.rule})
        held_out = Phase2Data(unseen, result.phase1, result.graph_model, training)
        t, refined = held_out.transitions, refine_reactions(held_out).reactions
    except InputError:  # too few frames
        return {}
    steps = _windows(t)
    if steps is None:
        return {}
    moving = ~unseen.network.fixed
    without: MetabolismModel = eqx.tree_at(lambda m: m.mlp_node.unit, model, on_device(0.0))
    error, error_without = (
        np.sum(_final_errors(ModelRates(refined, m.homeostasis), t, steps, moving, result.phase1.rule)[:, moving] ** 2)
        for m in (model, without)
    )
    return {"held_out_skill": float(1 - error / max(error_without, 1e-300))}


def _final_errors(
    rates: ModelRates,
    t: Transitions,
    steps: Int[np.ndarray, "steps starts"],
    moving: Bool[np.ndarray, " species"],
    rule: Rule,
) -> Float[np.ndarray, "starts species"]:
    """Errors of the final concentrations of rollouts."""
    return np.asarray(_roll(rates, t, steps, moving, rule)[-1] - t.end[steps[-1]])


def _roll(
    rates: ModelRates,
    t: Transitions,
    steps: Int[np.ndarray, "steps starts"],
    moving: Bool[np.ndarray, " species"],
    rule: Rule,
) -> Float[np.ndarray, "steps starts species"]:
    """States of rollouts over some transitions; fixed species, which may vary, have their measured concentrations."""
    known = None if moving.all() else np.where(moving, np.nan, t.end[steps])
    return rollout(rates, t.start[steps[0]], t.dt[steps], rule, known)
