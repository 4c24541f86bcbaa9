"""A data set in a folder: network.xml, timeseries.csv.gz and, for simulated ones, truth/ (not handled here)."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from metabolismgraph.errors import InputError
from metabolismgraph.formats.sbml import SbmlModel, read_sbml, write_sbml
from metabolismgraph.formats.tables import read_timeseries, write_timeseries
from metabolismgraph.system.observations import Observations

NETWORK = "network.xml"
TIMESERIES = ("timeseries.csv.gz", "timeseries.csv", "timeseries.parquet")  # the first is what is written


def new_dataset_folder(folder: Path, *, overwrite: bool = False) -> Path:
    """Make sure that a data set can be written to a folder.

    Raises:
        InputError: it holds something else, or a data set and `overwrite` is false; or cannot be written.
    """
    try:
        if folder.exists() and any(folder.iterdir()):
            if not (folder / NETWORK).exists():
                raise InputError(f"{folder}: holds files but no data set; choose another --out")
            if not overwrite:
                raise InputError(f"{folder}: holds a data set; add --overwrite, or choose another --out")
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise InputError(f"{folder}: cannot be written; choose another --out")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another --out") from None
    return folder


def write_dataset(folder: Path, observations: Observations) -> None:
    """Write network.xml, with the first frame as initial concentrations, and timeseries.csv.gz.

    Raises:
        ValueError: the network cannot be written as SBML (see `write_sbml`).
    """
    folder.mkdir(parents=True, exist_ok=True)
    first = [float(f"{value:.9g}") for value in observations.concentration[0]]  # as in the table
    initial = dict(zip(observations.network.species, first, strict=True))
    write_sbml(observations.network, folder / NETWORK, initial)
    write_timeseries(observations, folder / TIMESERIES[0])


def read_dataset(folder: Path) -> Observations:
    """Read a data set folder.

    Raises:
        InputError: a file is missing or wrong.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; a data set holds {NETWORK} and {TIMESERIES[0]}")
    table = next((folder / name for name in TIMESERIES if (folder / name).exists()), folder / TIMESERIES[0])
    return read_inputs(folder / NETWORK, table)[0]


def read_inputs(network_path: Path, timeseries_path: Path) -> tuple[Observations, SbmlModel]:
    """Read a network (SBML) and the time series of its species (CSV, TSV, spreadsheet or Parquet).

    The notes of the observations are those on the network, then those on the table.

    Raises:
        InputError: a file is missing or wrong, or the two do not belong together.
    """
    model = read_sbml(network_path)
    observations = read_timeseries(timeseries_path, model.network, model)
    return dataclasses.replace(observations, notes=(*model.notes, *observations.notes)), model
