"""Multiple shooting: Gauss-Newton for the unknowns and for the initial states of all windows (Bock 1983).

The misfit of a window depends on its own initial state and on the unknowns, so the initial states are eliminated
window by window. With sensitivities J = [d state/d initial, d state/d unknowns] and information I of the
measurements, the normal matrix of a window is H = sum over frames of J' I J. The Schur complements
H_uu - H_ux inv(H_xx) H_xu add up to the normal matrix of the unknowns, whose inverse is their covariance.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float, Int

from metabolismgraph.trajectories.integrators import Integrator
from metabolismgraph.trajectories.misfit import Measurements, Misfit
from metabolismgraph.trajectories.rates import RateEquation, RateFunction
from metabolismgraph.trajectories.windows import Windows

# The information of a block of frames is collected at its middle frame, where sensitivities are smooth in time and the
# numbers would be many: a block has at most so many frames, a window at least so many blocks. Above the last number
# of floating-point operations for the normal matrices of all frames, blocks are used.
_LONGEST_BLOCK, _BLOCKS, _CHEAP = 8, 4, 1e9
_MOST_NUMBERS = 16_000_000  # of the sensitivities that are computed at the same time
_FRAMES_AT_ONCE = 64  # whose sensitivities are multiplied at the same time
_RELAXED = 1e-4  # relative decrease of the misfit below which initial states count as relaxed
_RIDGE = 1e-11  # relative, of the normal matrix of an initial state
_SMALLEST_STATE = 0.1  # share of its size to which a step may reduce a concentration
_EXPLODED = 1e30  # a sensitivity that is not finite
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
        frames = min(frames, _FRAMES_AT_ONCE)
        size = max(1, _MOST_NUMBERS // (columns * frames * len(self.fixed) * (1 + self.integrator.stages)))
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
    at_once = max(1, _MOST_NUMBERS // numbers)
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


class Linearised(NamedTuple):
    """The normal equations of the unknowns after elimination of the initial states.

    Attributes:
        matrix, gradient: Schur complement of the negative Hessian, and of the gradient of the log likelihood.
        response: per window, the Gauss-Newton change of its initial state for unchanged unknowns, and minus its
            derivative by the unknowns.
    """

    matrix: Float[np.ndarray, "unknowns unknowns"]
    gradient: Float[np.ndarray, " unknowns"]
    response: tuple[Float[np.ndarray, "windows species"], Float[np.ndarray, "windows species unknowns"]]

    def initial_states(self, change: Float[np.ndarray, " unknowns"]) -> Float[np.ndarray, "windows species"]:
        """The change of the initial states that goes with a change of the unknowns."""
        alone, by_unknowns = self.response
        return np.asarray(alone - by_unknowns @ change)


def linearise(
    problem: Problem, theta: Float[np.ndarray, " unknowns"], x: Float[np.ndarray, "windows species"]
) -> Linearised:
    """Sensitivities of all windows, and the normal equations of the unknowns.

    Args:
        theta: the unknowns.
        x: initial states.
    """
    n, total = x.shape[1], problem.equation.unknowns.total
    matrix, gradient = np.zeros((total, total)), np.zeros(total)
    alone, by_unknowns = np.zeros(x.shape), np.zeros((*x.shape, total))
    rate = problem.equation.bind(theta)
    block = problem.block(n + total)
    for part in problem.batches(n + total, problem.windows.length // block + 1):
        windows = problem.windows.select(part)
        states = problem.states(windows, rate, x[part])
        hessians, scores, _ = normal_equations(problem, windows, rate, states, block)
        bound = problem.at_bound(windows, x[part], scores[:, :n])
        scores[:, :n][bound] = 0.0
        hessians[:, :n] *= ~bound[..., None]
        hessians[..., :n] *= ~bound[:, None]
        for w, hessian in enumerate(hessians):
            factor, scale = _factor(hessian[:n, :n])
            right = np.concatenate([hessian[:n, n:], scores[w, :n, None]], axis=1) * scale[:, None]
            half = scipy.linalg.solve_triangular(factor, right, lower=True, check_finite=False)
            matrix += hessian[n:, n:] - half[:, :-1].T @ half[:, :-1]
            gradient += scores[w, n:] - half[:, :-1].T @ half[:, -1]
            solved = scipy.linalg.solve_triangular(factor, half, lower=True, trans=1, check_finite=False)
            solved *= scale[:, None]
            index = part.start + w
            alone[index], by_unknowns[index] = solved[:, -1], solved[:, :-1]
    return Linearised(matrix, gradient, (alone, by_unknowns))


class WindowEquations(NamedTuple):
    """Normal equations of single windows, by their initial states and, if wanted, by the unknowns.

    Attributes:
        hessians: negative Hessians of the log likelihood.
        scores: its derivatives.
        ends: derivatives of the last states, if they are wanted.
    """

    hessians: Float[np.ndarray, "windows columns columns"]
    scores: Float[np.ndarray, "windows columns"]
    ends: Float[np.ndarray, "windows species columns"] | None


def normal_equations(
    problem: Problem,
    windows: Windows,
    rate: RateFunction,
    states: Float[np.ndarray, "windows length species"],
    block: int,
    *,
    by_unknowns: bool = True,
    ends: bool = False,
) -> WindowEquations:
    """The normal equations of some windows.

    Args:
        states: see `Problem.states`.
        block: frames whose information is collected at one of them, the middle one.
        by_unknowns, ends: what is wanted.
    """
    found = problem.misfit(windows, states)
    starts = np.arange(0, windows.length, block)
    middles = np.minimum(starts + block // 2, windows.length - 1)
    information = np.moveaxis(np.add.reduceat(found.information, starts, axis=1), 1, 0)
    weights = dict(zip(middles.tolist(), information, strict=True))
    columns = states.shape[2] + (problem.equation.unknowns.total if by_unknowns else 0)
    hessians, scores = np.zeros((len(states), columns, columns)), np.zeros((len(states), columns))
    roots: list[np.ndarray] = []
    chosen = [*middles.tolist(), windows.length - 1] if ends else middles.tolist()
    at = sensitivities(problem, windows, rate, states, by_unknowns=by_unknowns, score=found.score, middles=chosen)
    for frame in at:
        scores += frame.score
        if frame.number in weights:
            roots.append(np.sqrt(weights[frame.number])[..., None] * frame.sensitivities)
        # Products of large matrices take less time than many of small ones.
        if roots and (len(roots) == _FRAMES_AT_ONCE or frame.number == middles[-1]):
            for w, one in enumerate(np.moveaxis(np.stack(roots), 1, 0)):
                flat = one.reshape(-1, columns)
                hessians[w] += flat.T @ flat
            roots = []
    return WindowEquations(hessians, scores, frame.sensitivities if ends else None)


def _factor(matrix: Float[np.ndarray, "n n"]) -> tuple[Float[np.ndarray, "n n"], Float[np.ndarray, " n"]]:
    """Cholesky factor of a positive semidefinite matrix scaled to unit diagonal, and the scale."""
    diagonal = np.diag(matrix)
    scale = 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    scaled = matrix * scale[:, None] * scale
    # Where a species is not measured in a window, its diagonal is zero and the ridge keeps its state unchanged.
    np.fill_diagonal(scaled, np.where(diagonal > 0, 1.0 + _RIDGE, 1.0))
    ridge = _RIDGE
    while True:
        try:
            return np.linalg.cholesky(scaled), scale
        except np.linalg.LinAlgError:
            ridge *= 100
            scaled[np.diag_indices_from(scaled)] += ridge


def relax(
    problem: Problem,
    theta: Float[np.ndarray, " unknowns"],
    x: Float[np.ndarray, "windows species"],
    iterations: int,
    other: Float[np.ndarray, "windows species"] | None = None,
) -> tuple[Float[np.ndarray, "windows species"], float]:
    """Levenberg-Marquardt steps of the initial states alone, each window with its own damping.

    Most of the nonlinearity of a window is in its initial state. Without these steps, the worst of all windows would
    limit a step of the unknowns.

    Args:
        theta: the unknowns.
        x: initial states.
        iterations: at most so many.
        other: other initial states; each window starts from the better of both.

    Returns:
        Initial states, and the misfit of all windows.
    """
    n, rate, count = x.shape[1], problem.equation.bind(theta), len(x)
    if other is None:
        path, losses = problem.path(theta, x)
    else:
        # Both at the same time: what costs is the number of steps, not that of windows.
        windows = problem.windows.select(np.tile(np.arange(count), 2))
        paths, misfits = dataclasses.replace(problem, windows=windows).path(theta, np.concatenate([x, other]))
        better = np.isfinite(misfits[count:]) & ~(misfits[count:] >= misfits[:count])
        chosen = np.arange(count) + np.where(better, count, 0)
        x, path, losses = np.where(better[:, None], other, x), paths[chosen], misfits[chosen]
    damping, block = np.full(count, 1e-3), problem.block(n + problem.equation.unknowns.total)
    for _ in range(iterations):
        before, trial, possible = losses, x.copy(), 0.0
        for part in problem.batches(n, problem.windows.length):
            windows = problem.windows.select(part)
            matrix, score, _ = normal_equations(problem, windows, rate, path[part], block, by_unknowns=False)
            free = ~problem.at_bound(windows, x[part], score)
            matrix, score = matrix * free[:, None] * free[..., None], score * free
            diagonal = np.einsum("bii->bi", matrix)
            scale = 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
            scaled = matrix * scale[:, :, None] * scale[:, None]
            scaled[:, np.arange(n), np.arange(n)] += damping[part, None] + _RIDGE
            good = np.isfinite(scaled).all(axis=(1, 2)) & np.isfinite(score).all(axis=1)
            scaled[~good] = np.eye(n)
            change = scale * np.linalg.solve(scaled, np.where(good[:, None], scale * score, 0.0)[..., None])[..., 0]
            trial[part] = positive(x[part], change)
            possible += 0.5 * float(np.sum(np.where(good[:, None], score * change, 0.0)))
        if possible < 0.5 * _RELAXED * float(losses.sum()):  # not worth a look
            break
        trial_path, trial_losses = problem.path(theta, trial)
        better = np.isfinite(trial_losses) & ~(trial_losses >= losses)
        x = np.where(better[:, None], trial, x)
        path = np.where(better[:, None, None], trial_path, path)
        losses = np.where(better, trial_losses, losses)
        damping = np.where(better, damping * 0.1, np.maximum(damping, 1e-3) * 10)
        if float((before - losses).sum()) < _RELAXED * float(losses.sum()):
            break
    return x, float(losses.sum())


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


def positive(x: np.ndarray, change: np.ndarray) -> np.ndarray:
    """States after a change that may reduce no concentration to less than a share of its size."""
    return np.asarray(np.maximum(x + change, _SMALLEST_STATE * np.maximum(x, 0.0)))
