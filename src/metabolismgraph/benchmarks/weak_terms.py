"""Ways to find a weak term beside dominant dynamics, on the data of the noise benchmark.

The rate equation is dc/dt = S (k f(c)) + slope c + offset, of which homeostasis, the line, is hundreds of times smaller
than the reactions. All methods of this module are handed the rate law, mass action, and solve least squares for the
same bump-weighted averages of dc/dt (Messenger & Bortz 2021). They differ only in how they part homeostasis from the
reactions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from metabolismgraph.benchmarks.noise_methods import Estimate, Sample, positive_log
from metabolismgraph.system.derivative_rules import Rule
from metabolismgraph.system.kinetics import Structure
from metabolismgraph.system.units import Units
from metabolismgraph.trajectories.stages import Stages
from metabolismgraph.trajectories.threads import single_thread
from metabolismgraph.trajectories.weak_form import Averages

_TOLERANCE = 1.05  # misfit that an augmentation may leave, relative to the least one
_HALVINGS = 40  # of the interval of the penalty
_LARGEST_PENALTY = 1e12
_THRESHOLDS = (1e-4, 3e-4, 1e-3, 3e-3)  # of sequential thresholding, in 1/time
_ROUNDS = 10  # of sequential thresholding
_RIDGE = 1e-12  # relative


class Equations(NamedTuple):
    """The averages of dc/dt = S (k flux) + slope c + offset over windows of frames.

    Attributes:
        left: of dc/dt.
        flux: of the flux of every reaction for k = 1.
        c: of the concentrations.
        ones: of 1.
        square: of the squared concentrations.
        stoichiometry: S.
        weight: 1 / noise; zero for fixed species.
    """

    left: Float[np.ndarray, "rows species"]
    flux: Float[np.ndarray, "rows reactions"]
    c: Float[np.ndarray, "rows species"]
    ones: Float[np.ndarray, "rows 1"]
    square: Float[np.ndarray, "rows species"]
    stoichiometry: Float[np.ndarray, "species reactions"]
    weight: Float[np.ndarray, " species"]

    def solve(self, penalty: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """k, slope and offset by least squares, with a penalty on the size of homeostasis.

        Args:
            penalty: weight of the mean square of homeostasis relative to that of the misfit; inf: no homeostasis.
        """
        n, m = self.stoichiometry.shape
        w2, s = self.weight**2, self.stoichiometry
        i = np.arange(n)
        matrix, right = np.zeros((m + 2 * n, m + 2 * n)), np.zeros(m + 2 * n)
        matrix[:m, :m] = (s.T @ (w2[:, None] * s)) * (self.flux.T @ self.flux)
        matrix[:m, m : m + n] = (self.flux.T @ self.c) * s.T * w2
        matrix[:m, m + n :] = self.flux.T @ self.ones * s.T * w2
        matrix[m + i, m + i] = w2 * np.sum(self.c**2, axis=0)
        matrix[m + i, m + n + i] = w2 * (self.ones.T @ self.c)[0]
        matrix[m + n + i, m + n + i] = w2 * float(np.sum(self.ones**2))
        right[:m] = np.sum(self.flux * ((self.left * w2) @ s), axis=0)
        right[m : m + n] = w2 * np.sum(self.c * self.left, axis=0)
        right[m + n :] = w2 * (self.ones.T @ self.left)[0]
        matrix = np.triu(matrix) + np.triu(matrix, 1).T
        used = np.arange(m + 2 * n) < (m if np.isinf(penalty) else m + 2 * n)
        matrix[m:, m:] *= 1.0 if np.isinf(penalty) else 1.0 + penalty
        own, x = matrix[np.ix_(used, used)], np.zeros(m + 2 * n)
        diagonal = np.diag(own)
        scale = 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
        scaled = own * scale[:, None] * scale + _RIDGE * np.eye(len(scale))
        scaled[diagonal <= 0, diagonal <= 0] = 1.0
        x[used] = scale * np.linalg.solve(scaled, scale * right[used])
        k, slope, offset = np.split(x, [m, m + n])
        return k, slope, offset

    def residual(self, k: Float[np.ndarray, " reactions"]) -> Float[np.ndarray, "rows species"]:
        """What the reactions leave of dc/dt."""
        return np.asarray(self.left - (self.flux * k) @ self.stoichiometry.T)

    def misfit(self, solution: tuple[np.ndarray, np.ndarray, np.ndarray]) -> float:
        """Sum of the squared standardised residuals of all terms."""
        k, slope, offset = solution
        return float(np.sum((self.weight * (self.residual(k) - slope * self.c - offset * self.ones)) ** 2))


def residual(at: Equations) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Reactions alone first; then a line through what they leave, species by species."""
    k, _, _ = at.solve(np.inf)
    left = at.residual(k)
    columns = [np.column_stack([c, at.ones[:, 0]]) for c in at.c.T]
    lines = np.array([np.linalg.lstsq(x, y, rcond=None)[0] for x, y in zip(columns, left.T, strict=True)])
    return [(k, lines[:, 0], lines[:, 1])]


