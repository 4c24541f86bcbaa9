"""The base class of Phase 2 strategies: options, and one function from plan to plan."""

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
    """A change of the training of Phase 2; the fields of a subclass are its options.

    A strategy may change the objective, penalties, optimiser, learning rates and the initial and final steps. It has
    access to observations and the frozen checkpoint, but not to the truth.

    Attributes:
        number: in the list of strategies, from 1.
        summary: one line.
        reference: literature.
        sets: parts of the plan that it sets; two strategies must not set the same part.
        adjusts: further parts that it changes and that a later strategy may change again, with a note.
        needs: "rollouts" or "minibatches", if it requires them.
        draws_minibatches: whether its objective uses minibatches.
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
        """The changed plan. Must be a pure function and take little time."""

    def find_residuals(self, data: Phase2Data, progress: Progress) -> Residuals:
        """The residual of dc/dt, for a strategy that sets the residuals.

        Called once, before the plan is made; may take long.
        """
        del progress
        return data.checkpoint_residuals()
