"""Notes for the user on Phase 1, as plain sentences."""

from __future__ import annotations

import numpy as np

from metabolismgraph.config import Training
from metabolismgraph.reactions.data import Phase1Data
from metabolismgraph.system.observations import Observations


def constant_notes(observations: Observations, data: Phase1Data) -> list[str]:
    """A note with the species that were treated as fixed because they are constant in the data."""
    undeclared = np.flatnonzero(data.constant & ~observations.network.fixed)
    if not undeclared.size:
        return []
    names = ", ".join(observations.network.species[i] for i in undeclared[:5])
    return [f"{undeclared.size} species are constant and were taken as fixed: {names}{', ...' * (undeclared.size > 5)}"]


def setting_notes(training: Training) -> list[str]:
    """A note with the settings that the chosen method does not use."""
    unread = training.without_effect
    if not unread:
        return []
    names = ", ".join(f"training.{key}" for key in unread)
    return [f"without effect, since phase1_method is {training.phase1_method}: {names}"]


def row_notes(nonzero: np.ndarray, follows: np.ndarray, keep: np.ndarray, training: Training) -> list[str]:
    """Notes on the number of entries that were left out, and the reasons.

    Args:
        nonzero: False for transitions into or out of a concentration of zero.
        follows: usable entries.
        keep: entries in use.
        training: section of the configuration.
    """
    notes = []
    if not nonzero.all():
        notes.append(f"{int((~nonzero).sum())} changes into or out of an exact zero were left out")
    outliers = int((follows & ~keep).sum())
    if outliers:
        notes.append(
            f"{outliers} of {keep.size} changes did not fit the rate equation and were left out "
            f"(beyond training.outlier_threshold = {training.outlier_threshold:g} robust standard deviations)"
        )
    return notes
