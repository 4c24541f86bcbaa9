"""Strategy 4: curriculum on time steps."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray
from pydantic import Field

from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.strategies.base import Part, Strategy
from metabolismgraph.homeostasis.training_plan import Lengths, Plan


class LongToShort(Lengths):
    """All rollouts of a stage have the same length, half that of the previous stage."""

    longest: Int[Array, ""]
    stages: Int[Array, ""]

    def __call__(self, key: PRNGKeyArray, share: Float[Array, ""], batch: int) -> Int[Array, " batch"]:
        del key
        stage = jnp.minimum((share * self.stages).astype(jnp.int64), self.stages - 1)
        return jnp.full(batch, jnp.maximum(self.longest // 2**stage, 1))


class Curriculum(Strategy):
    """Long rollouts first, in which drift accumulates, then shorter ones; late steps have larger weights."""

    number: ClassVar = 4
    summary: ClassVar = "long rollouts first, then shorter ones; late steps have larger weights"
    reference: ClassVar = "Bengio et al. 2009 (curriculum learning); Bengio et al. 2015 (scheduled sampling)"
    sets: ClassVar[frozenset[Part]] = frozenset({"lengths", "weights"})
    needs: ClassVar = "rollouts"

    stages: int = Field(
        2, ge=1, le=8, description="number of stages; each has rollouts half as long as the previous one"
    )
    late: float = Field(1.0, ge=0, description="weight of step t of T is (t / T) to this power")

    def apply(self, plan: Plan, data: Phase2Data) -> Plan:
        lengths = LongToShort(jnp.asarray(data.training.homeostasis_time_step), jnp.asarray(self.stages))
        return plan.with_rollouts(lengths=lengths, late=jnp.asarray(self.late))
