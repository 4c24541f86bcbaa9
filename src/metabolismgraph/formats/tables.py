"""Concentration time series as tables: CSV, TSV and Parquet, wide or long, gzipped too.

Wide: a column `time`, one column per species, and `run` where there are several runs. Long: columns `time`,
`species`, `concentration` (or `value`), and `run`. Columns are found by name, in any order; `time`, `run` and the
columns of a long table in any case.
"""

from __future__ import annotations

import collections
import csv
import difflib
import gzip
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from metabolismgraph.errors import InputError
from metabolismgraph.files import one_line, read_bytes, write_bytes
from metabolismgraph.network import ReactionNetwork
from metabolismgraph.observations import Observations

_UNSUPPORTED = "unmeasured species and missing cells are not supported yet"
_PARQUET = b"PAR1"


def read_timeseries(path: Path, network: ReactionNetwork) -> Observations:
    """Read a table of concentrations of every species of a network, fixed ones included.

    Rows of a wide table keep their order within a run; those of a long one are sorted by time. Runs are numbered
    in the order in which they first occur.

    Raises:
        InputError: the file is missing, damaged or empty; a column is missing, repeated, no species or not
            numeric; a cell is missing; or the numbers break a promise of `Observations`.
    """
    table = _load(path)
    if not len(table):
        raise InputError(f"{path}: the table has no rows")
    roles = _roles(path, table, network)
    try:
        if "species" in roles:
            return _from_long(path, table, roles, network)
        return _from_wide(path, table, roles, network)
    except InputError as error:
        message = str(error).removeprefix("observations: ")
        raise InputError(message if message.startswith(f"{path}:") else f"{path}: {message}") from None


def write_timeseries(observations: Observations, path: Path) -> None:
    """Write a wide table: time first, `run` only where there are several, gzipped if the name ends in .gz.

    Concentrations are written with 9 significant digits, which float32 values survive; times with 12. Tabs
    separate the columns if the name says .tsv. The same observations give the same bytes.
    """
    separator = "\t" if ".tsv" in path.suffixes else ","
    several = len(np.unique(observations.run)) > 1
    header = separator.join(["time", *["run"] * several, *observations.network.species])
    pattern = separator.join(["%.12g", *["%d"] * several, *["%.9g"] * observations.network.n_species])
    rows = np.column_stack([observations.time, *[observations.run] * several, observations.concentration]).tolist()
    content = "\n".join([header, *(pattern % tuple(row) for row in rows), ""]).encode()
    # no time stamp in the header, so that equal data are equal files
    write_bytes(path, gzip.compress(content, compresslevel=6, mtime=0) if path.suffix == ".gz" else content)


# -- files to tables


def _load(path: Path) -> pd.DataFrame:
    content = read_bytes(path)
    if content.startswith(_PARQUET) or ".parquet" in path.suffixes:
        return _load_parquet(path, content)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file in UTF-8 ({one_line(error)})") from None
    return _load_text(path, text.lstrip("\r\n"))


def _load_parquet(path: Path, content: bytes) -> pd.DataFrame:
    try:
        table = pd.read_parquet(io.BytesIO(content))
    except Exception as error:
        raise InputError(f"{path}: not a readable Parquet file ({one_line(error)})") from None
    return table.reset_index() if any(name is not None for name in table.index.names) else table


def _load_text(path: Path, text: str) -> pd.DataFrame:
    first = text.split("\n", 1)[0]
    separator = max("\t;,", key=first.count)  # the comma wins where there is none
    header = [name.strip() for name in next(csv.reader([first], delimiter=separator), [])]
    if not any(header):
        raise InputError(f"{path}: the file is empty")
    twice = [name for name, count in collections.Counter(header).items() if count > 1]
    if twice:
        raise InputError(f"{path}: column {twice[0]!r} occurs twice; keep one of them")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                io.StringIO(text),
                sep=separator,
                header=None,
                names=header,
                skiprows=1,
                index_col=False,
                low_memory=False,
            )
    except pd.errors.EmptyDataError:
        return pd.DataFrame(columns=header)
    except (pd.errors.ParserError, pd.errors.ParserWarning, ValueError) as error:
        raise InputError(
            f"{path}: not a readable table ({one_line(error)}); every row needs {len(header)} cells"
        ) from None


# -- columns


def _roles(path: Path, table: pd.DataFrame, network: ReactionNetwork) -> dict[str, Any]:
    """Columns that are no species, by what they are: time, run, and for a long table species and concentration.

    Raises:
        InputError: no time column, or two columns for one role.
    """
    names = {"time": "time", "run": "run", "species": "species", "concentration": "concentration"}
    names["value"] = "concentration"
    known = set(network.species) - {"time"}
    roles: dict[str, Any] = {}
    for column in table.columns:
        role = names.get(str(column).strip().lower())
        if role is None or str(column) in known:
            continue
        if role in roles:
            raise InputError(f"{path}: columns {str(roles[role])!r} and {str(column)!r} are both the {role}; keep one")
        roles[role] = column
    if "time" not in roles:
        raise InputError(
            f"{path}: no column 'time' (columns: {_some(list(table.columns))}); rename the column with the times"
        )
    if not {"species", "concentration"} <= set(roles):  # wide, and such a column is no species
        roles = {role: column for role, column in roles.items() if role in {"time", "run"}}
    return roles


def _refuse_unknown(path: Path, what: str, names: Sequence[str], network: ReactionNetwork) -> None:
    known = set(network.species)
    unknown = [name for name in names if name not in known]
    if unknown:
        near = difflib.get_close_matches(unknown[0], network.species, n=1, cutoff=0.0)
        raise InputError(
            f"{path}: {what} {unknown[0]!r} is no species of network {network.id} (nearest: {near[0]}"
            f"{f'; {len(unknown) - 1} more such' if len(unknown) > 1 else ''}); rename or remove it"
        )


