"""Strategy 7: gradient accumulation."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from pydantic import Field

from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.strategies.base import Part, Strategy
from metabolismgraph.homeostasis.training_plan import Plan


class Accumulation(Strategy):
    """Average the gradients of several minibatches before each step of the optimiser."""

    number: ClassVar = 7
    summary: ClassVar = "average the gradients of several minibatches per step"
    reference: ClassVar = "Goyal et al. 2017 (large minibatches)"
    sets: ClassVar[frozenset[Part]] = frozenset({"accumulation"})
    needs: ClassVar = "minibatches"

    batches: int = Field(4, ge=2, le=64, description="minibatches per step")

    def apply(self, plan: Plan, data: Phase2Data) -> Plan:
        del data
        return dataclasses.replace(plan, accumulate=self.batches)
