"""Strategy 8: separate loss components."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.strategies.base import Part, Strategy
from metabolismgraph.homeostasis.training_plan import Plan


class Separate(Strategy):
    """No gradient through the reactions of a rollout; their own error is only watched.

    What MLP_node did at a step then reaches the loss of every later step directly, and not by way of
    the (chaotic) reactions.
    """

    number: ClassVar = 8
    summary: ClassVar = "no gradient through the reactions; their error is only watched"
    reference: ClassVar = "Chen & He 2021 (stop-gradient)"
    sets: ClassVar[frozenset[Part]] = frozenset({"gradient"})
    needs: ClassVar = "rollouts"

    def apply(self, plan: Plan, data: Phase2Data) -> Plan:
        del data
        rollouts = plan.rollouts()
        changed = dataclasses.replace(rollouts, scheme=rollouts.scheme._replace(detach=True))
        return dataclasses.replace(plan, objective=changed)
