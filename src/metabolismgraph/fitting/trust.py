"""Whether a fit is to be trusted: one verdict, from what it leaves unexplained and from what it predicts.

Three looks at every species: what is left of dc/dt in the frames that were learned from, the same in the
frames that were kept aside, and rollouts there, integrated between the sample times from one measured
state on. Each error is a share of the species' own signal. A small residual alone proves little: a wrong
model may bend to the data that it was fitted to, and it is the rollouts that show it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import warnings
from collections.abc import Iterator

import numpy as np
import scipy.integrate
import scipy.interpolate
from jaxtyping import Bool, Float, Int

from metabolismgraph.config import GraphModel, Training
from metabolismgraph.reactions.result import Phase1Result
from metabolismgraph.reactions.verdict import TOO_COARSE
from metabolismgraph.system.derivative_rules import Rule, StepQuadrature
from metabolismgraph.system.kinetics import Structure
from metabolismgraph.system.network import ReactionNetwork
from metabolismgraph.system.observations import Observations
from metabolismgraph.system.tabulated_reactions import TabulatedReactions
from metabolismgraph.system.units import Units

# Errors above these shares of a species' signal are too large.
_MOST_UNEXPLAINED = 0.1
_MOST_MISFIT = 0.02
_MOST_MISSED = 0.1
# Least signal that an error is compared with: shares of the gross flux through a species (one in a quasi-steady state
# has a dc/dt that is a small difference of large rates), of its dc/dt while learning, and of its range.
_OF_FLUX, _OF_LEARNED, _OF_RANGE = 1e-2, 0.1, 0.05
_WINDOWS = 4  # rollouts on the held-out frames of a run
_SHORTEST_WINDOW = 8  # steps
_MOST_LEFT_OUT = 0.1  # share of the changes
_MOST_COARSE = 0.1  # share of the flux through a species
_EQUATIONS_PER_UNKNOWN = 2
_MOSTLY_NOISE = 0.7  # share of the residual's rms that is no noise, at most
_RELATIVE, _ABSOLUTE = 1e-6, 1e-9  # tolerances of the integration, the second as a share of each species' largest value
# A rollout is given up after so many evaluations of dc/dt, or beyond so many times the largest concentration.
_MOST_EVALUATIONS, _BLOWN_UP = 20_000, 1e6
_FAR_OFF = 1e3  # a rollout error beyond this is as good as infinite


@dataclasses.dataclass(frozen=True)
class Trust:
    """The verdict, and the errors that it rests on, as shares of each species' signal; NaN where there is none.

    Attributes:
        why_not: one phrase for each reason; empty where the fit is to be trusted.
        unexplained: rms residual of dc/dt on the training frames.
        misfit: the same without the part that looks like measurement noise.
        held_out: rms error of dc/dt on the held-out frames.
        rollout: rms error of rollouts there.
    """

    why_not: tuple[str, ...]
    unexplained: Float[np.ndarray, " species"]
    misfit: Float[np.ndarray, " species"]
    held_out: Float[np.ndarray, " species"]
    rollout: Float[np.ndarray, " species"]

    @property
    def trustworthy(self) -> bool:
        return not self.why_not


def judge_trust(observations: Observations, found: Phase1Result, graph_model: GraphModel, training: Training) -> Trust:
    """Judge the rate constants, rate law and lines of homeostasis that Phase 1 found.

    Args:
        observations: all of them, with the held-out frames that training did not see.
        found: what Phase 1 found in the others.
        graph_model, training: the configuration's sections that it was learned with.
    """
    units = Units.of(observations, graph_model)
    observations = units.observations(observations)
    found = found.in_units(units.inverse(), observations.network)
    structure = Structure.of(observations.network)
    moving = ~observations.network.fixed & (np.ptp(observations.concentration, axis=0) > 0)
    table = TabulatedReactions.of(
        found.mlp_sub,
        10.0**found.log_k,
        structure,
        graph_model.aggr_type,
        observations.concentration,
    )
    line = (np.where(moving, found.slope, 0.0), np.where(moving, found.offset, 0.0))
    errors = _Errors(observations, table, line, moving, observations.held_out(training.held_out_fraction))
    unexplained, misfit = errors.of_learned(found.keep, found.rule)
    held_out, rollout = errors.of_held_out(found.rule), errors.of_rollouts(found.rule)
    names = observations.network.species
    why_not = [
        *_complaint(unexplained, _MOST_UNEXPLAINED, "residual of dc/dt up to {share} of the signal ({names})", names),
        *(
            _complaint(misfit, _MOST_MISFIT, "systematic residual up to {share} of the signal ({names})", names)
            if not (unexplained > _MOST_UNEXPLAINED).any()
            else ()
        ),
        *_complaint(held_out, _MOST_MISSED, "error of held-out dc/dt up to {share} of the signal ({names})", names),
        *_complaint(rollout, _MOST_MISSED, "error of held-out rollouts up to {share} of the change ({names})", names),
        *_other_reasons(found, training, observations.network, errors),
    ]
    if not np.isfinite(held_out).any():
        why_not.append("no frames were held out that could test a prediction")
    if (unexplained > _MOST_UNEXPLAINED).any() and np.nanmedian(misfit / unexplained) < _MOSTLY_NOISE:
        why_not.append("most of the residual looks like measurement noise, which is not modelled yet")
    return Trust(tuple(why_not), unexplained, misfit, held_out, rollout)


def _complaint(errors: Float[np.ndarray, " species"], most: float, text: str, names: tuple[str, ...]) -> list[str]:
    """One phrase that names the species with too large an error, the worst first."""
    with np.errstate(invalid="ignore"):
        bad = [i for i in np.argsort(-np.nan_to_num(errors, nan=0.0), kind="stable") if errors[i] > most]
    if not bad:
        return []
    shown = ", ".join(names[i] for i in bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
    worst = float(errors[bad[0]])
    return [text.format(share=f"{100 * worst:.3g} %", names=shown)]


def _other_reasons(found: Phase1Result, training: Training, network: ReactionNetwork, errors: _Errors) -> list[str]:
    """Reasons beside the errors: too few equations, samples too far apart, a wrong rate law, too many outliers."""
    reasons = []
    moving = found.keep.any(axis=0)
    unknowns = len(found.log_k) + (training.nuisance_degree + 1) * int(moving.sum())
    if found.keep.sum() < _EQUATIONS_PER_UNKNOWN * unknowns:
        reasons.append(
            f"{int(found.keep.sum())} equations for {unknowns} unknowns are too few to tell a fit from the truth"
        )
    coarse = np.array([reason == TOO_COARSE for reason in found.reasons], dtype=bool)
    if errors.flux_share(coarse) > _MOST_COARSE:
        names = [network.reactions[j] for j in np.flatnonzero(coarse)]
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        reasons.append(f"samples are too far apart for {shown}")
    if found.law_fails:
        reasons.append("the stated rate law, mass action, does not hold")
    usable = found.keep.any(axis=0)
    left_out = 1 - float(found.keep[:, usable].mean()) if usable.any() else 1.0
    if left_out > _MOST_LEFT_OUT:
        reasons.append(f"{left_out:.0%} of the changes did not fit the rate equation and were left out")
    return reasons


class _HopelessError(Exception):
    """A rollout blows up, or asks for more steps than any healthy model."""


class _Errors:
    """Errors of a model on observations, species by species."""

    def __init__(
        self,
        observations: Observations,
        table: TabulatedReactions,
        line: tuple[Float[np.ndarray, " species"], Float[np.ndarray, " species"]],
        moving: Bool[np.ndarray, " species"],
        held_out: Bool[np.ndarray, " frames"],
    ):
        self.observations, self.table, self.moving = observations, table, moving
        self.slope, self.offset = line
        self.held_out_frames = held_out
        self.stoichiometry = np.asarray(table.structure.stoichiometry)
        self.rate = self._rate(observations.concentration)
        self.flux = _rms(table.fluxes(observations.concentration))
        gross = table.fluxes(observations.concentration) @ np.abs(self.stoichiometry).T
        learned = observations.select(~held_out)
        self.signal = np.maximum(_rms(learned.transitions().derivative), _OF_FLUX * _rms(gross[~held_out]))

    def _rate(self, c: Float[np.ndarray, "*batch species"]) -> Float[np.ndarray, "*batch species"]:
        """dc/dt by reactions and the lines of homeostasis."""
        return np.asarray(self.table(c) + self.slope * c + self.offset)

    def flux_share(self, reactions: Bool[np.ndarray, " reactions"]) -> float:
        """Largest share of the flux through a species that some reactions carry."""
        through = np.abs(self.stoichiometry) * self.flux
        total = through.sum(axis=1)
        share = through[:, reactions].sum(axis=1)[total > 0] / total[total > 0]
        return float(share.max(initial=0.0))

    def of_learned(
        self, keep: Bool[np.ndarray, "transitions species"], rule: Rule
    ) -> tuple[Float[np.ndarray, " species"], Float[np.ndarray, " species"]]:
        """What is left of dc/dt in the frames that were learned from: all of it, and what is no measurement noise.

        White noise of the measurements makes neighbouring differences anticorrelated: of the residual's variance it
        explains minus twice the covariance of neighbours.
        """
        seen = self.observations.select(~self.held_out_frames)
        t = seen.transitions()
        left = t.derivative - StepQuadrature.of(seen, rule).mean(self.rate[~self.held_out_frames])
        if keep.shape == left.shape:
            left = np.where(keep, left, np.nan)
        steps = left * t.dt[:, None] / np.sqrt(np.mean(t.dt**2))
        neighbours = np.diff(t.frame) == 1
        with np.errstate(invalid="ignore"):
            both = (steps[1:] * steps[:-1])[neighbours]
            variance = _mean(steps**2)
            smooth = variance + 2 * np.minimum(_mean(both), 0.0)
        share = self._share(np.sqrt(_mean(left**2)), self.signal)
        return share, share * np.sqrt(np.clip(smooth / np.maximum(variance, 1e-300), 0.0, 1.0))

    def of_held_out(self, rule: Rule) -> Float[np.ndarray, " species"]:
        """Errors of dc/dt on the held-out frames."""
        if not self.held_out_frames.any():
            return np.full(len(self.moving), np.nan)
        unseen = self.observations.select(self.held_out_frames)
        derivative = unseen.transitions().derivative
        error = derivative - StepQuadrature.of(unseen, rule).mean(self.rate[self.held_out_frames])
        return self._share(_rms(error), np.maximum(_rms(derivative), _OF_LEARNED * self.signal))

    def of_rollouts(self, rule: Rule) -> Float[np.ndarray, " species"]:
        """Errors of rollouts on the held-out frames."""
        spread = np.ptp(self.observations.concentration, axis=0)
        missed, moved = [], []
        for window in self._windows():
            states = self._roll(window, rule)
            observed = self.observations.concentration[window]
            missed.append(np.mean((states - observed)[1:] ** 2, axis=0))
            moved.append(np.mean((observed - observed[0])[1:] ** 2, axis=0))
        if not missed:
            return np.full(len(self.moving), np.nan)
        change = np.maximum(np.sqrt(np.mean(moved, axis=0)), _OF_RANGE * spread)
        return self._share(np.sqrt(np.mean(missed, axis=0)), change)

    def _share(
        self, error: Float[np.ndarray, " species"], signal: Float[np.ndarray, " species"]
    ) -> Float[np.ndarray, " species"]:
        share = np.where(np.isinf(error), _FAR_OFF, error / np.maximum(signal, 1e-300))
        return np.where(self.moving, np.minimum(share, _FAR_OFF), np.nan)

    def _windows(self) -> Iterator[Int[np.ndarray, " frames"]]:
        """Frames of each rollout: a few windows side by side over the held-out end of every run."""
        run = self.observations.run
        for r in np.unique(run[self.held_out_frames]):
            frames = np.flatnonzero((run == r) & self.held_out_frames)
            length = max(-(-(len(frames) - 1) // _WINDOWS), _SHORTEST_WINDOW)
            for first in range(0, len(frames) - 1, length):
                window = frames[first : first + length + 1]
                if first == 0 or len(window) > _SHORTEST_WINDOW:
                    yield window

    def _roll(self, window: Int[np.ndarray, " frames"], rule: Rule) -> Float[np.ndarray, "frames species"]:
        """States at the times of a window, from its first measured state on; infinite where the model blows up.

        What the model does not move, it takes from the data, between samples along a straight line.
        """
        observed, time = self.observations.concentration[window], self.observations.time[window]
        driven = scipy.interpolate.make_interp_spline(time, observed[:, ~self.moving], k=1)

        budget = itertools.repeat(None, _MOST_EVALUATIONS)

        def rate(at: float, c: Float[np.ndarray, " species"]) -> Float[np.ndarray, " species"]:
            if next(budget, "spent") == "spent" or not (np.abs(c) < _BLOWN_UP * largest.max()).all():
                raise _HopelessError
            state = np.maximum(c, 0.0)
            state[~self.moving] = driven(at)
            return np.where(self.moving, self._rate(state), 0.0)

        states = np.full(observed.shape, np.inf)
        largest = self.observations.concentration.max(axis=0)
        with np.errstate(all="ignore"), warnings.catch_warnings(), contextlib.suppress(_HopelessError):
            warnings.simplefilter("ignore")  # LSODA's own words on what `states` says
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


def _mean(values: Float[np.ndarray, "rows species"]) -> Float[np.ndarray, " species"]:
    """Mean over the rows that are there; NaN where there is none."""
    there = np.isfinite(values)
    return np.asarray(np.where(there, values, 0.0).sum(axis=0) / np.where(there.any(axis=0), there.sum(axis=0), np.nan))


def _rms(values: Float[np.ndarray, "rows species"]) -> Float[np.ndarray, " species"]:
    return np.asarray(np.sqrt(np.mean(values**2, axis=0))) if len(values) else np.zeros(values.shape[1])
