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

from metabolismgraph.benchmarks.noise_methods import Estimate, Sample
from metabolismgraph.system.derivative_rules import Rule
from metabolismgraph.system.kinetics import Structure
from metabolismgraph.system.threads import single_thread
from metabolismgraph.system.units import Units
from metabolismgraph.trajectories.stages import Stages
from metabolismgraph.trajectories.weak_form import Averages, Equations, not_too_small

_TOLERANCE = 1.05  # misfit that an augmentation may leave, relative to the least one
_HALVINGS = 40  # of the interval of the penalty
_LARGEST_PENALTY = 1e12
_THRESHOLDS = (1e-4, 3e-4, 1e-3, 3e-3)  # of sequential thresholding, in 1/time
_ROUNDS = 10  # of sequential thresholding


Answer = tuple[np.ndarray, np.ndarray, np.ndarray]  # k, slope and offset


class Averaged(NamedTuple):
    """The rate equation over windows of frames.

    Attributes:
        equations: its averages.
        square: those of the squared concentrations.
    """

    equations: Equations
    square: Float[np.ndarray, "rows species"]

    def solve(self, penalty: float) -> tuple[Answer, float]:
        """k, slope and offset by least squares with a penalty on the size of homeostasis, and their misfit.

        Args:
            penalty: weight of the mean square of homeostasis relative to that of the misfit.
        """
        found = self.equations.solve(np.zeros((*self.square.shape, 0)), penalty)
        return (found.k, found.slope, found.offset), found.misfit

    def left_by_reactions(self) -> tuple[np.ndarray, Float[np.ndarray, "rows species"]]:
        """k without homeostasis, and what the reactions leave of dc/dt."""
        (k, _, _), _ = self.solve(_LARGEST_PENALTY)
        at = self.equations
        return k, np.asarray(at.left - (at.v * k) @ at.stoichiometry.T)


def residual(averaged: Averaged) -> list[Answer]:
    """Reactions alone first; then a line through what they leave, species by species."""
    (k, left), at = averaged.left_by_reactions(), averaged.equations
    columns = [np.column_stack([c, at.ones[:, 0]]) for c in at.c.T]
    lines = np.array([np.linalg.lstsq(x, y, rcond=None)[0] for x, y in zip(columns, left.T, strict=True)])
    return [(k, lines[:, 0], lines[:, 1])]


def sparse_residual(averaged: Averaged) -> list[Answer]:
    """Reactions alone first; then SINDy on what they leave (Brunton et al. 2016), with the terms 1, c and c^2.

    Sequentially thresholded least squares; one answer per threshold.
    """
    (k, left), at = averaged.left_by_reactions(), averaged.equations
    answers = []
    for threshold in _THRESHOLDS:
        found = np.zeros((len(at.weight), 3))
        for i, y in enumerate(left.T):
            terms = np.column_stack([at.c[:, i], at.ones[:, 0], averaged.square[:, i]])
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


def minimal_augmentation(averaged: Averaged) -> list[Answer]:
    """The smallest homeostasis, as a share of dc/dt, with which the data are explained (Yin et al. 2021, APHYNITY).

    Explained: with a misfit of at most 1.05 times the least one.
    """
    allowed = _TOLERANCE * averaged.solve(0.0)[1]
    low, high = -12.0, float(np.log10(_LARGEST_PENALTY))
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if averaged.solve(10.0**middle)[1] <= allowed else (low, middle)
    return [averaged.solve(10.0**low)[0]]


def together(averaged: Averaged) -> list[Answer]:
    """Reactions and homeostasis together.

    The same as a line through dc/dt after the reactions were projected out of dc/dt, c and 1: the orthogonalised
    residual (Frisch & Waugh 1933).
    """
    return [averaged.solve(0.0)[0]]


WAYS: Mapping[str, Callable[[Averaged], list[Answer]]] = {
    "residual": residual,
    "residual SINDy": sparse_residual,
    "augmentation": minimal_augmentation,
    "together": together,
}


def averages_of(sample: Sample) -> Averaged:
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
        found = Equations.of(own, average, equation, stages.differences)
        return Averaged(found._replace(v=average.steps(flux)), average.steps(own.concentration**2))


def by_weak_term(sample: Sample, way: str) -> Estimate:
    """One of `WAYS`. Where it has several answers, that with the slopes closest to the truth counts."""
    units = Units.of(sample.seen, sample.config.graph_model)
    answers = WAYS[way](averages_of(sample))
    true, _ = sample.line
    k, slope, offset = min(answers, key=lambda found: float(np.median(np.abs(found[1] / units.time - true))))
    return Estimate(
        log_k=np.log10(not_too_small(k)) + units.rate_constants(sample.seen.network),
        slope=slope / units.time,
        offset=offset * units.rate,
    )


METHODS: Mapping[str, Callable[[Sample, float], Estimate]] = {
    way: functools.partial(lambda way, sample, _: by_weak_term(sample, way), way) for way in WAYS
}
