"""Derivatives of the states of windows by their initial states and by the unknowns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from metabolismgraph.trajectories.problem import MOST_NUMBERS, Problem
from metabolismgraph.trajectories.rates import RateFunction
from metabolismgraph.trajectories.windows import Windows

_EXPLODED = 1e30  # a sensitivity that is not finite


class Frame(NamedTuple):
    """A frame of some windows, at which the derivatives of the states are known.

    Attributes:
        number: of the frame within its window.
        sensitivities: derivatives of the states by the initial states and, if wanted, by the unknowns.
        score: those of the log likelihood of this frame and of all others before the next one of this kind.
    """

    number: int
    sensitivities: Float[np.ndarray, "windows species columns"]
    score: Float[np.ndarray, "windows columns"]


def sensitivities(
    problem: Problem,
    windows: Windows,
    rate: RateFunction,
    states: Float[np.ndarray, "windows length species"],
    *,
    by_unknowns: bool = True,
    score: Float[np.ndarray, "windows length species"] | None = None,
    middles: Sequence[int] | None = None,
) -> Iterator[Frame]:
    """Derivatives of states along given paths, from frame to frame or from one chosen frame to the next.

    Between two chosen frames, the derivatives of the later state by the earlier one and by the unknowns are products
    and sums over the steps. They are collected backwards, since rows times the derivative of one step by the unknowns
    cost little. All such sections are treated at the same time, and only their last sum is a loop over the window.

    Args:
        rate: dc/dt for the unknowns.
        states: see `Problem.states`.
        by_unknowns: whether the derivatives by the unknowns are wanted.
        score: derivative of the log likelihood by the state of every frame; None: zero.
        middles: chosen frames, ascending; None: all frames. The first frame of the window is always one of them.
    """
    size, length, n = states.shape
    total = problem.equation.unknowns.total if by_unknowns else 0
    chosen = np.unique([0, *(range(length) if middles is None else middles)])
    ends = np.append(chosen[1:], length)
    j = np.zeros((size, n, n + total))
    own = np.arange(n)
    j[:, own, own] = 1.0
    numbers = size * (n + 1) * (n + total) * (1 + problem.integrator.stages)
    at_once = max(1, MOST_NUMBERS // numbers)
    for first in range(0, len(chosen), at_once):
        part = slice(first, first + at_once)
        section = _Section.of(problem, windows, rate, states, (chosen[part], ends[part]), score, total)
        for s, number in enumerate(chosen[part]):
            own_score = (section.left[:, s, n:] @ j)[:, 0]
            own_score[:, n:] += section.by_unknowns[:, s, n]
            yield Frame(int(number), j, own_score)
            j = section.left[:, s, :n] @ j
            j[..., n:] += section.by_unknowns[:, s, :n]


class _Section(NamedTuple):
    """Derivatives over sections of windows, of their last state and, as one more row, of their log likelihood.

    Attributes:
        left: by their first state.
        by_unknowns: by the unknowns.
    """

    left: Float[np.ndarray, "windows sections rows species"]
    by_unknowns: Float[np.ndarray, "windows sections rows unknowns"]

    @classmethod
    def of(
        cls,
        problem: Problem,
        windows: Windows,
        rate: RateFunction,
        states: Float[np.ndarray, "windows length species"],
        bounds: tuple[Int[np.ndarray, " sections"], Int[np.ndarray, " sections"]],
        score: Float[np.ndarray, "windows length species"] | None,
        total: int,
    ) -> _Section:
        """Over sections from one frame up to another one.

        Args:
            total: unknowns by which derivatives are wanted.
        """
        size, length, n = states.shape
        (first, end), steps = bounds, problem.steps
        left = np.zeros((size, len(first), n + 1, n))
        left[:, :, np.arange(n), np.arange(n)] = 1.0
        by_unknowns: np.ndarray | None = None
        for offset in reversed(range(int((end - first).max()))):
            inside = np.flatnonzero(first + offset < end)
            at = first[inside] + offset
            # Sections with equal steps together. There is no step after the last frame of a window.
            moving = at < length - 1
            for kind in {id(steps[s]): steps[s] for s in at[moving]}.values():
                same = np.array([s < length - 1 and steps[s] is kind for s in at])
                frame = at[same]
                where = inside[same] if len(frame) < len(first) else slice(None)  # no copy
                c, dt = states[:, frame].reshape(-1, n), windows.dt[:, frame].ravel()
                rows = left[:, where].reshape(len(c), n + 1, n)
                rows[..., problem.fixed] = 0.0  # held after the step
                for pull_back in reversed(kind.linearise(rate, c, dt, by_unknowns=total > 0)):
                    rows, unknowns = pull_back(rows)
                    unknowns = unknowns.reshape(size, len(frame), n + 1, total)
                    if by_unknowns is None and len(frame) == len(first):
                        by_unknowns = unknowns  # the first of a sum of large arrays
                    else:
                        by_unknowns = np.zeros((*left.shape[:3], total)) if by_unknowns is None else by_unknowns
                        by_unknowns[:, where] += unknowns
                left[:, where] = rows.reshape(size, len(frame), n + 1, n)
            if score is not None:
                left[:, inside, n] += score[:, at]
        by_unknowns = np.zeros((*left.shape[:3], total)) if by_unknowns is None else by_unknowns
        return cls(left, by_unknowns)


def growth(problem: Problem, theta: Float[np.ndarray, " unknowns"], x: Float[np.ndarray, "windows species"]) -> float:
    """By how much a window makes an error of its initial state larger: the median over the windows.

    The spectral norm of the derivative of the last state by the first one, both in units of the noise.
    """
    rate, grown = problem.equation.bind(theta), []
    for part in problem.batches(x.shape[1]):
        windows = problem.windows.select(part)
        states = problem.states(windows, rate, x[part])
        for frame in sensitivities(problem, windows, rate, states, by_unknowns=False):
            last = frame.sensitivities
        sigma = problem.measurements.sigma[windows.starts]
        finite = np.nan_to_num(last * sigma[:, None] / sigma[..., None], nan=_EXPLODED, posinf=_EXPLODED)
        grown.append(np.linalg.norm(finite, 2, axis=(1, 2)))
    return float(np.median(np.concatenate(grown)))
