"""What every metric is: unit, meaning, whether the truth is needed for it, and which way is better.

Tables, logs, prompts and benchmarks read these records; none of them takes a name apart. A new metric is a line in
`METRICS`, and the code in `evaluation` that computes it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Mapping
from typing import Any, Literal

Value = float | int | str | list[str] | None
Classification = Literal["converged", "partial", "failed", "not applicable"]

REFINED = "refined_"  # before the name of a metric of the model after joint refinement
_CONVERGED, _PARTIAL = (0.8, 1.2), (0.3, 3.0)  # of avg_slope_ratio
_SKILL_CONVERGED, _SKILL_PARTIAL = 0.8, 0.3  # of held_out_skill


def classify(avg_slope_ratio: float) -> Classification:
    """converged within 0.8-1.2, partial within 0.3-3.0, otherwise (and for NaN) failed."""
    if _CONVERGED[0] <= avg_slope_ratio <= _CONVERGED[1]:
        return "converged"
    return "partial" if _PARTIAL[0] <= avg_slope_ratio <= _PARTIAL[1] else "failed"


def classify_skill(held_out_skill: float) -> Classification:
    """converged from 0.8, partial from 0.3, otherwise (and for NaN) failed."""
    if held_out_skill >= _SKILL_CONVERGED:
        return "converged"
    return "partial" if held_out_skill >= _SKILL_PARTIAL else "failed"


@dataclasses.dataclass(frozen=True)
class Metric:
    """A quantity that an evaluation reports.

    Attributes:
        name: as in metrics.json; `{t}` stands for the number of a type or cluster.
        meaning: in a few words.
        unit: empty for a plain number or text.
        uses_truth: whether the true system is needed to compute it.
        better: higher or lower values, or those near one; empty where neither is better.
        good, fair: from these values on it is well, or fairly, recovered.
        summary: whether the table after a run shows it.
        log_name: what the log of an exploration calls it, where that differs.
    """

    name: str
    meaning: str
    unit: str = ""
    uses_truth: bool = False
    better: Literal["higher", "lower", "one", ""] = ""
    good: float | None = None
    fair: float | None = None
    summary: bool = False
    log_name: str = ""

    def verdict(self, value: Value) -> Classification | None:
        """How good a value is; None where there is no saying."""
        if self.name == "classification":
            return value if value in {"converged", "partial", "not applicable"} else "failed"  # type: ignore[return-value]
        if not isinstance(value, float) or (self.better == "one" and math.isnan(value)):
            return None
        if self.better == "one":
            return classify(value)
        if self.good is None or self.fair is None:
            return None
        return "converged" if value >= self.good else "partial" if value >= self.fair else "failed"


def _of_types(part: Literal["slope", "offset"], unit: str) -> tuple[Metric, ...]:
    """Homeostasis of every true type: the line through MLP_node over concentrations from 0 to 40."""
    line = f"homeostatic {part}"
    ratio = f"learned / true {line} of type {{t}}"
    return (
        Metric(
            f"MLP_node_{part}_ratio_{{t}}",
            ratio,
            uses_truth=True,
            better="one",
            summary=True,
            log_name=f"{part}_ratio_{{t}}",
        ),
        Metric(f"MLP_node_{part}_{{t}}", f"{line} of type {{t}}, mean of its metabolites", unit, uses_truth=True),
        Metric(f"MLP_node_gt_{part}_{{t}}", f"true {line} of type {{t}}", unit, uses_truth=True),
        Metric(
            f"MLP_node_{part}_ratio_{{t}}_observed",
            f"{ratio}, fitted over the observed concentrations",
            uses_truth=True,
            better="one",
        ),
        Metric(
            f"MLP_node_{part}_{{t}}_observed",
            f"{line} of type {{t}}, fitted over the observed concentrations",
            unit,
            uses_truth=True,
        ),
        Metric(f"MLP_node_{part}_cluster_{{t}}", f"{line}, mean of cluster {{t}}", unit, summary=True),
    )


# The order is that of the table after a run.
METRICS = (
    Metric(
        "classification",
        "by avg_slope_ratio: 0.8-1.2 converged, 0.3-3.0 partial",
        uses_truth=True,
        summary=True,
    ),
    Metric(
        "avg_slope_ratio",
        "mean over types of learned / true homeostatic slope",
        uses_truth=True,
        better="one",
        summary=True,
    ),
    Metric(
        "rate_constants_R2_identifiable",
        "log10 k, reactions that the data determine",
        uses_truth=True,
        better="higher",
        good=0.99,
        fair=0.5,
        summary=True,
    ),
    Metric(
        "rate_constants_R2",
        "log10 k, all reactions; the undetermined ones are a guess from the prior",
        uses_truth=True,
        better="higher",
        summary=True,
    ),
    Metric(
        "log_k_median_error_identifiable",
        "median |error| of log10 k, determined reactions",
        uses_truth=True,
        better="lower",
        summary=True,
    ),
    Metric(
        "log_k_max_error_identifiable",
        "largest |error| of log10 k, determined reactions",
        uses_truth=True,
        better="lower",
    ),
    Metric("trimmed_R2", "log10 k without outliers, |error| > 0.3", uses_truth=True, better="higher"),
    Metric("n_outliers", "reactions with |error of log10 k| > 0.3", uses_truth=True, better="lower"),
    Metric("slope", "slope of learned against true log10 k", uses_truth=True, better="one"),
    Metric("n_unidentifiable", "reactions known only in combination, or not at all", summary=True),
    Metric(
        "MLP_sub_R2",
        "learned rate law, log f over the observed concentrations",
        uses_truth=True,
        better="higher",
        good=0.99,
        fair=0.5,
        summary=True,
    ),
    Metric("MLP_sub_corr", "correlation of learned and true log f", uses_truth=True, better="higher"),
    Metric(
        "embedding_cluster_acc",
        "metabolites put with their own type",
        uses_truth=True,
        better="higher",
        good=0.95,
        fair=0.7,
        summary=True,
    ),
    Metric("embedding_n_clusters", "metabolite types found", summary=True),
    Metric("embedding_silhouette", "separation of the types", better="higher", summary=True),
    Metric("held_out_frames", "frames that training never saw"),
    Metric("held_out_derivative_R2", "dc/dt on frames that training never saw", better="higher", summary=True),
    Metric("held_out_rollout_error", "16-step rollouts there: rms error / rms change", better="lower", summary=True),
    Metric("held_out_skill", "share of the rollouts' squared error that homeostasis removes", better="higher"),
    Metric("activity_rank", "singular values with 99 % of the squared norm", summary=True),
    Metric("training_time_min", "both phases", "minutes", better="lower", summary=True),
    *_of_types("slope", "1/time"),
    *_of_types("offset", "concentration/time"),
    Metric("trustworthy", "whether the fit is to be trusted"),
    Metric("why_not", "why it is not"),
    Metric("derivative_rule", "rule for dc/dt over a step"),
    Metric("final_loss", "share of the squared dc/dt that Phase 1 leaves", better="lower"),
    Metric("phase1_iterations", "iterations of Phase 1"),
    Metric("phase1_converged", "whether Phase 1 ended by itself"),
    Metric("phase2_loss", "mean squared error at the end of Phase 2", better="lower"),
    Metric("phase2_node_magnitude", "mean |MLP_node| over the data", "concentration/time"),
)


@functools.cache
def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(r"\{t\}", r"(?P<t>\d+)"))


def find(name: str) -> Metric | None:
    """The record of a metric, by its name in metrics.json; None where there is none.

    Example:
        >>> find("MLP_node_slope_ratio_1").meaning, find("refined_avg_slope_ratio").uses_truth
        ('learned / true homeostatic slope of type 1', True)
    """
    plain = name.removeprefix(REFINED)
    for metric in METRICS:
        found = _pattern(metric.name).fullmatch(plain)
        if found is not None and "t" in found.groupdict():
            return dataclasses.replace(metric, name=name, meaning=metric.meaning.format(t=found["t"]))
        if found is not None:
            return metric
    return None


def by_index(values: Mapping[str, Any], name: str) -> dict[int, Any]:
    """The values of a metric of types or clusters, by their numbers.

    Args:
        values: metrics by name.
        name: as in `METRICS`, with `{t}`.

    Example:
        >>> by_index({"MLP_node_slope_0": -0.1, "MLP_node_slope_1": -0.2, "slope": 1.0}, "MLP_node_slope_{t}")
        {0: -0.1, 1: -0.2}
    """
    pattern = _pattern(name)
    return {int(found["t"]): value for key, value in values.items() if (found := pattern.fullmatch(key))}


def from_log_name(name: str) -> str:
    """The name in metrics.json of what the log of an exploration calls by another."""
    for metric in METRICS:
        found = _pattern(metric.log_name).fullmatch(name) if metric.log_name else None
        if found is not None:
            return metric.name.format(t=found["t"])
    return name
