"""Which further measurement would help most (optimal experimental design; Pukelsheim 1993).

The fit gives the covariance C of the unknowns theta, and of the initial state x of every window given theta. A
concentration c = J_x x + J_theta theta of a window, with the normal matrix H of the window, has

    cov(theta, c) = C g',  g = J_theta - J_x inv(H_xx) H_xu
    var(c) = J_x inv(H_xx) J_x' + g C g'

A further measurement of c with noise s leaves the covariance C - C g' g C / (s^2 + var(c)), whatever its value will
be. Several measurements are treated the same way with matrices.

What is looked at is the least certain rate constant among those that the network and the frames can determine, and the
least certain slope of homeostasis among those that are no matter of a reaction: candidates are ranked by the largest
of these standard errors that is left, and then by that of the parameter that was the least certain.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import scipy
from jaxtyping import Float, Int

from metabolismgraph.fitting.result import FitResult
from metabolismgraph.overview import Overview, Rows
from metabolismgraph.system.progress import Progress, silent
from metabolismgraph.system.threads import single_thread
from metabolismgraph.trajectories.sensitivities import sensitivities
from metabolismgraph.uncertainty.fitted_model import FittedModel

_SERIES = 10  # measurements of a series
_BETTER = 10.0  # times by which an initial state is known better
_RIDGE = 1e-11  # relative, of the normal matrix of an initial state
_SHOWN = 2  # candidates of a kind in a short table
_LEAST_GAIN = 0.02  # relative fall of a standard error that is worth a sentence


class Target(NamedTuple):
    """The parameters of one kind whose largest standard error is looked at.

    Attributes:
        kind: k or slope.
        indices: their places among the unknowns.
    """

    kind: Literal["k", "slope"]
    indices: Int[np.ndarray, " targets"]


@dataclasses.dataclass(frozen=True)
class Window:
    """What a window knows of its concentrations.

    Attributes:
        inverse: of the normal matrix of the initial state.
        cross: H_xu.
    """

    inverse: Float[np.ndarray, "species species"]
    cross: Float[np.ndarray, "species unknowns"]

    def given(
        self, sensitivity: Float[np.ndarray, "rows columns"]
    ) -> tuple[Float[np.ndarray, "rows species"], Float[np.ndarray, "rows unknowns"]]:
        """J_x, and the derivative g of concentrations by the unknowns with the initial state following them."""
        n = len(self.inverse)
        by_state = sensitivity[:, :n]
        return by_state, sensitivity[:, n:] - by_state @ self.inverse @ self.cross


@dataclasses.dataclass(frozen=True, repr=False)
class Suggestions(Overview):
    """Further measurements, the most useful ones first.

    Attributes:
        table: a row per candidate, see `next_measurement`.
        runs: number of runs of the data.
    """

    table: pd.DataFrame
    runs: int

    def _overview(self) -> tuple[str, Rows]:
        return "what to measure next", [("suggestion", sentence) for sentence in self.sentences]

    def _frame(self) -> pd.DataFrame | None:
        return None if self.table.empty else self.best()

    def best(self, most: int = _SHOWN) -> pd.DataFrame:
        """The first rows of every target and kind of measurement."""
        return self.table.groupby(["target", "measurement"], sort=False).head(most)

    @property
    def sentences(self) -> tuple[str, ...]:
        """The best candidate of every target and kind of measurement in words."""
        if self.table.empty:
            return ("neither the network nor the data determine a rate constant or a slope",)
        lines = []
        for _, own in self.best(1).groupby("target", sort=False):
            gain = 1 - own["error_after"] / own["error_before"]
            useful = own[gain > _LEAST_GAIN]
            lines += [_sentence(row, several=self.runs > 1) for row in useful.to_dict("records")]
            if useful.empty:
                first = own.iloc[0]
                lines.append(
                    f"none of these measurements lowers the error of {_quantity(first['parameter'])} noticeably"
                )
        return tuple(lines)


def next_measurement(result: FitResult, *, anyway: bool = False, progress: Progress = silent) -> Suggestions:
    """Which further measurement would lower the largest standard errors most.

    Candidates: a species once more at a time of the data, a species ten times more at evenly spread times, and the
    initial state of a species in one run known ten times better. Noise is that of the fit.

    Args:
        result: of a fit with training.phase1_method=shooting, or where `auto` chose it.
        anyway: whether a fit that is not to be trusted is taken as well.
        progress: see `system.progress`.

    Returns:
        `sentences`, and a table with a row per candidate, the best ones of every target first. Columns: target (k or
        slope), measurement (once, series or start), species, run, time (empty for a series), parameter (the least
        certain one of the target), error_before, error_after (its standard errors, of log10 k or of the slope in
        1/time), largest_after (the largest standard error of the target afterwards).

    Raises:
        InputError: the fit is not one of trajectories, or not to be trusted.

    Example:
        >>> import metabolismgraph as mg
        >>> settings = ["simulation.n_frames=120", "training.phase1_method=shooting"]
        >>> config = mg.load_config("small", [*settings, "training.homeostasis_training=false"])
        >>> result = mg.fit(mg.simulate(config).observations, config)
        >>> table = mg.next_measurement(result).table
        >>> bool((table["error_after"] <= table["error_before"]).all())
        True
    """
    return next_of(FittedModel.trusted(result, anyway=anyway), progress)


def next_of(model: FittedModel, progress: Progress = silent) -> Suggestions:
    """The same for a fit that has been rebuilt."""
    found = [target for target in targets(model) if len(target.indices)]
    with single_thread(), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        windows = windows_of(model)
        progress("measurements", 0.5, "")
        rows = _candidates(model, windows, found)
    progress("measurements", 1.0, "")
    columns = ["target", "measurement", "species", "run", "time", "parameter"]
    table = pd.DataFrame(rows, columns=[*columns, "error_before", "error_after", "largest_after"])
    table["run"] = table["run"].astype("Int64")
    order = ["target", "largest_after", "error_after"]
    table = table.sort_values(order, kind="stable").reset_index(drop=True)
    return Suggestions(table, len(np.unique(model.stages.observations.run)))


def targets(model: FittedModel) -> tuple[Target, Target]:
    """The rate constants that network and frames can determine, and the slopes that are no matter of a reaction."""
    u = model.stages.equation.unknowns
    return (
        Target("k", np.flatnonzero(model.allowed.identifiable)),
        Target("slope", u.slope.start + np.flatnonzero(model.lines)),
    )


def windows_of(model: FittedModel) -> list[Window]:
    """What every window knows of its initial state, from the information of all of its measurements."""
    problem, found = model.problem, []
    n, total, rate = model.x.shape[1], problem.equation.unknowns.total, problem.equation.bind(model.theta)
    for part in problem.batches(n + total):
        hessian = np.zeros((len(model.x[part]), n, n + total))
        own = problem.windows.select(part)
        states = problem.states(own, rate, model.x[part])
        information = problem.misfit(own, states).information
        for frame in sensitivities(problem, own, rate, states):
            j = frame.sensitivities
            hessian += np.swapaxes(j[..., :n], 1, 2) @ (information[:, frame.number, :, None] * j)
        found += [Window(_inverse(one[:, :n]), one[:, n:]) for one in hessian]
    return found


def _inverse(matrix: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """The inverse of the normal matrix of an initial state; zero for a species that it does not depend on."""
    diagonal = np.diag(matrix)
    known = diagonal > 0
    scale = np.where(known, 1.0 / np.sqrt(np.where(known, diagonal, 1.0)), 0.0)
    scaled = matrix * scale[:, None] * scale
    np.fill_diagonal(scaled, 1.0 + _RIDGE)
    return np.asarray(scale[:, None] * scipy.linalg.pinvh(scaled) * scale)


class _Frames(NamedTuple):
    """Concentrations of one frame of a window, for all species that are measured.

    Attributes:
        window, frame: of the window, and in the observations.
        by_state, by_unknowns: J_x and g.
    """

    window: int
    frame: int
    by_state: Float[np.ndarray, "moving species"]
    by_unknowns: Float[np.ndarray, "moving unknowns"]


def _frames(model: FittedModel, windows: Sequence[Window]) -> Iterator[_Frames]:
    """Every frame of every window, with the derivatives of its concentrations."""
    problem, moving = model.problem, model.stages.equation.moving
    columns, rate = model.x.shape[1] + problem.equation.unknowns.total, problem.equation.bind(model.theta)
    for part in problem.batches(columns):
        own = problem.windows.select(part)
        for frame in sensitivities(problem, own, rate, problem.states(own, rate, model.x[part])):
            for w in np.flatnonzero(own.valid[:, frame.number]):
                window, at = part.start + int(w), int(own.frame[w, frame.number])
                yield _Frames(window, at, *windows[window].given(frame.sensitivities[w][moving]))


class _Best:
    """The most useful frame of every species for one target and one kind of measurement."""

    def __init__(self, species: int):
        self.largest, self.error = np.full(species, np.inf), np.full(species, np.inf)
        self.frame = np.zeros(species, dtype=np.int64)

    def add(self, frame: int, largest: Float[np.ndarray, " species"], error: Float[np.ndarray, " species"]) -> None:
        """Take the measurements of a frame into account."""
        better = (largest < self.largest) | ((largest == self.largest) & (error < self.error))
        self.largest, self.error = np.where(better, largest, self.largest), np.where(better, error, self.error)
        self.frame = np.where(better, frame, self.frame)


def _candidates(model: FittedModel, windows: Sequence[Window], found: Sequence[Target]) -> list[tuple[object, ...]]:
    """A row per target, kind of measurement and species."""
    observations, moving = model.stages.observations, model.stages.equation.moving
    chosen = set(np.linspace(0, observations.n_frames - 1, _SERIES).round().astype(int).tolist())
    first = np.diff(observations.run, prepend=-1) != 0
    best = {(t, kind): _Best(int(moving.sum())) for t in range(len(found)) for kind in ("once", "start", "series")}
    series = []
    for one in _frames(model, windows):
        variance = np.einsum("is,is->i", one.by_state @ windows[one.window].inverse, one.by_state)
        with_all = model.covariance @ one.by_unknowns.T
        variance = variance + np.einsum("iu,ui->i", one.by_unknowns, with_all)
        noise = model.problem.measurements.sigma[one.frame, moving] ** 2
        # A measurement of the initial state with the second variance leaves a hundredth of its own.
        extra = {"once": noise} | ({"start": variance / (_BETTER**2 - 1)} if first[one.frame] else {})
        for t, target in enumerate(found):
            before = np.diag(model.covariance)[target.indices]
            for kind, more in extra.items():
                fall = with_all[target.indices] ** 2 / np.maximum(variance + more, 1e-300)
                best[t, kind].add(one.frame, *_errors(before, fall))
        if one.frame in chosen:
            series.append(one)
    for t, target in enumerate(found):
        before = np.diag(model.covariance)[target.indices]
        falls = [fall_by_series(model, windows, series, i, target.indices) for i in range(int(moving.sum()))]
        best[t, "series"].add(-1, *_errors(before, np.stack(falls, axis=1)))
    rows = []
    for (t, kind), one_best in best.items():
        rows += _rows(model, found[t], kind, one_best)
    return rows


def _errors(
    before: Float[np.ndarray, " targets"], fall: Float[np.ndarray, "targets species"]
) -> tuple[Float[np.ndarray, " species"], Float[np.ndarray, " species"]]:
    """The largest standard error after a fall of the variances, and that of the parameter that had the largest."""
    after = np.sqrt(np.maximum(before[:, None] - fall, 0.0))
    return after.max(axis=0), after[int(np.argmax(before))]


def fall_by_series(
    model: FittedModel,
    windows: Sequence[Window],
    frames: Sequence[_Frames],
    species: int,
    indices: Int[np.ndarray, " targets"],
) -> Float[np.ndarray, " targets"]:
    """The fall of some variances by measurements of one species in several frames.

    Args:
        species: index among those that are measured.
    """
    moving = np.flatnonzero(model.stages.equation.moving)
    g = np.stack([one.by_unknowns[species] for one in frames])
    states = np.stack([one.by_state[species] for one in frames])
    window = np.array([one.window for one in frames])
    # Initial states of different windows are independent, given the unknowns.
    inner = np.array([states[i] @ windows[w].inverse @ states.T for i, w in enumerate(window)])
    inner = np.where(window[:, None] == window, inner, 0.0)
    noise = model.problem.measurements.sigma[[one.frame for one in frames], moving[species]] ** 2
    with_all = model.covariance @ g.T
    own = with_all[indices]
    return np.asarray(np.sum(own * np.linalg.solve(inner + g @ with_all + np.diag(noise), own.T).T, axis=1))


def _rows(model: FittedModel, target: Target, kind: str, best: _Best) -> list[tuple[object, ...]]:
    """A row per species, in the units of the data."""
    observations, moving = model.stages.observations, np.flatnonzero(model.stages.equation.moving)
    worst = int(target.indices[np.argmax(np.diag(model.covariance)[target.indices])])
    unit = float(model.scale[worst])
    rows: list[tuple[object, ...]] = []
    for i, species in enumerate(moving):
        frame = int(best.frame[i])
        place = (None, np.nan) if frame < 0 else (int(observations.run[frame]), observations.time[frame])
        errors = (float(model.error[worst]), float(best.error[i]), float(best.largest[i]))
        rows.append(
            (
                *(target.kind, kind, model.network.species[species]),
                *(place[0], float(place[1] * model.units.time), model.names[worst]),
                *(unit * error for error in errors),
            )
        )
    return rows


def _sentence(row: Mapping[Hashable, Any], *, several: bool) -> str:
    """A candidate in words.

    Args:
        several: whether there are several runs.
    """
    species, where = row["species"], f" in run {row['run']}" if several and pd.notna(row["run"]) else ""
    what = {
        "once": f"measuring {species} at t={row['time']:.4g}{where} once more",
        "series": f"measuring {species} {_SERIES} times more, evenly spread,",
        "start": f"knowing the initial state of {species}{where} {_BETTER:.0f} times better",
    }[row["measurement"]]
    before, after = (f"{row[name]:#.2g}".rstrip(".") for name in ("error_before", "error_after"))
    return f"{what} lowers the error of {_quantity(row['parameter'])} from {before} to {after}"


def _quantity(parameter: str) -> str:
    kind, _, own = parameter.partition(":")
    return f"log10 k of {own}" if kind == "k" else f"the slope of {own}"
