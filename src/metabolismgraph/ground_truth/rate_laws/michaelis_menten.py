"""Michaelis-Menten kinetics."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float
from pydantic import Field

from metabolismgraph.ground_truth.rate_laws.base import RateLaw


class MichaelisMenten(RateLaw):
    """f = (c (1 + K) / (c + K))^order, with f(1) = 1 (Michaelis & Menten 1913)."""

    half_saturation: float = Field(5.0, gt=0, description="concentration K at half the largest rate [c]")

    def log_factor(self, log_c: Float[Array, "*batch"], order: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        K = self.half_saturation
        return order * (log_c + jnp.log1p(K) - jnp.log(jnp.exp(log_c) + K))
