"""The verdict on the metrics of one run: a reward in [0, 1], best where nothing is left to improve."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from metabolismgraph.explore.events import Failed, Finished, Primary, Scored
from metabolismgraph.metrics import by_index, classify, classify_skill

SKILL = "held_out_skill"


def ratio_reward(ratio: float) -> float:
    """Reward of one type: min(ρ, 1/ρ) for ρ > 0, otherwise 0.

    ρ is learned over true slope. Best at one and bounded; twice too strong counts as twice too weak, as rate
    ratios are compared on a log scale (it is exp(-|ln ρ|)); next to one it falls off linearly, so that 0.99 and
    0.999 still differ. A plain ratio, maximised, ranks 10 above 1.
    """
    return min(ratio, 1 / ratio) if ratio > 0 and math.isfinite(ratio) else 0.0


def slope_ratios(metrics: Mapping[str, Any]) -> dict[int, float | None]:
    """Learned over true slope of every type; None where it is not a number."""
    return by_index(metrics, "MLP_node_slope_ratio_{t}")


def score(outcome: Finished | Failed, primary: Primary) -> Scored:
    """The verdict on a run.

    By avg_slope_ratio the reward is the mean over types of `ratio_reward`, so that opposite errors do not cancel.
    By validation it is held_out_skill of `evaluation.evaluate`, 1 - MSE / MSE without homeostasis, not below zero.
    States: `failed` has no metrics; `nan` has them, but not the primary one; `negative` pulls away from the baseline
    on average, or predicts worse than no homeostasis at all. None of these three is ever worth more than zero.
    """
    if isinstance(outcome, Failed):
        return _scored(outcome, "failed", 0.0, (), "failed")
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
