"""Section `graph_model`: the structure of the learned model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from metabolismgraph.config.section import Section


class GraphModel(Section):
    """Structure of the learned model: MLP_sub (rate law), MLP_node (homeostasis), embeddings."""

    aggr_type: Literal["mul", "add"] = Field(
        "mul",
        description="substrate factor of a reaction, in simulation and model: product or sum of f over its substrates",
    )
    rate_law: Literal["auto", "mass_action", "learned"] = Field(
        "auto",
        description="f in the rate k * product of f(c): auto = mass action (c^order) if the network file states it, "
        "and one learned function for all other reactions; mass_action = for all; learned = for all",
    )
    substrate_input: Literal["log", "raw", "published"] = Field(
        "log",
        description="input of MLP_sub: log = log c, so that a power law is a straight line over all decades; "
        "raw = c itself, as published (gradient Phase 1 only); published = c itself, and a softplus around the "
        "product or sum over the substrates (converted checkpoints only)",
    )
    embedding_dim: int = Field(2, ge=1, le=64, description="dimension of the embedding a_i of a metabolite")
    hidden_dim_sub: int = Field(64, ge=1, le=4096, description="width of MLP_sub [units]")
    n_layers_sub: int = Field(3, ge=1, le=16, description="linear layers of MLP_sub")
    hidden_dim_node: int = Field(64, ge=1, le=4096, description="width of MLP_node [units]")
    n_layers_node: int = Field(3, ge=1, le=16, description="linear layers of MLP_node")
