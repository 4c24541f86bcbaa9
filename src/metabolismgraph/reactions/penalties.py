"""Penalties of gradient Phase 1 (Allier 2026): each is zero if its condition holds, otherwise positive."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def substrate_falls(log_f: Float[Array, "orders knots"]) -> Float[Array, ""]:
    """coeff_MLP_sub_diff: total decrease of log f over the range of c, mean over orders.

    In log f instead of f, so that relative decreases count equally at low and high concentrations.
    """
    return jnp.mean(jnp.sum(jax.nn.relu(log_f[:, :-1] - log_f[:, 1:]), axis=1))


def substrate_norm(log_f_at_one: Float[Array, ""]) -> Float[Array, ""]:
    """coeff_MLP_sub_norm: squared distance of f(1, 1) from 1; zero by construction where the input is log c."""
    return (jnp.exp(log_f_at_one) - 1.0) ** 2


def node_magnitude(node: Float[Array, "batch species"]) -> Float[Array, ""]:
    """coeff_MLP_node_L1: mean |MLP_node| over the batch, in concentration/time."""
    return jnp.mean(jnp.abs(node))


def rate_constant_floor(log_k: Float[Array, " reactions"], threshold: Float[Array, ""]) -> Float[Array, ""]:
    """coeff_k_floor: mean distance of log10 k below k_floor_threshold, over all reactions."""
    return jnp.mean(jax.nn.relu(threshold - log_k))
