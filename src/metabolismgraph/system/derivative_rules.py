"""Quadrature rules for the mean of dc/dt over a step, from its values at a few frames.

The mean of dc/dt over the step from one frame to the next is exactly (c_next - c)/dt. A rule
approximates the same mean by a weighted sum of the model's dc/dt at a few frames. The left-hand side is
the same for all rules, so their residuals are comparable.

- `forward`: the value at the start of the step. Exact for data made by explicit Euler steps; of first
  order for continuous processes.
- `trapezoid`: the mean of both ends; of second order.
- `cubic`: the integral of the cubic through four frames, two on either side (at the ends of a run, the
  nearest four); of fourth order if the data are smooth over four frames. For equal spacing the weights
  are (-1, 13, 13, -1)/24, and those of Adams and Moulton at the ends (Hairer, Norsett & Wanner 1993,
  chapter III.1). Any spacing is allowed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from metabolismgraph.system.observations import Observations

Rule = Literal["forward", "trapezoid", "cubic"]
# For a step h, the error of the mean is O(h^order).
ORDERS: Mapping[Rule, int] = {"forward": 1, "trapezoid": 2, "cubic": 4}

_NODES = 4  # of the cubic rule


@dataclasses.dataclass(frozen=True)
class StepQuadrature:
    """Nodes and weights of a rule for every transition.

    Attributes:
        frame: index of each node in the frames of the observations.
        weight: dimensionless; the weights of a transition sum to one.
    """

    frame: Int[np.ndarray, "nodes transitions"]
    weight: Float[np.ndarray, "nodes transitions"]

    @classmethod
    def of(cls, observations: Observations, rule: Rule) -> StepQuadrature:
        """The nodes and weights of a rule for the transitions of some observations.

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

    def mean(self, values: Float[np.ndarray, "frames columns"]) -> Float[np.ndarray, "transitions columns"]:
        """The mean over each step of quantities with values at the frames, in their own units."""
        # Node by node, since the values of all nodes together would be the largest array of Phase 1.
        total = np.zeros((self.frame.shape[1], values.shape[1]))
        for frame, weight in zip(self.frame, self.weight, strict=True):
            total += weight[:, None] * values[frame]
        return total


def _cubic(
    observations: Observations, start: Int[np.ndarray, " transitions"]
) -> tuple[Int[np.ndarray, "nodes transitions"], Float[np.ndarray, "nodes transitions"]]:
    """Four frames around each step, or all of a shorter run, and the integrals of their Lagrange polynomials.

    The polynomial through the nodes is the sum of (value at a node) * (Lagrange polynomial of the node), so its mean
    over the step has the means of the Lagrange polynomials as weights.
    """
    run, time = observations.run, observations.time
    first, last = (np.searchsorted(run, run[start], side=side) for side in ("left", "right"))
    last = last - 1
    # One frame before the step to one after it, shifted inwards at the ends of a run: no node lies in another run.
    lowest = np.clip(start - 1, first, np.maximum(last - _NODES + 1, first))
    frame = np.minimum(lowest + np.arange(_NODES)[:, None], last)
    weight = np.zeros(frame.shape)
    count = np.minimum(last - first + 1, _NODES)
    # Runs of two or three frames have fewer nodes; their unused nodes keep weight zero.
    for nodes in np.unique(count):
        chosen = np.flatnonzero(count == nodes)
        width = time[start[chosen] + 1] - time[start[chosen]]
        u = (time[frame[:nodes, chosen]] - time[start[chosen]]) / width
        # Equivalent and simpler than integrals of Lagrange polynomials: the weights are exact for 1, u, u^2, ... with u
        # from 0 to 1 over the step, hence sum over nodes of weight * u^p = 1/(p + 1) (Vandermonde system).
        powers = np.stack([u**p for p in range(nodes)], axis=0).transpose(2, 0, 1)
        moments = np.broadcast_to((1.0 / np.arange(1, nodes + 1))[:, None], (len(chosen), nodes, 1))
        weight[:nodes, chosen] = np.linalg.solve(powers, moments)[..., 0].T
    return frame, weight
