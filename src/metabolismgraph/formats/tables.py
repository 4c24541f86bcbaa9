"""Reading concentration time series: CSV, TSV, spreadsheets and Parquet, wide or long, also compressed by gzip.

Wide: a column `time`, one column per species, and `run` for several runs. Long: columns `time`, `species`,
`concentration` (or `value`), and `run`. Columns are identified by name, in any order. Supported text formats are in
`dialects`, supported names in `headers`. All assumptions are listed in the notes of the observations.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from metabolismgraph.errors import InputError
from metabolismgraph.formats.dialects import LIMIT_SIGNS, Cells, read_cells
from metabolismgraph.formats.headers import RUN_NAMES, Assignment, Vocabulary, assign, clean, one_unit, time_unit
from metabolismgraph.formats.layout import arranged, deviations_of, roles_of, without_unknown
from metabolismgraph.formats.units import is_amount, same_unit, split_unit
from metabolismgraph.formats.wording import counted, some
from metabolismgraph.system.network import ReactionNetwork
from metabolismgraph.system.observations import Observations
from metabolismgraph.text import one_line

Units = tuple[str | None, str | None]  # of concentrations (or amounts) and of times; None where none is stated
_UNSUPPORTED = "add what was measured, or use `metabolismgraph fit-model`, which takes unmeasured species"
_TINY = 1e-6  # largest solver error below zero, relative to the largest value of a species
_LIMIT = re.compile(rf"^([{LIMIT_SIGNS}])=?\s*([-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eEdD][-+]?\d+)?)$")
_FORTRAN = re.compile(r"^([-+]?(?:\d+(?:\.\d*)?|\.\d+))[dD]([-+]?\d+)$")


@runtime_checkable
class FixedValues(Protocol):
    """A model with values of species without a column.

    The attributes `names` (display names by id), `other_ids` (ids of the model other than species) and `amounts` (ids
    of species whose id is an amount) are optional.
    """

    def fill_fixed(
        self, time: np.ndarray, known: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
        """Concentrations of fixed species at some times, given those of others, and notes."""
        ...


def read_timeseries(path: Path, network: ReactionNetwork, model: FixedValues | None = None) -> Observations:
    """Read a table of concentrations of every species of a network.

    Rows of a wide table keep their order within a run; those of a long table are sorted by time. Runs are numbered
    in the order of their first occurrence. Fixed species, and species without a reaction, may be missing if the model
    has values for them.

    Raises:
        InputError: the file is missing, damaged, empty or not a table; a column is missing, repeated, unknown or not
            numeric; a time or run is missing; the table is ambiguous; or its values violate a condition of
            `Observations`.
    """
    return _read(path, network, model).observations


def read_several_timeseries(
    paths: Sequence[Path],
    network: ReactionNetwork,
    model: FixedValues | None = None,
    names: Mapping[str, str] | None = None,
) -> Observations:
    """Read tables of different experiments: the runs of each follow those of the one before.

    Notes that do not hold for all tables begin with the name of their file.

    Args:
        names: what names of columns, or of species in a long table, stand for: ids of species, time or run.

    Raises:
        InputError: as for `read_timeseries`; the tables have different units; or none of them has one of the names.
    """
    given = names or {}
    parts = [_read(path, network, model, given) for path in paths]
    unused = sorted(set(given).difference(*(part.renamed for part in parts)))
    if unused:
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        name = unused[0]
        raise InputError(f"{paths[0]}{more}: no column or species is named {name!r} ({name}={given[name]})")
    if len(parts) == 1:
        return parts[0].observations
    found, runs, offset = [], [], 0
    for path, part in zip(paths, parts, strict=True):
        compare_units(paths[0], parts[0].units, path, part.units)
        count = len(np.unique(part.observations.run))
        runs.append(f"{_runs_in_words(offset, count)} {'is' if count == 1 else 'are'} {path.name}")
        found.append(dataclasses.replace(part.observations, run=part.observations.run + offset))
        offset += count
    common = [note for note in found[0].notes if all(note in each.notes for each in found)]
    own = [
        f"{p.name}: {note}" for p, each in zip(paths, found, strict=True) for note in each.notes if note not in common
    ]
    gaps = None
    if any(each.interpolated is not None for each in found):
        gaps = np.concatenate([~each.measured for each in found])
    return Observations(
        network,
        np.concatenate([each.time for each in found]),
        np.concatenate([each.run for each in found]),
        np.concatenate([each.concentration for each in found]),
        (f"Several tables: {', '.join(runs)}.", *common, *own),
        gaps,
    )


@dataclasses.dataclass(frozen=True)
class PartialTable:
    """Values of some quantities of a model, in one table.

    Attributes:
        time: of each row.
        run: of each row, from zero.
        labels: of the runs, as in the table; empty if it has no column for them.
        columns: concentrations per species with a column, in the unit of the table, and values of observables; NaN for
            an empty cell.
        sides: by the same names, 0 where the number in the column is the measured value; -1 where it is a limit that
            the measured value is below, 1 where above.
        deviations: their standard deviations, for species where the table has them.
        units: that the header states.
        notes: all assumptions, in sentences.
    """

    time: Float[np.ndarray, " rows"]
    run: Int[np.ndarray, " rows"]
    labels: tuple[str, ...]
    columns: dict[str, Float[np.ndarray, " rows"]]
    sides: dict[str, Int[np.ndarray, " rows"]]
    deviations: dict[str, Float[np.ndarray, " rows"]]
    units: Units
    notes: tuple[str, ...]


def read_partial_table(
    path: Path,
    network: ReactionNetwork,
    model: FixedValues | None = None,
    names: Mapping[str, str] | None = None,
    *,
    deviations: str | None = None,
    skip_unknown: bool = False,
    limits: bool = False,
    signed: Sequence[str] = (),
    observables: Collection[str] = (),
) -> tuple[PartialTable, frozenset[str]]:
    """Read a table with some species of a network, and which of the given names it has.

    Rows with the same time, and run, are replicates.

    Args:
        names: as in `read_several_timeseries`.
        deviations: columns with standard deviations, see `deviations_of`.
        skip_unknown: leave out columns that are not of the model, with a note, instead of an error.
        limits: whether a cell may be a limit, such as <0.5, below or above which the value is.
        signed: names, with `*` and `?`, whose values may be negative.
        observables: names of formulas of concentrations, which columns may have like species.

    Raises:
        InputError: as for `read_timeseries`, but species may be missing; or a standard deviation is missing or not
            positive.
    """
    cells, renamed = _cells(path, names or {})
    table, of_values = cells.table, None
    if deviations is not None:
        vocabulary = _vocabulary(network, model, observables)
        table, of_values = deviations_of(path, table, deviations, vocabulary, names or {})

    def read(part: pd.DataFrame) -> tuple[_Columns, _Reader]:
        whole = dataclasses.replace(cells, table=part)
        options = {"skip_unknown": skip_unknown, "replicates": True, "limits": limits}
        return _read_columns(path, whole, network, model, observables, **options)

    columns, reader = read(table)
    with _naming(path):
        if not columns.has_runs:
            _refuse_repeats(columns.time, replicates=True)
        if (np.diff(columns.time) == 0)[np.diff(columns.run) == 0].any():
            reader.notes.append("Rows with the same time are replicates.")
        in_amounts = sorted(columns.found.amounts & set(observables))
        if in_amounts:
            raise InputError(
                f"{path}: {in_amounts[0]} is a formula of concentrations, and has the unit of an amount; divide its "
                "values by the volume"
            )
        empty = [key for key, values in columns.known.items() if np.isnan(values).all()]
        known = {key: values for key, values in columns.known.items() if key not in empty}
        if empty:
            reader.notes.append(f"Columns without a value were left out: {some(empty)}.")
        concentrations = {key: known[key] for key in known if not any(fnmatch.fnmatchcase(key, p) for p in signed)}
        reader.clip(concentrations)
        known |= concentrations
        reader.divide(known, columns.found)
        _check_values(path, known, columns.sides, concentrations)
        spread = {}
        if of_values is not None:
            of_spread, other = read(of_values)
            _check_unit(reader, other)
            spread = _deviations(known, of_spread)
            reader.divide(spread, columns.found, said=False)
    sides = {key: columns.sides[key] for key in known}
    notes = tuple(reader.notes)
    found = PartialTable(columns.time, columns.run, columns.labels, known, sides, spread, reader.stated, notes)
    return found, frozenset(renamed)


def _check_values(
    path: Path, known: Mapping[str, np.ndarray], sides: Mapping[str, np.ndarray], concentrations: Collection[str]
) -> None:
    for key, values in known.items():
        if np.isinf(values).any() or (key in concentrations and (values < 0).any()):
            raise InputError(f"{path}: {key} has a value that is negative or not finite; correct it")
        if key in concentrations and ((values == 0) & (sides[key] != 0)).any():
            raise InputError(f"{path}: {key} has the limit 0, which says nothing of a concentration; correct it")


def _check_unit(values: _Reader, deviations: _Reader) -> None:
    """Standard deviations have the unit of the values, unless they state another one, which is an error."""
    one, other = values.stated[0], deviations.stated[0]
    if other is not None and (one is None or same_unit(one) != same_unit(other)):
        raise InputError(
            f"standard deviations are in {other}, values in {one or 'no stated unit'}; write them in the same unit"
        )


def _deviations(known: Mapping[str, np.ndarray], columns: _Columns) -> dict[str, np.ndarray]:
    """Standard deviations of some species, as the table has them."""
    spread = {key: values for key, values in columns.known.items() if key in known and np.isfinite(values).any()}
    for key, values in spread.items():
        if columns.sides[key].any():
            raise InputError(f"a standard deviation of {key} is a limit; give a number")
        wrong = np.isfinite(known[key]) & ~((values > 0) & (values < np.inf))
        if wrong.any():
            t = columns.time[int(wrong.argmax())]
            raise InputError(
                f"{key} at time {t:g} has no positive standard deviation; give one, or leave out the value"
            )
    return spread


def _runs_in_words(first: int, count: int) -> str:
    return f"run {first}" if count == 1 else f"runs {first} to {first + count - 1}"


def compare_units(path: Path, units: Units, other_path: Path, other_units: Units) -> None:
    """Compare the units of two tables.

    Raises:
        InputError: they are different.
    """
    for what, one, two in zip(("concentrations", "times"), units, other_units, strict=True):
        if (one and same_unit(one)) != (two and same_unit(two)):
            raise InputError(
                f"{other_path}: {what} are in {two or 'no stated unit'}, those of {path} in {one or 'no stated unit'}; "
                "convert them to one unit"
            )


@dataclasses.dataclass(frozen=True)
class _Table:
    """The content of one table."""

    observations: Observations
    renamed: frozenset[str]  # names for which others were given
    units: Units


def _read(
    path: Path, network: ReactionNetwork, model: FixedValues | None, names: Mapping[str, str] | None = None
) -> _Table:
    cells, renamed = _cells(path, names or {})
    columns, reader = _read_columns(path, cells, network, model)
    with _naming(path):
        found = reader.observations(columns)
    return _Table(found, frozenset(renamed), reader.stated)


def _cells(path: Path, names: Mapping[str, str]) -> tuple[Cells, list[str]]:
    """The table of a file, and which of the given names it has."""
    cells, renamed = _renamed(path, read_cells(path), names)
    if not len(cells.table):
        raise InputError(f"{path}: the table has no rows")
    return cells, renamed


def _vocabulary(network: ReactionNetwork, model: FixedValues | None, observables: Collection[str] = ()) -> Vocabulary:
    return Vocabulary(
        network,
        getattr(model, "names", {}),
        getattr(model, "other_ids", ()),
        getattr(model, "amounts", ()),
        observables,
    )


def _read_columns(
    path: Path,
    cells: Cells,
    network: ReactionNetwork,
    model: FixedValues | None,
    observables: Collection[str] = (),
    *,
    skip_unknown: bool = False,
    replicates: bool = False,
    limits: bool = False,
) -> tuple[_Columns, _Reader]:
    """The content of a table, and its reader with notes."""
    vocabulary = _vocabulary(network, model, observables)
    table, notes = cells.table, list[str]()
    if skip_unknown:
        table, notes = without_unknown(table, vocabulary)
    table, more = arranged(path, table, vocabulary)
    roles = roles_of(path, table, vocabulary)
    reader = _Reader(path, network, model, vocabulary, cells.units, [*cells.notes, *notes, *more], limits)
    with _naming(path):
        if "species" in roles:
            return reader.long(table, roles, replicates=replicates), reader
        return reader.wide(table, roles), reader


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors begin with the name of the file."""
    try:
        yield
    except InputError as error:
        message = str(error).removeprefix("observations: ")
        raise InputError(message if message.startswith(f"{path}:") else f"{path}: {message}") from None


