"""Estimates as tables: one row per rate constant, one row per species."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy
from jaxtyping import Bool, Float, Int

from metabolismgraph.reactions.equations import written_equation, written_unit
from metabolismgraph.reactions.result import Phase1Result
from metabolismgraph.reactions.verdict import AT_ZERO, NOT_TRUSTED, TWO_SIDED
from metabolismgraph.system.kinetics import Aggregation
from metabolismgraph.system.network import ReactionNetwork

RESOLVED = 2.0  # least distance of a determined line of homeostasis from zero, in standard errors
_BY_CHANCE = 0.025  # largest expected share of species without homeostasis among those that seem to have it


def rate_constants_table(
    network: ReactionNetwork, found: Phase1Result, *, aggregation: Aggregation, trustworthy: bool
) -> pd.DataFrame:
    """Every rate constant with its standard error, or the reason why it is not determined.

    Args:
        network: the reactions.
        found: result of Phase 1.
        aggregation: "mul" for a product over substrates, "add" for a sum.
        trustworthy: whether the fit is to be trusted; if not, there are no intervals.

    Returns:
        Columns:
        reaction: id.
        equation: with the substrates of the rate law on the left.
        k: rate constant; 0 at the bound k >= 0. If k is not determined, the most plausible of many possible values.
        unit: of k, in the units of the data.
        log10_k: log10 of k.
        standard_error: of log10_k; empty if k is not determined.
        lower, upper: 95 % interval of k; its lower end is 0 at the bound k >= 0. Empty if the fit is not to be trusted.
        identifiable: whether k is determined individually, in a fit that is to be trusted.
        combination: determined combinations with other rate constants, and their values.
        reason: why k is not determined.

    Example:
        >>> import metabolismgraph as mg
        >>> config = mg.load_config("small", ["simulation.n_frames=300", "training.homeostasis_training=false"])
        >>> table = mg.fit(mg.simulate(config).observations, config).rate_constants
        >>> list(table.columns[:4]), len(table)
        (['reaction', 'equation', 'k', 'unit'], 72)
    """
    order = np.zeros(network.n_reactions)
    if aggregation == "add":
        np.maximum.at(order, network.edge_reaction, network.edge_order)
    else:
        np.add.at(order, network.edge_reaction, network.edge_order)
    known = found.identifiability.identifiable & trustworthy
    error = np.where(known, found.log_k_error, np.nan)
    at_zero = np.isfinite(found.upper) & trustworthy
    interval = np.where(known, TWO_SIDED * error, np.nan)
    log_k = np.where(at_zero, np.nan, found.log_k)
    reasons = [NOT_TRUSTED if not trustworthy and reason in ("", AT_ZERO) else reason for reason in found.reasons]
    return pd.DataFrame(
        {
            "reaction": network.reactions,
            "equation": list(map(written_equation, network.to_reactions())),
            "k": np.where(at_zero, 0.0, 10.0**found.log_k),
            "unit": [written_unit(float(s)) for s in order],
            "log10_k": log_k,
            "standard_error": error,
            "lower": np.where(at_zero, 0.0, 10.0 ** (found.log_k - interval)),
            "upper": np.where(at_zero, found.upper, 10.0 ** (found.log_k + interval)),
            "identifiable": known,
            "combination": _combinations(network, found),
            "reason": reasons,
        }
    )


def homeostasis_table(
    network: ReactionNetwork, found: Phase1Result, types: Int[np.ndarray, " species"] | None, *, trustworthy: bool
) -> pd.DataFrame:
    """Homeostasis of every species that is not fixed: the line slope * c + offset over the observed concentrations.

    Args:
        network: the species.
        found: result of Phase 1.
        types: cluster of every species; None without embeddings.
        trustworthy: whether the fit is to be trusted; if not, no slope counts as resolved.

    Returns:
        Columns:
        species: id.
        slope, slope_error: minus lambda, in 1/time, and its standard error; the error is empty for a species that is
            constant in the data, which tell nothing of its homeostasis.
        offset, offset_error: in concentration/time.
        baseline, baseline_error: concentration without homeostatic dc/dt, -offset/slope; empty if not resolved.
        resolved: whether there is a pull to a baseline, in a fit that is to be trusted: the slope is below zero by two
            standard errors, or more among many species (`find_pulls`), and the baseline is not below zero by two.
        type: cluster of the embedding, from 0; species outside all clusters are in the last one. Empty without
            Phase 2.
    """
    moving = ~network.fixed
    with np.errstate(divide="ignore", invalid="ignore"):
        pulled = np.zeros(len(moving), dtype=bool)
        pulled[moving] = trustworthy & find_pulls((found.slope / found.slope_error)[moving])
        baseline = np.where(pulled, -found.offset / found.slope, np.nan)
        # The variance of b = -o/s to first order: (var(o) + b^2 var(s) + 2 b cov(o, s)) / s^2. (The exact interval is
        # that of Fieller 1954.)
        variance = (
            found.offset_error**2 + baseline**2 * found.slope_error**2 + 2 * baseline * found.slope_offset_covariance
        ) / found.slope**2
    error = np.sqrt(np.maximum(variance, 0.0))
    resolved = pulled & ~(baseline < -RESOLVED * error)
    table = pd.DataFrame(
        {
            "species": network.species,
            "slope": found.slope,
            "slope_error": np.where(found.slope_error > 0, found.slope_error, np.nan),
            "offset": found.offset,
            "offset_error": np.where(found.slope_error > 0, found.offset_error, np.nan),
            "baseline": np.where(resolved, baseline, np.nan),
            "baseline_error": np.where(resolved, error, np.nan),
            "resolved": resolved,
            "type": pd.Series([pd.NA] * network.n_species if types is None else types, dtype="Int64"),
        }
    )
    return table[moving].reset_index(drop=True)


def find_pulls(scores: Float[np.ndarray, " species"]) -> Bool[np.ndarray, " species"]:
    """Which slopes of homeostasis are below zero, so that at most 2.5 % of those found are so by chance.

    With two standard errors for every one of many species, some would pass without any homeostasis.

    Args:
        scores: slopes, each in units of its standard error.

    Source:
        Benjamini & Hochberg 1995.

    Example:
        >>> find_pulls(np.array([-2.1])).tolist(), find_pulls(np.array([-2.1] + 9 * [0.0])).tolist()[0]
        ([True], False)
    """
    p = scipy.special.ndtr(np.nan_to_num(scores, nan=np.inf))
    ascending = np.sort(p)
    allowed = _BY_CHANCE * np.arange(1, len(p) + 1) / max(len(p), 1)
    passed = ascending[ascending <= allowed]
    return np.asarray(p <= passed[-1]) if passed.size else np.zeros(len(p), dtype=bool)


def _combinations(network: ReactionNetwork, found: Phase1Result) -> list[str]:
    """For every reaction, the determined combinations that contain it, with their values; empty without any."""
    k = 10.0**found.log_k
    texts: list[list[str]] = [[] for _ in network.reactions]
    for combinations in found.identifiability.combinations:
        for one in combinations:
            value = float(np.dot(one.coefficients, k[list(one.reactions)]))
            for j in one.reactions:
                texts[j].append(f"{one.written(network.reactions)} = {value:.6g}")
    return ["; ".join(text) for text in texts]
