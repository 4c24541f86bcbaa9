"""Data set folders: network.xml, timeseries.csv.gz and, for simulated data, truth/ (see `ground_truth`)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metabolismgraph.errors import InputError
from metabolismgraph.formats.sbml_writer import write_sbml
from metabolismgraph.formats.table_writer import CONCENTRATION, write_timeseries
from metabolismgraph.system.observations import Observations

NETWORK = "network.xml"
TIMESERIES = ("timeseries.csv.gz", "timeseries.csv", "timeseries.parquet")  # the first is the name for writing


def check_dataset_folder(folder: Path, *, overwrite: bool = False) -> None:
    """Check that a data set can be written into a folder, before work is done for it.

    Raises:
        InputError: the folder contains other files, or a data set while `overwrite` is false; or it is not writable.
    """
    try:
        if folder.exists() and any(folder.iterdir()):
            if not (folder / NETWORK).exists():
                raise InputError(f"{folder}: contains files but no data set; choose another folder")
            if not overwrite:
                raise InputError(f"{folder}: holds a data set; add --overwrite, or choose another folder")
        there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise InputError(f"{folder}: cannot be written; choose another folder")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from None


@contextmanager
def new_dataset(folder: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder for the files of a data set, which are moved into its place when all are written.

    Raises:
        InputError: as for `check_dataset_folder`, or a file cannot be written.
    """
    check_dataset_folder(folder, overwrite=overwrite)
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        yield part
        if not folder.exists():
            part.replace(folder)
            return
        shutil.rmtree(folder / "truth", ignore_errors=True)  # of the data set before
        for path in part.iterdir():
            path.replace(folder / path.name)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_dataset(folder: str | Path, observations: Observations) -> None:
    """Write network.xml, with the first frame as initial concentrations, and timeseries.csv.gz.

    Args:
        folder: the folder; created if it does not exist.
        observations: network and concentrations. The table has 9 significant digits.

    Raises:
        ValueError: the network cannot be written as SBML, for instance because of an invalid id.

    Example:
        >>> import metabolismgraph as mg
        >>> config = mg.load_config("small", ["simulation.n_frames=20"])
        >>> mg.write_dataset("small_system", mg.simulate(config).observations)
        >>> mg.read("small_system").n_frames
        21
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    first = [float(CONCENTRATION % value) for value in observations.concentration[0]]  # as in the table
    initial = dict(zip(observations.network.species, first, strict=True))
    write_sbml(observations.network, folder / NETWORK, initial)
    write_timeseries(observations, folder / TIMESERIES[0])


def read_dataset(folder: Path) -> Observations:
    """Read a data set folder.

    Raises:
        InputError: a file is missing or invalid.
    """
    from metabolismgraph.formats.network_and_table import (  # noqa: PLC0415 (libsbml and pandas are slow to import)
        read_network_and_table,
    )

    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; a data set holds {NETWORK} and {TIMESERIES[0]}")
    table = next((folder / name for name in TIMESERIES if (folder / name).exists()), folder / TIMESERIES[0])
    return read_network_and_table(folder / NETWORK, table)
