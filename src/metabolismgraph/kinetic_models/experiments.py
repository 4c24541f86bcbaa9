"""Measured concentrations of some species of a model, by experiment."""

from __future__ import annotations

import dataclasses
import fnmatch
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from metabolismgraph.errors import InputError
from metabolismgraph.formats.petab import PetabProblem, sides_of
from metabolismgraph.formats.quantities import ModelIndex
from metabolismgraph.formats.sbml import SbmlModel, read_document
from metabolismgraph.formats.sbml_writer import free_id
from metabolismgraph.formats.tables import Units, compare_units, read_partial_table


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One run of a table.

    Attributes:
        id: made of the name of the file.
        held_out: whether it is to be predicted, not fitted.
        time: from zero.
        measured: concentrations by species, and values by observable; NaN for an empty cell.
        sides: by the same names, which of these numbers are limits, see `PartialTable`.
        deviations: their standard deviations, for species of which they are given.
        table: its first experiment; a relative species has one scale in it.
        relative: species, or observables, whose values are only proportional to their concentrations.
        offset: species, or observables, whose values have an offset.
        last: later measurements are held out.
        first: the time of the table that is zero here.
    """

    id: str
    held_out: bool
    time: Float[np.ndarray, " rows"]
    measured: Mapping[str, Float[np.ndarray, " rows"]]
    sides: Mapping[str, Int[np.ndarray, " rows"]] = dataclasses.field(default_factory=dict)
    deviations: Mapping[str, Float[np.ndarray, " rows"]] = dataclasses.field(default_factory=dict)
    table: str = ""
    relative: frozenset[str] = frozenset()
    offset: frozenset[str] = frozenset()
    last: float = math.inf
    first: float = 0.0

    def known(self, species: str) -> tuple[Float[np.ndarray, " known"], Float[np.ndarray, " known"]]:
        """Times and values, or limits, of the measurements of a species."""
        values = self.measured.get(species, np.full(len(self.time), np.nan))
        there = np.isfinite(values)
        return self.time[there], values[there]

    def side(self, species: str) -> Int[np.ndarray, " known"]:
        """Which measurements of a species are limits, see `sides`."""
        values = self.measured.get(species, np.full(len(self.time), np.nan))
        found: np.ndarray = self.sides.get(species, np.zeros(len(self.time), dtype=int))[np.isfinite(values)]
        return found

    def concentrations(self, species: str) -> tuple[Float[np.ndarray, " known"], Float[np.ndarray, " known"]]:
        """Times and values of the measurements of a species that are concentrations, not limits and not held out."""
        time, values = self.known(species)
        there = (time <= self.last) & (self.side(species) == 0) & (species not in self.relative | self.offset)
        return time[there], values[there]

    def fitted(self, species: str, *, limits: bool = False) -> Float[np.ndarray, " fitted"]:
        """Values, or limits, of the measurements of a species that are not held out."""
        time, values = self.known(species)
        wanted = (self.side(species) != 0) == limits
        found: np.ndarray = values[(time <= self.last) & wanted & (not self.held_out)]
        return found

    def spread(self, species: str) -> Float[np.ndarray, " known"] | None:
        """Standard deviations of the measurements of a species; None if they are not given."""
        values = self.deviations.get(species)
        return None if values is None else values[np.isfinite(self.measured[species])]

    def means(self, species: str) -> tuple[Float[np.ndarray, " times"], Float[np.ndarray, " times"]]:
        """Times and mean concentrations of the replicates of a species."""
        return _means(*self.concentrations(species))

    def input(self, species: str) -> tuple[Float[np.ndarray, " times"], Float[np.ndarray, " times"]]:
        """Times and mean values of a species that the model follows, at all times."""
        return _means(*self.known(species))

    def at_start(self, species: str) -> float:
        """The value at time zero; NaN if it was not measured, or a replicate of it is a limit."""
        time, values = self.means(species)
        return float(values[0]) if len(time) and time[0] == 0 and not self.limit_at_start(species) else math.nan

    def limit_at_start(self, species: str) -> tuple[float, int] | None:
        """The largest value or limit at time zero, and the side of the limits there; None if there is no limit."""
        (time, values), side = self.known(species), self.side(species)
        first = (time == 0) & (time <= self.last) & (species not in self.relative | self.offset)
        sides = side[first & (side != 0)]
        return (float(values[first].max()), int(sides[0])) if sides.size else None


def _means(
    time: Float[np.ndarray, " known"], values: Float[np.ndarray, " known"]
) -> tuple[Float[np.ndarray, " times"], Float[np.ndarray, " times"]]:
    times, where, counts = np.unique(time, return_inverse=True, return_counts=True)
    return times, np.bincount(where, values, len(times)) / counts


def read_experiments(
    tables: Sequence[Path],
    held_out: Sequence[Path],
    model: SbmlModel,
    names: Mapping[str, str],
    *,
    deviations: str | None,
    relative: Sequence[str],
    offset: Sequence[str],
    observables: Collection[str],
    last: float,
    skip_unknown: bool,
) -> tuple[list[Experiment], list[str]]:
    """All runs of some tables, and notes.

    Args:
        names, deviations, skip_unknown: see `read_partial_table`.
        relative, offset: patterns of species, and observables, see `Experiment`.
        observables: names of formulas.
        last: later measurements are held out.

    Raises:
        InputError: as for `read_partial_table`; tables have different units; a table has no species of the
            model; or no table has one of the names or observables.
    """
    found: list[Experiment] = []
    notes, unused = list[str](), set(names)
    first_units: Units | None = None
    for path, held in (*((path, False) for path in tables), *((path, True) for path in held_out)):
        table, used = read_partial_table(
            path,
            model.network,
            model,
            names,
            deviations=deviations,
            skip_unknown=skip_unknown,
            limits=True,
            signed=[*observables, *offset],
            observables=observables,
        )
        unused -= used
        first_units = first_units or table.units
        compare_units(tables[0], first_units, path, table.units)
        if not table.columns:
            raise InputError(f"{path}: no column is a species of the model{' or an observable' if observables else ''}")
        own = list(table.notes)
        runs = np.unique(table.run)
        stem, scale = re.sub(r"^(?=\d)|\W", "_", path.name.split(".")[0], flags=re.ASCII), ""
        for run in runs:
            rows = np.flatnonzero(table.run == run)
            rows = rows[np.argsort(table.time[rows], kind="stable")]
            first = table.time[rows[0]]
            if first != 0:
                own.append(f"Times are counted from the first one, {first:g}.")
            name = free_id(stem if len(runs) == 1 else f"{stem}_{run}", {each.id for each in found})
            measured, sides, spread = (
                {key: column[rows] for key, column in columns.items()}
                for columns in (table.columns, table.sides, table.deviations)
            )
            scaled, shifted = (
                frozenset(key for pattern in patterns for key in fnmatch.filter(measured, pattern))
                for patterns in (relative, offset)
            )
            scale = scale or name  # files in several folders may have the same name
            time = table.time[rows] - first
            found.append(
                Experiment(name, held, time, measured, sides, spread, scale, scaled, shifted, last, float(first))
            )
        notes += own if len(tables) + len(held_out) == 1 else [f"{path.name}: {note}" for note in own]
    if unused:
        name = min(unused)
        raise InputError(f"{tables[0]}: no column or species is named {name!r} ({name}={names[name]})")
    for option, patterns in (("relative", relative), ("offset", offset), ("observable", observables)):
        for pattern in patterns:
            if not any(fnmatch.filter(each.measured, pattern) for each in found):
                what = "column with values" if option == "observable" else "measured species"
                raise InputError(f"{tables[0]}: {option}: no {what} is named {pattern}")
    return found, notes


def experiments_of(problem: PetabProblem) -> list[Experiment]:
    """The measured concentrations of a problem, one experiment for each condition; the mean of replicates.

    Only observables whose formula is the id of a species count, and no limits.
    """
    index, found = ModelIndex(read_document(problem.model)), []
    formulas = problem.observables["observableFormula"].astype(str).str.strip()
    species = formulas[formulas.isin(index.species)]
    for name, part in problem.measurements.groupby("simulationConditionId"):
        rows = part[np.isfinite(part["time"].astype(float)) & (sides_of(part) == 0)]
        wide = rows.pivot_table(index="time", columns="observableId", values="measurement", dropna=False)
        measured = {s: wide[o].to_numpy(float) / index.volume_of(s) for o, s in species.items() if o in wide}
        if len(wide):
            found.append(Experiment(str(name), False, wide.index.to_numpy(float), measured))
    return found


def values_of(experiments: Iterable[Experiment], species: str) -> Float[np.ndarray, " values"]:
    """All measured concentrations of a species."""
    return np.concatenate([np.zeros(0), *(experiment.concentrations(species)[1] for experiment in experiments)])


def straight_lines(experiments: Sequence[Experiment], species: str, number: str) -> str:
    """A formula of the time: straight lines between the measured values of a species, constant beyond them.

    Args:
        number: id of the parameter that is the number of the experiment.

    Raises:
        InputError: an experiment has no value of the species.
    """
    curves = []
    for experiment in experiments:
        time, values = experiment.input(species)
        if not len(time):
            raise InputError(f"input {species} has no value in experiment {experiment.id}")
        pieces = [f"{values[0]:.12g}, time <= {time[0]:.12g}"]
        for t, end, value, last in zip(time, time[1:], values, values[1:], strict=False):
            slope = (last - value) / (end - t)
            pieces.append(f"{value:.12g} + ({slope:.12g}) * (time - {t:.12g}), time <= {end:.12g}")
        curves.append(f"piecewise({', '.join(pieces)}, {values[-1]:.12g})")
    if len(curves) == 1:
        return curves[0]
    cases = ", ".join(f"{curve}, {number} == {k}" for k, curve in enumerate(curves[1:], start=1))
    return f"piecewise({cases}, {curves[0]})"
