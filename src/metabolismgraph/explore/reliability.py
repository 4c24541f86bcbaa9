"""How reliable a node is, from runs with seeds that the search has not seen.

The best of many noisy means is too high (winner's curse); a mean over fresh seeds is not.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import stats

from metabolismgraph.explore.events import Validated
from metabolismgraph.explore.state import State


@dataclasses.dataclass(frozen=True)
class Reliability:
    """What runs with fresh seeds show about a node.

    Attributes:
        runs: their number.
        converged: how many of them converged.
        interval: of the share that converges, 95 %, by Wilson 1927.
        mean: of the reward.
        variation: coefficient of variation of the reward, standard deviation over mean; None for fewer than two runs.
        worst: the run with the lowest reward.
    """

    runs: int
    converged: int
    interval: tuple[float, float]
    mean: float
    variation: float | None
    worst: Validated

    def __str__(self) -> str:
        low, high = self.interval
        spread = f", coefficient of variation {self.variation:.1%}" if self.variation is not None else ""
        return (
            f"{self.converged} of {self.runs} fresh seeds converged (95 % interval {low:.2f} to {high:.2f}); reward "
            f"{self.mean:.3f}{spread}; worst {self.worst.reward:.3f} with seed {self.worst.seed}"
        )


def reliability(state: State, node: int) -> Reliability | None:
    """What the runs with fresh seeds show about a node; runs lost with their machine do not count. None without any."""
    found = [run for run in state.validations if run.node == node and run.state != "lost"]
    if not found:
        return None
    rewards = np.array([run.reward for run in found])
    converged = sum(run.classification == "converged" for run in found)
    interval = stats.binomtest(converged, len(found)).proportion_ci(method="wilson")
    mean = float(rewards.mean())
    return Reliability(
        runs=len(found),
        converged=converged,
        interval=(float(interval.low), float(interval.high)),
        mean=mean,
        variation=float(rewards.std(ddof=1)) / mean if len(found) > 1 and mean > 0 else None,
        worst=min(found, key=lambda run: run.reward),
    )
