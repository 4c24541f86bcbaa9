"""Two files: a network (SBML), and a table with the concentrations of its species."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from metabolismgraph.errors import InputError
from metabolismgraph.formats.sbml import SbmlModel, read_sbml
from metabolismgraph.formats.tables import read_timeseries
from metabolismgraph.system.observations import Observations

_OF_TABLES = {".csv", ".tsv", ".txt", ".xlsx", ".parquet"}


def read_network_and_table(network: Path, timeseries: Path) -> Observations:
    """Read a network (SBML) and the time series of its species (CSV, TSV, spreadsheet or Parquet).

    The observations have the notes on the network, then those on the table.

    Raises:
        InputError: a file is missing or invalid, or the two are inconsistent.
    """
    return read_with_model(network, timeseries)[0]


def read_with_model(network: Path, timeseries: Path) -> tuple[Observations, SbmlModel]:
    """The observations of `read_network_and_table`, and the complete model of the network file.

    Raises:
        InputError: as for `read_network_and_table`.
    """
    if _OF_TABLES & set(network.suffixes) and timeseries.suffix in {".xml", ".sbml"}:
        raise InputError(f"{network}: looks like the table, and {timeseries} like the network; the network comes first")
    model = read_sbml(network)
    observations = read_timeseries(timeseries, model.network, model)
    return dataclasses.replace(observations, notes=(*model.notes, *observations.notes)), model
