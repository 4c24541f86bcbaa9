"""Conversion of tables of concentrations to CSV, Parquet and NetCDF, without a model."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from metabolismgraph.errors import InputError
from metabolismgraph.files import write_bytes
from metabolismgraph.formats.dialects import read_cells
from metabolismgraph.formats.headers import clean, role_of
from metabolismgraph.formats.layout import is_nameless, times_of_header
from metabolismgraph.formats.tables import PartialTable, read_partial_table
from metabolismgraph.formats.units import split_unit
from metabolismgraph.system.network import ReactionNetwork


def convert_table(source: Path, target: Path) -> tuple[str, ...]:
    """Write a table of concentrations, as `fit` reads it, in the format that the suffix of the target names.

    Returns:
        Notes on assumptions.

    Raises:
        InputError: the table is missing or invalid, it has no values, or a time occurs twice in a run.
    """
    species = _names(read_cells(source).table)
    table, _ = read_partial_table(source, ReactionNetwork.from_reactions(source.name, species, []))
    if not table.columns:
        raise InputError(f"{source}: the table has no values of a species; give one with columns besides the time")
    again = pd.MultiIndex.from_arrays([table.run, table.time]).duplicated()
    if again.any():
        raise InputError(f"{source}: time {table.time[again][0]:g} occurs twice in a run; keep one row")
    write_table(table, target)
    return table.notes


def _names(table: pd.DataFrame) -> list[str]:
    """Names that may be species: those of columns without a role, or of rows."""
    role = {role_of(column): column for column in table.columns}
    if "species" in role and "concentration" in role:
        names = list(table[role["species"]].dropna())
    elif times_of_header(table):
        names = list(table.iloc[:, 0])
    else:
        names = [column for column in table.columns if role_of(column) is None and not is_nameless(column)]
    return list(dict.fromkeys(split_unit(clean(name))[0] for name in names))


def write_table(table: PartialTable, path: Path) -> None:
    """Write a table; its suffix .csv, .parquet or .nc is the format.

    A NetCDF file is an `xarray.Dataset` with the variable `concentration` over time, species and, if the table has
    labels of runs, run; units are attributes.
    """
    writers = {".csv": _csv, ".parquet": _parquet, ".nc": _netcdf}
    write_bytes(path, writers[path.suffix.casefold()](table))


def write_simulation(simulated: pd.DataFrame, path: Path, *, chosen: bool = False) -> None:
    """Write a table of `simulate_model`: .parquet, .nc, or CSV for any other suffix.

    A NetCDF file has the variable `concentration` over time and species.

    Args:
        chosen: columns may be other quantities than concentrations: the NetCDF file has `value` over time and id.
    """
    suffix = path.suffix.casefold()
    if suffix == ".nc":
        values = simulated.set_index("time").rename_axis(columns="id" if chosen else "species")
        dataset = xr.Dataset({"value" if chosen else "concentration": xr.DataArray(values)})
        write_bytes(path, _netcdf_bytes(dataset))
    elif suffix == ".parquet":
        write_bytes(path, _parquet_bytes(simulated))
    else:
        write_bytes(path, simulation_csv(simulated).encode())


def simulation_csv(simulated: pd.DataFrame) -> str:
    """A table of `simulate_model` as CSV, with 12 significant digits."""
    return simulated.to_csv(index=False, float_format="%.12g", lineterminator="\n")


def _csv(table: PartialTable) -> bytes:
    return _wide(table).to_csv(index=False, lineterminator="\n").encode()


def _parquet(table: PartialTable) -> bytes:
    return _parquet_bytes(_wide(table))


def _parquet_bytes(table: pd.DataFrame) -> bytes:
    stream = io.BytesIO()
    table.to_parquet(stream, index=False)
    return stream.getvalue()


def _wide(table: PartialTable) -> pd.DataFrame:
    """One row per time, one column per species, with units in their names."""
    unit, of_time = (f" ({unit})" if unit else "" for unit in table.units)
    runs = {"run": [table.labels[i] for i in table.run]} if table.labels else {}
    values = {f"{name}{unit}": values for name, values in table.columns.items()}
    return pd.DataFrame({f"time{of_time}": table.time} | runs | values)


def _netcdf(table: PartialTable) -> bytes:
    return _netcdf_bytes(dataset_of(table))


def _netcdf_bytes(dataset: xr.Dataset) -> bytes:
    stream = io.BytesIO()
    dataset.to_netcdf(stream, engine="h5netcdf")
    return stream.getvalue()


def dataset_of(table: PartialTable) -> xr.Dataset:
    """Concentrations over time and species, and over runs where the table has labels of these; NaN: not measured."""
    times, frame = np.unique(table.time, return_inverse=True)
    filled = np.full((table.run.max() + 1, len(times), len(table.columns)), np.nan)
    filled[table.run, frame] = np.column_stack(list(table.columns.values()))
    values = xr.DataArray(filled, {"run": np.unique(table.run), "time": times, "species": list(table.columns)})
    values = values.assign_coords(run=list(table.labels)) if table.labels else values.isel(run=0, drop=True)
    unit, of_time = ({"units": unit} if unit else {} for unit in table.units)
    dataset = xr.Dataset({"concentration": values.assign_attrs(long_name="concentration", **unit)})
    dataset["time"] = dataset["time"].assign_attrs(long_name="time", **of_time)
    return dataset
