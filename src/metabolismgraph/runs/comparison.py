"""Comparison of runs in one page: their settings, metrics, rate constants and homeostasis, side by side."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np
import pandas as pd

from metabolismgraph.errors import InputError
from metabolismgraph.metrics import Value, find
from metabolismgraph.reports import words
from metabolismgraph.reports.page import plain, render
from metabolismgraph.runs.folder import HOMEOSTASIS, RATE_CONSTANTS, RunFolder
from metabolismgraph.runs.report_results import read_metrics, read_table

MOST = len(ascii_uppercase)
_WITHOUT_RESULTS = ("description", "dataset", "plotting", "exploration")  # what results do not depend on


@dataclasses.dataclass(frozen=True)
class _Run:
    """A finished run with a letter for tables."""

    letter: str
    path: Path
    folder: RunFolder
    metrics: Mapping[str, Value]
    constants: pd.DataFrame
    homeostasis: pd.DataFrame


def render_comparison(paths: Sequence[Path]) -> str:
    """The page of a comparison of finished runs.

    Differences are in units of their standard errors, which holds for fits of different data: the errors of two fits
    of the same data are not independent.

    Raises:
        InputError: too many runs, or one has no results.
        FirewallError: the training of one tried to reach something outside its folder.
    """
    if len(paths) > MOST:
        raise InputError(f"{len(paths)} runs: a page compares at most {MOST}; leave some out")
    runs = [_read(letter, path) for letter, path in zip(ascii_uppercase, paths, strict=False)]
    content = {
        "title": f"Comparison of {len(runs)} runs",
        "sides": [(run.letter, str(run.path), _verdict(run)) for run in runs],
        "remark": _data(runs),
        "headings": ["setting", *(run.letter for run in runs)],
        "settings": _settings(runs),
        "evidence": [],
        "differences": [],
    }
    tables = {
        "metrics": _metrics(runs),
        "constants": _estimates(
            {run.letter: run.constants for run in runs},
            ["reaction", "equation"],
            ("identifiable", "log10_k", "standard_error"),
        ),
        "homeostasis": _estimates(
            {run.letter: run.homeostasis for run in runs}, ["species"], ("resolved", "slope", "slope_error")
        ),
    }
    described = [
        ("metrics", "Metrics", "metrics", ""),
        ("constants", "Rate constants", "rate constants", "log10 k with its standard error; only determined ones."),
        ("homeostasis", "Homeostasis", "species", "Slope with its standard error; only resolved ones."),
    ]
    return render("comparison.html", content | {"tables": described}, tables)


def _read(letter: str, path: Path) -> _Run:
    folder = RunFolder.open(path)
    if not folder.is_finished("evaluate"):
        raise InputError(f"{path}: has no results; continue it with --resume")
    constants = read_table(path / RATE_CONSTANTS)
    homeostasis = read_table(path / HOMEOSTASIS)
    return _Run(letter, path, folder, read_metrics(path / "metrics.json"), constants, homeostasis)


def _verdict(run: _Run) -> str:
    trusted = "trusted" if run.metrics.get("trustworthy") is True else "not to be trusted"
    reasons = "; ".join(words.listed(run.metrics, "why_not"))
    known = f"{int(run.constants['identifiable'].sum())} of {len(run.constants)} rate constants are determined"
    return f"{trusted}{f' ({reasons})' if reasons else ''}; {known}"


def _data(runs: Sequence[_Run]) -> str:
    if len({run.folder.manifest.get("observations") for run in runs}) == 1:
        return (
            "All were trained on the same data, so their errors are not independent: differences between them are "
            "smaller than these errors suggest."
        )
    equations = [run.constants.set_index("reaction")["equation"].to_dict() for run in runs]
    if all(found == equations[0] for found in equations):
        return "They were trained on different data of the same network."
    return (
        "They are of different networks: reactions are compared where their names and equations are the same, species "
        "where their names are."
    )


def _settings(runs: Sequence[_Run]) -> list[list[str]]:
    """Settings and versions that differ."""
    found = [_flat(run) for run in runs]
    keys = dict.fromkeys(key for each in found for key in each)
    rows = [[key, *(each.get(key, "-") for each in found)] for key in keys]
    return [row for row in rows if len(set(row[1:])) > 1]


def _flat(run: _Run) -> dict[str, str]:
    config = run.folder.config.model_dump(mode="json", exclude=set(_WITHOUT_RESULTS))
    settings = {
        f"{section}.{key}": json.dumps(value) for section, found in config.items() for key, value in found.items()
    }
    versions = run.folder.manifest.get("versions")
    return settings | ({str(k): str(v) for k, v in versions.items()} if isinstance(versions, dict) else {})


def _metrics(runs: Sequence[_Run]) -> dict[str, Any]:
    rows = []
    for name in dict.fromkeys(name for run in runs for name in run.metrics):
        metric, values = find(name), [run.metrics.get(name) for run in runs]
        if metric is not None and not any(isinstance(value, list) for value in values):
            rows.append([name, *map(plain, values), metric.unit, metric.meaning])
    return {"columns": ["metric", *(run.letter for run in runs), "unit", "meaning"], "rows": rows}


def _estimates(tables: Mapping[str, pd.DataFrame], names: list[str], columns: tuple[str, str, str]) -> dict[str, Any]:
    """Estimates of every run, and the largest difference between two runs in units of its standard error.

    Args:
        tables: by the letters of the runs.
        names: columns that tell what is estimated: the same in two runs only if all are equal.
        columns: whether an estimate is shown, its value and its standard error.
    """
    shown, value, error = columns
    found = [
        table[table[shown]].drop_duplicates(names).set_index(names)[[value, error]].astype(float)
        for table in tables.values()
    ]
    joined = pd.concat(found, axis=1, keys=list(tables))
    values, errors = (joined.xs(part, axis=1, level=1).to_numpy() for part in (value, error))
    differences = np.abs(values[:, :, None] - values[:, None, :])
    scale = np.hypot(errors[:, :, None], errors[:, None, :])
    two = ~np.eye(len(tables), dtype=bool) & (scale > 0)
    units = np.divide(differences, scale, out=np.full_like(scale, np.nan), where=two)
    largest = np.where(np.isnan(units), -np.inf, units).max(axis=(1, 2), initial=-np.inf)
    rows = [
        [*map(str, one), *map(plain, row), plain(most)]
        for one, row, most in zip(joined.index.to_frame().to_numpy(), joined.to_numpy(), largest, strict=True)
    ]
    titles = [title for letter in tables for title in (letter, f"error {letter}")]
    return {"columns": [*names, *titles, "largest difference [standard errors]"], "rows": rows}
