"""Files in and out."""

from __future__ import annotations

from pathlib import Path

from metabolismgraph.formats.dataset import read_dataset, read_inputs
from metabolismgraph.system.observations import Observations


def read(network: str | Path, timeseries: str | Path | None = None) -> Observations:
    """Read a network (SBML) and the time series of its species, or a data set folder.

    Args:
        network: SBML file of Level 2 or 3; or a data set folder, which holds both files.
        timeseries: table of concentrations: CSV, TSV, spreadsheet or Parquet.

    Raises:
        InputError: a file is missing or wrong, or the two do not belong together.
    """
    if timeseries is None:
        return read_dataset(Path(network))
    return read_inputs(Path(network), Path(timeseries))[0]
