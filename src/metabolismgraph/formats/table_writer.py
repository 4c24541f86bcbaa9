"""Writing concentration time series as tables, which `tables` reads."""

from __future__ import annotations

import dataclasses
import gzip
from pathlib import Path

import numpy as np

from metabolismgraph.files import write_bytes
from metabolismgraph.system.observations import Observations

_TIME, CONCENTRATION = "%.12g", "%.9g"  # 9 digits are sufficient for exact float32 values


def as_written(observations: Observations) -> Observations:
    """The observations with the digits that `write_timeseries` writes, so that a fit of the file has the same result.

    Example:
        >>> import metabolismgraph as mg
        >>> data = mg.simulate(mg.load_config("small", ["simulation.n_frames=3"])).observations
        >>> float(as_written(data).concentration[1, 0])
        1.52593851
    """
    time = [float(_TIME % value) for value in observations.time.tolist()]
    c = [float(CONCENTRATION % value) for value in observations.concentration.ravel().tolist()]
    shape = observations.concentration.shape
    return dataclasses.replace(observations, time=np.array(time), concentration=np.array(c).reshape(shape))


def write_timeseries(observations: Observations, path: Path) -> None:
    """Write a wide table with time in the first column and `run` if there are several, compressed for names with .gz.

    Concentrations have 9 significant digits, times 12. The separator is a tab for names with .tsv, otherwise a comma.
    Equal observations give identical bytes.
    """
    separator = "\t" if ".tsv" in path.suffixes else ","
    several = len(np.unique(observations.run)) > 1
    network = observations.network
    # If the volume is not 1, an id without brackets could be read as an amount.
    names = [name if size == 1 else f"[{name}]" for name, size in zip(network.species, network.volume, strict=True)]
    header = separator.join(["time", *["run"] * several, *names])
    pattern = separator.join([_TIME, *["%d"] * several, *[CONCENTRATION] * network.n_species])
    c = np.where(observations.measured, observations.concentration, np.nan)
    rows = np.column_stack([observations.time, *[observations.run] * several, c]).tolist()
    lines = [pattern % tuple(row) for row in rows]
    if observations.interpolated is not None:  # an empty cell was not measured
        lines = [line.replace("nan", "") for line in lines]
    content = "\n".join([header, *lines, ""]).encode()
    # Digits are hard to compress: this level takes a sixth of the time of the usual one, and 7 % more bytes. Without a
    # time stamp in the header, equal data give equal files.
    write_bytes(path, gzip.compress(content, compresslevel=2, mtime=0) if path.suffix == ".gz" else content)