def sparse_residual(at: Equations) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Reactions alone first; then SINDy on what they leave (Brunton et al. 2016), with the terms 1, c and c^2.

    Sequentially thresholded least squares; one answer per threshold.
    """
    k, _, _ = at.solve(np.inf)
    left = at.residual(k)
    answers = []
    for threshold in _THRESHOLDS:
        found = np.zeros((len(at.weight), 3))
        for i, y in enumerate(left.T):
            terms = np.column_stack([at.c[:, i], at.ones[:, 0], at.square[:, i]])
            size = np.linalg.norm(terms, axis=0) / np.linalg.norm(terms[:, 0])  # in units of the slope
            kept = np.ones(3, dtype=bool)
            for _ in range(_ROUNDS):
                found[i] = 0.0
                found[i, kept] = np.linalg.lstsq(terms[:, kept], y, rcond=None)[0]
                small = np.abs(found[i]) * size < threshold
                if not (small & kept).any():
                    break
                kept &= ~small
        answers.append((k, found[:, 0], found[:, 1]))
    return answers


def minimal_augmentation(at: Equations) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The smallest homeostasis, as a share of dc/dt, with which the data are explained (Yin et al. 2021, APHYNITY).

    Explained: with a misfit of at most 1.05 times the least one.
    """
    allowed = _TOLERANCE * at.misfit(at.solve(0.0))
    low, high = -12.0, float(np.log10(_LARGEST_PENALTY))
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if at.misfit(at.solve(10.0**middle)) <= allowed else (low, middle)
    return [at.solve(10.0**low)]


def together(at: Equations) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Reactions and homeostasis together.

    The same as a line through dc/dt after the reactions were projected out of dc/dt, c and 1: the orthogonalised
    residual (Frisch & Waugh 1933).
    """
    return [at.solve(0.0)]


WAYS: Mapping[str, Callable[[Equations], list[tuple[np.ndarray, np.ndarray, np.ndarray]]]] = {
    "residual": residual,
    "residual SINDy": sparse_residual,
    "augmentation": minimal_augmentation,
    "together": together,
}


def equations(sample: Sample) -> Equations:
    """The averages of one data set, of the frames that are not held out, in internal units.

    The data are Euler steps of the simulator, so the rule is forward for every frame, and cubic for coarser samples.

    Raises:
        InputError: the rate law is not mass action.
    """
    units = Units.of(sample.seen, sample.config.graph_model)
    own = units.observations(sample.seen)
    structure = Structure.of(sample.network(law_known=True))
    rule: Rule = "forward" if sample.every == 1 else "cubic"
    with single_thread():
        stages = Stages(own, structure, np.zeros(own.network.n_species, dtype=bool))
        equation, average = stages.equation, Averages(own, rule)
        flux = equation.rates(np.zeros(equation.unknowns.total), stages.path).flux
        transitions = own.transitions()
        return Equations(
            left=average.rows(transitions.derivative),
            flux=average.steps(flux),
            c=average.steps(own.concentration),
            ones=average.rows(np.ones((len(transitions.dt), 1))),
            square=average.steps(own.concentration**2),
            stoichiometry=equation.stoichiometry,
            weight=np.where(equation.moving, 1.0 / stages.differences, 0.0),
        )


def by_weak_term(sample: Sample, way: str) -> Estimate:
    """One of `WAYS`. Where it has several answers, that with the slopes closest to the truth counts."""
    units = Units.of(sample.seen, sample.config.graph_model)
    answers = WAYS[way](equations(sample))
    true, _ = sample.line
    k, slope, offset = min(answers, key=lambda found: float(np.median(np.abs(found[1] / units.time - true))))
    return Estimate(
        log_k=positive_log(k) + units.rate_constants(sample.seen.network),
        slope=slope / units.time,
        offset=offset * units.rate,
    )


METHODS: Mapping[str, Callable[[Sample, float], Estimate]] = {
    way: functools.partial(lambda way, sample, _: by_weak_term(sample, way), way) for way in WAYS
}
