"""Adaptive steps of Radau IIA over a window, with sensitivities, for stiff networks of mass action.

Rate constants and concentrations of a stiff network span many orders of magnitude, so every linear system is scaled by
the typical concentrations of the species.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Float, Int

from metabolismgraph.system.network import ReactionNetwork
from metabolismgraph.system.radau import ERROR, MATRIX, NODES, REAL

FLOOR = 1e-3  # errors are relative to a concentration plus this share of the typical one
_NEWTON, _SOLVED, _NEARLY = 12, 1e-11, 1e-9  # iterations; relative change that ends them, and one that is accepted
_SMALL = 1000  # entries of a stoichiometry for which dense products are faster
_NEGATIVE = 1e-9  # share of the typical concentration by which a state may be below zero
_SHRINK, _GROW, _SAFETY = 0.1, 8.0, 0.8  # of the step


@dataclasses.dataclass(frozen=True)
class MassAction:
    """The rate equation dx/dt = S (k u(x)) of the species that may change, with u = products of concentration^order.

    Attributes:
        moving: index of every species that may change.
        stoichiometry: of these species.
        species, order: of the substrates of every reaction, padded with a species of concentration one.
        reaction, substrate, column: entries of du/dx: reaction, place among its substrates, and the moving species.
        operator: the stoichiometry, sparse where it is large.
    """

    moving: Int[np.ndarray, " moving"]
    stoichiometry: Float[np.ndarray, "moving reactions"]
    species: Int[np.ndarray, "reactions substrates"]
    order: Float[np.ndarray, "reactions substrates"]
    reaction: Int[np.ndarray, " entries"]
    substrate: Int[np.ndarray, " entries"]
    column: Int[np.ndarray, " entries"]
    operator: scipy.sparse.csr_array | Float[np.ndarray, "moving reactions"]

    @classmethod
    def of(cls, network: ReactionNetwork) -> MassAction:
        """The rate equation of a network, with mass action for every rate law."""
        n, m = network.n_species, network.n_reactions
        matrix = network.stoichiometry
        moving = np.flatnonzero(~network.fixed & (matrix != 0).any(axis=1))
        width = max(int(np.bincount(network.edge_reaction, minlength=m).max(initial=0)), 1)
        species, order = np.full((m, width), n), np.zeros((m, width))
        filled = np.zeros(m, dtype=np.int64)
        for i, j, s in zip(network.edge_species, network.edge_reaction, network.edge_order, strict=True):
            species[j, filled[j]], order[j, filled[j]] = i, s
            filled[j] += 1
        position = np.full(n + 1, -1)
        position[moving] = np.arange(len(moving))
        reaction, substrate = np.nonzero((position[species] >= 0) & (order > 0))
        own = matrix[moving]
        column = position[species[reaction, substrate]]
        operator = own if own.size < _SMALL else scipy.sparse.csr_array(own)
        return cls(moving, own, species, order, reaction, substrate, column, operator)

    @property
    def n_reactions(self) -> int:
        return int(self.stoichiometry.shape[1])

    def unit_rates(self, c: Float[np.ndarray, "*batch species"]) -> Float[np.ndarray, "*batch reactions"]:
        """Rates for k = 1, in concentration^order, at concentrations of all species."""
        return np.asarray(np.prod(self._powers(c), axis=-1))

    def jacobian(
        self, c: Float[np.ndarray, " species"], k: Float[np.ndarray, " reactions"]
    ) -> Float[np.ndarray, "moving moving"]:
        """Derivatives of dx/dt by x, in 1/time."""
        factors, padded = self._powers(c), np.append(c, 1.0)
        slopes = self.order * padded[self.species] ** np.maximum(self.order - 1, 0.0)
        for w in range(factors.shape[1]):
            for other in range(factors.shape[1]):
                if other != w:
                    slopes[:, w] *= factors[:, other]
        by_x = np.zeros((self.n_reactions, len(self.moving)))
        by_x[self.reaction, self.column] = slopes[self.reaction, self.substrate] * k[self.reaction]
        return np.asarray(self.operator @ by_x)

    def rate(
        self, c: Float[np.ndarray, "*batch species"], k: Float[np.ndarray, " reactions"]
    ) -> Float[np.ndarray, "*batch moving"]:
        """dx/dt in concentration/time."""
        return np.asarray((self.operator @ (k * self.unit_rates(c)).T).T)

    def _powers(self, c: Float[np.ndarray, "*batch species"]) -> Float[np.ndarray, "*batch reactions substrates"]:
        padded = np.concatenate([c, np.ones((*c.shape[:-1], 1))], axis=-1)
        return np.asarray(padded[..., self.species] ** self.order)


class Step(NamedTuple):
    """The state at the end of a window, and its derivatives.

    Attributes:
        state: of the moving species.
        by_start: derivatives by the initial state.
        by_log_k: derivatives by ln k, in concentration.
        steps: of the integrator, including refused ones.
    """

    state: Float[np.ndarray, " moving"]
    by_start: Float[np.ndarray, "moving moving"]
    by_log_k: Float[np.ndarray, "moving reactions"]
    steps: int


def integrate_window(
    equation: MassAction,
    start: Float[np.ndarray, " species"],
    duration: float,
    k: Float[np.ndarray, " reactions"],
    tolerance: float,
    typical: Float[np.ndarray, " moving"],
    most_steps: int = 80,
) -> Step | None:
    """Integrate over a window by Radau IIA of order 5 with a chosen step, and differentiate every step.

    Args:
        equation: the network.
        start: concentrations of all species; those that do not move stay as they are.
        duration: of the window, in time.
        k: rate constants, in concentration^(1-order)/time.
        tolerance: of the local error, relative to a concentration plus a thousandth of the typical one.
        typical: concentrations > 0 by which linear systems are scaled.
        most_steps: after these, the integration is given up.

    Returns:
        None if it was given up.

    Source:
        Hairer & Wanner 1996, chapter IV.8. Sensitivities are the derivatives of the discrete steps (Bock 1983).
    """
    moving, size, m = equation.moving, len(equation.moving), equation.n_reactions
    x, t, h, steps = start[moving].copy(), 0.0, duration, 0
    sensitivity = np.concatenate([np.eye(size), np.zeros((size, m))], axis=1)
    ratio, stage_scale = typical / typical[:, None], np.tile(typical, 3)
    diagonal = np.arange(size)
    previous: tuple[float, np.ndarray, np.ndarray] | None = None
    full = start.copy()
    while t < duration * (1 - 1e-12):
        if steps > most_steps:
            return None
        steps += 1
        h = min(h, duration - t)
        if duration - t - h < 0.05 * h:
            h = duration - t
        full[moving] = x
        slope, jacobian = equation.rate(full, k), equation.jacobian(full, k)
        if not np.isfinite(jacobian).all():
            return None
        guess = np.repeat(x[None], 3, axis=0) if previous is None else _extrapolated(previous, h, x)
        stages = _solve_stages(equation, full, x, h, k, guess, jacobian, typical)
        if stages is None:
            h *= 0.25
            continue
        # The embedded error estimate, filtered by the real eigenvalue; a second filter where it is too large.
        matrix = -jacobian * ratio
        matrix[diagonal, diagonal] += REAL / h
        correction = (stages - x).T @ ERROR / h
        weight = np.abs(x) + FLOOR * typical
        error = typical * np.linalg.solve(matrix, (slope + correction) / typical)
        size_of_error = float(np.max(np.abs(error) / weight))
        if size_of_error > tolerance:
            full[moving] = np.maximum(x + error, 0.0)
            error = typical * np.linalg.solve(matrix, (equation.rate(full, k) + correction) / typical)
            size_of_error = float(np.max(np.abs(error) / weight))
        factor = _SAFETY * (tolerance / max(size_of_error, 1e-30)) ** 0.25
        if not size_of_error <= tolerance:
            h *= max(_SHRINK, factor) if np.isfinite(factor) else _SHRINK
            continue
        sensitivity = _step_of_sensitivity(equation, full, h, k, stages, sensitivity, (typical, stage_scale, ratio))
        previous = (h, x, stages)
        x = np.maximum(stages[2], 0.0)
        t += h
        h *= min(_GROW, max(2 * _SHRINK, factor))
    return Step(x, sensitivity[:, :size], sensitivity[:, size:], steps)


def _newton_matrix(jacobians: Float[np.ndarray, "3 moving moving"], h: float) -> Float[np.ndarray, "unknowns unknowns"]:
    size = jacobians.shape[1]
    matrix = np.einsum("pq,qij->piqj", -h * MATRIX, jacobians).reshape(3 * size, 3 * size)
    matrix[np.arange(3 * size), np.arange(3 * size)] += 1.0
    return np.asarray(matrix)


def _extrapolated(
    previous: tuple[float, np.ndarray, np.ndarray], h: float, x: Float[np.ndarray, " moving"]
) -> Float[np.ndarray, "3 moving"]:
    """Stages by the collocation polynomial of the step before; the state where that is far below it."""
    last, start, stages = previous
    at, c = 1 + NODES * h / last, NODES
    guess = ((at - c[0]) * (at - c[1]) * (at - c[2]) / (-c[0] * c[1] * c[2]))[:, None] * start
    for q in range(3):
        a, b = (r for r in range(3) if r != q)
        weight = at * (at - c[a]) * (at - c[b]) / (c[q] * (c[q] - c[a]) * (c[q] - c[b]))
        guess = guess + weight[:, None] * stages[q]
    return np.asarray(np.where(guess > 0.2 * x, guess, x))


def _solve_stages(
    equation: MassAction,
    full: Float[np.ndarray, " species"],
    x: Float[np.ndarray, " moving"],
    h: float,
    k: Float[np.ndarray, " reactions"],
    guess: Float[np.ndarray, "3 moving"],
    jacobian: Float[np.ndarray, "moving moving"],
    typical: Float[np.ndarray, " moving"],
) -> Float[np.ndarray, "3 moving"] | None:
    """The stages of a step by Newton's method; None if it fails."""
    ratio, scale = typical / typical[:, None], np.tile(typical, 3)
    factors = scipy.linalg.lu_factor(
        _newton_matrix(np.repeat((jacobian * ratio)[None], 3, axis=0), h), check_finite=False
    )
    states, stages, last, change = np.repeat(full[None], 3, axis=0), guess, np.inf, np.inf
    for iteration in range(_NEWTON):
        states[:, equation.moving] = stages
        defect = (stages - x - h * MATRIX @ equation.rate(states, k)).ravel()
        if not np.isfinite(defect).all():
            return None
        step = (scale * scipy.linalg.lu_solve(factors, defect / scale, check_finite=False)).reshape(stages.shape)
        stages = stages - step
        change = float(np.max(np.abs(step) / (np.abs(stages) + FLOOR * typical)))
        if not np.isfinite(change) or (iteration > 1 and change > 2 * last):
            break
        if change < _SOLVED or (change < 1e-7 and last < 1 and change * change / last < _SOLVED):
            change = 0.0
            break
        if iteration == 3 or (iteration > 3 and change > 0.3 * last and iteration % 3 == 0):
            states[:, equation.moving] = stages
            fresh = np.stack([equation.jacobian(one, k) for one in states]) * ratio
            if not np.isfinite(fresh).all():
                return None
            factors = scipy.linalg.lu_factor(_newton_matrix(fresh, h), check_finite=False)
        last = change
    if not change < _NEARLY or (stages < -_NEGATIVE * typical).any():
        return None
    return stages


