"""Strategy 5: warm-up and cosine restarts."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from pydantic import Field

from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.strategies.base import Part, Strategy
from metabolismgraph.homeostasis.training_plan import Plan, Schedule


class Warmup(Strategy):
    """A linear increase to high learning rates, then cosine decays with restarts."""

    number: ClassVar = 5
    summary: ClassVar = "high learning rates after a warm-up, then cosines with restarts"
    reference: ClassVar = "Goyal et al. 2017 (warm-up); Loshchilov & Hutter 2017 (SGDR)"
    sets: ClassVar[frozenset[Part]] = frozenset({"schedule"})

    share: float = Field(0.1, ge=0, lt=1, description="share of the training for the warm-up")
    restarts: int = Field(3, ge=1, le=50, description="number of cosine decays")
    peak: float = Field(3.0, gt=0, description="factor on both learning rates at their maximum")

    def apply(self, plan: Plan, data: Phase2Data) -> Plan:
        del data
        wait = plan.schedule.embeddings_wait
        return dataclasses.replace(
            plan, schedule=Schedule("restarts", self.share, self.restarts, self.peak, embeddings_wait=wait)
        )
