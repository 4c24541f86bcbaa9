"""Rules that turn dc/dt, known at the frames, into its mean over a step, which is what two frames show.

The mean of dc/dt over the step from one frame to the next is exactly (c_next - c) / dt. A rule
approximates the same mean by a weighted sum of the model's dc/dt at a few frames (a quadrature), so that
what is left can be compared between rules: the left-hand side is the same for all of them.

- `forward`: the value at the start of the step. Exact for data made by explicit Euler steps, of first
  order for continuous processes.
- `trapezoid`: the mean of both ends, of second order.
- `cubic`: the integral of the cubic through four frames, two on either side (at the ends of a run, the
  nearest four); of fourth order, and as good as the data are smooth over four frames. With equal spacing
  the weights are (-1, 13, 13, -1)/24, and those of Adams and Moulton at the ends (Hairer, Norsett & Wanner
  1993, chapter III.1); any spacing is allowed.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from metabolismgraph.system.observations import Observations

Rule = Literal["forward", "trapezoid", "cubic"]

_NODES = 4  # frames that a cubic goes through


@dataclasses.dataclass(frozen=True)
class StepQuadrature:
    """Which frames a rule looks at for every transition, and how much each counts.

    Attributes:
        frame: index of the frame in the observations.
        weight: sums to one over the nodes of a transition (dimensionless).
    """

    frame: Int[np.ndarray, "nodes transitions"]
    weight: Float[np.ndarray, "nodes transitions"]

    @classmethod
    def of(cls, observations: Observations, rule: Rule) -> StepQuadrature:
        """The nodes and weights of a rule.

        Example:
            >>> import metabolismgraph as mg
            >>> network = mg.ReactionNetwork.from_reactions("decay", ["A"], [])
            >>> data = mg.Observations(network, np.arange(5.0), np.zeros(5, dtype=int), np.ones((5, 1)))
            >>> (StepQuadrature.of(data, "cubic").weight[:, 1] * 24).round(9).tolist()
            [-1.0, 13.0, 13.0, -1.0]
        """
        start = observations.transitions().frame
        if rule == "forward":
            return cls(start[None], np.ones((1, len(start))))
        if rule == "trapezoid":
            return cls(np.stack([start, start + 1]), np.full((2, len(start)), 0.5))
        return cls(*_cubic(observations, start))

    def mean(self, values: Float[np.ndarray, "frames species"]) -> Float[np.ndarray, "transitions species"]:
        """The mean over each step of something that is known at the frames."""
        return np.asarray(np.einsum("et,et...->t...", self.weight, values[self.frame]))


def _cubic(
    observations: Observations, start: Int[np.ndarray, " transitions"]
) -> tuple[Int[np.ndarray, "nodes transitions"], Float[np.ndarray, "nodes transitions"]]:
    """Four frames around each step, or all of a shorter run, and the integrals of their Lagrange polynomials."""
    run, time = observations.run, observations.time
    first, last = (np.searchsorted(run, run[start], side=side) for side in ("left", "right"))
    last = last - 1
    lowest = np.clip(start - 1, first, np.maximum(last - _NODES + 1, first))
    frame = np.minimum(lowest + np.arange(_NODES)[:, None], last)
    weight = np.zeros(frame.shape)
    count = np.minimum(last - first + 1, _NODES)
    for nodes in np.unique(count):
        chosen = np.flatnonzero(count == nodes)
        width = time[start[chosen] + 1] - time[start[chosen]]
        u = (time[frame[:nodes, chosen]] - time[start[chosen]]) / width
        # The weights integrate 1, u, u^2, ... over the step, u from 0 to 1, exactly.
        powers = np.stack([u**p for p in range(nodes)], axis=0).transpose(2, 0, 1)
        moments = np.broadcast_to((1.0 / np.arange(1, nodes + 1))[:, None], (len(chosen), nodes, 1))
        weight[:nodes, chosen] = np.linalg.solve(powers, moments)[..., 0].T
    return frame, weight
