"""A network (SBML), and tables with the concentrations of its species."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from metabolismgraph.errors import InputError
from metabolismgraph.formats.antimony import is_antimony
from metabolismgraph.formats.sbml import SbmlModel, read_sbml
from metabolismgraph.formats.tables import read_several_timeseries
from metabolismgraph.system.observations import Observations

_OF_TABLES = {".csv", ".tsv", ".txt", ".xlsx", ".parquet"}


def read_network_and_table(network: Path, *timeseries: Path, names: Mapping[str, str] | None = None) -> Observations:
    """Read a network (SBML or Antimony) and the time series of its species (CSV, TSV, spreadsheet or Parquet).

    Several tables are several experiments. The observations have the notes on the network, then those on the table.

    Raises:
        InputError: a file is missing or invalid, or the two are inconsistent.
    """
    return read_with_model(network, *timeseries, names=names)[0]


def read_with_model(
    network: Path, *timeseries: Path, names: Mapping[str, str] | None = None
) -> tuple[Observations, SbmlModel]:
    """The observations of `read_network_and_table`, and the complete model of the network file.

    Raises:
        InputError: as for `read_network_and_table`.
    """
    networks = [path for path in timeseries if path.suffix in {".xml", ".sbml"} or is_antimony(path)]
    if networks and _OF_TABLES & set(network.suffixes):
        raise InputError(
            f"{network}: looks like the table, and {networks[0]} like the network; the network comes first"
        )
    model = read_sbml(network)
    observations = read_several_timeseries(timeseries, model.network, model, names)
    return dataclasses.replace(observations, notes=(*model.notes, *observations.notes)), model
