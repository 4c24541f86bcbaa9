"""From one frame to the next: the state, and its derivatives by the state before and by the unknowns.

All integrators are exact in the sense of discrete sensitivities: the derivatives are those of the numbers computed,
not of the differential equation that they approximate.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from metabolismgraph.system.radau import MATRIX
from metabolismgraph.text import counted
from metabolismgraph.trajectories.rates import RateFunction, Rates

States = Float[np.ndarray, "batch species"]
Rows = Float[np.ndarray, "batch rows species"]
# Rows times the derivatives of the states after a step, by the states before it and, if wanted, by the unknowns. These
# products, from the last stage of a method back to its first, cost much less than the derivatives by all unknowns.
PullBack = Callable[[Rows], tuple[Rows, Float[np.ndarray, "batch rows unknowns"]]]

# Largest number of Newton steps; relative sizes of the last step, at most, and of what it leaves.
_NEWTON, _LAST, _LEFT = 12, 1e-5, 1e-13


@dataclasses.dataclass(frozen=True)
class Integrator(abc.ABC):
    """Integrates the rate equation over the time from one frame to the next, for many windows at once.

    Attributes:
        substeps: equal steps between two frames.
    """

    substeps: int = 1
    stages: ClassVar[int] = 1
    continuous: ClassVar[bool] = True  # False for the steps of a simulator, which may have made the data
    method: ClassVar[str]  # for files

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """In words, for notes."""

    def divided(self, parts: int) -> Integrator:
        """The same with so many times as many steps."""
        return dataclasses.replace(self, substeps=parts * self.substeps)

    def advance(self, rate: RateFunction, c: States, dt: Float[np.ndarray, " batch"]) -> States:
        """The states after the time `dt`."""
        for _ in range(self.substeps):
            c = self._step(rate, c, dt / self.substeps)
        return c

    def linearise(
        self, rate: RateFunction, c: States, dt: Float[np.ndarray, " batch"], *, by_unknowns: bool
    ) -> list[PullBack]:
        """The derivatives of every step of the time `dt`, in the order of the steps.

        Args:
            by_unknowns: whether those by the unknowns are wanted.
        """
        found = []
        for _ in range(self.substeps):
            c, pull_back = self._linearise(rate, c, dt / self.substeps, by_unknowns=by_unknowns)
            found.append(pull_back)
        return found

    @abc.abstractmethod
    def _step(self, rate: RateFunction, c: States, h: Float[np.ndarray, " batch"]) -> States:
        """One step of the method."""

    @abc.abstractmethod
    def _linearise(
        self, rate: RateFunction, c: States, h: Float[np.ndarray, " batch"], *, by_unknowns: bool
    ) -> tuple[States, PullBack]:
        """One step of the method, and its derivatives."""


@dataclasses.dataclass(frozen=True)
class EulerSteps(Integrator):
    """Explicit Euler steps, for data that a simulator made so; they may go below zero."""

    continuous: ClassVar[bool] = False
    method: ClassVar[str] = "euler"

    @property
    def name(self) -> str:
        return f"Euler steps, {self.substeps} per frame"

    def _step(self, rate: RateFunction, c: States, h: Float[np.ndarray, " batch"]) -> States:
        return np.asarray(c + h[:, None] * rate(c).rate)

    def _linearise(
        self, rate: RateFunction, c: States, h: Float[np.ndarray, " batch"], *, by_unknowns: bool
    ) -> tuple[States, PullBack]:
        at = rate(c)
        by_state = h[:, None, None] * rate.by_state(at)
        own = np.arange(c.shape[1])
        by_state[:, own, own] += 1.0

        def pull_back(rows: Rows) -> tuple[Rows, np.ndarray]:
            unknowns = rate.by_unknowns(at, rows * h[:, None, None]) if by_unknowns else rows[..., :0]
            return rows @ by_state, unknowns

        return c + h[:, None] * at.rate, pull_back


@dataclasses.dataclass(frozen=True)
class CutEulerSteps(EulerSteps):
    """Explicit Euler steps of a simulator that sets concentrations below zero to zero.

    The misfit does not tell how an unknown would bring such a concentration back, so a fit begins without the cut.
    """

    method: ClassVar[str] = "euler, cut off at zero"

    @property
    def name(self) -> str:
        return f"{super().name}, cut off at zero"

    def _step(self, rate: RateFunction, c: States, h: Float[np.ndarray, " batch"]) -> States:
        return np.asarray(np.maximum(super()._step(rate, c, h), 0.0))

    def _linearise(
        self, rate: RateFunction, c: States, h: Float[np.ndarray, " batch"], *, by_unknowns: bool
    ) -> tuple[States, PullBack]:
        then, pull_back = super()._linearise(rate, c, h, by_unknowns=by_unknowns)
        cut = then < 0.0
        return np.where(cut, 0.0, then), lambda rows: pull_back(np.where(cut[:, None], 0.0, rows))


# Classical Runge-Kutta method of order 4 (Kutta 1901): nodes of the stages, and weights.
_AHEAD = (0.0, 0.5, 0.5, 1.0)
_WEIGHTS = (1 / 6, 1 / 3, 1 / 3, 1 / 6)


@dataclasses.dataclass(frozen=True)
class RungeKutta(Integrator):
    """The classical Runge-Kutta method of order 4, for continuous processes that are not stiff."""

    method: ClassVar[str] = "runge-kutta"

    @property
    def name(self) -> str:
        return f"Runge-Kutta method, at most {counted(self.substeps, 'step')} per frame"

    def _step(self, rate: RateFunction, c: States, h: Float[np.ndarray, " batch"]) -> States:
        step, slope, total = h[:, None], np.zeros_like(c), np.zeros_like(c)
        for ahead, weight in zip(_AHEAD, _WEIGHTS, strict=True):
            slope = rate(c + ahead * step * slope).rate
            total += weight * slope
        return np.asarray(c + step * total)

    def _linearise(
        self, rate: RateFunction, c: States, h: Float[np.ndarray, " batch"], *, by_unknowns: bool
    ) -> tuple[States, PullBack]:
        step, slope, total = h[:, None], np.zeros_like(c), np.zeros_like(c)
        stages = []
        for ahead, weight in zip(_AHEAD, _WEIGHTS, strict=True):
            at = rate(c + ahead * step * slope)
            stages.append((at, rate.by_state(at), ahead * step[..., None], weight * step[..., None]))
            slope = at.rate
            total += weight * slope

        def pull_back(rows: Rows) -> tuple[Rows, np.ndarray]:
            unknowns = np.zeros((*rows.shape[:2], rate.equation.unknowns.total if by_unknowns else 0))
            moved, later = rows.copy(), np.zeros_like(rows)
            for at, by_state, ahead, weight in reversed(stages):
                of_slope = weight * rows + later
                if by_unknowns:
                    unknowns += rate.by_unknowns(at, of_slope)
                of_state = of_slope @ by_state
                moved += of_state
                later = ahead * of_state
            return moved, unknowns

        return c + step * total, pull_back


@dataclasses.dataclass(frozen=True)
class Collocation(Integrator):
    """Radau IIA collocation with three stages: order 5, stable for any step, for continuous processes."""

    method: ClassVar[str] = "radau"
    stages: ClassVar[int] = len(MATRIX)

    @property
    def name(self) -> str:
        return f"Radau method, at most {counted(self.substeps, 'step')} per frame"

    def _step(self, rate: RateFunction, c: States, h: Float[np.ndarray, " batch"]) -> States:
        return self._stage_values(rate, c, h)[:, -1]

    def _stage_values(
        self, rate: RateFunction, c: States, h: Float[np.ndarray, " batch"]
    ) -> Float[np.ndarray, "batch stages species"]:
        """g = c + h A F(g), by Newton's method from g = c."""
        size, n = c.shape
        g = np.repeat(c[:, None], self.stages, axis=1)
        scale = np.abs(c).max(axis=1, keepdims=True)[..., None] + rate.equation.floor
        before = None
        for _ in range(_NEWTON):
            at = rate(g.reshape(-1, n))
            error = g - c[:, None] - np.einsum("pq,b,bqi->bpi", MATRIX, h, at.rate.reshape(g.shape))
            change = _solve(_newton_matrix(rate, at, h), error.reshape(size, -1, 1)).reshape(g.shape)
            g = g - change
            last = (np.abs(change) / scale).max(axis=(1, 2), initial=0.0)
            # The next step is as large as this one squared, times a factor that is known from this one and the one
            # before. Without this estimate, a third of all steps would only show that the one before was enough.
            left = last if before is None else last * (last / before) ** 2
            if not np.isfinite(last).all() or ((last <= _LAST) & (left <= _LEFT)).all():
                break
            before = np.maximum(last, np.finfo(float).tiny)
        return g

    def _linearise(
        self, rate: RateFunction, c: States, h: Float[np.ndarray, " batch"], *, by_unknowns: bool
    ) -> tuple[States, PullBack]:
        size, n = c.shape
        g = self._stage_values(rate, c, h)
        at = rate(g.reshape(-1, n))
        matrix = _newton_matrix(rate, at, h)

        def pull_back(rows: Rows) -> tuple[Rows, np.ndarray]:
            # By the implicit function theorem: (1 - h A Jacobian) dg = dc + h A dF/d(unknowns).
            right = np.zeros((size, self.stages * n, rows.shape[1]))
            right[:, -n:] = np.swapaxes(rows, 1, 2)
            solved = np.swapaxes(_solve(np.swapaxes(matrix, 1, 2), right), 1, 2)
            of_stages = solved.reshape(size, rows.shape[1], self.stages, n)
            unknowns = np.zeros((*rows.shape[:2], rate.equation.unknowns.total if by_unknowns else 0))
            for q in range(self.stages if by_unknowns else 0):
                stage = Rates(*(part.reshape(size, self.stages, -1)[:, q] for part in at))
                unknowns += rate.by_unknowns(stage, np.einsum("p,b,brpi->bri", MATRIX[:, q], h, of_stages))
            return of_stages.sum(axis=2), unknowns

        return g[:, -1], pull_back


METHODS: Mapping[str, type[Integrator]] = {
    kind.method: kind for kind in (EulerSteps, CutEulerSteps, RungeKutta, Collocation)
}


def _newton_matrix(
    rate: RateFunction, rates: Rates, h: Float[np.ndarray, " batch"]
) -> Float[np.ndarray, "batch stage_species stage_species"]:
    """1 - h (A x Jacobian), with the Jacobian of every stage."""
    n, stages = rates.c.shape[1], len(MATRIX)
    jacobian = rate.by_state(rates).reshape(-1, stages, n, n)
    whole = np.einsum("pq,b,bqij->bpiqj", MATRIX, -h, jacobian).reshape(-1, stages * n, stages * n)
    whole[:, np.arange(stages * n), np.arange(stages * n)] += 1.0
    return np.asarray(whole)


def _solve(matrix: Float[np.ndarray, "batch n n"], right: Float[np.ndarray, "batch n columns"]) -> np.ndarray:
    """Solutions of linear systems; NaN for all if one has none, as where states have diverged."""
    try:
        return np.asarray(np.linalg.solve(matrix, right))
    except np.linalg.LinAlgError:
        return np.full(right.shape, np.nan)
