"""Strategy 2: signal amplification."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from pydantic import Field

from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.strategies.base import Part, Strategy
from metabolismgraph.homeostasis.training_plan import Plan


class Amplification(Strategy):
    """Multiply MLP_node in the rollouts by a factor that decreases to one during the training."""

    number: ClassVar = 2
    summary: ClassVar = "multiply MLP_node in the rollouts, annealed to 1"
    reference: ClassVar = "Bengio et al. 2009 (curriculum learning); Micikevicius et al. 2018 (loss scaling)"
    sets: ClassVar[frozenset[Part]] = frozenset({"amplification"})
    needs: ClassVar = "rollouts"

    factor: float = Field(50.0, ge=1, description="factor at the start")
    until: float = Field(0.6, gt=0, le=1, description="share of the training after which it is 1")

    def apply(self, plan: Plan, data: Phase2Data) -> Plan:
        del data
        return plan.with_rollouts(amplification=jnp.asarray([self.factor, self.until]))
