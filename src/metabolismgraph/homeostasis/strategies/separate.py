"""Strategy 8: separate loss components."""

from __future__ import annotations

from typing import ClassVar

from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.strategies.base import Part, Strategy
from metabolismgraph.homeostasis.training_plan import Plan


class Separate(Strategy):
    """No gradient through the reactions of a rollout; their error is only monitored.

    The output of MLP_node at a step then influences the gradient at later steps directly, without the sensitivities of
    the reactions, which grow exponentially in chaotic systems.
    """

    number: ClassVar = 8
    summary: ClassVar = "no gradient through the reactions; their error is only monitored"
    reference: ClassVar = "Chen & He 2021 (stop-gradient)"
    sets: ClassVar[frozenset[Part]] = frozenset({"gradient"})
    needs: ClassVar = "rollouts"

    def apply(self, plan: Plan, data: Phase2Data) -> Plan:
        del data
        return plan.with_rollouts(scheme=plan.rollouts().scheme._replace(detach=True))
