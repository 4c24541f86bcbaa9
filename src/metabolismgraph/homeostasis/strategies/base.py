"""What a Phase 2 strategy is: options, and one function from plan to plan."""

from __future__ import annotations

import abc
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from metabolismgraph.homeostasis.residuals import Phase2Data, Residuals
from metabolismgraph.homeostasis.training_plan import Plan
from metabolismgraph.system.progress import Progress

Part = Literal[
    "residuals",
    "objective",
    "lengths",
    "weights",
    "amplification",
    "gradient",
    "schedule",
    "accumulation",
    "penalties",
    "steps",
    "embeddings_wait",
    "start",
    "finish",
]


class Strategy(BaseModel, abc.ABC):
    """A named change of the Phase 2 training; the fields of a subclass are its options.

    It may change loss terms, optimiser and schedule, auxiliary losses, amplification and the
    structure of the training loop. It sees observations and the frozen checkpoint, and no truth.

    Attributes:
        number: in the list of strategies, from 1.
        summary: one line.
        reference: the papers it follows.
        sets: parts of the plan that it decides on; no two strategies may decide on the same.
        adjusts: parts that it changes as well, but that another may change after it: then a note says so.
        needs: "rollouts" or "minibatches", if it makes no sense without.
        draws_minibatches: whether the objective that it sets draws minibatches.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    number: ClassVar[int]
    summary: ClassVar[str]
    reference: ClassVar[str]
    sets: ClassVar[frozenset[Part]] = frozenset()
    adjusts: ClassVar[frozenset[Part]] = frozenset()
    needs: ClassVar[Literal["", "rollouts", "minibatches"]] = ""
    draws_minibatches: ClassVar[bool] = False

    @abc.abstractmethod
    def apply(self, plan: Plan, data: Phase2Data) -> Plan:
        """The changed plan: a pure function, and cheap."""

    def find_residuals(self, data: Phase2Data, progress: Progress) -> Residuals:
        """What is left of dc/dt, by the strategy that decides on the residuals.

        It may take its time: Phase 2 calls it once, before any plan is made.
        """
        del progress
        return data.checkpoint_residuals()
