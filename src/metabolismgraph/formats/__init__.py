"""Reading of data files as `Observations`.

A format is a module with a function from paths to `Observations`, and a line in `_FORMATS`.
"""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Mapping
from pathlib import Path

from metabolismgraph.errors import InputError
from metabolismgraph.system.observations import Observations

_log = logging.getLogger(__name__)

# Module and function by suffix of the first path, in lower case ("" for a folder).
_FORMATS = {
    "": "dataset:read_dataset",
    ".xml": "network_and_table:read_network_and_table",
}
_DEFAULT = ".xml"  # network files have many suffixes; the content is checked by the reader


def read(*paths: str | Path, names: Mapping[str, str] | None = None) -> Observations:
    """Read concentration time series and their reaction network.

    Args:
        paths: a network file (SBML Level 2 or 3, or Antimony) and tables of concentrations (CSV, TSV, spreadsheet or
            Parquet, wide or long), one for every experiment; or one data set folder with network.xml and
            timeseries.csv.gz.
        names: what names in the tables stand for, such as {"Glc": "s_0563", "Zeit": "time"}: ids of species, time or
            run.

    Returns:
        Concentrations (frames x species) at the times of the table, in the units of the data. `notes` lists
        all assumptions.

    Raises:
        InputError: a file is missing or invalid, or the two are inconsistent; the message says where, and what
            to do.

    Example:
        >>> import metabolismgraph as mg
        >>> config = mg.load_config("small", ["simulation.n_frames=50"])
        >>> mg.write_dataset("my_data", mg.simulate(config).observations)
        >>> observations = mg.read("my_data/network.xml", "my_data/timeseries.csv.gz")
        >>> observations.concentration.shape
        (51, 30)
        >>> mg.read("my_data").network.n_reactions
        72
    """
    if not paths:
        raise InputError("read: give a network file and a table of concentrations, or a data set folder")
    found = [Path(path) for path in paths]
    module, _, name = _FORMATS[_kind(found)].partition(":")
    reader = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    parameters = inspect.signature(reader).parameters
    wanted = [name for name, p in parameters.items() if p.kind is not p.KEYWORD_ONLY]
    several = any(p.kind is p.VAR_POSITIONAL for p in parameters.values())
    if names and "names" not in parameters:
        raise InputError(f"{found[0]}: the names of this format are fixed; leave `names` out")
    if len(found) < len(wanted) or (len(found) > len(wanted) and not several):
        raise InputError(f"{found[0]}: expected {' and '.join(wanted)}, but {len(found)} paths were given")
    observations: Observations = reader(*found, names=names) if names else reader(*found)
    _log.info("read %s: %d frames", " and ".join(map(str, found)), observations.n_frames)
    for note in observations.notes:
        _log.info("%s: %s", found[0], note)
    return observations


def _kind(paths: list[Path]) -> str:
    """The key in `_FORMATS` for some paths."""
    first = paths[0]
    if first.is_dir():
        return ""
    if first.suffix.casefold() in _FORMATS:
        return first.suffix.casefold()
    return "" if len(paths) == 1 and not first.exists() else _DEFAULT