def _renamed(path: Path, cells: Cells, names: Mapping[str, str]) -> tuple[Cells, list[str]]:
    """The table with other names of columns and in cells, with the units behind them, and the names that it has.

    Raises:
        InputError: two columns have the same name then.
    """
    if not names:
        return cells, []
    found: dict[str, str] = {}

    def other(name: Any) -> Any:
        text = clean(name)
        base, unit = (text, None) if text in names else split_unit(text)
        if base not in names:
            return name
        found[base] = names[base]
        return names[base] if unit is None else f"{names[base]} ({unit})"

    units = {str(other(column)): unit for column, unit in cells.units.items()}
    table = cells.table.rename(columns=other)
    for name in found.values():
        same = [column for column in cells.table.columns if clean(other(column)) == name]
        if len(same) > 1:
            raise InputError(f"{path}: column {same[0]!r} and column {same[1]!r} both mean {name}; keep one")
    for column in table.columns:
        if table[column].dtype.kind not in "iufb":
            table[column] = table[column].map(other, na_action="ignore")
    pairs = [f"{name} as {given}" for name, given in found.items()]
    notes = [*cells.notes, f"Read as stated: {some(pairs)}."] if pairs else cells.notes
    return dataclasses.replace(cells, table=table, units=units, notes=notes), list(found)


