"""Strategy 6: multi-scale rollouts."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray
from pydantic import Field, PositiveInt

from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.strategies.base import Part, Strategy
from metabolismgraph.homeostasis.training_plan import CAPACITY, Lengths, Plan, Starts


class Mixed(Lengths):
    """Each rollout of a batch has a random length."""

    choices: Int[Array, " choices"]

    def __call__(self, key: PRNGKeyArray, share: Float[Array, ""], batch: int) -> Int[Array, " batch"]:
        del share
        return jax.random.choice(key, self.choices, (batch,))


class MultiScale(Strategy):
    """Rollouts of several lengths in one batch: T, T/2, T/4, ... for T = homeostasis_time_step, or given lengths."""

    number: ClassVar = 6
    summary: ClassVar = "rollouts of several lengths in one batch"
    reference: ClassVar = "Lin et al. 2017 (feature pyramids); Huang et al. 2016 (stochastic depth)"
    sets: ClassVar[frozenset[Part]] = frozenset({"lengths"})
    needs: ClassVar = "rollouts"

    scales: int = Field(4, ge=2, le=8, description="number of lengths, each half the previous one")
    lengths: tuple[PositiveInt, ...] = Field(
        (), description="lengths of rollouts, such as [4, 16, 32, 64]; empty: as scales says [frames]"
    )

    def apply(self, plan: Plan, data: Phase2Data) -> Plan:
        halved = {max(1, data.training.homeostasis_time_step // 2**i) for i in range(self.scales)}
        lengths = sorted(self.lengths or halved)
        return plan.with_rollouts(
            lengths=Mixed(jnp.asarray(lengths)),
            starts=Starts.of(data.observations, lengths[-1]),
            capacity=max(CAPACITY, lengths[-1]),
        )
