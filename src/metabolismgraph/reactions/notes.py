"""Notes for the user on Phase 1, as plain sentences."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from metabolismgraph.config import Training
from metabolismgraph.reactions.data import Phase1Data
from metabolismgraph.reactions.normal_equations import follows_equation


def data_notes(data: Phase1Data, keep: Bool[np.ndarray, "transitions species"]) -> list[str]:
    """Notes of `setting_notes`, and on entries that were left out and why.

    Args:
        data: the data.
        keep: entries in use.
    """
    notes, training = setting_notes(data), data.training
    zeros = int((~follows_equation(data.transitions)).sum())
    if zeros:
        notes.append(f"{zeros} changes into or out of an exact zero were left out")
    outliers = int((data.usable & ~keep).sum())
    if outliers:
        notes.append(
            f"{outliers} of {keep.size} changes did not fit the rate equation and were left out "
            f"(beyond training.outlier_threshold = {training.outlier_threshold:g} robust standard deviations)"
        )
    return notes


def setting_notes(data: Phase1Data) -> list[str]:
    """Notes on constant species, and on settings without effect."""
    notes, training, network = [], data.training, data.observations.network
    undeclared = [network.species[i] for i in np.flatnonzero(data.constant & ~network.fixed)]
    if undeclared:
        names = ", ".join(undeclared[:5]) + ", ..." * (len(undeclared) > 5)
        notes.append(f"{len(undeclared)} species are constant and were taken as fixed: {names}")
    return notes + unread_notes(training)


def unread_notes(training: Training) -> list[str]:
    """A note on settings without effect; empty if there are none."""
    if not training.without_effect:
        return []
    names = ", ".join(f"training.{key}" for key in training.without_effect)
    return [f"without effect, since phase1_method is {training.phase1_method}: {names}"]
