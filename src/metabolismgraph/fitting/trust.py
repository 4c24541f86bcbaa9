"""Whether a fit is to be trusted: a verdict from its residuals and its predictions.

Three errors of every species are examined: the residual of dc/dt in the training frames, the same in the
held-out frames, and the error of rollouts there, integrated from a measured state over the sample times.
Each error is relative to the signal of the species. A small residual is not sufficient: a wrong model can fit
the training data, while rollouts on held-out frames reveal it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import warnings
from collections.abc import Iterator

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int

from metabolismgraph.config import GraphModel, Training
from metabolismgraph.overview import Overview, Rows
from metabolismgraph.reactions.result import Phase1Result, TrajectoryEvidence, WindowEvidence
from metabolismgraph.reactions.verdict import TOO_COARSE
from metabolismgraph.system.derivative_rules import Rule, StepQuadrature
from metabolismgraph.system.kinetics import Structure
from metabolismgraph.system.network import ReactionNetwork
from metabolismgraph.system.observations import Observations
from metabolismgraph.system.tabulated_reactions import TabulatedReactions
from metabolismgraph.system.units import Units
from metabolismgraph.trajectories.check import Check, Errors, check_trajectories
from metabolismgraph.trajectories.fit import FOLLOWED
from metabolismgraph.trajectories.implicit_windows import WindowData, evaluate, triangular
from metabolismgraph.trajectories.noise import NoiseModel, noise_of_differences

# Largest acceptable errors, relative to the signal of a species: residual, systematic residual, prediction error.
_MAX_UNEXPLAINED = 0.1
_MAX_MISFIT = 0.02
_MAX_PREDICTION_ERROR = 0.1
# Lower bounds of the signal: shares of the gross flux through a species (in a quasi-steady state, dc/dt is a small
# difference of large rates), of its rms dc/dt in the training frames, and of its range.
_OF_FLUX, _OF_LEARNED, _OF_RANGE = 1e-2, 0.1, 0.05
_ROUNDINGS = 3  # errors of so many standard deviations of rounding are rounding
_WINDOWS = 4  # rollouts on the held-out frames of a run
_SHORTEST_WINDOW = 8  # steps
_MAX_LEFT_OUT = 0.1  # share of the transitions
_MAX_COARSE = 0.1  # share of the flux through a species by reactions with too large a sampling error
_EQUATIONS_PER_UNKNOWN = 2  # at least
_MOSTLY_NOISE = 0.7  # if the systematic share of the rms residual is below this, the rest is mostly noise
_RELATIVE, _ABSOLUTE = 1e-6, 1e-9  # tolerances of LSODA, the second relative to the largest value of each species
# A rollout is stopped after this number of evaluations of dc/dt, or at this multiple of the largest concentration.
_MAX_EVALUATIONS, _DIVERGED = 20_000, 1e6
# For fits of trajectories: residual over the noise of the data; correlation of neighbouring
# residuals; noise relative to the spread of a species, and the share below which it is rounding; windows, in frames.
_MAX_EXCESS, _MAX_CORRELATION, _MAX_NOISE, _ROUNDING = 1.5, 0.15, 0.5, 1e-5
_ERROR_OF_NOISE = 3.6  # two sampling errors of the noise of differences, relative, times the root of the frames
_LEAST_WINDOW, _LONG_WINDOW = 32, 32
_CHAOTIC = 1e3  # growth of an error of an initial state above which a window is hard to follow
# For fits of implicit windows: relative noise and error of the integrator below which nothing is seen, multiple of the
# expected error, relative noise of the concentrations, and decades of the prior of log10 k.
_LEAST_NOISE, _SOLVER_ERROR, _TIMES_EXPECTED, _MAX_WINDOW_NOISE, _DECADES = 1e-6, 1e-6, 3.0, 0.2, 3.0
_MAX_ERROR = 1e3  # relative errors are cut off here; an infinite one becomes this
_UNTESTED = "no frames could test a prediction (raise training.held_out_fraction, or give longer runs)"


@dataclasses.dataclass(frozen=True, repr=False)
class Trust(Overview):
    """The verdict and the errors on which it is based.

    Errors are dimensionless, relative to the signal of each species; NaN where there is none.

    Attributes:
        why_not: a phrase for each reason against the fit; empty for a trustworthy fit.
        unexplained: rms residual of dc/dt in the training frames.
        misfit: the same without the part that is consistent with white measurement noise.
        held_out: rms error of dc/dt in the held-out frames.
        rollout: rms error of rollouts over the held-out frames.
        fitted: after a fit of trajectories, those of the model in the held-out frames, in concentration, NaN in
            other frames: the initial states of windows are fitted to the samples, everything else is as it was fitted
            to the other frames, or within its errors. None after other fits, and without held-out frames.
    """

    why_not: tuple[str, ...]
    unexplained: Float[np.ndarray, " species"]
    misfit: Float[np.ndarray, " species"]
    held_out: Float[np.ndarray, " species"]
    rollout: Float[np.ndarray, " species"]
    fitted: Float[np.ndarray, "frames species"] | None = None

    def _overview(self) -> tuple[str, Rows]:
        rows = [("trusted", "no" if self.why_not else "yes")]
        return "trust", [*rows, *(("why not", reason) for reason in self.why_not)]

    @property
    def trustworthy(self) -> bool:
        return not self.why_not


def judge_trust(observations: Observations, found: Phase1Result, graph_model: GraphModel, training: Training) -> Trust:
    """Judge the rate constants, rate law and lines of homeostasis of Phase 1.

    Args:
        observations: all observations, including the held-out frames.
        found: result of Phase 1 on the other frames.
        graph_model, training: sections of the configuration of this fit.
    """
    units = Units.of(observations, graph_model)
    rounding = _rounding(observations.concentration) / units.concentration
    observations = units.observations(observations)
    found = found.in_units(units.inverse(), observations.network)
    structure = Structure.of(observations.network)
    moving = _moving(observations)
    line = (np.where(moving, found.slope, 0.0), np.where(moving, found.offset, 0.0))
    held = observations.held_out(*training.held_out)
    if found.windows is not None:
        return _trust_in_windows(observations, found, found.windows, training)
    if found.trajectories is not None:
        trust = _trust_in_trajectories(observations, found, found.trajectories, structure, line, held)
        if trust.fitted is None:
            return trust
        return dataclasses.replace(trust, fitted=trust.fitted * units.concentration)
    k = 10.0**found.log_k
    table = TabulatedReactions.of(found.mlp_sub, k, structure, graph_model.aggr_type, observations.concentration)
    errors = _Errors(observations, table, line, moving, held, rounding)
    unexplained, misfit = errors.of_learned(found.keep, found.rule)
    held_out, rollout = errors.of_held_out(found.rule), errors.of_rollouts(found.rule)
    large = bool((unexplained > _MAX_UNEXPLAINED).any())
    limits = (
        (unexplained, _MAX_UNEXPLAINED, "residual of dc/dt {share} the signal ({names})"),
        # A systematic residual is part of the whole, and is mentioned only if that is not large.
        (misfit, np.inf if large else _MAX_MISFIT, "systematic residual {share} the signal ({names})"),
        (held_out, _MAX_PREDICTION_ERROR, "error of held-out dc/dt {share} the signal ({names})"),
        (rollout, _MAX_PREDICTION_ERROR, "error of held-out rollouts {share} the change ({names})"),
    )
    why_not = [text for limit in limits for text in _complaint(*limit, observations.network.species)]
    why_not += _other_reasons(found, training, observations.network, errors)
    if not np.isfinite(held_out).any():
        why_not.append(_UNTESTED)
    beyond = unexplained > 0  # rounding alone leaves nothing
    if large and np.nanmedian(misfit[beyond] / unexplained[beyond]) < _MOSTLY_NOISE:
        why_not.append("most of the residual looks like measurement noise, which the model does not include")
    return Trust(tuple(why_not), unexplained, misfit, held_out, rollout)


def _trust_in_trajectories(
    observations: Observations,
    found: Phase1Result,
    evidence: TrajectoryEvidence,
    structure: Structure,
    line: tuple[Float[np.ndarray, " species"], Float[np.ndarray, " species"]],
    held: Bool[np.ndarray, " frames"],
) -> Trust:
    """The verdict on a fit of trajectories: they must be followed up to the noise, in frames that were not used too.

    dc/dt is not compared: differences of neighbouring frames amplify the noise. The fitted trajectories that it holds
    are in the units of the observations, as they are given here.
    """
    moving = _moving(observations)
    spread = np.maximum(observations.concentration.std(axis=0), 1e-300)
    noise = NoiseModel(evidence.noise, evidence.proportional, evidence.reference)

    def log_f(log_c: Float[np.ndarray, " points"], order: float) -> Float[np.ndarray, " points"]:
        return found.mlp_sub(log_c, np.full(log_c.shape, order))

    def check(part: Observations, length: int) -> Check:
        errors = Errors(evidence.covariance, np.log(evidence.law_concentration), evidence.law_basis)
        return check_trajectories(part, structure, log_f, found.log_k, line, evidence.integrator, noise, length, errors)

    # Noise far below the signal is rounding and the error of the integration, which need not be white.
    visible = moving & (evidence.noise > _ROUNDING * spread)
    names = observations.network.species
    unexplained = np.where(moving, evidence.noise / spread, np.nan)
    excess = evidence.noise / evidence.noise_of_differences
    why_not = []
    if found.law_fails:
        why_not.append("the stated rate law, mass action, does not hold")
    if evidence.chi2 > FOLLOWED:
        why_not.append(f"the model does not follow the trajectories: chi squared per value is {evidence.chi2:.3g}")
    values = max(int((~held).sum()), 1)
    if evidence.proportional == 0 or evidence.chi2 > FOLLOWED:
        # Few differences in time tell little about the noise.
        limit = _MAX_EXCESS * (1 + _ERROR_OF_NOISE / np.sqrt(values))
        text = "residual of trajectories {share} the noise of the data ({names})"
        why_not += _complaint(np.where(visible, excess, np.nan), limit, text, names)
    limit = _MAX_CORRELATION + 4 / np.sqrt(values)
    correlated = np.where(visible, evidence.autocorrelation, np.nan)
    why_not += _complaint(correlated, limit, "correlated residuals of trajectories, up to {percent} ({names})", names)
    # The residual of a model that does not follow the data is not their noise.
    if np.nanmedian(unexplained) > _MAX_NOISE and evidence.chi2 < FOLLOWED:
        why_not.append(f"noise is {np.nanmedian(unexplained):.0%} of the signal")
    # Long windows of a chaotic system cannot be followed even with the right model.
    if evidence.refused and (evidence.window < _LEAST_WINDOW or evidence.growth < _CHAOTIC):
        why_not.append(f"the model cannot follow the trajectories over {evidence.refused} frames")
    nothing = np.full(len(names), np.nan)
    held_out = rollout = nothing
    fitted = None
    if held.any():
        fitted = np.full(observations.concentration.shape, np.nan)
        part = observations.select(held)
        for length in (_SHORTEST_WINDOW, _LONG_WINDOW):
            tested = check(part, length)
            # Sampling errors of a mean of squares, so that few values are not held against the model.
            limits = FOLLOWED + 5 * np.sqrt(2 / np.maximum(tested.values, 1))
            text = f"held-out trajectories over {length} frames deviate by {{share}} the noise ({{names}})"
            ratio = np.where(visible & (tested.chi2 > limits), np.sqrt(tested.chi2), np.nan)
            why_not += _complaint(np.minimum(ratio, _MAX_ERROR), 1.0, text, names)
            share = np.where(moving, np.minimum(tested.rms / spread, _MAX_ERROR), np.nan)
            held_out, rollout = (share, rollout) if length == _SHORTEST_WINDOW else (held_out, share)
        fitted[held] = tested.fitted  # of the long windows
    else:
        why_not.append(_UNTESTED)
    misfit = np.where(moving, np.sqrt(max(evidence.chi2 - 1, 0.0)) * evidence.noise / spread, np.nan)
    return Trust(tuple(why_not), unexplained, misfit, held_out, rollout, fitted)


def _trust_in_windows(
    observations: Observations, found: Phase1Result, evidence: WindowEvidence, training: Training
) -> Trust:
    """The verdict on a fit of implicit windows: every frame must lead to the next one, in held-out frames too.

    A residual is held against the fit only where it exceeds the effect of the noise of the data and, in held-out
    frames, that of the errors of log10 k.
    """
    seen, unseen = observations.split(*training.held_out)
    names, k = observations.network.species, 10.0**found.log_k
    data = WindowData.of(observations)
    moving, c = data.equation.moving, observations.concentration
    level = np.median(c[:, moving], axis=0)
    high = noise_of_differences(seen)[moving][level > 0] / level[level > 0]
    noise = max(float(np.median(high)) if high.size else 0.0, _LEAST_NOISE)
    spread = np.ptp(c[:, moving], axis=0)
    rounding = _SOLVER_ERROR * c[:, moving].max(axis=0)

    def shares(
        part: Observations, uncertain: np.ndarray | None
    ) -> tuple[Float[np.ndarray, " species"], Float[np.ndarray, " species"]]:
        windows = dataclasses.replace(WindowData.of(part), typical=data.typical)
        own = evaluate(windows, k, noise, uncertain)
        residual = np.where(np.isfinite(own.residual), own.residual, np.inf)
        change = windows.end[:, moving] - windows.start[:, moving]
        signal = np.maximum(np.maximum(_rms(change), _OF_RANGE * spread), rounding)
        with np.errstate(invalid="ignore", over="ignore"):
            size, expected = _rms(residual), _rms(np.where(np.isfinite(own.error), own.error, 0.0))
        beyond = np.where(size > _TIMES_EXPECTED * expected + rounding, size, 0.0)
        whole, excess = np.full(len(names), np.nan), np.full(len(names), np.nan)
        whole[moving], excess[moving] = np.minimum([size / signal, beyond / signal], _MAX_ERROR)
        return whole, excess

    why_not = [] if found.converged else ["Phase 1 did not converge"]
    unexplained, misfit = shares(seen, None)
    text = "residual of windows {share} the change, beyond the noise of the data ({names})"
    why_not += _complaint(misfit, _MAX_MISFIT, text, names)
    if evidence.noise > _MAX_WINDOW_NOISE:
        why_not.append(f"the residual of windows is {evidence.noise:.0%} of the concentrations")
    held_out = np.full(len(names), np.nan)
    if unseen is None:
        why_not.append(_UNTESTED)
    else:
        m = len(k)
        factor = triangular(evidence.root, np.eye(m) / _DECADES)
        held_out, excess = shares(unseen, scipy.linalg.solve_triangular(factor, np.eye(m)))
        text = "error of held-out windows {share} the change, beyond its expected error ({names})"
        why_not += _complaint(excess, _MAX_PREDICTION_ERROR, text, names)
    return Trust(tuple(why_not), unexplained, misfit, held_out, np.full(len(names), np.nan))


def _moving(observations: Observations) -> Bool[np.ndarray, " species"]:
    """True for a species that may change, and does."""
    return np.asarray(~observations.network.fixed & (np.ptp(observations.concentration, axis=0) > 0))


def _complaint(errors: Float[np.ndarray, " species"], most: float, text: str, names: tuple[str, ...]) -> list[str]:
    """A phrase with the species whose error is too large, in descending order of the error; empty without any."""
    with np.errstate(invalid="ignore"):
        bad = [i for i in np.argsort(-np.nan_to_num(errors, nan=0.0), kind="stable") if errors[i] > most]
    if not bad:
        return []
    shown = ", ".join(names[i] for i in bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
    worst = float(errors[bad[0]])
    percent = f"{float(f'{100 * worst:.3g}'):g} %"  # three digits, without a power of ten
    share = f"up to {percent} of" if worst < _MAX_ERROR else f"more than {_MAX_ERROR:.0f} times"
    return [text.format(share=share, percent=percent, names=shown)]


def _other_reasons(found: Phase1Result, training: Training, network: ReactionNetwork, errors: _Errors) -> list[str]:
    """Further reasons: too few equations, samples too far apart, a wrong rate law, too many outliers."""
    reasons = []
    moving = found.keep.any(axis=0)
    unknowns = len(found.log_k) + (training.nuisance_degree + 1) * int(moving.sum())
    if found.keep.sum() < _EQUATIONS_PER_UNKNOWN * unknowns:
        reasons.append(f"{int(found.keep.sum())} equations for {unknowns} unknowns are too few for a reliable fit")
    coarse = np.array([reason == TOO_COARSE for reason in found.reasons], dtype=bool)
    if errors.flux_share(coarse) > _MAX_COARSE:
        names = [network.reactions[j] for j in np.flatnonzero(coarse)]
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        reasons.append(f"samples are too far apart for {shown}")
    if found.law_fails:
        reasons.append("the stated rate law, mass action, does not hold")
    left_out = 1 - float(found.keep[:, moving].mean()) if moving.any() else 1.0
    if left_out > _MAX_LEFT_OUT:
        reasons.append(f"{left_out:.0%} of the changes did not fit the rate equation and were left out")
    return reasons


class _DivergedError(Exception):
    """A rollout diverges, or takes too many steps."""


class _Errors:
    """Errors of a model on observations, per species."""

    def __init__(
        self,
        observations: Observations,
        table: TabulatedReactions,
        line: tuple[Float[np.ndarray, " species"], Float[np.ndarray, " species"]],
        moving: Bool[np.ndarray, " species"],
        held_out: Bool[np.ndarray, " frames"],
        rounding: Float[np.ndarray, " species"],
    ):
        self.observations, self.table, self.moving = observations, table, moving
        self.slope, self.offset = line
        self.held_out_frames = held_out
        # Of concentrations, and of their differences over a step.
        self.rounding = rounding
        self.rounding_of_rates = np.sqrt(2.0) * rounding / observations.transitions().dt.min()
        self.contribution = abs(table.structure.sparse_stoichiometry)
        self.rate = self._rate(observations.concentration)
        fluxes = table.fluxes(observations.concentration)
        self.flux = _rms(fluxes)
        # The sum of absolute contributions to dc/dt. For a species in a quasi-steady state these cancel, and an error
        # that is small in comparison with them is large relative to dc/dt.
        gross = (self.contribution @ fluxes.T).T
        learned = observations.select(~held_out)
        self.signal = np.maximum(_rms(learned.transitions().derivative), _OF_FLUX * _rms(gross[~held_out]))

    def _rate(self, c: Float[np.ndarray, "*batch species"]) -> Float[np.ndarray, "*batch species"]:
        """dc/dt by reactions and lines of homeostasis, in concentration/time."""
        return np.asarray(self.table(c) + self.slope * c + self.offset)

    def flux_share(self, reactions: Bool[np.ndarray, " reactions"]) -> float:
        """The share of the given reactions in the flux through a species, for the species with the largest share."""
        total, chosen = self.contribution @ self.flux, self.contribution @ np.where(reactions, self.flux, 0.0)
        share = chosen[total > 0] / total[total > 0]
        return float(share.max(initial=0.0))

    def of_learned(
        self, keep: Bool[np.ndarray, "transitions species"], rule: Rule
    ) -> tuple[Float[np.ndarray, " species"], Float[np.ndarray, " species"]]:
        """Relative residual of dc/dt in the training frames: in total, and without white measurement noise.

        A measurement error e_t contributes e_(t+1) - e_t to a step: variance 2 s^2, and covariance -s^2 between
        consecutive steps. The variance due to noise is therefore minus twice this covariance.
        """
        seen = self.observations.select(~self.held_out_frames)
        t = seen.transitions()
        residual = t.derivative - StepQuadrature.of(seen, rule).mean(self.rate[~self.held_out_frames])
        if keep.shape == residual.shape:  # otherwise, the checkpoint was made from other frames
            residual = np.where(keep, residual, np.nan)
        # Residuals of changes of concentration, since noise adds the same variance to steps of any length.
        steps = residual * t.dt[:, None] / np.sqrt(np.mean(t.dt**2))
        consecutive = np.diff(t.frame) == 1
        with np.errstate(invalid="ignore"):
            products = (steps[1:] * steps[:-1])[consecutive]
            variance = _mean(steps**2)
            systematic = variance + 2 * np.minimum(_mean(products), 0.0)
        share = self._share(np.sqrt(_mean(residual**2)), self.signal, self.rounding_of_rates)
        return share, share * np.sqrt(np.clip(systematic / np.maximum(variance, 1e-300), 0.0, 1.0))

    def of_held_out(self, rule: Rule) -> Float[np.ndarray, " species"]:
        """Relative errors of dc/dt in the held-out frames."""
        if not self.held_out_frames.any():
            return np.full(len(self.moving), np.nan)
        unseen = self.observations.select(self.held_out_frames)
        derivative = unseen.transitions().derivative
        error = derivative - StepQuadrature.of(unseen, rule).mean(self.rate[self.held_out_frames])
        signal = np.maximum(_rms(derivative), _OF_LEARNED * self.signal)
        return self._share(_rms(error), signal, self.rounding_of_rates)

    def of_rollouts(self, rule: Rule) -> Float[np.ndarray, " species"]:
        """Relative errors of rollouts over the held-out frames."""
        # The signal is the rms change since the start of the rollout: the error of the prediction "nothing changes".
        spread = np.ptp(self.observations.concentration, axis=0)
        errors, changes = [], []
        for window in self._windows():
            states = self._roll(window, rule)
            observed = self.observations.concentration[window]
            errors.append(np.mean((states - observed)[1:] ** 2, axis=0))
            changes.append(np.mean((observed - observed[0])[1:] ** 2, axis=0))
        if not errors:
            return np.full(len(self.moving), np.nan)
        change = np.maximum(np.sqrt(np.mean(changes, axis=0)), _OF_RANGE * spread)
        return self._share(np.sqrt(np.mean(errors, axis=0)), change, self.rounding)

    def _share(
        self,
        error: Float[np.ndarray, " species"],
        signal: Float[np.ndarray, " species"],
        rounding: Float[np.ndarray, " species"],
    ) -> Float[np.ndarray, " species"]:
        """Errors beyond rounding relative to the signal, with an upper bound; NaN for fixed species."""
        with np.errstate(invalid="ignore"):
            error = np.sqrt(np.maximum(error**2 - (_ROUNDINGS * rounding) ** 2, 0.0))
        share = np.where(np.isinf(error), _MAX_ERROR, error / np.maximum(signal, 1e-300))
        return np.where(self.moving, np.minimum(share, _MAX_ERROR), np.nan)

    def _windows(self) -> Iterator[Int[np.ndarray, " frames"]]:
        """Frames of each rollout: consecutive windows over the held-out frames of every run."""
        # Several short rollouts instead of a long one: in chaotic systems, even the true model diverges from the data.
        run = self.observations.run
        for r in np.unique(run[self.held_out_frames]):
            frames = np.flatnonzero((run == r) & self.held_out_frames)
            length = max(-(-(len(frames) - 1) // _WINDOWS), _SHORTEST_WINDOW)
            for first in range(0, len(frames) - 1, length):
                window = frames[first : first + length + 1]
                if first == 0 or len(window) > _SHORTEST_WINDOW:
                    yield window

    def _roll(self, window: Int[np.ndarray, " frames"], rule: Rule) -> Float[np.ndarray, "frames species"]:
        """States at the times of a window, integrated from its first measured state; infinite after a divergence.

        Concentrations of fixed species are those of the data, interpolated linearly between samples.
        """
        observed, time = self.observations.concentration[window], self.observations.time[window]
        driven = scipy.interpolate.make_interp_spline(time, observed[:, ~self.moving], k=1)

        # An upper bound on evaluations: a stiff wrong model could keep LSODA busy for hours.
        budget = itertools.repeat(None, _MAX_EVALUATIONS)

        def rate(at: float, c: Float[np.ndarray, " species"]) -> Float[np.ndarray, " species"]:
            if next(budget, "spent") == "spent" or not (np.abs(c) < _DIVERGED * largest.max()).all():
                raise _DivergedError
            state = np.maximum(c, 0.0)
            state[~self.moving] = driven(at)
            return np.where(self.moving, self._rate(state), 0.0)

        states = np.full(observed.shape, np.inf)
        largest = self.observations.concentration.max(axis=0)
        with np.errstate(all="ignore"), warnings.catch_warnings(), contextlib.suppress(_DivergedError):
            warnings.simplefilter("ignore")  # a failure of LSODA is visible in `states`
            if rule == "forward":
                states[0] = observed[0]
                for step in range(len(time) - 1):
                    ahead = states[step] + (time[step + 1] - time[step]) * rate(time[step], states[step])
                    states[step + 1] = np.maximum(ahead, 0.0)
            else:
                solution = scipy.integrate.solve_ivp(
                    rate,
                    (time[0], time[-1]),
                    observed[0],
                    t_eval=time,
                    method="LSODA",
                    rtol=_RELATIVE,
                    atol=_ABSOLUTE * np.maximum(largest, largest.max() * _ABSOLUTE),
                )
                states[: solution.y.shape[1]] = solution.y.T
        states[:, ~self.moving] = observed[:, ~self.moving]
        return states


def _rounding(c: Float[np.ndarray, "frames species"]) -> Float[np.ndarray, " species"]:
    """Standard deviation of the rounding of each species, if all values are of single precision; otherwise zero.

    The dc/dt of a species close to its baseline can be of the size of this rounding, which no model predicts.

    Example:
        >>> _rounding(np.array([[0.1], [0.2]], dtype=np.float32).astype(float)) > 0
        array([ True])
        >>> _rounding(np.array([[0.1], [0.2]]))
        array([0.])
    """
    single = c.astype(np.float32)
    if not (single == c).all():
        return np.zeros(c.shape[1])
    # Values between two neighbouring numbers are equally probable: the variance is their distance squared over 12.
    return np.asarray(np.sqrt(np.mean(np.spacing(single).astype(np.float64) ** 2, axis=0) / 12))


def _mean(values: Float[np.ndarray, "rows species"]) -> Float[np.ndarray, " species"]:
    """Mean over finite values; NaN without any."""
    finite = np.isfinite(values)
    count = np.where(finite.any(axis=0), finite.sum(axis=0), np.nan)
    return np.asarray(np.where(finite, values, 0.0).sum(axis=0) / count)


def _rms(values: Float[np.ndarray, "rows species"]) -> Float[np.ndarray, " species"]:
    return np.asarray(np.sqrt(np.mean(values**2, axis=0))) if len(values) else np.zeros(values.shape[1])
