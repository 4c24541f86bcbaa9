"""Multiple shooting: Gauss-Newton for the unknowns and for the initial states of all windows (Bock 1983).

The misfit of a window depends on its own initial state and on the unknowns, so the initial states are eliminated
window by window. With sensitivities J = [d state/d initial, d state/d unknowns] and information I of the
measurements, the normal matrix of a window is H = sum over frames of J' I J. The Schur complements
H_uu - H_ux inv(H_xx) H_xu add up to the normal matrix of the unknowns, whose inverse is their covariance.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Float

from metabolismgraph.trajectories.problem import FRAMES_AT_ONCE, Problem
from metabolismgraph.trajectories.rates import LOG_10, RateFunction
from metabolismgraph.trajectories.sensitivities import sensitivities
from metabolismgraph.trajectories.windows import Windows

_RELAXED = 1e-4  # relative decrease of the misfit below which initial states count as relaxed
_RIDGE = 1e-11  # relative, of the normal matrix of an initial state
_LARGEST_GROWTH = 2.5  # factor of a rate constant in one step
_SMALLEST_STATE = 0.1  # share of its size to which a step may reduce a concentration


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
        if roots and (len(roots) == FRAMES_AT_ONCE or frame.number == middles[-1]):
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


def positive(x: np.ndarray, change: np.ndarray) -> np.ndarray:
    """States after a change that may reduce no concentration to less than a share of its size."""
    return np.asarray(np.maximum(x + change, _SMALLEST_STATE * np.maximum(x, 0.0)))


def limited(problem: Problem, change: Float[np.ndarray, " unknowns"]) -> Float[np.ndarray, " unknowns"]:
    """A linear change of the unknowns in which no rate constant changes by more than a factor."""
    found, log_k = change.copy(), problem.equation.unknowns.log_k
    growth = np.clip(1.0 + LOG_10 * change[log_k], 1.0 / _LARGEST_GROWTH, _LARGEST_GROWTH)
    found[log_k] = (growth - 1.0) / LOG_10
    return found


def change_of_unknowns(problem: Problem, change: Float[np.ndarray, " unknowns"]) -> Float[np.ndarray, " unknowns"]:
    """The change of the unknowns for a linear change, see `limited`: linear in k, not in its logarithm.

    Where only a sum of rate constants is determined, the misfit has a valley that is straight in k, and curved in
    log k.
    """
    found, log_k = change.copy(), problem.equation.unknowns.log_k
    found[log_k] = np.log10(1.0 + LOG_10 * change[log_k])
    return found
