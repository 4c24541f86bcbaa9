"""How badly states agree with measured concentrations: minus the log likelihood, its derivative, and the information.

Noise is Gaussian. A value that was cut at zero is censored: all that is known is that the noisy value was not positive,
so its likelihood is the probability of that (Tobin 1958). Beyond some standard deviations the loss grows linearly
(Huber 1964), so that a few wrong values do not decide.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool, Float

from metabolismgraph.system.observations import Observations

ROBUST = 4.0  # standard deviations beyond which a value counts as an outlier


class Misfit(NamedTuple):
    """The misfit of states, per window, and derivatives by the states.

    Attributes:
        loss: minus the log likelihood, up to a constant.
        score: derivative of the log likelihood by the state.
        information: expected squared score, in 1/concentration^2.
    """

    loss: Float[np.ndarray, " windows"]
    score: Float[np.ndarray, "windows *frames species"]
    information: Float[np.ndarray, "windows *frames species"]


@dataclasses.dataclass(frozen=True)
class Measurements:
    """Measured concentrations with their noise.

    Attributes:
        value: of every frame.
        sigma: standard deviation of the noise.
        weight: 1 for a value in use, 0 for one that is not.
        censored: True for a value that was cut at zero.
        robust: limit of the quadratic loss, in standard deviations.
    """

    value: Float[np.ndarray, "frames species"]
    sigma: Float[np.ndarray, "frames species"]
    weight: Float[np.ndarray, "frames species"]
    censored: Bool[np.ndarray, "frames species"]
    robust: float = np.inf

    @classmethod
    def of(
        cls,
        observations: Observations,
        sigma: Float[np.ndarray, "frames species"],
        moving: Bool[np.ndarray, " species"],
        robust: float = np.inf,
    ) -> Measurements:
        """The measured concentrations of all species that are not fixed.

        A zero in the first frame of a run is an initial condition; later, noise below zero was cut.
        """
        c = observations.concentration
        weight = (moving & observations.measured).astype(np.float64)
        first = np.diff(observations.run, prepend=-1) != 0
        return cls(c, sigma, weight, (c <= 0) & ~first[:, None] & observations.measured, robust)

    def misfit(self, frame: np.ndarray, valid: np.ndarray, c: Float[np.ndarray, "windows *frames species"]) -> Misfit:
        """Compare states with the measurements of one frame, or of several frames, of every window."""
        sigma, cut = self.sigma[frame], self.censored[frame]
        weight = self.weight[frame] * valid[..., None]
        z = (self.value[frame] - c) / sigma
        size = np.abs(z)
        loss = np.where(size <= self.robust, 0.5 * z**2, self.robust * (size - 0.5 * self.robust))
        score = np.clip(z, -self.robust, self.robust) / sigma
        information = np.where(size <= self.robust, 1.0, self.robust / np.maximum(size, 1e-300)) / sigma**2
        if cut.any():
            # log Phi(-c/sigma), its derivative -r/sigma with the inverse Mills ratio r, and r (r - c/sigma)/sigma^2.
            below = -c / sigma
            log_p = scipy.special.log_ndtr(below)
            ratio = np.exp(-0.5 * below**2 - 0.5 * np.log(2 * np.pi) - log_p)
            loss = np.where(cut, -log_p, loss)
            score = np.where(cut, -ratio / sigma, score)
            information = np.where(cut, np.maximum(ratio * (ratio + below), 0.0) / sigma**2, information)
        below = np.minimum(c, 0.0) / sigma
        if below.any():
            # A state may pass below zero on the way to a fit, but not stay there; a value that was cut would allow it.
            loss = loss + 0.5 * below**2
            score = score - below / sigma
            information = information + (below < 0) / sigma**2
        return Misfit((weight * loss).reshape(len(c), -1).sum(axis=1), weight * score, weight * information)
