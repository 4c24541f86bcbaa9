"""Homeostasis from frames that were held out: what learned homeostasis is compared with where noise hides dc/dt."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from metabolismgraph.errors import InputError
from metabolismgraph.fitting.result import FitResult
from metabolismgraph.homeostasis.types_from_lines import inverse_of_lines
from metabolismgraph.system.kinetics import Structure
from metabolismgraph.system.threads import single_thread
from metabolismgraph.trajectories.rates import RateEquation
from metabolismgraph.trajectories.stages import Stages, Start
from metabolismgraph.trajectories.windows import Windows
from metabolismgraph.uncertainty.fitted_model import FittedModel

_FIRST, _TIED, _GAPS = 8, 32, (1.0, 0.1, 0.01)  # frames of windows; gaps between tied ones, relative to the noise
_VISIBLE = 3.0  # standard deviations of the squared distance by which homeostasis must show


class HeldOutLines(NamedTuple):
    """Lines of homeostasis that the held-out frames show, with reactions fitted to the same frames.

    Attributes:
        slope, offset: of every species, in 1/time and concentration/time.
        inverse: of their covariance: all slopes, then all offsets.
        moving: False for species without homeostasis.
    """

    slope: Float[np.ndarray, " species"]
    offset: Float[np.ndarray, " species"]
    inverse: Float[np.ndarray, "lines lines"]
    moving: Bool[np.ndarray, " species"]

    def distance(self, slope: Float[np.ndarray, " species"], offset: Float[np.ndarray, " species"]) -> float:
        """Squared distance of other lines in units of the covariance; its expected value for the true ones is zero."""
        left = np.concatenate([slope - self.slope, offset - self.offset])
        left[~np.tile(self.moving, 2)] = 0.0
        return float(left @ self.inverse @ left) - 2 * int(self.moving.sum())

    def skill(self, slope: Float[np.ndarray, " species"], offset: Float[np.ndarray, " species"]) -> float:
        """The share of the distance of no homeostasis that lines remove (a skill score, Murphy 1988).

        NaN if homeostasis does not rise above the noise of the held-out frames.
        """
        nothing = np.zeros(len(self.slope))
        without = self.distance(nothing, nothing)
        if without < _VISIBLE * np.sqrt(4 * self.moving.sum()):
            return float("nan")
        return 1 - self.distance(slope, offset) / without


def held_out_lines(result: FitResult) -> HeldOutLines | None:
    """The lines of homeostasis by a fit of the held-out trajectories, which starts from the result of Phase 1.

    Returns:
        None if there are no held-out frames, if Phase 1 was not a fit of trajectories, or if they diverge.

    Example:
        >>> import metabolismgraph as mg
        >>> settings = ["simulation.n_frames=240", "training.phase1_method=shooting"]
        >>> config = mg.load_config("small", [*settings, "training.homeostasis_training=false"])
        >>> data = mg.simulate(config)
        >>> found = held_out_lines(mg.fit(data.observations, config))
        >>> round(found.skill(-data.truth.lam, data.truth.lam * data.truth.baseline), 3)
        1.0
    """
    _, unseen = result.observations.split(*result.training.held_out)
    if unseen is None or result.phase1.trajectories is None:
        return None
    try:
        model = FittedModel.of(result)
    except InputError:  # a checkpoint of other data
        return None
    own, fitted = model.units.observations(unseen), model.stages.equation
    structure = Structure.of(dataclasses.replace(own.network, fixed=~fitted.moving))
    with single_thread(), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        stages = Stages(own, structure, np.zeros(own.network.n_species, dtype=bool))
        theta = _with_spline_of(stages.equation, fitted, model.start.theta)
        parts = np.ones(own.n_frames, dtype=np.int64)
        start = Start(model.start.integrator, theta, stages.path, model.start.noise, stages.prior(theta), parts)
        start = dataclasses.replace(start, parts=stages.parts(start, _TIED))
        stage = stages.fit(start, _FIRST, goal="start", known=True)
        windows = Windows.cut(own, _TIED, tied=True)
        for gap in _GAPS:
            stage = stages.fit_tied(stage.start, windows, gap, "end" if gap == _GAPS[-1] else "start")
            windows = stage.fitted.problem.windows
    u, covariance = stages.equation.unknowns, stage.fitted.covariance
    if not np.isfinite(stage.fitted.chi2):
        return None
    lines = slice(u.slope.start, u.offset.stop)
    n = own.network.n_species
    scale = np.repeat([1 / model.units.time, model.units.rate], n)
    found = stage.fitted.theta[lines] * scale
    in_units = covariance[lines, lines] * scale[:, None] * scale
    return HeldOutLines(found[:n], found[n:], inverse_of_lines(in_units), fitted.moving)


def _with_spline_of(
    equation: RateEquation, fitted: RateEquation, theta: Float[np.ndarray, " unknowns"]
) -> Float[np.ndarray, " others"]:
    """The unknowns for an equation with another spline."""
    laws = fitted.laws(theta)
    grid = np.linspace(equation.spline.low, equation.spline.high, 200)
    coefficients = [equation.spline.coefficients_of(grid, law(grid)[0]) for law in laws]
    return np.concatenate([theta[: fitted.unknowns.law.start], *coefficients])
