"""Strategy 7: gradient accumulation."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from pydantic import Field

from metabolismgraph.train.evidence import Setting
from metabolismgraph.train.plan import Plan
from metabolismgraph.train.strategies.base import Part, Strategy


class Accumulation(Strategy):
    """Average the gradients of several minibatches before each step of the optimiser."""

    number: ClassVar = 7
    summary: ClassVar = "average the gradients of several minibatches per step"
    reference: ClassVar = "Goyal et al. 2017 (large minibatches)"
    sets: ClassVar[frozenset[Part]] = frozenset({"accumulation"})
    needs: ClassVar = "minibatches"

    batches: int = Field(4, ge=2, le=64, description="minibatches per step")

    def apply(self, plan: Plan, setting: Setting) -> Plan:
        del setting
        return dataclasses.replace(plan, accumulate=self.batches)
