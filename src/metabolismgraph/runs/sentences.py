"""Sentences of the page of a run, from its tables and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from metabolismgraph.metrics import Value
from metabolismgraph.text import counted

_MOST_NAMES = 40  # in a sentence
_NEARLY_ONE = 0.9999  # an R² that would be printed as 1
_TESTED = 0.5  # R² of held-out dc/dt below which that is mostly noise, or close to a steady state


def verdict(metrics: Mapping[str, Value], constants: pd.DataFrame, homeostasis: pd.DataFrame, types: int) -> str:
    """What was determined, and whether to trust it.

    Args:
        types: their number; 0 without Phase 2.
    """
    known = int(constants["identifiable"].sum())
    found = f"{known} of {len(constants)} rate constants are determined by these data"
    resolved = int(homeostasis["resolved"].sum())
    if resolved:
        found += f"; homeostasis of {resolved} of {len(homeostasis)} species is resolved"
        found += f", with {counted(types, 'type')}" if types else ""
    elif len(homeostasis):
        found += "; homeostasis is not resolved for any species"
    if metrics.get("trustworthy") is not True:
        return f"Do not trust this fit. In it, {found}."
    held_out = metrics.get("held_out_derivative_R2")
    tested = ""
    if isinstance(held_out, float) and held_out > _TESTED:
        accuracy = f"above {_NEARLY_ONE}" if held_out > _NEARLY_ONE else f"of {held_out:.4g}"
        tested = f" It predicts dc/dt of frames that it has not seen with an R² {accuracy}."
    elif isinstance(held_out, float):
        # If the fit is to be trusted, what is left is noise, or small beside dc/dt of the training frames.
        tested = " In the frames that it has not seen, dc/dt is hardly larger than its errors, so these test it little."
    return f"The fit is to be trusted. {found[0].upper()}{found[1:]}.{tested}"


def undetermined(constants: pd.DataFrame) -> list[tuple[str, str]]:
    """Why rate constants are not determined, and which: one entry for each reason."""
    rows = constants[~constants["identifiable"]]
    unknown = "only a combination with others is determined"
    why = [text if isinstance(text, str) else unknown for text in rows["reason"]]
    return [(str(reason), names(list(group["reaction"]))) for reason, group in rows.groupby(why, sort=False)]


def inseparable(constants: pd.DataFrame) -> list[str]:
    """Groups of undetermined rate constants that no measured concentration tells apart, with what is determined.

    Their reactions have the same substrates, so that their rates are proportional to each other at all concentrations.
    """
    rows = constants[~constants["identifiable"]]
    rows = rows.loc[[isinstance(text, str) for text in rows["combination"]]]  # a column without any is one of numbers
    found = []
    for combination, group in rows.groupby("combination", sort=False):
        substrates = {frozenset(equation.partition(" ->")[0].split(" + ")) for equation in group["equation"]}
        if len(group) > 1 and len(substrates) == 1:
            found.append(f"{names(list(group['reaction']))}: {combination}")
    return found


def names(found: Sequence[object]) -> str:
    """A list of names, cut where it is long."""
    shown = ", ".join(map(str, found[:_MOST_NAMES]))
    return shown if len(found) <= _MOST_NAMES else f"{shown} and {len(found) - _MOST_NAMES} more"


def methods(version: str, jax: str, *, by_trajectories: bool, law: str, homeostasis: bool) -> str:
    """A paragraph on the methods, for a paper; references are in the documentation.

    Args:
        version, jax: of this package and of JAX.
        by_trajectories: whether Phase 1 fitted trajectories; otherwise dc/dt.
        law: rate law, as a clause such as "The rate law is mass action".
        homeostasis: whether there was a Phase 2.
    """
    fitted = (
        "by a fit of trajectories in windows with free initial states (multiple shooting, Bock 1983)"
        if by_trajectories
        else "by least squares of the time derivatives"
    )
    text = (
        f"Rate constants were estimated with metabolismgraph {version} (JAX {jax}) {fitted}. {law}. Slope and offset "
        "of homeostasis of each species were estimated together with the rate constants. Rate constants that the data "
        "do not determine were found from the null space of the problem. Intervals are Wald intervals of 95 %."
    )
    if homeostasis:
        text += (
            " With the reactions frozen, a neural network with an embedding of each species learned homeostasis, and "
            "types are clusters of the embeddings (DBSCAN, Ester et al. 1996)."
        )
    return text
