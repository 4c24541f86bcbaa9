"""Multiple shooting: Gauss-Newton for the unknowns and for the initial states of all windows (Bock 1983).

The misfit of a window depends on its own initial state and on the unknowns, so the initial states are eliminated
window by window. With sensitivities J = [d state/d initial, d state/d unknowns] and information I of the
measurements, the normal matrix of a window is H = sum over frames of J' I J. The Schur complements
H_uu - H_ux inv(H_xx) H_xu add up to the normal matrix of the unknowns, whose inverse is their covariance.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float, Int

from metabolismgraph.trajectories.integrators import Integrator
from metabolismgraph.trajectories.misfit import Measurements, Misfit
from metabolismgraph.trajectories.rates import RateEquation
from metabolismgraph.trajectories.windows import Windows

# The information of a block of frames is collected at its middle frame, where sensitivities are smooth in time and the
# numbers would be many: a block has at most so many frames, a window at least so many blocks. Above the last number
# of floating-point operations for the normal matrices of all frames, blocks are used.
_LONGEST_BLOCK, _BLOCKS, _CHEAP = 8, 4, 4e9
_MOST_NUMBERS = 16_000_000  # of the sensitivities of the windows that are treated at the same time
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

    def batches(self, columns: int) -> Iterator[slice]:
        """Windows that are treated at the same time, so that memory stays bounded."""
        size = max(1, _MOST_NUMBERS // (columns * len(self.fixed) * (1 + self.integrator.stages)))
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
        with np.errstate(over="ignore", invalid="ignore"):
            for part in self.batches(1):
                windows, c = self.windows.select(part), x[part]
                loss, own = np.zeros(len(c)), []
                for state, _, found in self.frames(windows, theta, c):
                    loss += found.loss
                    own.append(state)
                states.append(np.stack(own, axis=1))
                losses.append(loss)
        return np.concatenate(states), np.concatenate(losses)

    def frames(
        self,
        windows: Windows,
        theta: Float[np.ndarray, " unknowns"],
        c: Float[np.ndarray, "windows species"],
        columns: int = 0,
    ) -> Iterator[tuple[np.ndarray, np.ndarray, Misfit]]:
        """Yield states, sensitivities and misfit of some windows, frame by frame.

        Args:
            c: initial states.
            columns: of the sensitivities: 0 for none, the number of species for those by the initial state, or that of
                species and unknowns.
        """
        j = np.zeros((*c.shape, columns))
        if columns:
            own = np.arange(c.shape[1])
            j[:, own, own] = 1.0
        for s in range(windows.length):
            c = self.hold(c, windows.frame[:, s])
            yield c, j, self.measurements.misfit(windows.frame[:, s], windows.valid[:, s], c)
            if s == windows.length - 1:
                return
            integrator = self.integrator.divided(int(self.parts[windows.frame[:, s]].max()))
            if columns:
                c, j = integrator.advance_linearised(self.equation, theta, c, windows.dt[:, s], j)
                if self.fixed.any():
                    j[:, self.fixed] = 0.0
            else:
                c = integrator.advance(self.equation, theta, c, windows.dt[:, s])


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
    for part in problem.batches(n + total):
        windows = problem.windows.select(part)
        roots, scores = _sensitivities(problem, windows, theta, x[part])
        bound = problem.at_bound(windows, x[part], scores[:, :n])
        scores[:, :n][bound] = 0.0
        roots[..., :n] *= ~bound[:, None, None]
        for w in range(len(scores)):
            one = roots[w].reshape(-1, n + total)
            hessian = one.T @ one
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


def _sensitivities(
    problem: Problem, windows: Windows, theta: np.ndarray, x: np.ndarray
) -> tuple[Float[np.ndarray, "windows blocks species columns"], Float[np.ndarray, "windows columns"]]:
    """Square roots of the information per block of frames, and scores of some windows."""
    columns = x.shape[1] + problem.equation.unknowns.total
    block = problem.block(columns)
    scores = np.zeros((len(x), columns))
    roots, middle, information = [], np.zeros(0), np.zeros(x.shape)
    for s, (_, j, found) in enumerate(problem.frames(windows, theta, x, columns)):
        scores += (found.score[:, None] @ j)[:, 0]
        information += found.information
        if s % block == min(block // 2, windows.length - 1 - (s - s % block)):
            middle = j
        if s % block == block - 1 or s == windows.length - 1:
            roots.append(np.sqrt(information)[..., None] * middle)
            information = np.zeros(x.shape)
    return np.stack(roots, axis=1), scores


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
    n = x.shape[1]
    _, losses = problem.path(theta, x)
    if other is not None:
        _, instead = problem.path(theta, other)
        better = np.isfinite(instead) & ~(instead >= losses)
        x, losses = np.where(better[:, None], other, x), np.where(better, instead, losses)
    damping = np.full(len(x), 1e-3)
    for _ in range(iterations):
        before, trial, possible = losses, x.copy(), 0.0
        for part in problem.batches(n):
            windows = problem.windows.select(part)
            matrix, score = _by_initial_state(problem, windows, theta, x[part])
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
        _, trial_losses = problem.path(theta, trial)
        better = np.isfinite(trial_losses) & ~(trial_losses >= losses)
        x = np.where(better[:, None], trial, x)
        losses = np.where(better, trial_losses, losses)
        damping = np.where(better, damping * 0.1, np.maximum(damping, 1e-3) * 10)
        if float((before - losses).sum()) < _RELAXED * float(losses.sum()):
            break
    return x, float(losses.sum())


def growth(problem: Problem, theta: Float[np.ndarray, " unknowns"], x: Float[np.ndarray, "windows species"]) -> float:
    """By how much a window makes an error of its initial state larger: the median over the windows.

    The spectral norm of the derivative of the last state by the first one, both in units of the noise.
    """
    n, grown = x.shape[1], []
    for part in problem.batches(n):
        windows = problem.windows.select(part)
        for _, j, _ in problem.frames(windows, theta, x[part], n):
            last = j
        sigma = problem.measurements.sigma[windows.starts]
        finite = np.nan_to_num(last * sigma[:, None] / sigma[..., None], nan=_EXPLODED, posinf=_EXPLODED)
        grown.append(np.linalg.norm(finite, 2, axis=(1, 2)))
    return float(np.median(np.concatenate(grown)))


def positive(x: np.ndarray, change: np.ndarray) -> np.ndarray:
    """States after a change that may reduce no concentration to less than a share of its size."""
    return np.asarray(np.maximum(x + change, _SMALLEST_STATE * np.maximum(x, 0.0)))


def _by_initial_state(
    problem: Problem, windows: Windows, theta: np.ndarray, x: np.ndarray
) -> tuple[Float[np.ndarray, "windows species species"], Float[np.ndarray, "windows species"]]:
    """Information and score of the initial state of every window."""
    size, n = x.shape
    matrix, score = np.zeros((size, n, n)), np.zeros((size, n))
    with np.errstate(over="ignore", invalid="ignore"):
        for _, j, found in problem.frames(windows, theta, x, n):
            matrix += np.swapaxes(j, 1, 2) @ (found.information[..., None] * j)
            score += (found.score[:, None] @ j)[:, 0]
    return matrix, score
