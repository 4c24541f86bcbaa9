"""How close an estimate of the noise benchmark is to the truth, and whether a wrong one came with a warning."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float, Int

from metabolismgraph.benchmarks.noise_methods import Estimate, Sample
from metabolismgraph.benchmarks.results_file import Row
from metabolismgraph.ground_truth.agreement import cluster_accuracy, r_squared
from metabolismgraph.homeostasis.types_from_lines import find_types, mean_lines
from metabolismgraph.reactions.verdict import TWO_SIDED
from metabolismgraph.trajectories.bound import Bound

_FAR = 3.0  # standard errors by which a slope is off
_NOTICEABLE = 0.01  # the same, relative to the true slope
_ACCURATE = 0.9
_QUANTILES = (np.arange(2000) + 0.5) / 2000


class TypeLines(NamedTuple):
    """Slope and offset of the true types.

    Attributes:
        line: slope and offset of each type.
        error: their standard errors; NaN without a covariance.
    """

    line: Float[np.ndarray, "types 2"]
    error: Float[np.ndarray, "types 2"]


def true_type_lines(
    slope: Float[np.ndarray, " species"],
    offset: Float[np.ndarray, " species"],
    types: Int[np.ndarray, " species"],
    covariance: Float[np.ndarray, "lines lines"] | None,
) -> TypeLines:
    """Generalised least-squares means of the lines of the members of each type (Aitken 1936).

    Args:
        slope, offset: of the species, in 1/time and concentration/time.
        types: of the species, from 0.
        covariance: of all slopes, then of all offsets; None: plain means without errors.

    Example:
        >>> found = true_type_lines(np.array([1.0, 3.0]), np.zeros(2), np.zeros(2, dtype=int), np.diag([1.0, 3, 1, 1]))
        >>> found.line.round(3).tolist(), found.error.round(3).tolist()
        ([[1.5, 0.0]], [[0.866, 0.707]])
    """
    if covariance is None:
        members = np.eye(types.max() + 1)[types]
        mean = members.T @ np.column_stack([slope, offset]) / members.sum(axis=0)[:, None]
        return TypeLines(mean, np.full(mean.shape, np.nan))
    line, of_means = mean_lines(np.column_stack([slope, offset]), types, covariance)
    return TypeLines(line, np.sqrt(np.diag(of_means)).reshape(2, -1).T)


def scores(sample: Sample, found: Estimate, bound: Bound | None) -> Row:
    """The result of one method on one data set, without its cost; None for a number that there is not.

    Returns:
        Keys: log_k_R2, log_k_median_error (both over `Sample.identifiable`), log_k_over_bound (rms error in units of
        the bound), bound_log_k (median error at the bound), n_identifiable, n_determined, covered (95 % intervals with
        the truth) of intervals; per type slope_ratio, slope_ratio_error, offset_ratio, offset_ratio_error;
        slope_over_bound, bound_slope (as for k); accuracy, n_types, doubtful_types (species), plausible_types;
        trustworthy, why_not, warnings; integrator, window; see `silence` for silent and silent_strict.
    """
    row: Row = {
        **_rate_constant_scores(sample, found, bound),
        **_line_scores(sample, found, bound),
        **_type_scores(sample, found),
        "trustworthy": found.trustworthy,
        "why_not": list(found.why_not),
        "warnings": list(found.warnings),
        "integrator": found.integrator,
        "window": found.window,
    }
    clean: Row = _finite(row | silence(row))
    return clean


def _rate_constant_scores(sample: Sample, found: Estimate, bound: Bound | None) -> Row:
    known, true = sample.identifiable, np.log10(sample.truth.k)
    error = np.abs(found.log_k - true)
    covered = intervals = None
    if found.log_k_error is not None:
        stated = known & np.isfinite(found.log_k_error) & (found.log_k_error > 0)
        intervals = int(stated.sum())
        covered = int((error[stated] <= TWO_SIDED * found.log_k_error[stated]).sum())
    some = bool(known.any())
    return {
        "log_k_R2": r_squared(found.log_k[known], true[known]),
        "log_k_median_error": float(np.median(error[known])) if some else None,
        "log_k_over_bound": _rms(error[known] / bound.log_k[known]) if bound and some else None,
        "bound_log_k": _median_error(bound.log_k[known]) if bound and some else None,
        "n_identifiable": int(known.sum()),
        "n_determined": None if found.determined is None else int(found.determined.sum()),
        "covered": covered,
        "intervals": intervals,
    }


def _line_scores(sample: Sample, found: Estimate, bound: Bound | None) -> Row:
    moving = np.flatnonzero(~sample.observations.network.fixed)
    types = np.unique(sample.truth.type[moving], return_inverse=True)[1]
    true = _of_types(sample, moving, types, *sample.line, None).line
    size = np.where(true == 0, np.nan, np.abs(true))  # without homeostasis there is no ratio
    mine = _of_types(sample, moving, types, found.slope, found.offset, found.line_covariance)
    ratio, error = mine.line / np.where(true == 0, np.nan, true), mine.error / size
    row: Row = {}
    for axis, name in enumerate(("slope", "offset")):
        row[f"{name}_ratio"] = ratio[:, axis].tolist()
        row[f"{name}_ratio_error"] = error[:, axis].tolist()
    if bound is None:
        return row | {"slope_over_bound": None, "bound_slope": None}
    least = _of_types(sample, moving, types, found.slope, found.offset, bound.lines).error[:, 0]
    return row | {
        "slope_over_bound": _rms((mine.line - true)[:, 0] / least),
        "bound_slope": _median_error(least / size[:, 0]),
    }


def _of_types(
    sample: Sample,
    moving: Int[np.ndarray, " moving"],
    types: Int[np.ndarray, " moving"],
    slope: Float[np.ndarray, " species"],
    offset: Float[np.ndarray, " species"],
    covariance: Float[np.ndarray, "lines lines"] | None,
) -> TypeLines:
    """The lines of the types, from those of the species that are not fixed."""
    both = np.concatenate([moving, sample.observations.network.n_species + moving])
    own = None if covariance is None else covariance[np.ix_(both, both)]
    return true_type_lines(slope[moving], offset[moving], types, own)


def _type_scores(sample: Sample, found: Estimate) -> Row:
    """Types as found without labels; None for a method without a covariance of its lines."""
    names = ("accuracy", "n_types", "doubtful_types", "plausible_types")
    moving = np.flatnonzero(~sample.observations.network.fixed)
    if found.line_covariance is None or len(moving) < 2:
        return dict.fromkeys(names)
    both = np.concatenate([moving, len(found.slope) + moving])
    types = find_types(found.slope[moving], found.offset[moving], found.line_covariance[np.ix_(both, both)])
    accuracy = cluster_accuracy(types.member_of, sample.truth.type[moving])
    return dict(zip(names, (accuracy, len(types.line), types.doubtful, types.plausible), strict=True))


def silence(row: Mapping[str, Any]) -> Row:
    """Whether a wrong answer came without a warning.

    Silent: the fit is trusted, there is no warning on homeostasis, and the slope of a type is off by more than three of
    its standard errors and by more than 1 % of the truth, or the accuracy of the types is below 0.9. Strict: the same
    without the condition of 1 %. None for a method without a verdict on itself.

    Example:
        >>> row = {"trustworthy": True, "warnings": [], "accuracy": 1.0}
        >>> silence(row | {"slope_ratio": [1.005], "slope_ratio_error": [0.001]})
        {'silent': False, 'silent_strict': True}
    """
    if row["trustworthy"] is None:
        return {"silent": None, "silent_strict": None}
    quiet = bool(row["trustworthy"]) and not row["warnings"]
    inaccurate = row["accuracy"] is not None and row["accuracy"] < _ACCURATE
    off = [
        (abs(ratio - 1) > _FAR * error, abs(ratio - 1) > _NOTICEABLE)
        for ratio, error in zip(row["slope_ratio"], row["slope_ratio_error"], strict=True)
        if ratio is not None and error is not None
    ]
    return {
        "silent": quiet and (inaccurate or any(far and noticeable for far, noticeable in off)),
        "silent_strict": quiet and (inaccurate or any(far for far, _ in off)),
    }


def _rms(values: Float[np.ndarray, " values"]) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _median_error(deviation: Float[np.ndarray, " values"]) -> float:
    """Median of the absolute values of independent normal errors with these standard deviations."""
    return float(np.median(np.abs(np.outer(deviation, scipy.stats.norm.ppf(_QUANTILES)))))


def _finite(value: Any) -> Any:
    """The value with None for every number that is not finite, for JSON."""
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
