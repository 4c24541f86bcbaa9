"""What a fit of trajectories starts from: data, model and windows, with the states that they lead to."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int

from metabolismgraph.trajectories.integrators import Integrator
from metabolismgraph.trajectories.misfit import Measurements, Misfit
from metabolismgraph.trajectories.rates import RateEquation, RateFunction
from metabolismgraph.trajectories.windows import Windows

# The information of a block of frames is collected at its middle frame, where sensitivities are smooth in time and the
# numbers would be many: a block has at most so many frames, a window at least so many blocks. Above the last number
# of floating-point operations for the normal matrices of all frames, blocks are used.
_LONGEST_BLOCK, _BLOCKS, _CHEAP = 8, 4, 1e9
MOST_NUMBERS = 16_000_000  # of the sensitivities that are computed at the same time
FRAMES_AT_ONCE = 64  # whose sensitivities are multiplied at the same time
_AT_BOUND = 1e-2  # standard deviations of the noise below which an initial concentration can count as zero


@dataclasses.dataclass(frozen=True)
class Problem:
    """The data and the model of a shooting fit.

    Attributes:
        equation: the rate equation.
        integrator: from frame to frame.
        windows: the windows.
        measurements: what the states are compared with.
        prior: weak Gaussian prior on the unknowns: mean and standard deviation.
        parts: equal parts into which the time from every frame to the next is divided, for accuracy.
    """

    equation: RateEquation
    integrator: Integrator
    windows: Windows
    measurements: Measurements
    prior: tuple[Float[np.ndarray, " unknowns"], Float[np.ndarray, " unknowns"]]
    parts: Int[np.ndarray, " frames"]

    @functools.cached_property
    def fixed(self) -> Bool[np.ndarray, " species"]:
        return np.asarray(~self.equation.moving)

    def hold(self, c: np.ndarray, at: np.ndarray) -> np.ndarray:
        """The states with the concentrations of fixed species as measured."""
        return np.where(self.fixed, self.measurements.value[at], c) if self.fixed.any() else c

    def penalty(self, theta: Float[np.ndarray, " unknowns"]) -> float:
        """Minus the log of the prior."""
        mean, deviation = self.prior
        return 0.5 * float(np.sum(((theta - mean) / deviation) ** 2))

    def at_bound(
        self, windows: Windows, x: Float[np.ndarray, "windows species"], score: Float[np.ndarray, "windows species"]
    ) -> Bool[np.ndarray, "windows species"]:
        """Initial concentrations that are zero, and would be negative if they could.

        They are no unknowns: at such a bound the derivative of the misfit does not vanish.

        Args:
            score: derivative of the log likelihood by the initial states.
        """
        return np.asarray((x < _AT_BOUND * self.measurements.sigma[windows.starts]) & (score < 0))

    def batches(self, columns: int, frames: int = 1) -> Iterator[slice]:
        """Windows that are treated at the same time, so that memory stays bounded.

        Args:
            columns: of a matrix with a row per species that is kept for every window.
            frames: number of such matrices.
        """
        frames = min(frames, FRAMES_AT_ONCE)
        size = max(1, MOST_NUMBERS // (columns * frames * len(self.fixed) * (1 + self.integrator.stages)))
        for first in range(0, len(self.windows.frame), size):
            yield slice(first, first + size)

    def block(self, columns: int) -> int:
        """Frames per block, see `_LONGEST_BLOCK`."""
        operations = self.windows.frame.size * len(self.fixed) * columns**2
        wanted = int(np.clip(np.ceil(operations / _CHEAP), 1, _LONGEST_BLOCK))
        return int(max(1, min(wanted, self.windows.length // _BLOCKS)))

    def path(
        self, theta: Float[np.ndarray, " unknowns"], x: Float[np.ndarray, "windows species"]
    ) -> tuple[Float[np.ndarray, "windows length species"], Float[np.ndarray, " windows"]]:
        """The states of every window, and its misfit."""
        states, losses = [], []
        rate = self.equation.bind(theta)
        with np.errstate(over="ignore", invalid="ignore"):
            for part in self.batches(self.windows.length):
                windows = self.windows.select(part)
                states.append(self.states(windows, rate, x[part]))
                losses.append(self.misfit(windows, states[-1]).loss)
        return np.concatenate(states), np.concatenate(losses)

    def states(
        self, windows: Windows, rate: RateFunction, x: Float[np.ndarray, "windows species"]
    ) -> Float[np.ndarray, "windows length species"]:
        """The states of some windows."""
        found, c = np.empty((*windows.frame.shape, x.shape[1])), x
        for s in range(windows.length):
            found[:, s] = c = self.hold(c, windows.frame[:, s])
            if s < windows.length - 1:
                c = self.steps[s].advance(rate, c, windows.dt[:, s])
        return found

    @functools.cached_property
    def steps(self) -> list[Integrator]:
        """The integrator after every frame of a window, the same for all windows."""
        parts = self.parts[self.windows.frame].max(axis=0)
        divided = {number: self.integrator.divided(number) for number in set(parts.tolist())}
        return [divided[number] for number in parts.tolist()]

    def misfit(self, windows: Windows, states: Float[np.ndarray, "windows length species"]) -> Misfit:
        """Of the states of some windows, with derivatives for every frame."""
        return self.measurements.misfit(windows.frame, windows.valid, states)
