"""The folder of a fit of a PEtab problem."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import libsbml
import pandas as pd

from metabolismgraph.errors import InputError
from metabolismgraph.files import new_folder
from metabolismgraph.formats.sbml import read_document
from metabolismgraph.kinetic_models.fit_result import PetabFit

if TYPE_CHECKING:
    from metabolismgraph.kinetic_models.comparison import Comparison

ESTIMATES, STARTS, POINTS = "estimates.csv", "starts.csv", "points.csv"
SIMULATION, PARAMETERS = "simulated.tsv", "parameters.tsv"
HELD_OUT, PREDICTION, MODEL, PROBLEM = "held_out.tsv", "prediction.csv", "model.xml", "problem"
WATERFALL, MEASUREMENTS, NOTES = "waterfall.png", "measurements.png", "notes.txt"
HELD_OUT_FIGURE, COMPARISON = "held_out.png", "comparison.csv"
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
        if not any((folder / name).exists() for name in (ESTIMATES, COMPARISON)):
            raise InputError(f"{folder} is not empty and not the folder of a fit; choose another --out")


def write_petab_fit(
    fit: PetabFit, folder: Path, *, notes: Sequence[str] = (), files: Path | None = None, overwrite: bool = False
) -> None:
    """Write tables, figures and the model of a fit, all of them or none.

    Args:
        notes: assumptions that come before the notes of the fit.
        files: a folder with the files of the problem, which are to be kept.

    Raises:
        InputError: as for `check_new`, or the folder cannot be written.
    """
    from metabolismgraph.figures.petab import draw_held_out, draw_measurements, draw_waterfall  # noqa: PLC0415 (Matplotlib is slow)
    from metabolismgraph.kinetic_models.held_out import skill  # noqa: PLC0415 (CasADi is optional)

    check_new(folder, overwrite=overwrite)
    with new_folder(folder) as part:
        _write(fit.estimates, part / ESTIMATES)
        _write(fit.starts, part / STARTS)
        _write(fit.points, part / POINTS)
        _write(fit.simulation, part / SIMULATION, index=False)
        table = fit.problem.parameters.copy()
        table["nominalValue"] = table.get("nominalValue", pd.Series(index=table.index, dtype=float)).astype(float)
        table.loc[fit.estimates.index, "nominalValue"] = fit.estimates["estimate"]
        if fit.problem.experiments:  # version 2
            table = table.drop(columns="parameterScale").replace({"estimate": {"1": "true", "0": "false"}})
        _write(table, part / PARAMETERS)
        (part / NOTES).write_text("".join(f"{note}\n" for note in (*notes, *fit.notes)), encoding="utf-8")
        (part / MODEL).write_text(_model_text(fit), encoding="utf-8")
        if files is not None:
            shutil.copytree(files, part / PROBLEM)
        if len(fit.held_out):
            _write(fit.held_out, part / HELD_OUT, index=False)
            _write(skill(fit.held_out), part / PREDICTION)
            draw_held_out(fit, part / HELD_OUT_FIGURE, _DPI)
        draw_waterfall(fit, part / WATERFALL, _DPI)
        draw_measurements(fit, part / MEASUREMENTS, _DPI)


def write_comparison(comparison: Comparison, folder: Path, *, made: Path, overwrite: bool = False) -> None:
    """Write the table of a comparison, and the folder of every fit in it, all of them or none.

    Args:
        made: folder of the problems that were written for the comparison; their files are kept.

    Raises:
        InputError: as for `check_new`, or the folder cannot be written.
    """
    check_new(folder, overwrite=overwrite)
    with new_folder(folder) as part:
        for name, fit in comparison.fits.items():
            place = fit.problem.path.parent
            files = place if place.is_relative_to(made) else None
            write_petab_fit(fit, part / name, notes=comparison.problems[name].notes, files=files)
        _write(comparison.table, part / COMPARISON)
        (part / NOTES).write_text("".join(f"{note}\n" for note in comparison.notes), encoding="utf-8")


def _model_text(fit: PetabFit) -> str:
    """The SBML model with the estimates, and other values of the parameter table, as values of its parameters."""
    document = read_document(fit.problem.model, needs_network=False)
    values = fit.problem.nominal | fit.estimates["estimate"].to_dict()
    for parameter in document.getModel().getListOfParameters():
        if parameter.getId() in values:
            parameter.setValue(float(values[parameter.getId()]))
    return str(libsbml.writeSBMLToString(document))


def _write(table: pd.DataFrame, path: Path, *, index: bool = True) -> None:
    separator = "\t" if path.suffix == ".tsv" else ","
    table.to_csv(path, sep=separator, index=index, float_format="%.12g", lineterminator="\n")
