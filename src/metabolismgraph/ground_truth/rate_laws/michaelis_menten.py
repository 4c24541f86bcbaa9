"""Michaelis-Menten kinetics."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from pydantic import Field

from metabolismgraph.ground_truth.rate_laws.base import RateLaw


class MichaelisMenten(RateLaw):
    """f = (c (1 + K) / (c + K))^order, with f(1) = 1 (Michaelis & Menten 1913)."""

    half_saturation: float = Field(5.0, gt=0, description="concentration K at half the largest rate [c]")

    def log_factor(
        self, log_c: Float[np.ndarray, "*batch"], order: Float[np.ndarray, "*batch"]
    ) -> Float[np.ndarray, "*batch"]:
        K = self.half_saturation
        return np.asarray(order * (log_c + np.log1p(K) - np.log(np.exp(log_c) + K)))
