"""Warm restarts whose embeddings move only in the later cycles."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from pydantic import Field

from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.strategies.base import Part, Strategy
from metabolismgraph.homeostasis.training_plan import Plan, Schedule

_LONGER = 1.5


class CyclicRestarts(Strategy):
    """Cosine cycles with warm restarts, more steps, and embeddings that wait for the first cycles."""

    number: ClassVar[int] = 24
    summary: ClassVar[str] = "warm restarts; embeddings wait for the first cycles"
    reference: ClassVar[str] = "Loshchilov & Hutter 2017 (SGDR)"
    adjusts: ClassVar[frozenset[Part]] = frozenset({"schedule", "embeddings_wait", "steps", "accumulation"})

    cycles: int = Field(4, ge=1, le=20, description="number of cosine cycles")
    waiting: int = Field(1, ge=0, description="cycles during which the embeddings are constant")
    peak: float = Field(2.0, gt=0, le=20, description="factor on both learning rates")
    accumulate: int = Field(1, ge=1, le=16, description="minibatches per step of the optimiser")

    def apply(self, plan: Plan, data: Phase2Data) -> Plan:
        wait = min(self.waiting / self.cycles, 0.9)
        changes = {
            "schedule": Schedule(
                kind="restarts", warmup=0.05, cycles=self.cycles, peak=self.peak, embeddings_wait=wait
            ),
            "steps": int(_LONGER * plan.steps),
            "accumulate": self.accumulate,
        }
        notes = [*plan.notes]
        if data.training.homeostasis_time_step >= 32:
            notes.append("cyclic_restarts: long rollouts, the peak is halved")
            changes["schedule"] = dataclasses.replace(changes["schedule"], peak=self.peak / 2)
        return dataclasses.replace(plan, **changes, notes=tuple(notes))
