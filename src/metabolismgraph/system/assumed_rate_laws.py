"""The rate laws that a fit assumes to be known: those stated in the network file, all, or none."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool

from metabolismgraph.config import GraphModel, Training
from metabolismgraph.errors import InputError
from metabolismgraph.system.observations import Observations


def assume_rate_laws(
    observations: Observations,
    graph_model: GraphModel,
    training: Training,
    checkpoint: Bool[np.ndarray, " reactions"] | None = None,
) -> Observations:
    """The same observations, with `network.mass_action` True for reactions whose rate law is assumed to be known.

    Args:
        graph_model: `rate_law` and `aggr_type` decide; a sum over substrates is not mass action.
        training: gradient Phase 1 learns every rate law, as published.
        checkpoint: `mass_action` of a Phase 1 checkpoint, which takes precedence; None: there is no checkpoint.

    Raises:
        InputError: mass action is requested for a method that cannot assume it.
    """
    network = observations.network
    learns_all = graph_model.aggr_type == "add" or training.phase1_method == "gradient"
    if graph_model.rate_law == "mass_action" and learns_all:
        raise InputError(
            "graph_model.rate_law is mass_action, but aggr_type add and gradient Phase 1 learn all rate "
            "laws; set it to auto"
        )
    known = {
        "auto": network.mass_action & (not learns_all),
        "mass_action": np.ones(network.n_reactions, dtype=bool),
        "learned": np.zeros(network.n_reactions, dtype=bool),
    }[graph_model.rate_law]
    if checkpoint is not None and len(checkpoint) == len(known):
        known = checkpoint
    return dataclasses.replace(observations, network=dataclasses.replace(network, mass_action=known))


def rate_law_notes(observations: Observations) -> list[str]:
    """A note on the number of known and learned rate laws, if there are both."""
    network = observations.network
    learned = [name for name, known in zip(network.reactions, network.mass_action, strict=True) if not known]
    if not network.mass_action.any() or not learned:
        return []
    shown = ", ".join(learned[:5]) + (", ..." if len(learned) > 5 else "")
    return [
        f"mass action is assumed for {network.n_reactions - len(learned)} of {network.n_reactions} reactions; "
        f"one rate law is learned for the others ({shown})"
    ]
