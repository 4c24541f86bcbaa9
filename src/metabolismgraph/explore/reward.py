"""The verdict on the metrics of one run: a reward in [0, 1], 1 is the best, and a class, by the search space."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

from metabolismgraph.explore.events import Failed, Finished, Scored, ScoreState
from metabolismgraph.explore.search_space import Range, Reward, SearchSpace, Term
from metabolismgraph.metrics import by_index, find, types_separated

SKILL = "held_out_skill"
_AVERAGE, _RATIO = "avg_slope_ratio", "MLP_node_slope_ratio_{t}"


def ratio_reward(ratio: float) -> float:
    """Reward of one type: min(ρ, 1/ρ) for ρ > 0, otherwise 0.

    ρ is learned over true slope. The reward is bounded and largest at ρ = 1. Twice too strong counts as much as twice
    too weak, since ratios are compared on a log scale (the reward is exp(-|ln ρ|)). Near 1 it falls linearly, so that
    0.99 and 0.999 differ. The plain ratio would rank 10 above 1.
    """
    return min(ratio, 1 / ratio) if ratio > 0 and math.isfinite(ratio) else 0.0


def slope_ratios(metrics: Mapping[str, Any]) -> dict[int, float | None]:
    """Learned over true slope of every type; None where it is not a number."""
    return by_index(metrics, _RATIO)


def score(outcome: Finished | Failed, space: SearchSpace, primary: str) -> Scored:
    """The verdict on a run.

    The reward is the weighted mean of the terms of the search space, each within [0, 1]. A metric that is best at one,
    such as a slope ratio, counts by `ratio_reward`, for each type, so that opposite errors do not cancel.

    States: `failed`, no metrics by fault of the configuration; `lost`, none by fault of the machine; `nan`, no number
    for a metric that the reward requires; `negative`, the metric behind the reward is below zero, as for a pull away
    from the baseline or for predictions that are worse than without homeostasis, or the loss of training has not come
    below that of MLP_node = 0. The reward of all these is zero; that of a lost run is not used.
    """
    if isinstance(outcome, Failed):
        return _scored(outcome, "lost" if outcome.cause == "machine" else "failed", 0.0, (), "failed")
    wanted = space.rewards[primary]
    metrics = _with_average(outcome.metrics)
    leading = metrics.get(wanted.metric or primary)
    terms = _terms(wanted, metrics)
    if not is_number(leading) or terms is None:
        return _scored(outcome, "nan", 0.0, (), "failed")
    parts = tuple(part for each in terms for part in each)
    gain = metrics.get("phase2_gain")
    if leading < 0 or (is_number(gain) and gain <= 0):
        return _scored(outcome, "negative", 0.0, parts, "failed")
    weights = [term.weight for term in wanted.terms]
    means = [sum(each) / len(each) if each else 0.0 for each in terms]
    reward = sum(weight * mean for weight, mean in zip(weights, means, strict=True)) / sum(weights)
    return _scored(outcome, "scored", reward, parts, _class(wanted, primary, metrics))


def score_by(outcome: Finished | Failed, metric: str, status: str) -> Scored:
    """The verdict of another program on a run: its metric, within 0 and 1, and its own classification."""
    value = outcome.metrics.get(metric) if isinstance(outcome, Finished) else None
    found = status if status in {"converged", "partial", "failed"} else "failed"
    if isinstance(outcome, Failed):
        return _scored(outcome, "failed", 0.0, (), found)
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return _scored(outcome, "nan", 0.0, (), found)
    reward = min(max(float(value), 0.0), 1.0)
    return _scored(outcome, "scored" if value >= 0 else "negative", reward, (reward,), found)


def holds(when: Mapping[str, Range], values: Mapping[str, Any]) -> bool:
    """Whether every value is a number in its range."""
    return all(
        is_number(values.get(name)) and (low is None or values[name] >= low) and (high is None or values[name] <= high)
        for name, (low, high) in when.items()
    )


def quantities(metrics: Mapping[str, Any], reward: float) -> dict[str, Any]:
    """The quantities of a run that conditions of moves may use, see `search_space.DERIVED`."""
    ratios = [ratio for ratio in slope_ratios(metrics).values() if is_number(ratio)]
    found = _with_average(metrics) | {"reward": reward}
    if metrics.get("embedding_n_clusters") is not None:
        found["separated"] = int(types_separated(metrics))
    if ratios:
        found |= {"lowest_slope_ratio": min(ratios), "highest_slope_ratio": max(ratios)}
    return found


def _with_average(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics with avg_slope_ratio, which older logs leave out."""
    ratios = list(slope_ratios(metrics).values())
    if not ratios:
        return dict(metrics)
    known = [ratio for ratio in ratios if is_number(ratio)]
    return {**metrics, _AVERAGE: sum(known) / len(known) if len(known) == len(ratios) else None}


def _terms(wanted: Reward, metrics: Mapping[str, Any]) -> list[tuple[float, ...]] | None:
    """The parts of each term; empty for terms behind a gate that is not reached. None: a part is not a number."""
    found: list[tuple[float, ...]] = []
    open_ = True
    for term in wanted.terms:
        values = _values(term, metrics)
        if not open_:
            found.append(())
        elif not values or not all(map(is_number, values)):
            return None
        else:
            found.append(tuple(_part(term, float(value)) for value in values))
            open_ = term.gate is None or values[0] >= term.gate
    return found


def _values(term: Term, metrics: Mapping[str, Any]) -> list[Any]:
    return list(by_index(metrics, term.metric).values()) if "{t}" in term.metric else [metrics.get(term.metric)]


def _part(term: Term, value: float) -> float:
    metric = find(term.metric.replace("{t}", "0"))
    if metric is not None and metric.better == "one":
        return ratio_reward(value)
    return min(max(value, 0.0), 1.0)


def _class(wanted: Reward, primary: str, metrics: Mapping[str, Any]) -> str:
    if wanted.classes:
        return next((each.name for each in wanted.classes if holds(each.when, metrics)), "failed")
    metric = find(wanted.metric or primary)
    return (metric and metric.verdict(float(metrics[wanted.metric or primary]))) or "failed"


def is_number(value: object) -> TypeGuard[float]:
    """Whether a metric is a finite number."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def _scored(
    outcome: Finished | Failed, state: ScoreState, reward: float, parts: tuple[float, ...], found: str
) -> Scored:
    return Scored(iteration=outcome.iteration, state=state, reward=reward, parts=parts, classification=found)
