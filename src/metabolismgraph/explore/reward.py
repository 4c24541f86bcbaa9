"""The verdict on the metrics of one run: a reward in [0, 1]; 1 is the best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from metabolismgraph.explore.events import Failed, Finished, Primary, Scored
from metabolismgraph.metrics import by_index, classify, classify_skill

SKILL = "held_out_skill"


def ratio_reward(ratio: float) -> float:
    """Reward of one type: min(ρ, 1/ρ) for ρ > 0, otherwise 0.

    ρ is learned over true slope. The reward is bounded and largest at ρ = 1. Twice too strong counts as much as twice
    too weak, since ratios are compared on a log scale (the reward is exp(-|ln ρ|)). Near 1 it falls linearly, so that
    0.99 and 0.999 differ. The plain ratio would rank 10 above 1.
    """
    return min(ratio, 1 / ratio) if ratio > 0 and math.isfinite(ratio) else 0.0


def slope_ratios(metrics: Mapping[str, Any]) -> dict[int, float | None]:
    """Learned over true slope of every type; None where it is not a number."""
    return by_index(metrics, "MLP_node_slope_ratio_{t}")


def score(outcome: Finished | Failed, primary: Primary) -> Scored:
    """The verdict on a run.

    By avg_slope_ratio the reward is the mean over types of `ratio_reward`, so that opposite errors do not cancel.
    By validation it is held_out_skill of `evaluation.evaluate`, 1 - MSE / MSE without homeostasis, not below zero.
    States: `failed`, no metrics by fault of the configuration; `lost`, none by fault of the machine; `nan`, no number
    for the primary metric; `negative`, on average a pull away from the baseline, or predictions worse than without
    homeostasis. The reward of all these is zero; that of a lost run is not used.
    """
    if isinstance(outcome, Failed):
        return _scored(outcome, "lost" if outcome.cause == "machine" else "failed", 0.0, (), "failed")
    if primary == "validation":
        return _by_validation(outcome)
    ratios = tuple(slope_ratios(outcome.metrics).values())
    numbers = [r for r in ratios if r is not None and math.isfinite(r)]
    if not ratios or len(numbers) < len(ratios):
        return _scored(outcome, "nan", 0.0, (), "failed")
    parts = tuple(ratio_reward(r) for r in numbers)
    average = sum(numbers) / len(numbers)
    if average < 0:
        return _scored(outcome, "negative", 0.0, parts, "failed")
    return _scored(outcome, "scored", sum(parts) / len(parts), parts, classify(average))


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


def _by_validation(outcome: Finished) -> Scored:
    skill = outcome.metrics.get(SKILL)
    if not isinstance(skill, (int, float)) or not math.isfinite(skill):
        return _scored(outcome, "nan", 0.0, (), "failed")
    if skill < 0:
        return _scored(outcome, "negative", 0.0, (0.0,), "failed")
    reward = min(float(skill), 1.0)
    return _scored(outcome, "scored", reward, (reward,), classify_skill(reward))


def _scored(outcome: Finished | Failed, state: Any, reward: float, parts: tuple[float, ...], found: Any) -> Scored:
    return Scored(iteration=outcome.iteration, state=state, reward=reward, parts=parts, classification=found)
