"""Strategy 1: residual supervision."""

from __future__ import annotations

import dataclasses
import functools
from typing import ClassVar

from metabolismgraph.homeostasis.binned_regression import Regress, condense, polish, start_from_line
from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.strategies.base import Part, Strategy
from metabolismgraph.homeostasis.training_plan import Plan, Schedule


class Residual(Strategy):
    """Regression of MLP_node on dc/dt minus the frozen reactions, without rollouts.

    The output layers of MLP_node are solved for exactly; finally, all its parameters are optimised by L-BFGS.
    """

    number: ClassVar = 1
    summary: ClassVar = "regress MLP_node on dc/dt minus the frozen reactions"
    reference: ClassVar = "Raissi et al. 2019 (physics-informed networks); Brunton et al. 2016 (SINDy)"
    sets: ClassVar[frozenset[Part]] = frozenset({"objective"})
    adjusts: ClassVar[frozenset[Part]] = frozenset({"steps", "schedule", "embeddings_wait", "start", "finish"})

    def apply(self, plan: Plan, data: Phase2Data) -> Plan:
        points, steps = condense(plan.residuals), data.training.homeostasis_time_step
        unused = f"training.homeostasis_time_step = {steps} has no effect: Phase 2 is trained without rollouts"
        return dataclasses.replace(
            plan,
            objective=Regress(points),
            steps=data.training.phase2_steps,
            # While MLP_node is inaccurate, its gradient would separate embeddings of the same type.
            schedule=Schedule("onecycle", embeddings_wait=0.4),
            start=functools.partial(start_from_line, points=points),
            finish=functools.partial(polish, points=points),
            notes=(*plan.notes, *([unused] if steps > 1 else [])),
        )
