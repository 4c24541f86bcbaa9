"""The Cramér-Rao bound: the least covariance of the unknowns that noise allows (Rao 1945, Cramér 1946).

It is the inverse information at the true values, with a free initial state for every window and the weak prior of a
fit. An unbiased estimate cannot have less; a fit of trajectories reaches it where the misfit is nearly quadratic.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from metabolismgraph.system.kinetics import Structure
from metabolismgraph.system.observations import Observations
from metabolismgraph.system.threads import single_thread
from metabolismgraph.trajectories.gauss_newton import fit_windows
from metabolismgraph.trajectories.integrators import Integrator
from metabolismgraph.trajectories.misfit import Measurements
from metabolismgraph.trajectories.problem import Problem
from metabolismgraph.trajectories.rates import Unknowns
from metabolismgraph.trajectories.stages import Stages
from metabolismgraph.trajectories.windows import Windows


@dataclasses.dataclass(frozen=True)
class Bound:
    """The bound of all unknowns.

    Attributes:
        unknowns: where each kind of unknown lies.
        theta: the true unknowns.
        covariance: the least covariance of their estimates.
    """

    unknowns: Unknowns
    theta: Float[np.ndarray, " unknowns"]
    covariance: Float[np.ndarray, "unknowns unknowns"]

    @property
    def log_k(self) -> Float[np.ndarray, " reactions"]:
        """Standard deviations of log10 k; infinite for one that is so undetermined that its variance is rounding."""
        variance = np.diag(self.covariance)[self.unknowns.log_k]
        return np.asarray(np.sqrt(np.where(variance > 0, variance, np.inf)))

    @property
    def lines(self) -> Float[np.ndarray, "lines lines"]:
        """Covariance of the slopes of all species, in 1/time, then of all offsets, in concentration/time."""
        both = slice(self.unknowns.slope.start, self.unknowns.offset.stop)
        return self.covariance[both, both]


def cramer_rao_bound(
    observations: Observations,
    structure: Structure,
    log_f: Callable[[np.ndarray, float], np.ndarray],
    log_k: Float[np.ndarray, " reactions"],
    line: tuple[Float[np.ndarray, " species"], Float[np.ndarray, " species"]],
    integrator: Integrator,
    sigma: Float[np.ndarray, " species"],
    length: int,
    deviation: Float[np.ndarray, " unknowns"] | None = None,
) -> Bound:
    """The least covariance of rate constants, homeostasis and learned rate laws for additive noise.

    Args:
        observations: without noise, at the times of the samples.
        structure: the network. Laws of mass action that it marks as known have no unknowns.
        log_f: true log f at log concentrations, for a substrate order.
        log_k: true log10 k, in concentration^(1-order)/time.
        line: true slope and offset of homeostasis, in 1/time and concentration/time.
        integrator: that made the observations, from frame to frame.
        sigma: standard deviation of the noise, in concentration.
        length: largest number of frames of a window.
        deviation: standard deviation of the prior on every unknown; None: the weak prior of a fit.

    Example:
        >>> import metabolismgraph as mg
        >>> from metabolismgraph.system.network import Reaction
        >>> from metabolismgraph.trajectories.integrators import Collocation
        >>> decay = Reaction("decay", {"A": 1.0}, {"A": -1.0}, mass_action=True)
        >>> network = mg.ReactionNetwork.from_reactions("decay", ["A"], [decay])
        >>> time = np.linspace(0, 2, 21)
        >>> data = mg.Observations(network, time, np.zeros(21, dtype=int), np.exp(-time)[:, None])
        >>> zero, structure = np.zeros(1), Structure.of(network)
        >>> given = (data, structure, lambda x, s: s * x, zero, (zero, zero), Collocation(), np.full(1, 0.01), 21)
        >>> cramer_rao_bound(*given, deviation=np.array([1, 1e-6, 1e-6])).log_k.round(4).tolist()
        [0.0044]
    """
    c = observations.concentration
    with single_thread(), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        stages = Stages(observations, structure, np.zeros(c.shape[1], dtype=bool))
        equation = stages.equation
        laws = structure.rate_laws
        shapes = equation.spline.coefficients_of_laws(log_f, laws.order[~laws.known])
        theta = np.concatenate([log_k, *line, shapes])
        prior = (theta, stages.prior(theta)[1] if deviation is None else deviation)
        windows = Windows.cut(observations, length)
        measured = Measurements.of(observations, np.broadcast_to(sigma, c.shape), equation.moving)
        # True states, zero ones too, are known values: nothing is cut here.
        measured = dataclasses.replace(measured, censored=np.zeros(c.shape, dtype=bool))
        problem = Problem(equation, integrator, windows, measured, prior, np.ones(len(c), dtype=np.int64))
        at_truth = fit_windows(problem, theta, c[windows.starts], goal="end", steps=0)
    return Bound(equation.unknowns, theta, at_truth.covariance)
