"""From one frame to the next: the state, and its derivatives by the initial state and by the unknowns.

All integrators are exact in the sense of discrete sensitivities: the derivatives are those of the numbers computed,
not of the differential equation that they approximate.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from metabolismgraph.trajectories.rates import RateEquation, Rates

States = Float[np.ndarray, "batch species"]
Sensitivities = Float[np.ndarray, "batch species columns"]

_NEWTON, _CONVERGED = 12, 1e-11  # largest number of Newton steps, and relative size of the last one


@dataclasses.dataclass(frozen=True)
class Integrator(abc.ABC):
    """Integrates the rate equation over the time from one frame to the next, for many windows at once.

    Attributes:
        substeps: equal steps between two frames.
    """

    substeps: int = 1
    stages: ClassVar[int] = 1

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """In words, for notes."""

    def divided(self, parts: int) -> Integrator:
        """The same with so many times as many steps."""
        return dataclasses.replace(self, substeps=parts * self.substeps)

    def advance(
        self,
        equation: RateEquation,
        theta: Float[np.ndarray, " unknowns"],
        c: States,
        dt: Float[np.ndarray, " batch"],
    ) -> States:
        """The states after the time `dt`."""
        for _ in range(self.substeps):
            c, _unused = self._step(equation, theta, c, dt / self.substeps, None)
        return c

    def advance_linearised(
        self,
        equation: RateEquation,
        theta: Float[np.ndarray, " unknowns"],
        c: States,
        dt: Float[np.ndarray, " batch"],
        sensitivities: Sensitivities,
    ) -> tuple[States, Sensitivities]:
        """The states after the time `dt`, and the updated sensitivities.

        Args:
            sensitivities: derivatives of `c` by the initial states of the windows and, if there are more columns than
                species, by the unknowns.
        """
        for _ in range(self.substeps):
            c, updated = self._step(equation, theta, c, dt / self.substeps, sensitivities)
            assert updated is not None  # as given
            sensitivities = updated
        return c, sensitivities

    @abc.abstractmethod
    def _step(
        self,
        equation: RateEquation,
        theta: Float[np.ndarray, " unknowns"],
        c: States,
        h: Float[np.ndarray, " batch"],
        sensitivities: Sensitivities | None,
    ) -> tuple[States, Sensitivities | None]:
        """One step of the method; sensitivities only if they are given."""


@dataclasses.dataclass(frozen=True)
class EulerSteps(Integrator):
    """Explicit Euler steps, for data that a simulator made so.

    Unlike those of a simulator, the steps may go below zero: where states are clamped, the misfit does not tell how an
    unknown would bring them back.
    """

    @property
    def name(self) -> str:
        return f"Euler steps, {self.substeps} per frame"

    def _step(
        self,
        equation: RateEquation,
        theta: Float[np.ndarray, " unknowns"],
        c: States,
        h: Float[np.ndarray, " batch"],
        sensitivities: Sensitivities | None,
    ) -> tuple[States, Sensitivities | None]:
        at = equation.rates(theta, c)
        if sensitivities is not None:
            moved = h[:, None, None] * (equation.by_state(theta, at) @ sensitivities)
            moved += sensitivities
            if moved.shape[-1] > c.shape[1]:
                equation.add_by_unknowns(at, moved, h)
            sensitivities = moved
        return c + h[:, None] * at.rate, sensitivities


# Classical Runge-Kutta method of order 4 (Kutta 1901): nodes of the stages, and weights.
_AHEAD = (0.0, 0.5, 0.5, 1.0)
_WEIGHTS = (1 / 6, 1 / 3, 1 / 3, 1 / 6)


@dataclasses.dataclass(frozen=True)
class RungeKutta(Integrator):
    """The classical Runge-Kutta method of order 4, for continuous processes that are not stiff."""

    @property
    def name(self) -> str:
        return f"Runge-Kutta method, at most {self.substeps} steps per frame"

    def _step(
        self,
        equation: RateEquation,
        theta: Float[np.ndarray, " unknowns"],
        c: States,
        h: Float[np.ndarray, " batch"],
        sensitivities: Sensitivities | None,
    ) -> tuple[States, Sensitivities | None]:
        step, slope, total = h[:, None], np.zeros_like(c), np.zeros_like(c)
        derivative = None if sensitivities is None else np.zeros_like(sensitivities)
        moved = None if sensitivities is None else sensitivities.copy()
        for ahead, weight in zip(_AHEAD, _WEIGHTS, strict=True):
            at = equation.rates(theta, c + ahead * step * slope)
            if sensitivities is not None and derivative is not None and moved is not None:
                derivative = equation.by_state(theta, at) @ (sensitivities + ahead * step[..., None] * derivative)
                if derivative.shape[-1] > c.shape[1]:
                    equation.add_by_unknowns(at, derivative, np.ones(len(c)))
                moved += weight * step[..., None] * derivative
            slope = at.rate
            total += weight * slope
        return c + step * total, moved


# Radau IIA with three stages, of order 5, L-stable (Hairer & Wanner 1996, section IV.5).
_ROOT = np.sqrt(6.0)
_STAGES = np.array(
    [
        [(88 - 7 * _ROOT) / 360, (296 - 169 * _ROOT) / 1800, (-2 + 3 * _ROOT) / 225],
        [(296 + 169 * _ROOT) / 1800, (88 + 7 * _ROOT) / 360, (-2 - 3 * _ROOT) / 225],
        [(16 - _ROOT) / 36, (16 + _ROOT) / 36, 1 / 9],
    ]
)


@dataclasses.dataclass(frozen=True)
class Collocation(Integrator):
    """Radau IIA collocation with three stages: order 5, stable for any step, for continuous processes."""

    stages: ClassVar[int] = len(_STAGES)

    @property
    def name(self) -> str:
        return f"Radau method, at most {self.substeps} steps per frame"

    def _step(
        self,
        equation: RateEquation,
        theta: Float[np.ndarray, " unknowns"],
        c: States,
        h: Float[np.ndarray, " batch"],
        sensitivities: Sensitivities | None,
    ) -> tuple[States, Sensitivities | None]:
        size, n = c.shape
        # Stage values g = c + h A F(g), by Newton's method from g = c.
        g = np.repeat(c[:, None], self.stages, axis=1)
        scale = np.abs(c).max(axis=1, keepdims=True)[..., None] + equation.floor
        for _ in range(_NEWTON):
            rates = equation.rates(theta, g.reshape(-1, n))
            error = g - c[:, None] - np.einsum("pq,b,bqi->bpi", _STAGES, h, rates.rate.reshape(g.shape))
            change = _solve(_newton_matrix(equation, theta, rates, h), error.reshape(size, -1, 1)).reshape(g.shape)
            g = g - change
            if not np.isfinite(g).all() or (np.abs(change) <= _CONVERGED * scale).all():
                break
        if sensitivities is None:
            return g[:, -1], None
        # By the implicit function theorem: (1 - h A Jacobian) dg = dc + h A dF/d(unknowns).
        rates = equation.rates(theta, g.reshape(-1, n))
        right = np.repeat(sensitivities[:, None], self.stages, axis=1)
        if right.shape[-1] > n:
            by_unknowns = np.zeros((size * self.stages, n, right.shape[-1]))
            equation.add_by_unknowns(rates, by_unknowns, np.repeat(h, self.stages))
            right = right + np.einsum("pq,bqij->bpij", _STAGES, by_unknowns.reshape(right.shape))
        moved = _solve(_newton_matrix(equation, theta, rates, h), right.reshape(size, self.stages * n, -1))
        return g[:, -1], moved.reshape(right.shape)[:, -1]


def _newton_matrix(
    equation: RateEquation, theta: Float[np.ndarray, " unknowns"], rates: Rates, h: Float[np.ndarray, " batch"]
) -> Float[np.ndarray, "batch stage_species stage_species"]:
    """1 - h (A x Jacobian), with the Jacobian of every stage."""
    n, stages = rates.c.shape[1], len(_STAGES)
    jacobian = equation.by_state(theta, rates).reshape(-1, stages, n, n)
    whole = np.einsum("pq,b,bqij->bpiqj", _STAGES, -h, jacobian).reshape(-1, stages * n, stages * n)
    whole[:, np.arange(stages * n), np.arange(stages * n)] += 1.0
    return np.asarray(whole)


def _solve(matrix: Float[np.ndarray, "batch n n"], right: Float[np.ndarray, "batch n columns"]) -> np.ndarray:
    """Solutions of linear systems; NaN for all if one has none, as where states have diverged."""
    try:
        return np.asarray(np.linalg.solve(matrix, right))
    except np.linalg.LinAlgError:
        return np.full(right.shape, np.nan)
