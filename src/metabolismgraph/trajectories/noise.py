"""The noise of measured concentrations, from the data alone, and smoothed concentrations."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int

from metabolismgraph.system.observations import Observations

_ORDERS = (4, 6, 8)  # of the differences that the dynamics hardly reach
_SPARE = 8  # differences beyond the order that are needed for a median
# Least noise: relative to the spread of a species, and to its largest value (the digits of a table).
_LEAST, _ROUNDING = 1e-7, 1e-9
_WIDTHS = (5, 9, 13, 17, 25, 33, 49, 65)  # windows of the smoothing, in frames
_MEDIAN = 0.6745  # of the absolute value of a standard normal number
_HALF = math.sqrt(0.5 - 0.5 / math.pi)  # standard deviation of max(z, 0) of a standard normal number z
# Standard deviations above zero of a mean that is not cut; rounds to find these; quantile to begin with.
_CLEAR, _ROUNDS, _HIGHEST = 2.0, 4, 0.8
# Differences that an estimate from a part of them needs, and those with which it is accurate to some 10 %.
_MANY, _ENOUGH_HIGH = 30, 200
_STILL_NOISE = 1.03  # the residual of smoothing is noise up to this factor
_POINTS, _SMOOTH_RIDGE = 6, 1e-9  # values that a local cubic needs, and relative ridge of its normal equations


def noise_of_differences(observations: Observations) -> Float[np.ndarray, " species"]:
    """Standard deviation of white noise of every species, from high differences in time.

    Divided differences of order p remove polynomials of degree p - 1. Where samples are coarse the dynamics are left
    too, so the smallest of several orders is taken, and it is an upper bound. The median of the absolute values is
    insensitive to outliers. Where values were cut at zero, only differences of frames with a high mean are used, with
    which they are not correlated.

    Example:
        >>> import metabolismgraph as mg
        >>> network = mg.ReactionNetwork.from_reactions("decay", ["A"], [])
        >>> time, rng = np.arange(2000.0), np.random.default_rng(0)
        >>> c = 5 + np.sin(time[:, None] / 50) + 0.1 * rng.standard_normal((2000, 1))
        >>> data = mg.Observations(network, time, np.zeros(2000, dtype=int), c)
        >>> noise_of_differences(data).round(2).tolist()
        [0.1]
    """
    c, measured = observations.concentration, observations.measured
    later = np.diff(observations.run, prepend=-1) == 0
    cut = ((c <= 0) & measured)[later].any(axis=0)
    complete = measured.all(axis=0)
    found = np.full((len(_ORDERS), c.shape[1]), np.inf)
    for scales, order in zip(found, _ORDERS, strict=True):
        # Species that were measured at the same times are done together.
        for species in [np.flatnonzero(complete), *np.flatnonzero(~complete)[:, None]]:
            size, mean = _high_differences(observations, species, order)
            if len(size):
                scales[species] = np.median(size, axis=0) / _MEDIAN
                for own in np.flatnonzero(cut[species]):
                    scales[species[own]] = _scale_of_cut(size[:, own], mean[:, own])
    least = np.maximum(_LEAST * c.std(axis=0), _ROUNDING * max(c.max(), 1e-300))
    smallest = found.min(axis=0)
    return np.asarray(np.maximum(np.where(np.isfinite(smallest), smallest, 0.05 * c.std(axis=0)), least))


def _high_differences(
    observations: Observations, species: Int[np.ndarray, " some"], order: int
) -> tuple[Float[np.ndarray, "differences some"], Float[np.ndarray, "differences some"]]:
    """Absolute differences of an order, of the same variance as the noise, and means of the values in each.

    Args:
        species: that were measured at the same times.
    """
    sizes, means = [], []
    for r in np.unique(observations.run):
        frames = np.flatnonzero((observations.run == r) & observations.measured[:, species[:1]].all(axis=1))
        if len(frames) <= order + _SPARE:
            continue
        parts = np.lib.stride_tricks.sliding_window_view(frames, order + 1)
        # Divided differences, whose weights are 1 / product of the differences in time.
        time = observations.time[parts]
        apart = time[:, :, None] - time[:, None, :]
        apart[:, np.arange(order + 1), np.arange(order + 1)] = 1.0
        weight = 1.0 / (apart / np.median(np.diff(observations.time[frames]))).prod(axis=2)
        weight /= np.linalg.norm(weight, axis=1, keepdims=True)
        values = observations.concentration[parts[..., None], species]
        sizes.append(np.abs(np.einsum("dt,dti->di", weight, values)))
        means.append(values.mean(axis=1))
    nothing = [np.zeros((0, len(species)))]
    return np.concatenate(sizes or nothing), np.concatenate(means or nothing)


def _scale_of_cut(size: Float[np.ndarray, " differences"], mean: Float[np.ndarray, " differences"]) -> float:
    """Standard deviation of differences with given absolute values, from those with a mean that noise cannot cut.

    If these are few, as for a species with rare peaks, those with the highest means are added.
    """
    high = mean >= np.quantile(mean, _HIGHEST)
    enough = np.sort(mean)[-min(_ENOUGH_HIGH, len(mean))]
    for _ in range(_ROUNDS):
        scale = float(np.median(size[high])) / _MEDIAN
        clear = mean > _CLEAR * scale
        if clear.sum() < _MANY:  # all values are close to zero, where half of the noise is cut
            return float(np.sqrt(np.mean(size**2))) / _HALF
        high = clear | (mean >= enough)
    return scale


# Shares of the variance that may be proportional to the squared concentration; 0 is additive noise. Near 1 the noise is
# proportional, with a small additive part that keeps the weight of a vanishing concentration finite.
_PROPORTIONAL = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999)
_EVIDENCE = 5.0  # gain of the log likelihood that noise other than additive needs
_ENOUGH = 100  # degrees of freedom that it needs
_ITERATIONS, _SETTLED = 30, 1e-6  # of expectation maximisation, and relative change that ends it


@dataclasses.dataclass(frozen=True)
class NoiseModel:
    """Noise with the variance scale^2 (1 - share + share (c / reference)^2) of every species.

    Attributes:
        scale: standard deviation of every species at its reference concentration.
        share: of the variance that is proportional to c^2; 0: additive noise, close to 1: proportional noise.
        reference: root mean square concentration of every species; has no effect on additive noise.
    """

    scale: Float[np.ndarray, " species"]
    share: float = 0.0
    reference: Float[np.ndarray, " species"] | float = 1.0

    @property
    def kind(self) -> str:
        """In words: additive, proportional, or both."""
        if self.share == 0:
            return "additive"
        return "proportional" if self.share > 0.99 else "additive and proportional"

    def sigma(self, c: Float[np.ndarray, "frames species"]) -> Float[np.ndarray, "frames species"]:
        """Standard deviation at given concentrations."""
        return np.asarray(self.scale * _shape(c, self.share, self.reference))

    @classmethod
    def of_residuals(
        cls,
        residual: Float[np.ndarray, "frames species"],
        c: Float[np.ndarray, "frames species"],
        used: Bool[np.ndarray, "frames species"],
        censored: Bool[np.ndarray, "frames species"],
        free: float,
        least: Float[np.ndarray, " species"],
    ) -> NoiseModel:
        """The noise with the highest likelihood of given residuals.

        Args:
            residual: measured minus fitted concentrations.
            c: fitted concentrations.
            used: residuals in use.
            censored: those of values that were cut at zero.
            free: unknowns per species that were fitted to the residuals.
            least: lower bound of the scale.
        """
        count = (used | censored).sum(axis=0)
        left = np.maximum(count - free, 0.2 * count + 1)
        best, highest = cls(least), -np.inf  # where the residual is not finite
        reference = np.sqrt(np.mean(c**2, axis=0)) + 1e-300
        # With few degrees of freedom, fitted states can leave any pattern of residuals.
        enough = float(np.sum(count - free)) >= _ENOUGH and bool((free < count / 2).all())
        for share in _PROPORTIONAL if enough else _PROPORTIONAL[:1]:
            shape = _shape(c, share, reference)
            z = residual / shape
            scale = _scale(z, used, censored, left, least)
            log_p = np.where(used, -0.5 * (z / scale) ** 2 - np.log(scale * shape), 0.0)
            log_p += np.where(censored, scipy.special.log_ndtr(z / scale), 0.0)
            log_likelihood = float(log_p.sum()) - _EVIDENCE * (share > 0)
            if log_likelihood > highest:
                best, highest = cls(scale, share, reference), log_likelihood
        return best


def _scale(
    z: Float[np.ndarray, "frames species"],
    used: Bool[np.ndarray, "frames species"],
    censored: Bool[np.ndarray, "frames species"],
    left: Float[np.ndarray, " species"],
    least: Float[np.ndarray, " species"],
) -> Float[np.ndarray, " species"]:
    """Standard deviation of residuals of which some are censored, by expectation maximisation.

    A residual below z, the one of a value that was cut, has the expected square s^2 (1 - a phi(a) / Phi(a)) with
    a = z/s.
    """
    square = np.where(used, z**2, 0.0).sum(axis=0)
    scale = np.maximum(np.sqrt(square / left), least)
    cut = np.flatnonzero(censored.any(axis=0))
    frame, column = np.nonzero(censored[:, cut])
    below, started = z[:, cut][frame, column], square / left
    for _ in range(_ITERATIONS if len(cut) else 0):
        a = below / scale[cut][column]
        ratio = np.exp(-0.5 * a**2 - 0.5 * np.log(2 * np.pi) - scipy.special.log_ndtr(a))
        share = np.bincount(column, np.maximum(1 - a * ratio, 0.0), len(cut))
        before = scale[cut]
        scale[cut] = np.maximum(np.sqrt(started[cut] + before**2 * share / left[cut]), least[cut])
        if np.allclose(scale[cut], before, rtol=_SETTLED, atol=0.0):
            break
    return np.asarray(scale)


def _shape(
    c: Float[np.ndarray, "frames species"], share: float, reference: Float[np.ndarray, " species"] | float
) -> Float[np.ndarray, "frames species"]:
    """Noise relative to that at the reference concentration."""
    return np.asarray(np.sqrt(1 - share + share * (c / reference) ** 2))


def smooth(observations: Observations, sigma: Float[np.ndarray, " species"]) -> Float[np.ndarray, "frames species"]:
    """Concentrations smoothed by local cubics over as many frames as leave nothing but noise (Savitzky & Golay 1964).

    Args:
        sigma: standard deviation of the noise.
    """
    c = observations.concentration
    out, complete = c.copy(), bool(observations.measured.all())
    for r in np.unique(observations.run):
        own = np.flatnonzero(observations.run == r)
        for width in _WIDTHS if complete else ():
            if width > len(own) // 4:
                break
            smoothed = scipy.signal.savgol_filter(c[own], width, 3, axis=0)
            left = np.sqrt(np.mean((c[own] - smoothed) ** 2, axis=0))
            # A cubic through white noise leaves a share sqrt(1 - h) of it, h the weight of the middle value.
            share = np.sqrt(1 - scipy.signal.savgol_coeffs(width, 3)[width // 2])
            good = np.flatnonzero(left < _STILL_NOISE * sigma * share)
            out[np.ix_(own, good)] = smoothed[:, good]
        if not complete:
            out[own] = _smooth_with_gaps(c[own], observations.measured[own], sigma)
    return np.asarray(np.maximum(out, 0.0))


def _smooth_with_gaps(
    c: Float[np.ndarray, "frames species"],
    measured: Bool[np.ndarray, "frames species"],
    sigma: Float[np.ndarray, " species"],
) -> Float[np.ndarray, "frames species"]:
    """The same from the measured values alone, where enough of them are near; otherwise the given values."""
    out = c.copy()
    for width in _WIDTHS:
        if width > len(c) // 4:
            break
        x = np.arange(-(width // 2), width // 2 + 1) / (width // 2)
        # Sums over the measured frames around each frame: of powers of the distance, and of these times the value.
        moments = [_correlated(measured.astype(np.float64), x**power) for power in range(7)]
        values = [_correlated(np.where(measured, c, 0.0), x**power) for power in range(4)]
        matrix = np.stack([np.stack(moments[i : i + 4], axis=-1) for i in range(4)], axis=-2)
        right = np.stack([*values], axis=-1)
        enough = moments[0] >= _POINTS
        matrix = np.where(enough[..., None, None], matrix, np.eye(4)) + _SMOOTH_RIDGE * np.eye(4)
        first = np.broadcast_to(np.eye(4)[:, :1], (*enough.shape, 4, 1))
        weights = np.linalg.solve(matrix, first)[..., 0]
        smoothed, own_weight = np.sum(weights * right, axis=-1), np.clip(weights[..., 0], 0.0, 0.99)
        compared = measured & enough
        left = (c - smoothed) ** 2 / (1 - own_weight)
        mean = np.where(compared, left, 0.0).sum(axis=0) / np.maximum(compared.sum(axis=0), 1)
        good = (np.sqrt(mean) < _STILL_NOISE * sigma) & compared.any(axis=0)
        out = np.where(good & enough, smoothed, out)
    return out


def _correlated(values: Float[np.ndarray, "frames species"], weights: Float[np.ndarray, " width"]) -> np.ndarray:
    """Weighted sums of the values around every frame, zero beyond the ends."""
    return np.asarray(scipy.ndimage.correlate1d(values, weights, axis=0, mode="constant"))
