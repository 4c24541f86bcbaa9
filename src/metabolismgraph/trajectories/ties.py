"""Windows that are tied to one another: their states, and the normal equations.

The gap between the end of a window and the start of the next one counts as if it were noise. The normal matrix of the
initial states is block tridiagonal, so that they are eliminated from one window to the next.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool, Float

from metabolismgraph.trajectories.damping import Trial, damped_step, good
from metabolismgraph.trajectories.problem import Problem
from metabolismgraph.trajectories.shooting import change_of_unknowns, limited, normal_equations, positive

_log = logging.getLogger(__name__)
GAPS = (1.0, 0.1, 0.01, 0.001)  # standard deviations of the gaps, one after the other, relative to the noise
# Steps of the states alone, at the start and after a step that is not as good as predicted; relative decrease that
# ends them. In a few windows, states are so far off that they would lead the unknowns astray.
_FIRST_RELAXATIONS, RELAXATIONS, _RELAXED = 12, 3, 1e-3
_RIDGE = 1e-12  # relative
_PIECE, _MOST_PIECES = 2, 16  # frames of a piece of a window, and pieces of a longer window
# Windows are split so often, in so many parts, where chi squared per value is above the third number, or where that of
# a gap is above the fourth one, each beyond so many of its sampling errors. The last number is a share of the windows.
_SPLITS, _PARTS, _EXCESS, _WIDE, _ERRORS, _MANY = 2, 4, 1.2, 4.0, 4.0, 0.5


class Point(NamedTuple):
    """Unknowns, initial states, the states that follow, and the misfit with gaps and prior."""

    theta: Float[np.ndarray, " unknowns"]
    x: Float[np.ndarray, "windows species"]
    states: Float[np.ndarray, "windows length species"]
    loss: float


class Equations(NamedTuple):
    """The normal equations of initial states and unknowns.

    Attributes:
        diagonal: of every initial state with itself.
        above: of every initial state with the next one.
        border: of every initial state with the unknowns.
        score: derivative of the log likelihood by the initial states.
        matrix, gradient: of the unknowns alone.
    """

    diagonal: Float[np.ndarray, "windows species species"]
    above: Float[np.ndarray, "gaps species species"]
    border: Float[np.ndarray, "windows species unknowns"]
    score: Float[np.ndarray, "windows species"]
    matrix: Float[np.ndarray, "unknowns unknowns"]
    gradient: Float[np.ndarray, " unknowns"]


class _Eliminated(NamedTuple):
    """What remains after elimination of the initial states.

    Attributes:
        matrix, gradient: of the unknowns.
        solved: factors and right-hand sides of the initial states, in the order of the windows.
    """

    matrix: Float[np.ndarray, "unknowns unknowns"]
    gradient: Float[np.ndarray, " unknowns"]
    solved: list[tuple[tuple[np.ndarray, bool], np.ndarray]]


def relax_pieces(
    problem: Problem, theta: Float[np.ndarray, " unknowns"], path: Float[np.ndarray, "frames species"]
) -> Float[np.ndarray, "windows species"]:
    """Initial states of windows for given unknowns, from pieces of the windows that are tied more and more closely.

    The misfit of a window has local minima in its initial state, that of short pieces hardly any.

    Args:
        path: concentrations from which the pieces start.
    """
    windows, sigma = problem.windows, np.median(problem.measurements.sigma, axis=0)
    every, parts = np.ones(len(windows.frame), dtype=bool), min(-(-windows.length // _PIECE), _MOST_PIECES)
    pieces = dataclasses.replace(problem, windows=windows.split(every, parts))
    for gap in GAPS:
        of_pieces, _, now = followed(pieces, theta, path[pieces.windows.starts], gap * sigma)
        found = of_pieces.windows.spread(now.states, len(path))
        path = np.where(np.isfinite(found), np.maximum(found, 0.0), path)
    return np.asarray(path[windows.starts])


def followed(
    problem: Problem,
    theta: Float[np.ndarray, " unknowns"],
    x: Float[np.ndarray, "windows species"],
    gap: Float[np.ndarray, " species"],
) -> tuple[Problem, Float[np.ndarray, "gaps species"], Point]:
    """Relaxed states, with parts of windows where windows are too long to be followed; and the weights of the gaps."""
    for number in range(1 + _SPLITS):
        precision = problem.windows.follows[:, None] * np.where(problem.fixed, 0.0, 1.0 / gap**2)
        now = _relaxed(problem, _at(problem, theta, x, precision), precision, _FIRST_RELAXATIONS)
        bad = _not_followed(problem, now, precision)
        # If most are split, all are: what costs time is the longest one.
        windows = problem.windows.split(bad | (bad.mean() > _MANY), _PARTS)
        if number == _SPLITS or len(windows.frame) == len(bad):
            break
        _log.debug("%d of %d tied windows are not followed: they are split", bad.sum(), len(bad))
        # In these, the states have gone astray: begin again from the data.
        value = problem.measurements.value
        path = problem.windows.spread(now.states, len(value))
        again = problem.windows.frame[bad][problem.windows.valid[bad] > 0]
        path[again] = np.maximum(value[again], 0.0)
        problem = dataclasses.replace(problem, windows=windows)
        x = path[problem.windows.starts]
    return problem, precision, now


def _not_followed(
    problem: Problem, now: Point, precision: Float[np.ndarray, "gaps species"]
) -> Bool[np.ndarray, " windows"]:
    """Windows whose residual, or a gap beside them, is more than noise."""
    moving = max(int((~problem.fixed).sum()), 1)
    misfit, sampling = misfit_per_value(problem, now.theta, now.x)
    gaps = np.sum(precision * (now.x[1:] - now.states[:-1, -1]) ** 2, axis=1) / moving
    widest = np.maximum(np.append(gaps, 0.0), np.append(0.0, gaps))
    narrow = widest <= _WIDE * (1 + _ERRORS * math.sqrt(2 / moving))
    return np.asarray(~((misfit <= _EXCESS + _ERRORS * sampling) & narrow))  # also where it is not finite


def misfit_per_value(
    problem: Problem, theta: Float[np.ndarray, " unknowns"], x: Float[np.ndarray, "windows species"]
) -> tuple[Float[np.ndarray, " windows"], Float[np.ndarray, " windows"]]:
    """Chi squared per value of every window, 1 or less for noise, and its sampling error."""
    windows, measured = problem.windows, problem.measurements
    losses = problem.path(theta, x)[1]
    used = measured.weight[windows.frame] * windows.valid[..., None]
    # A value that was cut at zero counts up to 2 log 2.
    expected = np.sum(used * np.where(measured.censored[windows.frame], 2 * math.log(2), 1.0), axis=(1, 2))
    expected = np.maximum(expected, 1.0)
    return 2 * losses / expected, np.sqrt(2 / expected)


def _at(
    problem: Problem,
    theta: Float[np.ndarray, " unknowns"],
    x: Float[np.ndarray, "windows species"],
    precision: np.ndarray,
) -> Point:
    states, losses = problem.path(theta, x)
    gaps = 0.5 * float(np.sum(precision * (x[1:] - states[:-1, -1]) ** 2))
    return Point(theta, x, states, float(losses.sum()) + gaps + problem.penalty(theta))


def step(
    problem: Problem, now: Point, equations: Equations, precision: np.ndarray, damping: float, relaxations: int
) -> tuple[Point | None, float]:
    """A point with a smaller misfit, or None; and the damping for the next step.

    Args:
        relaxations: steps of the states alone that follow a step that is not as good as predicted.
    """

    def move(trial: Trial) -> Point:
        change, by_state = trial.change
        theta = now.theta + change_of_unknowns(problem, change)
        then = _at(problem, theta, positive(now.x, by_state), precision)
        return then if good(now, then, trial) else _relaxed(problem, then, precision, relaxations)

    return damped_step(now, lambda d: _solve(problem, equations, d), move, damping)


def _relaxed(problem: Problem, now: Point, precision: np.ndarray, iterations: int) -> Point:
    """The point after steps of the states alone."""
    damping = 0.0
    for _ in range(iterations if np.isfinite(now.loss) else 0):
        equations = tied_equations(problem, now, precision, by_unknowns=False)
        then, damping = step(problem, now, equations, precision, damping, 0)
        if then is None:
            break
        small = now.loss - then.loss < _RELAXED * then.loss
        now = then
        if small:
            break
    return now


def tied_equations(
    problem: Problem, now: Point, precision: Float[np.ndarray, "gaps species"], *, by_unknowns: bool = True
) -> Equations:
    """The normal equations at a point, of the states and, if wanted, of the unknowns."""
    (count, n), every = now.x.shape, problem.equation.unknowns.total
    rate, block = problem.equation.bind(now.theta), problem.block(n + every)
    total = every if by_unknowns else 0
    mean, deviation = (part[:total] for part in problem.prior)
    matrix, gradient = np.diag(1.0 / deviation**2), -(now.theta[:total] - mean) / deviation**2
    own, score, ends = np.zeros((count, n, n + total)), np.zeros((count, n)), np.zeros((count, n, n + total))
    for part in problem.batches(n + total, problem.windows.length // block + 1):
        windows = problem.windows.select(part)
        found = normal_equations(problem, windows, rate, now.states[part], block, by_unknowns=by_unknowns, ends=True)
        own[part], score[part], ends[part] = found.hessians[:, :n], found.scores[:, :n], found.ends
        matrix += found.hessians[:, n:, n:].sum(axis=0)
        gradient += found.scores[:, n:].sum(axis=0)
    # The gap x' - end(x, unknowns) between a window and the next one.
    gaps = now.x[1:] - now.states[:-1, -1]
    weighted = precision[..., None] * ends[:-1]
    pulled = np.einsum("wij,wi->wj", weighted, gaps)
    score[:-1] += pulled[:, :n]
    score[1:] -= precision * gaps
    gradient += pulled[:, n:].sum(axis=0)
    own[:-1] += np.swapaxes(weighted[..., :n], 1, 2) @ ends[:-1]
    own[1:, :, n:] -= weighted[..., n:]
    diagonal, border = own[..., :n], own[..., n:]
    diagonal[1:, np.arange(n), np.arange(n)] += precision
    matrix += np.tensordot(ends[:-1, :, n:], weighted[..., n:], axes=([0, 1], [0, 1]))
    above = -np.swapaxes(weighted[..., :n], 1, 2)
    bound = problem.at_bound(problem.windows, now.x, score)
    free = ~bound
    score *= free
    border *= free[..., None]
    diagonal *= free[:, :, None] * free[:, None]
    above *= free[:-1, :, None] * free[1:, None]
    return Equations(diagonal, above, border, score, matrix, gradient)


def eliminate(equations: Equations, damping: float) -> _Eliminated:
    """Elimination of the initial states from the first window to the last one.

    Raises:
        LinAlgError: a matrix is not positive definite.
    """
    count, n = equations.score.shape
    matrix, gradient = equations.matrix.copy(), equations.gradient.copy()
    solved: list[tuple[tuple[np.ndarray, bool], np.ndarray]] = []
    for w in range(count):
        diagonal = equations.diagonal[w].copy()
        size = np.diag(diagonal)
        # A state that nothing depends on keeps its value.
        diagonal[np.arange(n), np.arange(n)] += np.where(size > 0, (damping + _RIDGE) * size, 1.0)
        right = np.concatenate([equations.border[w], equations.score[w][:, None]], axis=1)
        if w:
            coupling = equations.above[w - 1]
            reduced = scipy.linalg.cho_solve(solved[-1][0], np.concatenate([coupling, solved[-1][1]], axis=1))
            diagonal -= coupling.T @ reduced[:, :n]
            right -= coupling.T @ reduced[:, n:]
        factor = scipy.linalg.cho_factor((diagonal + diagonal.T) / 2)
        half = scipy.linalg.cho_solve(factor, right)
        matrix -= right[:, :-1].T @ half[:, :-1]
        gradient -= right[:, :-1].T @ half[:, -1]
        solved.append((factor, right))
    return _Eliminated((matrix + matrix.T) / 2, gradient, solved)


def unit_diagonal(matrix: Float[np.ndarray, "n n"]) -> tuple[Float[np.ndarray, "n n"], Float[np.ndarray, " n"]]:
    """The matrix with a unit diagonal, and the scale."""
    scale = 1.0 / np.sqrt(np.diag(matrix))
    return matrix * scale[:, None] * scale, scale


def _solve(problem: Problem, equations: Equations, damping: float) -> Trial:
    """The damped changes of the unknowns and of the initial states.

    Raises:
        LinAlgError: a matrix is not positive definite.
    """
    matrix, gradient, solved = eliminate(equations, damping)
    change, total = np.zeros(problem.equation.unknowns.total), len(gradient)
    if total:
        scaled, scale = unit_diagonal(matrix)
        regular = scaled + (damping + _RIDGE) * np.eye(len(scale))
        change = scale * scipy.linalg.cho_solve(scipy.linalg.cho_factor(regular), scale * gradient)
        change = limited(problem, change)
    states = np.zeros(equations.score.shape)
    for w in reversed(range(len(states))):
        factor, right = solved[w]
        rest = right[:, -1] - right[:, :-1] @ change[:total]
        following = equations.above[w] @ states[w + 1] if w < len(states) - 1 else 0.0
        states[w] = scipy.linalg.cho_solve(factor, rest - following)
    predicted = 0.5 * float(equations.gradient @ change[:total] + np.sum(equations.score * states))
    return Trial((change, states), predicted)
