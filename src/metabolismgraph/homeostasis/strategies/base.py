"""What a Phase 2 strategy is: options, and one function from plan to plan."""

from __future__ import annotations

import abc
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.training_plan import Plan

Part = Literal["residuals", "objective", "lengths", "weights", "amplification", "gradient", "schedule", "accumulation"]


class Strategy(BaseModel, abc.ABC):
    """A named change of the Phase 2 training; the fields of a subclass are its options.

    It may change loss terms, optimiser and schedule, auxiliary losses, amplification and the
    structure of the training loop. It sees observations and the frozen checkpoint, and no truth.

    Attributes:
        number: in the requirement's list, from 1.
        summary: one line.
        reference: the papers it follows.
        sets: parts of the plan that it decides on; no two strategies may decide on the same.
        needs: "rollouts" or "minibatches", if it makes no sense without.
        draws_minibatches: whether the objective that it sets draws minibatches.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    number: ClassVar[int]
    summary: ClassVar[str]
    reference: ClassVar[str]
    sets: ClassVar[frozenset[Part]] = frozenset()
    needs: ClassVar[Literal["", "rollouts", "minibatches"]] = ""
    draws_minibatches: ClassVar[bool] = False

    @abc.abstractmethod
    def apply(self, plan: Plan, data: Phase2Data) -> Plan:
        """The changed plan."""