def _step_of_sensitivity(
    equation: MassAction,
    full: Float[np.ndarray, " species"],
    h: float,
    k: Float[np.ndarray, " reactions"],
    stages: Float[np.ndarray, "3 moving"],
    sensitivity: Float[np.ndarray, "moving unknowns"],
    scales: tuple[Float[np.ndarray, " moving"], Float[np.ndarray, " unknowns"], Float[np.ndarray, "moving moving"]],
) -> Float[np.ndarray, "moving unknowns"]:
    """Derivatives of the end of a step, from those of its start."""
    typical, stage_scale, ratio = scales
    size = len(typical)
    states = np.repeat(full[None], 3, axis=0)
    states[:, equation.moving] = stages
    jacobians = np.stack([equation.jacobian(one, k) for one in states]) * ratio
    rates = k * equation.unit_rates(states)
    factors = scipy.linalg.lu_factor(_newton_matrix(jacobians, h), check_finite=False)
    # Only the last stage is wanted, so the transposed system has fewer right-hand sides.
    last = np.eye(3 * size)[:, 2 * size :]
    adjoint = scipy.linalg.lu_solve(factors, last, trans=1, check_finite=False, overwrite_b=True)
    rows = (adjoint / stage_scale[:, None]).reshape(3, size, size)
    found = rows.sum(axis=0).T @ sensitivity
    weighted = np.einsum("pq,pij->qij", h * MATRIX, rows)
    for stage in range(3):
        found[:, size:] += (equation.operator.T @ weighted[stage]).T * rates[stage]
    return np.asarray(found * typical[:, None])
