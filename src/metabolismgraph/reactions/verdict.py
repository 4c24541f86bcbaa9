"""Which rate constants count as determined, and the reason for every other one.

A fit reports a rate constant as determined only if `identify` does so for the same frames. Where the fit does not
determine a rate constant that `identify` reports, it states the reason.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from metabolismgraph.config import GraphModel, Training
from metabolismgraph.reactions.identifiability import Identifiability, identify_both
from metabolismgraph.system.observations import Observations

# Largest standard error of log10 k: with a larger one, the 95 % interval spans more than a decade.
MOST_LOG_ERROR = 0.25
# Largest sampling error relative to k, unless it is explained by noise.
MOST_BY_SAMPLING = 0.1
TWO_SIDED = 1.96  # standard errors on either side of a 95 % interval
_ERRORS = 4.0  # an estimate of the sampling error up to so many standard errors can be due to noise
TOO_COARSE = "samples are too far apart"
NOT_APART = "not distinguishable from homeostasis"
AT_ZERO = "zero within its error"
SPANS_A_DECADE = "its 95 % interval spans more than a decade"
NOT_REPRODUCED = "another start ends elsewhere"
NOT_TRUSTED = "the fit is not to be trusted"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether each rate constant is determined, and how accurately.

    Attributes:
        determined: True where k is determined individually.
        reason: a phrase where it is not determined, otherwise empty.
        log_k_error: standard error of log10 k (dimensionless), infinite where k is not determined.
        upper: where k is at its bound of zero, the upper end of its 95 % interval, in the unit of k; otherwise NaN.
        lost: reactions that `identify` reports as determined and this fit does not.
    """

    determined: Bool[np.ndarray, " reactions"]
    reason: tuple[str, ...]
    log_k_error: Float[np.ndarray, " reactions"]
    upper: Float[np.ndarray, " reactions"]
    lost: Bool[np.ndarray, " reactions"]


@dataclasses.dataclass(frozen=True)
class Estimates:
    """The results of a fit on which the verdict depends; k and its errors in concentration^(1-order)/time.

    Attributes:
        k: unconstrained estimate; may be negative.
        error: standard error of k.
        seen: whether the entries in use determine k, given the learned f.
        at_bound: True where the constraint k >= 0 is active.
        sampling_error: discretisation error of k, due to the sampling interval; NaN where it is unknown.
    """

    k: Float[np.ndarray, " reactions"]
    error: Float[np.ndarray, " reactions"]
    seen: Bool[np.ndarray, " reactions"]
    at_bound: Bool[np.ndarray, " reactions"]
    sampling_error: Float[np.ndarray, " reactions"]


def promised_by_identify(
    observations: Observations, graph_model: GraphModel, training: Training
) -> tuple[Identifiability, Identifiability]:
    """The result of `identify` for the same frames, with homeostasis and without."""
    return identify_both(
        observations.network,
        observations,
        aggregation=graph_model.aggr_type,
        tolerance=training.identifiability_tolerance,
    )


def hidden_by_homeostasis(promised: Identifiability, apart: Identifiability) -> Bool[np.ndarray, " reactions"]:
    """True for a reaction that is undetermined only because homeostasis is unknown.

    Args:
        promised: result of `identify`.
        apart: the same without homeostasis.
    """
    in_combination = seen_in_part(apart) & ~seen_in_part(promised)
    return np.asarray(~promised.identifiable & (apart.identifiable | in_combination))


def judge(promised: Identifiability, apart: Identifiability, found: Estimates) -> Verdict:
    """Decide for every rate constant whether it is determined.

    Args:
        promised: result of `identify` for the same frames.
        apart: the same without homeostasis.
        found: estimates of the fit.
    """
    # Errors of log10 k to first order: d(log10 k) = dk / (k log 10).
    positive = np.where(found.k > 0, found.k, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        noise, sampling = found.error / positive, np.nan_to_num(found.sampling_error / positive)
    coarse = sampling > np.maximum(MOST_BY_SAMPLING, _ERRORS * noise)
    error = np.hypot(noise, sampling) / np.log(10.0)
    # In order of precedence: the first cause that applies is the reason.
    causes: list[tuple[Bool[np.ndarray, " reactions"], str]] = [
        (hidden_by_homeostasis(promised, apart), NOT_APART),
        (~promised.identifiable & seen_in_part(promised), "only in combination"),
        (~promised.identifiable, "no effect in the data"),
        (found.at_bound, AT_ZERO),
        (~found.seen, "only in excluded steps"),
        (coarse, TOO_COARSE),
        (~(error <= MOST_LOG_ERROR), SPANS_A_DECADE),
    ]
    reason = np.full(len(found.k), "", dtype=object)
    for holds, text in reversed(causes):
        reason[holds] = text
    determined = reason == ""
    return Verdict(
        determined=np.asarray(determined, dtype=bool),
        reason=tuple(reason),
        log_k_error=np.where(determined, error, np.inf),
        upper=np.where(found.at_bound, np.maximum(found.k, 0.0) + TWO_SIDED * found.error, np.nan),
        lost=np.asarray(promised.identifiable & ~determined, dtype=bool),
    )


def seen_in_part(found: Identifiability) -> Bool[np.ndarray, " reactions"]:
    """True for a reaction that is determined, individually or in combination with others."""
    part = found.identifiable.copy()
    for combinations in found.combinations:
        for combination in combinations:
            part[list(combination.reactions)] = True
    return part


def notes(verdict: Verdict, reactions: tuple[str, ...]) -> list[str]:
    """A sentence per reason on the rate constants that `identify` reports as determined and this fit does not."""
    lost: dict[str, list[str]] = {}
    for j in np.flatnonzero(verdict.lost):
        lost.setdefault(verdict.reason[j], []).append(reactions[j])
    lines = []
    for text, names in lost.items():
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        if text == TOO_COARSE:
            lines.append(
                f"samples are too far apart for {shown}: the estimated sampling error of "
                f"{'its rate constant' if len(names) == 1 else 'their rate constants'} exceeds "
                f"{MOST_BY_SAMPLING:.0%}; measure more often"
            )
        else:
            lines.append(f"fewer rate constants are determined than `identify` reports: {shown} ({text})")
    return lines
