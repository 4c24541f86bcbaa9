"""Rollout lengths drawn from a truncated geometric distribution."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray
from pydantic import Field

from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.strategies.base import Part, Strategy
from metabolismgraph.homeostasis.training_plan import Lengths, Plan


class Geometric(Lengths):
    """Geometric lengths with a mean that grows over the training, at most `longest`.

    Attributes:
        mean: mean length at the start and at the end.
        longest: largest length.
    """

    mean: Float[Array, "2"]
    longest: Int[Array, ""]

    def __call__(self, key: PRNGKeyArray, share: Float[Array, ""], batch: int) -> Int[Array, " batch"]:
        first, last = self.mean[0], self.mean[1]
        mean = first * (last / first) ** share
        u = jax.random.uniform(key, (batch,), minval=1e-6, maxval=1.0)
        drawn = jnp.ceil(jnp.log(u) / jnp.log1p(-1.0 / jnp.maximum(mean, 1.01)))
        return jnp.clip(drawn.astype(self.longest.dtype), 1, self.longest)


class RandomLengths(Strategy):
    """Every rollout has a random length: short ones keep gradients small, long ones show slow drifts."""

    number: ClassVar = 17
    summary: ClassVar = "rollout lengths from a geometric distribution whose mean grows"
    reference: ClassVar = "Bengio et al. 2015 (scheduled sampling); Um et al. 2020 (solver in the loop)"
    sets: ClassVar[frozenset[Part]] = frozenset({"lengths"})
    needs: ClassVar = "rollouts"

    start: float = Field(0.25, gt=0, le=1, description="mean length at the start, as a share of homeostasis_time_step")
    end: float = Field(0.75, gt=0, le=1, description="mean length at the end, as a share of homeostasis_time_step")

    def apply(self, plan: Plan, data: Phase2Data) -> Plan:
        longest = data.training.homeostasis_time_step
        mean = jnp.asarray([max(1.0, self.start * longest), max(1.0, self.end * longest)])
        return plan.with_rollouts(lengths=Geometric(mean=mean, longest=jnp.asarray(longest)))
