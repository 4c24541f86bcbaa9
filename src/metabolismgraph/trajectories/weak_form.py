"""A start for shooting: rate constants, homeostasis and rate law from the weak form of the rate equation.

The change of a species over a step is the integral of dc/dt. Sums of these equations over windows, weighted by bumps
(1 - u^2)^p, contain the measured concentrations only times differences of the bump, so that noise is averaged instead
of amplified (Messenger & Bortz 2021). Given log f the equations are linear in k, slope and offset; Gauss-Newton steps
add the coefficients of log f. What remains is the bias by noise within the rate law, which shooting removes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from metabolismgraph.system.derivative_rules import Rule, StepQuadrature
from metabolismgraph.system.observations import Observations
from metabolismgraph.trajectories.rates import RateEquation, Rates

_POWER = 4  # of the bump
_WINDOW = 64  # frames; fewer for short runs
_SHORTEST = 4
_OVERLAP = 8  # windows that contain a frame, approximately
_ITERATIONS, _CONVERGED = 12, 1e-4
_LARGEST_STEP = 0.4  # of a coefficient of log f
_RIDGE = 1e-9
_SMALLEST = 1e-3  # least start of a rate constant, relative to the median
_EXPONENTS = (0.7, 1.0, 1.5)  # of power laws from which log f starts


def weak_form(
    observations: Observations,
    equation: RateEquation,
    smoothed: Float[np.ndarray, "frames species"],
    sigma: Float[np.ndarray, " species"],
    rule: Rule,
) -> Float[np.ndarray, " unknowns"]:
    """The unknowns by the weak form.

    Args:
        smoothed: concentrations for the rate law; measured ones are used for the changes.
        sigma: standard deviation of the noise.
        rule: rule for dc/dt over a step.
    """
    tries = [_fit(observations, equation, smoothed, sigma, rule, exponent) for exponent in _EXPONENTS]
    return min(tries, key=lambda found: found[1])[0] if equation.unknowns.laws else tries[0][0]


def _fit(
    observations: Observations,
    equation: RateEquation,
    smoothed: Float[np.ndarray, "frames species"],
    sigma: Float[np.ndarray, " species"],
    rule: Rule,
    exponent: float,
) -> tuple[Float[np.ndarray, " unknowns"], float]:
    """The unknowns from one start of log f, and the misfit."""
    u = equation.unknowns
    average = Averages(observations, rule)
    written = Equations.of(observations, average, equation, sigma)
    theta, coefficients = np.zeros(u.total), np.zeros((u.laws, u.size))
    if u.laws:
        coefficients[:, 0] = exponent * equation.learned_orders
    k = np.zeros(0)
    for _ in range(_ITERATIONS if u.laws else 1):
        theta[u.law] = coefficients.ravel()
        theta[u.log_k] = 0.0
        at = equation.rates(theta, smoothed)  # with k = 1, fluxes are the substrate factors
        written = written._replace(v=average.steps(at.flux))
        # Unknowns: k, slope, offset and, after the first solution, changes of the coefficients of log f.
        shapes = average.shapes(equation, at, k) if len(k) and u.laws else np.zeros((*written.left.shape, 0))
        found = written.solve(shapes)
        k = found.k
        if shapes.shape[-1]:
            step = np.clip(found.shapes, -_LARGEST_STEP, _LARGEST_STEP)
            coefficients = coefficients + step.reshape(coefficients.shape)
            if np.abs(step).max() < _CONVERGED:
                break
    theta[u.law] = coefficients.ravel()
    # Near zero, nothing depends on log k any more, so that shooting could not lead back: no estimate is below what the
    # data can tell from zero.
    theta[u.log_k] = np.log10(not_too_small(found.k, found.k_error))
    theta[u.slope], theta[u.offset] = found.slope, found.offset
    return theta, found.misfit


class Averages:
    """Weighted sums over windows of steps."""

    def __init__(self, observations: Observations, rule: Rule):
        self.quadrature = StepQuadrature.of(observations, rule)
        transitions = observations.transitions()
        run = observations.run[transitions.frame]
        self.starts, self.weights = [], []
        for r in np.unique(run):
            own = np.flatnonzero(run == r)
            length = min(_WINDOW, max(_SHORTEST, len(own) // 4), len(own))
            u = np.linspace(-1, 1, length + 2)[1:-1]
            bump = (1 - u**2) ** _POWER
            for first in range(0, len(own) - length + 1, max(1, length // _OVERLAP)):
                steps = own[first : first + length]
                w = bump * transitions.dt[steps]
                self.starts.append(steps[0])
                self.weights.append(w / np.linalg.norm(w))

    def rows(self, values: np.ndarray) -> np.ndarray:
        """Averages of values of the steps."""
        pairs = zip(self.starts, self.weights, strict=True)
        return np.stack([np.tensordot(w, values[s : s + len(w)], 1) for s, w in pairs])

    def steps(self, values: np.ndarray) -> np.ndarray:
        """Averages of values of the frames, which the rule turns into means over the steps."""
        flat = values.reshape(len(values), -1)
        return self.rows(self.quadrature.mean(flat)).reshape(-1, *values.shape[1:])

    def shapes(self, equation: RateEquation, at: Rates, k: Float[np.ndarray, " reactions"]) -> np.ndarray:
        """Averages of the derivative of dc/dt by the coefficients of log f."""
        return self.steps(equation.by_laws(at._replace(flux=at.flux * k)))


class Equations(NamedTuple):
    """The averages of dc/dt = S (k v) + slope c + offset over windows of frames.

    Attributes:
        left: of dc/dt.
        v: of the flux of every reaction for k = 1.
        c: of the concentrations.
        ones: of 1.
        stoichiometry: S.
        weight: 1 / noise; zero for fixed species.
    """

    left: Float[np.ndarray, "rows species"]
    v: Float[np.ndarray, "rows reactions"]
    c: Float[np.ndarray, "rows species"]
    ones: Float[np.ndarray, "rows 1"]
    stoichiometry: Float[np.ndarray, "species reactions"]
    weight: Float[np.ndarray, " species"]

    @classmethod
    def of(
        cls,
        observations: Observations,
        average: Averages,
        equation: RateEquation,
        sigma: Float[np.ndarray, " species"],
    ) -> Equations:
        """From measured concentrations; the averages of the fluxes, which depend on the rate law, are still zero.

        Args:
            sigma: standard deviation of the noise.
        """
        transitions = observations.transitions()
        left = average.rows(transitions.derivative)
        return cls(
            left=left,
            v=np.zeros((len(left), equation.stoichiometry.shape[1])),
            c=average.steps(observations.concentration),
            ones=average.rows(np.ones((len(transitions.dt), 1))),
            stoichiometry=equation.stoichiometry,
            weight=np.where(equation.moving, 1.0 / sigma, 0.0),
        )

    def solve(self, shapes: Float[np.ndarray, "rows species coefficients"], penalty: float = 0.0) -> Solution:
        """Least squares for k, slope, offset and changes of log f, by the normal equations.

        Args:
            shapes: derivative of dc/dt by the coefficients of log f.
            penalty: weight of the mean square of homeostasis relative to that of the misfit.
        """
        n, m = self.stoichiometry.shape
        extra = shapes.shape[-1]
        total = m + 2 * n + extra
        matrix, right = np.zeros((total, total)), np.zeros(total)
        weight, left, v, c, ones = self.weight, self.left, self.v, self.c, self.ones
        s = self.stoichiometry * weight[:, None]
        i = np.arange(n)
        square, w2 = s.T @ s, weight**2
        lines = w2 * (1.0 + penalty)
        matrix[:m, :m] = square * (v.T @ v)
        matrix[:m, m : m + n] = (s.T * (v.T @ c)) * weight
        matrix[:m, m + n : m + 2 * n] = (s.T * (v.T @ np.repeat(ones, n, axis=1))) * weight
        matrix[m + i, m + i] = (c**2).sum(axis=0) * lines
        matrix[m + i, m + n + i] = (c * ones).sum(axis=0) * lines
        matrix[m + n + i, m + n + i] = (ones**2).sum() * lines
        right[:m] = (v * ((left * weight) @ s)).sum(axis=0)
        right[m : m + n] = (c * left).sum(axis=0) * w2
        right[m + n : m + 2 * n] = (ones * left).sum(axis=0) * w2
        scaled = shapes * weight[None, :, None]
        if extra:
            matrix[:m, m + 2 * n :] = np.einsum("tj,tjl->jl", v, np.einsum("ij,til->tjl", s, scaled, optimize=True))
            matrix[m : m + n, m + 2 * n :] = np.einsum("ti,til->il", c * weight, scaled)
            matrix[m + n : m + 2 * n, m + 2 * n :] = np.einsum("ti,til->il", ones * weight, scaled)
            flat = scaled.reshape(-1, extra)
            matrix[m + 2 * n :, m + 2 * n :] = flat.T @ flat
            right[m + 2 * n :] = flat.T @ (left * weight).ravel()
        matrix = np.triu(matrix) + np.triu(matrix, 1).T
        diagonal = np.diag(matrix)
        scale = 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
        regular = matrix * scale[:, None] * scale + _RIDGE * np.eye(total)
        regular[diagonal <= 0, diagonal <= 0] = 1.0
        inverse = np.linalg.inv(regular)
        k, slope, offset, step = np.split(scale * (inverse @ (scale * right)), [m, m + n, m + 2 * n])
        explained = (v * k) @ s.T + (slope * c + offset * ones) * weight + scaled @ step
        misfit = float(np.sum((left * weight - explained) ** 2))
        error = scale[:m] * np.sqrt(np.abs(np.diag(inverse)[:m]) * misfit / max(left.size - total, 1))
        return Solution(k, error, slope, offset, step, misfit)


class Solution(NamedTuple):
    """The least-squares estimates, and the weighted sum of squares that they leave."""

    k: Float[np.ndarray, " reactions"]
    k_error: Float[np.ndarray, " reactions"]
    slope: Float[np.ndarray, " species"]
    offset: Float[np.ndarray, " species"]
    shapes: Float[np.ndarray, " coefficients"]
    misfit: float


def not_too_small(
    k: Float[np.ndarray, " reactions"], least: Float[np.ndarray, " reactions"] | float = 0.0
) -> Float[np.ndarray, " reactions"]:
    """Rate constants that have a logarithm: none is below a small share of the median of the positive ones.

    Args:
        least: larger bounds for single ones, if they are below that median.
    """
    typical = float(np.median(k[k > 0])) if (k > 0).any() else 1.0
    return np.asarray(np.maximum(k, np.clip(least, _SMALLEST * typical, typical)))
