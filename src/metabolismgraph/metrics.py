"""The definition of every metric: unit, meaning, whether it requires the truth, and whether higher or lower is better.

Tables, logs, prompts and benchmarks use these records and do not parse names. A new metric requires a record in
`METRICS`, and code in `evaluation` that computes it.
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

REFINED = "refined_"  # prefix of metrics of the model after joint refinement
_CONVERGED, _PARTIAL = (0.8, 1.2), (0.3, 3.0)  # of avg_slope_ratio
_APART = 0.5  # silhouette, of a reasonable structure (Kaufman & Rousseeuw 1990)


def classify(avg_slope_ratio: float) -> Classification:
    """Class of an avg_slope_ratio: converged from 0.8 to 1.2, partial from 0.3 to 3.0, otherwise (and NaN) failed."""
    if _CONVERGED[0] <= avg_slope_ratio <= _CONVERGED[1]:
        return "converged"
    return "partial" if _PARTIAL[0] <= avg_slope_ratio <= _PARTIAL[1] else "failed"


def types_separated(metrics: Mapping[str, Any]) -> bool:
    """Whether embeddings form two or more clusters that are well apart; metabolites in none do not count as one.

    Example:
        >>> types_separated({"embedding_n_clusters": 2, "embedding_n_unassigned": 3, "embedding_silhouette": 0.9})
        False
    """
    silhouette = metrics.get("embedding_silhouette")
    clusters = (metrics.get("embedding_n_clusters") or 0) - bool(metrics.get("embedding_n_unassigned"))
    return clusters > 1 and isinstance(silhouette, float) and silhouette > _APART


@dataclasses.dataclass(frozen=True)
class Metric:
    """A quantity that an evaluation reports.

    Attributes:
        name: as in metrics.json; `{t}` is replaced by the number of a type or cluster.
        meaning: a short description.
        unit: empty for dimensionless numbers and text.
        uses_truth: whether it requires the true system.
        better: "higher", "lower", or "one" if values close to one are better; empty without a preference.
        good, fair: lower bounds of the classes converged and partial.
        summary: whether the table at the end of a run contains it.
        log_name: its name in the log of an exploration, if that is different.
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
        """The class of a value; None if the metric has no classes."""
        if self.name == "classification":
            return value if value in {"converged", "partial", "not applicable"} else "failed"  # type: ignore[return-value]
        if not isinstance(value, float) or (self.better == "one" and math.isnan(value)):
            return None
        if self.better == "one":
            return classify(value)
        if self.good is None or self.fair is None:
            return None
        return "converged" if value >= self.good else "partial" if value >= self.fair else "failed"


_compared = functools.partial(Metric, uses_truth=True)


def _of_types(part: Literal["slope", "offset"], unit: str) -> tuple[Metric, ...]:
    """Metrics of homeostasis per true type, by the line of MLP_node over concentrations from 0 to 40."""
    line = f"homeostatic {part}"
    ratio = f"learned / true {line} of type {{t}}"
    return (
        _compared(f"MLP_node_{part}_ratio_{{t}}", ratio, better="one", summary=True, log_name=f"{part}_ratio_{{t}}"),
        _compared(f"MLP_node_{part}_{{t}}", f"{line} of type {{t}}, mean of its metabolites", unit),
        _compared(f"MLP_node_gt_{part}_{{t}}", f"true {line} of type {{t}}", unit),
        _compared(
            f"MLP_node_{part}_ratio_{{t}}_observed", f"{ratio}, fitted over the observed concentrations", better="one"
        ),
        _compared(
            f"MLP_node_{part}_{{t}}_observed", f"{line} of type {{t}}, fitted over the observed concentrations", unit
        ),
        Metric(f"MLP_node_{part}_cluster_{{t}}", f"{line}, mean of cluster {{t}}", unit, summary=True),
    )


