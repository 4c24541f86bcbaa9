"""The folder of a fit of a PEtab problem."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from metabolismgraph.errors import InputError
from metabolismgraph.files import new_folder
from metabolismgraph.kinetic_models.fit_result import PetabFit

ESTIMATES, STARTS, POINTS = "estimates.csv", "starts.csv", "points.csv"
SIMULATION, PARAMETERS = "simulated.tsv", "parameters.tsv"
WATERFALL, MEASUREMENTS, NOTES = "waterfall.png", "measurements.png", "notes.txt"
_DPI = 150


def check_new(folder: Path, *, overwrite: bool) -> None:
    """Check that a folder of results can be written.

    Raises:
        InputError: something is there, and is not to be replaced, or is not a folder of this kind.
    """
    if not folder.exists():
        parent = next(path for path in folder.absolute().parents if path.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise InputError(f"{folder}: cannot be made in {parent}; choose another --out")
        return
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file; choose another --out")
    if any(folder.iterdir()):
        if not overwrite:
            raise InputError(f"{folder} is not empty; choose another --out, or give --overwrite")
        if not (folder / ESTIMATES).exists():
            raise InputError(f"{folder} is not empty and not the folder of a fit; choose another --out")


def write_petab_fit(fit: PetabFit, folder: Path, *, overwrite: bool = False) -> None:
    """Write tables and figures of a fit, all of them or none.

    Raises:
        InputError: as for `check_new`, or the folder cannot be written.
    """
    from metabolismgraph.figures.petab import draw_measurements, draw_waterfall  # noqa: PLC0415 (Matplotlib is slow)

    check_new(folder, overwrite=overwrite)
    with new_folder(folder) as part:
        _write(fit.estimates, part / ESTIMATES)
        _write(fit.starts, part / STARTS)
        _write(fit.points, part / POINTS)
        _write(fit.simulation, part / SIMULATION, index=False)
        table = fit.problem.parameters.copy()
        table["nominalValue"] = table.get("nominalValue", pd.Series(index=table.index, dtype=float)).astype(float)
        table.loc[fit.estimates.index, "nominalValue"] = fit.estimates["estimate"]
        _write(table, part / PARAMETERS)
        (part / NOTES).write_text("".join(f"{note}\n" for note in fit.notes), encoding="utf-8")
        draw_waterfall(fit, part / WATERFALL, _DPI)
        draw_measurements(fit, part / MEASUREMENTS, _DPI)


def _write(table: pd.DataFrame, path: Path, *, index: bool = True) -> None:
    separator = "\t" if path.suffix == ".tsv" else ","
    table.to_csv(path, sep=separator, index=index, float_format="%.12g", lineterminator="\n")
