"""Every estimated parameter in one table, with its uncertainty in numbers and in words."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from metabolismgraph.fitting.tables import RESOLVED, homeostasis_table, rate_constants_table
from metabolismgraph.homeostasis.types_from_lines import mean_lines
from metabolismgraph.reactions.result import Phase1Result
from metabolismgraph.reactions.verdict import AT_ZERO, NOT_APART, SPANS_A_DECADE, TWO_SIDED
from metabolismgraph.system.kinetics import Aggregation
from metabolismgraph.system.network import ReactionNetwork

DETERMINED, ONE_SIDED, WEAKLY = "determined", "bounded on one side", "weakly determined"
COMBINED, FLAT, DOUBTED = "only in combination", "flat", "not trusted"


def parameters_table(
    network: ReactionNetwork,
    found: Phase1Result,
    types: Int[np.ndarray, " species"] | None,
    *,
    aggregation: Aggregation,
    trustworthy: bool,
) -> pd.DataFrame:
    """log10 of every rate constant, homeostasis of every species and of every type, each with standard error and class.

    Args:
        network: species and reactions.
        found: result of Phase 1.
        types: cluster of every species, -1 for none; None without embeddings.
        aggregation: "mul" for a product over substrates, "add" for a sum.
        trustworthy: whether the fit is to be trusted; if not, there are no errors and no intervals.

    Returns:
        Columns:
        name: k:REACTION, slope:SPECIES, offset:SPECIES, lambda:TYPE, baseline:TYPE.
        estimate, standard_error: of log10 k for rate constants.
        lower, upper: 95 % interval of the estimate; one end is empty where it is bounded on one side.
        identifiable: whether the value is determined by itself.
        classification: "determined"; "bounded on one side"; "weakly determined" (the interval of k spans more than a
            decade); "only in combination"; "flat" (without effect on the data); "not trusted".
        combination: what is determined where the value by itself is not.
        unit: in the units of the data.

    Example:
        >>> import metabolismgraph as mg
        >>> config = mg.load_config("small", ["simulation.n_frames=300", "training.homeostasis_training=false"])
        >>> table = mg.fit(mg.simulate(config).observations, config).parameters
        >>> table["name"].iloc[0], table["unit"].iloc[0]
        ('k:R000', 'log10 of 1/(concentration time)')
    """
    rows = [_rate_constants(network, found, aggregation=aggregation, trustworthy=trustworthy)]
    rows += [_lines(network, found, trustworthy=trustworthy)]
    if types is not None:
        rows.append(_types(found, types, trustworthy=trustworthy))
    return pd.concat([table for table in rows if len(table)], ignore_index=True)


def _rate_constants(
    network: ReactionNetwork, found: Phase1Result, *, aggregation: Aggregation, trustworthy: bool
) -> pd.DataFrame:
    table = rate_constants_table(network, found, aggregation=aggregation, trustworthy=trustworthy)
    with np.errstate(divide="ignore"):
        lower, upper = (np.log10(table[end]) for end in ("lower", "upper"))
    return pd.DataFrame(
        {
            "name": "k:" + table["reaction"],
            "estimate": table["log10_k"],
            "standard_error": table["standard_error"],
            "lower": lower.where(np.isfinite(lower)),
            "upper": upper.where(np.isfinite(upper)),
            "identifiable": table["identifiable"],
            "classification": [
                _class_of(*row, trustworthy=trustworthy)
                for row in zip(table["identifiable"], table["reason"], table["combination"], strict=True)
            ],
            "combination": [
                "with homeostasis" if reason == NOT_APART and not combination else combination
                for reason, combination in zip(table["reason"], table["combination"], strict=True)
            ],
            "unit": "log10 of " + table["unit"],
        }
    )


def _class_of(identifiable: bool, reason: str, combination: str, *, trustworthy: bool) -> str:
    """The class of a rate constant."""
    if not trustworthy:
        return DOUBTED
    if identifiable:
        return DETERMINED
    if combination or reason == NOT_APART:
        return COMBINED
    return {AT_ZERO: ONE_SIDED, SPANS_A_DECADE: WEAKLY}.get(reason, FLAT)


def _lines(network: ReactionNetwork, found: Phase1Result, *, trustworthy: bool) -> pd.DataFrame:
    """Slope and offset of every species."""
    table = homeostasis_table(network, found, None, trustworthy=trustworthy)
    partners = _partners(network, found)
    combination = table["species"].map(lambda name: partners.get(name, ""))
    parts = []
    for kind, unit in (("slope", "1/time"), ("offset", "concentration/time")):
        apart = (combination == "") & trustworthy
        error = table[f"{kind}_error"].where(apart)
        resolved = table["resolved"] & apart & ((kind == "slope") | (table[kind] > RESOLVED * error))
        # Homeostasis pulls towards a concentration, so slopes are not above zero and offsets not below: what is not
        # resolved has one bound.
        one_sided = apart & ~resolved
        parts.append(
            pd.DataFrame(
                {
                    "name": f"{kind}:" + table["species"],
                    "estimate": table[kind],
                    "standard_error": error,
                    "lower": (table[kind] - TWO_SIDED * error).where(~one_sided | (kind == "slope")),
                    "upper": (table[kind] + TWO_SIDED * error).where(~one_sided | (kind == "offset")),
                    "identifiable": resolved,
                    "classification": _classes(resolved, error.notna(), combination, trustworthy=trustworthy),
                    "combination": combination,
                    "unit": unit,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _classes(resolved: pd.Series, seen: pd.Series, combination: pd.Series, *, trustworthy: bool) -> np.ndarray:
    """The classes of lines of homeostasis; `seen` where there is an error."""
    if not trustworthy:
        return np.full(len(resolved), DOUBTED)
    return np.select([resolved, combination != "", seen], [DETERMINED, COMBINED, ONE_SIDED], FLAT)


def _partners(network: ReactionNetwork, found: Phase1Result) -> dict[str, str]:
    """The reactions that homeostasis of a species cannot be told from, for the species that have any."""
    hidden = np.array([reason == NOT_APART for reason in found.reasons], dtype=bool)
    shared: dict[str, list[str]] = {}
    for i, j in zip(*network.sparse_stoichiometry.nonzero(), strict=True):
        if hidden[j]:
            shared.setdefault(network.species[i], []).append(f"k({network.reactions[j]})")
    return {name: "with " + ", ".join(constants) for name, constants in shared.items()}


def lines_of_types(
    slope: Float[np.ndarray, " species"],
    offset: Float[np.ndarray, " species"],
    covariance: Float[np.ndarray, "lines lines"] | Float[np.ndarray, "species 2 2"],
    types: Int[np.ndarray, " species"],
) -> dict[int, tuple[Float[np.ndarray, " two"], Float[np.ndarray, "two two"]]]:
    """Homeostasis of every type: (lambda, baseline) and their covariance.

    Slope and offset of a type are the generalised least-squares means over its species. The covariance of lambda and
    baseline = -offset/slope is to first order.

    Args:
        slope, offset: of every species.
        covariance: of all slopes, then of all offsets; or of slope and offset of each species, if these are
            independent.
        types: cluster of every species, -1 for none.

    Returns:
        By type; the baseline is NaN where lambda is not resolved.
    """
    members = np.flatnonzero(types >= 0)
    if not len(members):
        return {}
    numbers, label = np.unique(types[members], return_inverse=True)
    both = [*members, *(len(types) + members)]
    of_members = covariance[members] if covariance.ndim == 3 else covariance[np.ix_(both, both)]
    line, of_line = mean_lines(np.column_stack([slope, offset])[members], label, of_members)
    result = {}
    for t, (s, o) in enumerate(line):
        own = of_line[np.ix_([t, len(line) + t], [t, len(line) + t])]
        # Types are few and have many species each: no allowance for many comparisons, unlike `resolved` for species.
        if s >= -RESOLVED * np.sqrt(own[0, 0]):
            values, jacobian = np.array([-s, np.nan]), np.array([[-1.0, 0.0], [np.nan, np.nan]])
        else:
            values = np.array([-s, -o / s])
            jacobian = np.array([[-1.0, 0.0], [o / s**2, -1 / s]])
        result[int(numbers[t])] = values, jacobian @ own @ jacobian.T
    return result


def _types(found: Phase1Result, types: Int[np.ndarray, " species"], *, trustworthy: bool) -> pd.DataFrame:
    """lambda and baseline of every type."""
    rows = []
    for t, (values, covariance) in lines_of_types(found.slope, found.offset, found.line_errors, types).items():
        resolved = bool(np.isfinite(values).all()) and trustworthy
        for i, (kind, unit) in enumerate((("lambda", "1/time"), ("baseline", "concentration"))):
            error = np.sqrt(covariance[i, i]) if trustworthy else np.nan
            one_sided = kind == "lambda" and not resolved
            rows.append(
                {
                    "name": f"{kind}:{t}",
                    "estimate": values[i],
                    "standard_error": error,
                    "lower": np.nan if one_sided else values[i] - TWO_SIDED * error,
                    "upper": values[i] + TWO_SIDED * error,
                    "identifiable": resolved,
                    "classification": (
                        DOUBTED if not trustworthy else DETERMINED if resolved else ONE_SIDED if one_sided else FLAT
                    ),
                    "combination": "",
                    "unit": unit,
                }
            )
    return pd.DataFrame(rows)
