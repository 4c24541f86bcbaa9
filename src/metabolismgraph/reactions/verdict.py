"""Which rate constants count as determined, and for every other one the reason why it does not.

One verdict for `identify` and `fit`: what `identify` says of the same frames is the most that `fit` may
claim. A fit can only take away from that, and says what it took away and why.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from metabolismgraph.config import GraphModel, Training
from metabolismgraph.reactions.identifiability import Identifiability, identify
from metabolismgraph.system.observations import Observations

# A standard error of log10 k beyond which the 95 % interval spans more than a decade.
MOST_LOG_ERROR = 0.25
# An error by sampling of more than this share of k is too much, unless noise alone makes as much.
MOST_BY_SAMPLING = 0.1
_ERRORS = 4.0  # standard errors that such an estimate may be for no other reason than noise
TOO_COARSE = "samples are too far apart"
NOT_APART = "not apart from homeostasis"
AT_ZERO = "zero within its error"
NOT_TRUSTED = "the fit is not to be trusted"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What can be said of every rate constant.

    Attributes:
        determined: True where k stands for itself.
        reason: one phrase where it does not, otherwise empty.
        log_k_error: standard error of log10 k, infinite where it is not determined.
        upper: where k came out at its bound of zero, the value that it does not exceed; otherwise NaN.
        lost: reactions that `identify` promised and that are not determined.
    """

    determined: Bool[np.ndarray, " reactions"]
    reason: tuple[str, ...]
    log_k_error: Float[np.ndarray, " reactions"]
    upper: Float[np.ndarray, " reactions"]
    lost: Bool[np.ndarray, " reactions"]


@dataclasses.dataclass(frozen=True)
class Estimates:
    """What a fit found, as far as the verdict depends on it.

    Attributes:
        k: unconstrained; may be negative.
        error: standard error of k.
        seen: whether the rows that were used, with the f that was found, determine k.
        at_bound: where k >= 0 had to be imposed.
        sampling_error: error of k because of the distance of the samples; NaN where it is not known.
    """

    k: Float[np.ndarray, " reactions"]
    error: Float[np.ndarray, " reactions"]
    seen: Bool[np.ndarray, " reactions"]
    at_bound: Bool[np.ndarray, " reactions"]
    sampling_error: Float[np.ndarray, " reactions"]


def promised_by_identify(
    observations: Observations, graph_model: GraphModel, training: Training
) -> tuple[Identifiability, Identifiability]:
    """What `identify` says of the same frames, with homeostasis and without."""
    with_homeostasis, without = (
        identify(
            observations.network,
            observations,
            aggregation=graph_model.aggr_type,
            tolerance=training.identifiability_tolerance,
            homeostasis=homeostasis,
        )
        for homeostasis in (True, False)
    )
    return with_homeostasis, without


def hidden_by_homeostasis(promised: Identifiability, apart: Identifiability) -> Bool[np.ndarray, " reactions"]:
    """True for a reaction that only homeostasis hides.

    Args:
        promised: what `identify` says.
        apart: what it says without homeostasis.
    """
    in_combination = seen_in_part(apart) & ~seen_in_part(promised)
    return np.asarray(~promised.identifiable & (apart.identifiable | in_combination))


def judge(promised: Identifiability, apart: Identifiability, found: Estimates) -> Verdict:
    """Decide on every rate constant.

    Args:
        promised: what `identify` says of the same frames.
        apart: what it says without homeostasis.
        found: from the fit.
    """
    positive = np.where(found.k > 0, found.k, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        noise, sampling = found.error / positive, np.nan_to_num(found.sampling_error / positive)
    coarse = sampling > np.maximum(MOST_BY_SAMPLING, _ERRORS * noise)
    error = np.hypot(noise, sampling) / np.log(10.0)
    # In the order of precedence: the first that holds is the reason.
    causes: list[tuple[Bool[np.ndarray, " reactions"], str]] = [
        (hidden_by_homeostasis(promised, apart), NOT_APART),
        (~promised.identifiable & seen_in_part(promised), "only in combination"),
        (~promised.identifiable, "no effect in the data"),
        (found.at_bound, AT_ZERO),
        (~found.seen, "not seen in the changes that were used"),
        (coarse, TOO_COARSE),
        (~(error <= MOST_LOG_ERROR), "its 95 % interval spans more than a decade"),
    ]
    reason = np.full(len(found.k), "", dtype=object)
    for holds, text in reversed(causes):
        reason[holds] = text
    determined = reason == ""
    return Verdict(
        determined=np.asarray(determined, dtype=bool),
        reason=tuple(reason),
        log_k_error=np.where(determined, error, np.inf),
        upper=np.where(found.at_bound, np.maximum(found.k, 0.0) + 1.96 * found.error, np.nan),
        lost=np.asarray(promised.identifiable & ~determined, dtype=bool),
    )


def seen_in_part(found: Identifiability) -> Bool[np.ndarray, " reactions"]:
    """True for a reaction that is determined, alone or in combination with others."""
    part = found.identifiable.copy()
    for combinations in found.combinations:
        for combination in combinations:
            part[list(combination.reactions)] = True
    return part


def notes(verdict: Verdict, reactions: tuple[str, ...]) -> list[str]:
    """Say which rate constants the data should determine, and this fit does not, by reason."""
    lines = []
    for text in dict.fromkeys(r for r, lost in zip(verdict.reason, verdict.lost, strict=True) if lost):
        names = [
            name
            for name, reason, lost in zip(reactions, verdict.reason, verdict.lost, strict=True)
            if lost and reason == text
        ]
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        if text == TOO_COARSE:
            lines.append(
                f"samples are too far apart for {shown}: the estimated sampling error of "
                f"{'its rate constant' if len(names) == 1 else 'their rate constants'} exceeds "
                f"{MOST_BY_SAMPLING:.0%}; measure more often"
            )
        else:
            lines.append(f"fewer rate constants are determined than `identify` promises: {shown} ({text})")
    return lines
