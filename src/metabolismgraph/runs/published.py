"""Checkpoints of the published program as results of both phases."""

from __future__ import annotations

import dataclasses

import numpy as np

from metabolismgraph.config import Config
from metabolismgraph.homeostasis.fit import Phase2Result
from metabolismgraph.reactions.gradient import Snapshot, conclude
from metabolismgraph.reactions.result import Phase1Result
from metabolismgraph.system.kinetics import Structure
from metabolismgraph.system.model import MetabolismModel
from metabolismgraph.system.model_rates import ModelRates, mean_homeostasis
from metabolismgraph.system.observations import Observations


def config_of(model: MetabolismModel, config: Config) -> Config:
    """The configuration that fits a converted model, for runs that start from it.

    Args:
        model: result of `read_published_model`.
        config: for all other keys.
    """
    graph_model: dict[str, object] = {
        "substrate_input": "published",
        "aggr_type": model.aggregation,
        "embedding_dim": model.embeddings.shape[1],
    }
    for part, perceptron in (("sub", model.mlp_sub.perceptron), ("node", model.mlp_node.perceptron)):
        graph_model[f"n_layers_{part}"] = len(perceptron.weights)
        if len(perceptron.weights) > 1:
            graph_model[f"hidden_dim_{part}"] = perceptron.weights[0].shape[1]
    training = {
        "skip_phase1": True,
        "phase1_method": "gradient",  # as it was trained; Phase 2 then allows for an imperfect checkpoint
        "phase1_stop_at_r2": None,
        "homeostasis_training": True,
        "joint_refinement": False,
    }
    sections = {"graph_model": graph_model, "training": training}
    return config.replace({f"{name}.{key}": value for name, keys in sections.items() for key, value in keys.items()})


def results_of(model: MetabolismModel, observations: Observations, config: Config) -> tuple[Phase1Result, Phase2Result]:
    """The results of Phase 1 and Phase 2 that a converted model stands for.

    Args:
        model: result of `read_published_model`.
        observations: all frames; the held-out ones are left out as in a fit.
        config: result of `config_of`.
    """
    seen, _ = observations.split(config.training.held_out_fraction)
    snapshot = Snapshot(0, np.asarray(model.log_k), model.mlp_sub, np.zeros(0))
    phase1 = conclude(snapshot, seen, config.graph_model, config.training)
    transitions = seen.transitions()
    rate = ModelRates.of(model, Structure.of(seen.network), seen.concentration)(transitions.start)
    note = "converted from a checkpoint of the published program; rate constants are corrected by MLP_sub(1, 1)"
    return dataclasses.replace(phase1, notes=(note, *phase1.notes)), Phase2Result(
        model=model,
        losses=np.array([np.mean((rate - transitions.derivative)[phase1.keep] ** 2)]),
        loss_unit="(concentration/time)²",
        components={},
        node_magnitude=mean_homeostasis(model, seen.concentration),
        notes=(),
    )