def _refuse_absent(path: Path, what: str, names: Sequence[str], network: ReactionNetwork) -> None:
    present = set(names)
    absent = [name for name in network.species if name not in present]
    if absent:
        raise InputError(
            f"{path}: {len(absent)} of {network.n_species} species have no {what}: {_some(absent)}; {_UNSUPPORTED}"
        )


# -- tables to observations


def _from_wide(path: Path, table: pd.DataFrame, roles: Mapping[str, Any], network: ReactionNetwork) -> Observations:
    special = set(roles.values())
    columns = {str(column): column for column in table.columns if column not in special}
    _refuse_unknown(path, "column", list(columns), network)
    _refuse_absent(path, "column", list(columns), network)
    time = _complete(path, table, roles["time"])
    run = _runs(path, table, roles)
    concentration = np.column_stack([_numbers(path, table, columns[name]) for name in network.species])
    _refuse_gaps(path, network, time, concentration)
    order = np.argsort(run, kind="stable")
    return Observations(network, time[order], run[order], concentration[order])


def _from_long(path: Path, table: pd.DataFrame, roles: Mapping[str, Any], network: ReactionNetwork) -> Observations:
    special = set(roles.values())
    extra = [str(column) for column in table.columns if column not in special]
    if extra:
        raise InputError(
            f"{path}: column {extra[0]!r} has no place in a long table (time, species, concentration, run); remove it"
        )
    names = table[roles["species"]].astype("string").str.strip()
    if names.isna().any():
        raise InputError(f"{path}: the species of data row {_first(names.isna().to_numpy())} is missing; fill it in")
    code, unique = pd.factorize(names)
    _refuse_unknown(path, "species", list(unique), network)
    _refuse_absent(path, "row", list(unique), network)
    index = {name: i for i, name in enumerate(network.species)}
    species = np.array([index[name] for name in unique], dtype=np.int64)[code]

    time = _complete(path, table, roles["time"])
    run = _runs(path, table, roles)
    frames, frame = np.unique(np.column_stack([run, time]), axis=0, return_inverse=True)
    cell = frame.reshape(-1) * network.n_species + species
    _, first = np.unique(cell, return_index=True)
    if len(first) < len(cell):
        again = int(np.setdiff1d(np.arange(len(cell)), first)[0])
        raise InputError(
            f"{path}: {network.species[species[again]]} at time {time[again]:g} occurs twice (data row {again + 1}); "
            "keep one row, or tell repeats apart by a column 'run'"
        )
    cells = np.full(len(frames) * network.n_species, np.nan)
    cells[cell] = _numbers(path, table, roles["concentration"])
    concentration = cells.reshape(len(frames), network.n_species)
    _refuse_gaps(path, network, frames[:, 1], concentration)
    return Observations(network, frames[:, 1], frames[:, 0].astype(np.int64), concentration)


def _numbers(path: Path, table: pd.DataFrame, column: Any) -> Float[np.ndarray, " rows"]:
    """A column as numbers, NaN where a cell is missing.

    Raises:
        InputError: a cell holds something else.
    """
    cells = table[column]
    if cells.dtype.kind not in "iuf":
        # text, dates, truth values: only what is written as a number counts
        cells = pd.Series(pd.to_numeric(cells.astype("string"), errors="coerce"))
        wrong = (cells.isna() & table[column].notna()).to_numpy(dtype=bool)
        if wrong.any():
            row = _first(wrong)
            text = one_line(table[column].iloc[row - 1], 40)
            raise InputError(f"{path}: column {str(column)!r}, data row {row}: {text!r} is not a number; correct it")
    return np.asarray(cells.to_numpy(dtype=np.float64, na_value=np.nan))


def _complete(path: Path, table: pd.DataFrame, column: Any) -> Float[np.ndarray, " rows"]:
    values = _numbers(path, table, column)
    if np.isnan(values).any():
        raise InputError(
            f"{path}: column {str(column)!r} has no value in data row {_first(np.isnan(values))}; fill it in"
        )
    return values


def _runs(path: Path, table: pd.DataFrame, roles: Mapping[str, Any]) -> Int[np.ndarray, " rows"]:
    """Index of the run of each row, by first occurrence of its label; labels may be text."""
    if "run" not in roles:
        return np.zeros(len(table), dtype=np.int64)
    code, _ = pd.factorize(table[roles["run"]])
    if (code < 0).any():
        raise InputError(
            f"{path}: column {str(roles['run'])!r} has no value in data row {_first(code < 0)}; fill it in"
        )
    return np.asarray(code, dtype=np.int64)


def _refuse_gaps(
    path: Path,
    network: ReactionNetwork,
    time: Float[np.ndarray, " frames"],
    concentration: Float[np.ndarray, "frames species"],
) -> None:
    missing = np.argwhere(np.isnan(concentration))
    if missing.size:
        frame, species = (int(x) for x in missing[0])
        more = f" (and {len(missing) - 1} more cells)" if len(missing) > 1 else ""
        raise InputError(
            f"{path}: the concentration of {network.species[species]} at time {time[frame]:g} is missing{more}; "
            f"{_UNSUPPORTED}"
        )


def _first(wrong: np.ndarray) -> int:
    """Number, from 1, of the first data row that is wrong."""
    return int(np.argmax(wrong)) + 1


def _some(names: Sequence[Any], limit: int = 5) -> str:
    return ", ".join(str(name) for name in names[:limit]) + (", ..." if len(names) > limit else "")
