"""Section `graph_model`: the shape of the learned model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from metabolismgraph.config.section import Section


class GraphModel(Section):
    """Shape of the learned model: MLP_sub (rate law), MLP_node (homeostasis), embeddings."""

    aggr_type: Literal["mul", "add"] = Field(
        "mul", description="how the substrates of a reaction combine, in simulation and model: product or sum of f"
    )
    rate_law: Literal["auto", "mass_action", "learned"] = Field(
        "auto",
        description="f in the rate k * product of f(c): auto = mass action (c^order) where the network file says so, "
        "and one learned function for all other reactions; mass_action = known for all; learned = for all",
    )
    substrate_input: Literal["log", "raw"] = Field(
        "log",
        description="what MLP_sub is a network of: log = log c, a power law being a straight line over all decades; "
        "raw = c itself, as published (gradient Phase 1 only)",
    )
    embedding_dim: int = Field(2, ge=1, le=64, description="dimension of a metabolite's embedding a_i")
    hidden_dim_sub: int = Field(64, ge=1, le=4096, description="width of MLP_sub [units]")
    n_layers_sub: int = Field(3, ge=1, le=16, description="Linear layers of MLP_sub")
    hidden_dim_node: int = Field(64, ge=1, le=4096, description="width of MLP_node [units]")
    n_layers_node: int = Field(3, ge=1, le=16, description="Linear layers of MLP_node")