class _Columns(NamedTuple):
    """The content of a table: rows in the order of their runs, NaN for an empty cell; `sides` as in `PartialTable`."""

    time: Float[np.ndarray, " frames"]
    run: Int[np.ndarray, " frames"]
    labels: tuple[str, ...]  # of the runs; empty without a column for them
    known: dict[str, np.ndarray]
    sides: dict[str, np.ndarray]
    found: Assignment
    what: str  # what a species has: a column or rows
    has_runs: bool


@dataclasses.dataclass
class _Reader:
    """Converts one table to observations, and collects notes."""

    path: Path
    network: ReactionNetwork
    model: FixedValues | None
    vocabulary: Vocabulary
    units: Mapping[str, str]
    notes: list[str]
    limits: bool  # whether a cell may be one
    stated: Units = (None, None)

    def wide(self, table: pd.DataFrame, roles: Mapping[str, Any]) -> _Columns:
        special = set(roles.values())
        names = [column for column in table.columns if column not in special]
        found = assign(self.path, "column", names, self.vocabulary, self.units)
        unit, notes = one_unit(self.path, found, self._divided(found))
        self.notes += found.notes + notes
        self._note_roles(roles, unit, found)
        time = _complete(self.path, table, roles["time"])
        run, labels = _runs(self.path, table, roles)
        order = np.argsort(run, kind="stable")
        cells = {key: self._values(table, column) for key, column in found.species.items()}
        known, sides = ({key: part[k][order] for key, part in cells.items()} for k in (0, 1))
        return _Columns(time[order], run[order], labels, known, sides, found, "column", "run" in roles)

    def long(self, table: pd.DataFrame, roles: Mapping[str, Any], *, replicates: bool) -> _Columns:
        special = set(roles.values())
        extra = [str(column) for column in table.columns if column not in special]
        if extra:
            raise InputError(
                f"{self.path}: column {extra[0]!r} is not a column of a long table (time, species, concentration, "
                "run); remove it"
            )
        labels = table[roles["species"]].astype("string").str.strip()
        if labels.isna().any():
            row = _first(labels.isna().to_numpy())
            raise InputError(f"{self.path}: the species of data row {row} is missing; fill it in")
        in_header = self._unit(roles["concentration"])
        units = dict.fromkeys(labels, in_header) if in_header and is_amount(in_header) else {}
        found = assign(self.path, "species", list(pd.unique(labels)), self.vocabulary, units)
        if clean(roles["concentration"]).casefold().startswith("conc") or (in_header and not is_amount(in_header)):
            found = dataclasses.replace(
                found, amounts=frozenset()
            )  # the name or unit of the column states concentrations
        unit, _ = one_unit(self.path, found, [])
        self.notes += found.notes
        self._note_roles(roles, in_header or unit, found)
        needed = ~labels.isin(found.dropped)
        table, labels = table[needed].reset_index(drop=True), labels[needed].reset_index(drop=True)

        time = _complete(self.path, table, roles["time"])
        run, runs = _runs(self.path, table, roles)
        index = {label: i for i, label in enumerate(found.species.values())}
        species = labels.map(index).to_numpy(dtype=np.int64)
        rows = pd.DataFrame({"run": run, "time": time, "species": species})
        rows["replicate"] = rows.groupby(["run", "time", "species"]).cumcount() if replicates else 0
        frames, frame = np.unique(rows[["run", "time", "replicate"]].to_numpy(), axis=0, return_inverse=True)
        cell = frame.reshape(-1) * len(index) + species
        _, first = np.unique(cell, return_index=True)
        if len(first) < len(cell):
            again = int(np.setdiff1d(np.arange(len(cell)), first)[0])
            raise InputError(
                f"{self.path}: {labels[again]} at time {time[again]:g} occurs twice (data row {again + 1}); "
                "keep one row, or distinguish repeats by a column 'run'"
            )
        values, sides = self._values(table, roles["concentration"])

        def by_species(given: np.ndarray, empty: float) -> dict[str, np.ndarray]:
            cells = np.full(len(frames) * len(index), empty, dtype=given.dtype)
            cells[cell] = given
            return dict(zip(found.species, cells.reshape(len(frames), len(index)).T, strict=True))

        known, limits = by_species(values, np.nan), by_species(sides, 0.0)
        return _Columns(frames[:, 1], frames[:, 0].astype(np.int64), runs, known, limits, found, "row", True)

    def _values(self, table: pd.DataFrame, column: Any) -> tuple[Float[np.ndarray, " rows"], Int[np.ndarray, " rows"]]:
        """A column as numbers, and which of them are limits, see `sides` of `PartialTable`."""
        cells = table[column]
        if cells.dtype.kind in "iuf":
            return _numbers(self.path, cells, column), np.zeros(len(cells), dtype=np.int64)
        parts = cells.astype("string").str.strip().str.extract(_LIMIT)
        limit = parts[0].notna().to_numpy(dtype=bool)
        if limit.any() and not self.limits:
            row = _first(limit)
            found = one_line(cells.iloc[row - 1], 40)
            raise InputError(
                f"{self.path}: column {str(column)!r}, data row {row}: {found!r} is a limit, which only fit-model "
                "supports; leave the cell empty to fit without it"
            )
        sides = np.where(limit, np.where(parts[0].isin(list("<≤")), -1, 1), 0)
        return _numbers(self.path, cells.astype(object).where(~limit, parts[1]), column), sides

    def _unit(self, column: Any) -> str | None:
        return time_unit(column) or self.units.get(str(column))

    def _divided(self, found: Assignment) -> list[str]:
        """Species with amounts that must be divided by the volume."""
        volume = dict(zip(self.network.species, self.network.volume.tolist(), strict=True))
        return [key for key in found.species if key in found.amounts and volume.get(key) not in (None, 1)]

    def _note_roles(self, roles: Mapping[str, Any], unit: str | None, found: Assignment) -> None:
        """Notes on units, and on columns for time and run with other names."""
        if clean(roles["time"]) == "t":
            self.notes.append("Column t is read as the time.")
        if "run" in roles and clean(roles["run"]).casefold() != "run":
            self.notes.append(f"Column {clean(roles['run'])} is read as the run.")
        what = "amounts" if found.amounts else "concentrations"
        given = [f"{what} in {unit}"] * (unit is not None)
        of_time = self._unit(roles["time"])
        self.stated = unit, of_time
        given += [f"times in {of_time}"] * (of_time is not None)
        if given:
            self.notes.append(
                f"Units in the header are kept as they are ({', '.join(given)}): rate constants are in these units."
            )

    def _refuse_absent(self, what: str, found: Assignment) -> None:
        """Raise an error if a species is missing whose concentration is needed and which the model cannot provide."""
        involved = {*self.network.edge_species.tolist(), *self.network.net_species.tolist()}
        for_model = [] if self.model is None else [
            key for i, key in enumerate(self.network.species) if self.network.fixed[i] or i not in involved
        ]  # fmt: skip
        self._refuse([key for key in self.network.species if key not in found.species and key not in for_model], what)

    def _refuse(self, absent: Sequence[str], what: str) -> None:
        if absent:
            raise InputError(
                f"{self.path}: {len(absent)} of {self.network.n_species} species have no {what}: {some(absent)}; "
                f"{_UNSUPPORTED}"
            )

    def observations(self, columns: _Columns) -> Observations:
        """The content of a table of all species."""
        self._refuse_absent(columns.what, columns.found)
        if not columns.has_runs:
            _refuse_repeats(columns.time)
        known = columns.known
        self._note_gaps(known)
        self.clip(known)
        self.divide(known, columns.found)
        known |= self._filled(columns.time, known)
        concentration = np.column_stack([known[key] for key in self.network.species])
        return Observations.with_gaps(self.network, columns.time, columns.run, concentration, tuple(self.notes))

    def _note_gaps(self, known: Mapping[str, np.ndarray]) -> None:
        """A note on empty cells."""
        empty = {key: int(np.isnan(values).sum()) for key, values in known.items()}
        species = [key for key, number in empty.items() if number]
        if species:
            cells = sum(len(values) for values in known.values())
            self.notes.append(
                f"{sum(empty.values())} of {cells} values are missing ({some(species)}): a fit of trajectories, which "
                "does not need them, is the only method for these data."
            )

    def clip(self, known: dict[str, np.ndarray]) -> None:
        """Set negative values of the size of solver errors to zero."""
        clipped = []
        count = 0
        for key, values in known.items():
            if np.isnan(values).all():
                continue
            tiny = (values < 0) & (values >= -_TINY * np.nanmax(values))
            if tiny.any() and not np.isinf(values).any():
                known[key] = np.where(tiny, 0.0, values)
                clipped.append(key)
                count += int(tiny.sum())
        if clipped:
            wording = (
                f"[value was|values were] set to 0, being negative by less than {_TINY:g} of the largest of the species"
            )
            self.notes.append(counted(wording, clipped, count))

    def divide(self, known: dict[str, np.ndarray], found: Assignment, *, said: bool = True) -> None:
        """Divide amounts by volumes; with a note if it is to be said."""
        divided = [key for key in self._divided(found) if key in known]
        for key in divided:
            known[key] = known[key] / self.network.volume[self.network.species.index(key)]
        if divided and said:
            self.notes.append(f"Amounts were divided by the volume of the compartment ({some(divided)}).")

    def _filled(self, time: np.ndarray, known: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Values of species without a column, from the model."""
        absent = [key for key in self.network.species if key not in known]
        if not absent or self.model is None:
            return {}
        values, notes = self.model.fill_fixed(time, known)
        self._refuse([key for key in absent if key not in values], "column, nor a value in the model")
        self.notes += notes
        return {key: np.broadcast_to(np.asarray(values[key], dtype=np.float64), time.shape) for key in absent}


def _refuse_repeats(time: np.ndarray, *, replicates: bool = False) -> None:
    """Refuse times that decrease or, without replicates, repeat."""
    back = np.flatnonzero(np.diff(time) < 0 if replicates else np.diff(time) <= 0)
    if back.size:
        k = int(back[0])
        raise InputError(
            f"time does not increase at frame {k + 1} ({time[k]:g} -> {time[k + 1]:g}); sort the rows by time, or "
            f"distinguish repeats by a column '{RUN_NAMES[0]}' (or {', '.join(RUN_NAMES[1:3])}, ...)"
        )


def _numbers(path: Path, given: pd.Series, column: Any, *, needed: bool = False) -> Float[np.ndarray, " rows"]:
    """A column as numbers, with NaN for a missing cell.

    Args:
        needed: whether a cell without a number is refused later; only for the advice.

    Raises:
        InputError: a cell is not a number.
    """
    cells = given
    if cells.dtype.kind not in "iuf":
        # Text, dates or booleans: only text of the form of a number is accepted.
        text = cells.astype("string").str.strip()
        text = text.str.replace(_FORTRAN, r"\1e\2", regex=True)
        cells = pd.Series(pd.to_numeric(text, errors="coerce"))
        wrong = (cells.isna() & given.notna()).to_numpy(dtype=bool)
        if wrong.any():
            row = _first(wrong)
            found = one_line(given.iloc[row - 1], 40)
            comma = re.fullmatch(rf"[{LIMIT_SIGNS}]?=?\s*[-+]?\d*,\d+", found)
            advice = "correct it" if needed else "correct it, or leave the cell empty where nothing was measured"
            advice = "write it with a decimal point" if comma else advice
            raise InputError(f"{path}: column {str(column)!r}, data row {row}: {found!r} is not a number; {advice}")
    return np.asarray(cells.to_numpy(dtype=np.float64, na_value=np.nan))


def _complete(path: Path, table: pd.DataFrame, column: Any) -> Float[np.ndarray, " rows"]:
    values = _numbers(path, table[column], column, needed=True)
    _refuse_empty(path, column, np.isnan(values))
    return values


def _runs(
    path: Path, table: pd.DataFrame, roles: Mapping[str, Any]
) -> tuple[Int[np.ndarray, " rows"], tuple[str, ...]]:
    """Index of the run of each row, and the labels of the runs, which can be text, in order of first occurrence."""
    if "run" not in roles:
        return np.zeros(len(table), dtype=np.int64), ()
    code, labels = pd.factorize(table[roles["run"]])
    _refuse_empty(path, roles["run"], code < 0)
    return np.asarray(code, dtype=np.int64), tuple(map(str, labels))


def _refuse_empty(path: Path, column: Any, empty: np.ndarray) -> None:
    if empty.any():
        raise InputError(f"{path}: column {str(column)!r} has no value in data row {_first(empty)}; fill it in")


def _first(wrong: np.ndarray) -> int:
    """Number of the first wrong data row, from 1."""
    return int(np.argmax(wrong)) + 1