# The order is that of the table after a run.
METRICS = (
    _compared("classification", "by avg_slope_ratio: 0.8-1.2 converged, 0.3-3.0 partial", summary=True),
    _compared("avg_slope_ratio", "mean over types of learned / true homeostatic slope", better="one", summary=True),
    _compared(
        "rate_constants_R2_identifiable",
        "log10 k, reactions that the data determine",
        better="higher",
        good=0.99,
        fair=0.5,
        summary=True,
    ),
    _compared(
        "rate_constants_R2",
        "log10 k, all reactions; undetermined ones have their posterior mean",
        better="higher",
        summary=True,
    ),
    _compared(
        "log_k_median_error_identifiable",
        "median |error| of log10 k, determined reactions",
        better="lower",
        summary=True,
    ),
    _compared("log_k_max_error_identifiable", "largest |error| of log10 k, determined reactions", better="lower"),
    _compared("trimmed_R2", "log10 k without outliers, |error| > 0.3", better="higher"),
    _compared(
        "rate_constants_R2_of_line", "squared correlation of log10 k, the R2 of the published program", better="higher"
    ),
    _compared("trimmed_R2_of_line", "the same without outliers, as in the published program", better="higher"),
    _compared("n_outliers", "reactions with |error of log10 k| > 0.3", better="lower"),
    _compared("slope", "slope of learned against true log10 k", better="one"),
    Metric("n_unidentifiable", "reactions determined only in combination, or not at all", summary=True),
    _compared(
        "MLP_sub_R2",
        "learned rate law, log f over the observed concentrations",
        better="higher",
        good=0.99,
        fair=0.5,
        summary=True,
    ),
    _compared("MLP_sub_corr", "correlation of learned and true log f", better="higher"),
    _compared(
        "embedding_cluster_acc",
        "metabolites assigned to their own type",
        better="higher",
        good=0.95,
        fair=0.7,
        summary=True,
    ),
    Metric("lambda_cluster_{t}", "lambda of cluster {t}, from the lines of Phase 1", "1/time"),
    Metric("lambda_error_cluster_{t}", "standard error of the lambda of cluster {t}", "1/time"),
    Metric("baseline_cluster_{t}", "baseline of cluster {t}, from the lines of Phase 1", "concentration"),
    Metric("baseline_error_cluster_{t}", "standard error of the baseline of cluster {t}", "concentration"),
    Metric("embedding_n_clusters", "metabolite types found", summary=True),
    Metric("embedding_n_unassigned", "metabolites in no type; they form one more cluster", better="lower"),
    Metric("embedding_silhouette", "separation of the types", better="higher", summary=True),
    Metric("held_out_frames", "steps on held-out frames"),
    Metric("held_out_derivative_R2", "dc/dt on held-out frames", better="higher", summary=True),
    Metric("held_out_rollout_error", "16-step held-out rollouts: rms error / rms change", better="lower", summary=True),
    Metric("test_R2", "concentrations predicted over all held-out frames from the first one", better="higher"),
    Metric("test_pearson", "correlation of these predictions with the data", better="higher"),
    _compared(
        "degeneracy_gap",
        "test_pearson - rate_constants_R2; above 0.1, wrong rate constants predict well",
        better="lower",
    ),
    Metric(
        "alpha", "f at a concentration and an order of 1, before it was moved into the rate constants", better="one"
    ),
    Metric(
        "held_out_skill",
        "share of the squared error of held-out predictions that homeostasis removes",
        better="higher",
        good=0.8,
        fair=0.3,
    ),
    Metric("activity_rank", "singular values with 99 % of the squared norm", summary=True),
    Metric("training_time_min", "both phases", "minutes", better="lower", summary=True),
    *_of_types("slope", "1/time"),
    *_of_types("offset", "concentration/time"),
    Metric("trustworthy", "whether the fit is to be trusted"),
    Metric("why_not", "reasons against the fit"),
    Metric("derivative_rule", "rule for dc/dt over a step"),
    Metric("final_loss", "unexplained share of the squared dc/dt after Phase 1", better="lower"),
    Metric("phase1_iterations", "iterations of Phase 1"),
    Metric("phase1_converged", "whether Phase 1 converged"),
    Metric("phase2_loss", "mean squared error at the end of Phase 2", better="lower"),
    Metric(
        "phase2_gain",
        "share of the loss of MLP_node = 0 that Phase 2 removes; not above 0: it has learned nothing",
        better="higher",
    ),
    Metric("phase2_node_magnitude", "mean |MLP_node| over the data", "concentration/time"),
)


@functools.cache
def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(r"\{t\}", r"(?P<t>\d+)"))


def find(name: str) -> Metric | None:
    """The record of a metric by its name in metrics.json; None for an unknown name.

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
    """The values of a metric of types or clusters, by the number of the type or cluster.

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
    """The name in metrics.json of a metric by its name in the log of an exploration."""
    for metric in METRICS:
        found = _pattern(metric.log_name).fullmatch(name) if metric.log_name else None
        if found is not None:
            return metric.name.format(t=found["t"])
    return name
