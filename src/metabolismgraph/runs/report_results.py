"""The part of report.html that shows the results of a finished run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from metabolismgraph.config import Training
from metabolismgraph.errors import InputError
from metabolismgraph.evaluation.variables import model_trace
from metabolismgraph.metrics import Value, find
from metabolismgraph.reports import words
from metabolismgraph.reports.page import picture, plain
from metabolismgraph.runs import sentences
from metabolismgraph.runs.checkpoint import OBSERVATIONS_FILE, PHASE1_FILE, load_observations, load_phase1
from metabolismgraph.runs.folder import HOMEOSTASIS, RATE_CONSTANTS, RunFolder
from metabolismgraph.runs.points import embedding_points, rate_points, read_evaluation, residual_cells, trace_lines
from metabolismgraph.system.observations import Observations

# Columns that the page needs, of any text, of numbers, and of truth values.
_COLUMNS = {
    RATE_CONSTANTS: (
        ("reaction", "equation", "unit", "combination", "reason"),
        ("k", "log10_k", "standard_error", "lower", "upper"),
        ("identifiable",),
    ),
    HOMEOSTASIS: (("species",), ("slope", "slope_error", "baseline", "baseline_error"), ("resolved",)),
}
_FIGURES = {
    "traces.png": "Concentrations over time; held-out frames are shaded.",
    "mlp_sub.png": "The learned substrate function, with its 95 % band where it is known.",
    "homeostasis.png": "Strength and set point of homeostasis of every species, by type.",
    "singular_values.png": "Singular values of the concentrations: how many directions the data explore.",
    "kinograph.png": "Concentrations of all species over time, and their residuals.",
}
_SUMMARY = "summary.png"


def results_content(folder: RunFolder, evaluation: xr.Dataset | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The content of the page of a finished run, and the data of its tables."""
    metrics = read_metrics(folder.path / "metrics.json")
    constants, homeostasis = (read_table(folder.path / name) for name in _COLUMNS)
    types = _types(metrics, homeostasis)
    observations = load_observations(folder.given / OBSERVATIONS_FILE)
    if evaluation is None:
        evaluation = read_evaluation(folder.path / "evaluation.nc", observations)
    embeddings, residuals = embedding_points(evaluation), residual_cells(evaluation)
    content = {
        "results": {
            "verdict": sentences.verdict(metrics, constants, homeostasis, len(types)),
            "trusted": metrics.get("trustworthy") is True,
            "reasons": words.listed(metrics, "why_not"),
            "undetermined": sentences.undetermined(constants),
            "inseparable": sentences.inseparable(constants),
            "types": types,
            "resolved": bool(homeostasis["resolved"].any()),
            "notes": words.listed(metrics, "notes"),
            "data": [("origin", _made_by(folder)), *_data(observations, folder.config.training)],
            "has_embeddings": embeddings is not None,
            "has_residuals": residuals is not None,
            "has_truth": "rate_constants_R2" in metrics,
            "summary": picture(folder.path / "figures" / _SUMMARY),
            "figures": [
                (name, _caption(name, evaluation), picture(folder.path / "figures" / name))
                for name in _FIGURES
                if (folder.path / "figures" / name).exists()
            ],
            "methods": _methods(folder),
        }
    }
    tables = {
        "constants": _records(_constants(constants)),
        "homeostasis": _records(homeostasis),
        "metrics": _described(metrics),
        "rate_points": rate_points(constants, evaluation),
        "embedding_points": embeddings,
        "traces": trace_lines(observations, evaluation),
        "residuals": residuals,
    }
    return content, tables


def _caption(name: str, evaluation: xr.Dataset | None) -> str:
    """The caption of a figure."""
    has_model = name == "traces.png" and evaluation is not None and model_trace(evaluation) is not None
    return _FIGURES[name] + (" The dashed line is the model." if has_model else "")


def read_metrics(path: Path) -> Mapping[str, Value]:
    """The metrics of a run.

    Raises:
        InputError: they are missing or damaged.
    """
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        raise InputError(f"{path}: missing or damaged; `metabolismgraph evaluate` writes it again") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: damaged; `metabolismgraph evaluate` writes it again")
    return found


def read_table(path: Path) -> pd.DataFrame:
    """rate_constants.csv or homeostasis.csv of a run.

    Raises:
        InputError: it is missing or damaged.
    """
    advice = "`metabolismgraph evaluate` writes it again"
    try:
        table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    except (OSError, ValueError):
        raise InputError(f"{path}: missing or damaged; {advice}") from None
    text, numbers, flags = _COLUMNS[path.name]
    right = {*text, *numbers, *flags} <= {*table.columns}
    if right and not table.empty:  # whose columns would have no type
        right = all(is_numeric_dtype(table[name]) for name in numbers) and all(
            is_bool_dtype(table[name]) for name in flags
        )
    if not right:
        raise InputError(f"{path}: columns are missing, or not what they were; {advice}")
    return table.astype(dict.fromkeys(flags, bool))


def _constants(table: pd.DataFrame) -> pd.DataFrame:
    """The table of rate constants, with what not to trust before the numbers."""
    first = ["reaction", "equation", "identifiable"]
    table = table[[*first, *(name for name in table if name not in first)]]
    return table.rename(columns={"identifiable": "determined", "standard_error": "standard error of log10 k"})


def _records(table: pd.DataFrame) -> dict[str, Any]:
    """The columns and rows of a table; numbers with the digits that a table shows."""
    return {
        "columns": list(table.columns),
        "rows": [[plain(value) for value in row] for row in table.itertuples(index=False)],
    }


def _described(metrics: Mapping[str, Value]) -> dict[str, Any]:
    """Metrics with their meaning and unit."""
    rows = []
    for name, value in metrics.items():
        metric = find(name)
        if isinstance(value, list) or value is None or metric is None:
            continue
        rows.append([name, plain(value), metric.unit, metric.meaning])
    return {"columns": ["metric", "value", "unit", "meaning"], "rows": rows}


def _types(metrics: Mapping[str, Value], homeostasis: pd.DataFrame) -> list[dict[str, Any]]:
    """Every type with its members among the species whose homeostasis is resolved, its strength and its baseline.

    Both are the estimates of the evaluation, which a fit that is not to be trusted does not have.
    """
    if "type" not in homeostasis:
        return []
    resolved = homeostasis[homeostasis["resolved"]]
    kinds = pd.to_numeric(resolved["type"], errors="coerce")
    return [
        {
            "type": f"{kind:g}",
            "number": len(group),
            "members": list(map(str, group["species"])),
            "strength": _estimate(metrics, "lambda", float(kind)),
            "baseline": _estimate(metrics, "baseline", float(kind)),
        }
        for kind, group in resolved.groupby(kinds[kinds >= 0], sort=True)
    ]


def _estimate(metrics: Mapping[str, Value], name: str, kind: float) -> str:
    """An estimate of a type with its standard error."""
    value, error = (metrics.get(f"{name}{part}_cluster_{kind:g}") for part in ("", "_error"))
    known = isinstance(value, int | float) and isinstance(error, int | float)
    return f"{value:.6g} ± {error:.1g}" if known else "not estimated"


def _made_by(folder: RunFolder) -> str:
    """Whether the data were measured or simulated, with the noise of a simulation."""
    if folder.manifest["source"].get("command") != "run":
        return "read from files"
    noise = folder.config.simulation.noise_model_level, folder.config.simulation.measurement_noise_level
    of_process, of_measurement = (f"{level:g}" if level else "none" for level in noise)
    return f"simulated; noise of the process {of_process}, of the measurement {of_measurement}"


def _data(seen: Observations, training: Training) -> list[tuple[str, str]]:
    """What was measured, in numbers."""
    c, missing = seen.concentration, seen.interpolated
    steps = seen.transitions().dt
    return [
        ("species", f"{seen.network.n_species}"),
        ("reactions", f"{seen.network.n_reactions}"),
        ("runs", f"{len(np.unique(seen.run))}"),
        ("frames", f"{seen.n_frames}"),
        ("time", f"{seen.time.min():g} to {seen.time.max():g}"),
        ("step", f"{steps.min():g}" if np.allclose(steps, steps[0]) else f"{steps.min():g} to {steps.max():g}"),
        ("concentrations", f"{c.min():.4g} to {c.max():.4g}"),
        ("values not measured", "none" if missing is None else f"{missing.mean():.1%}"),
        ("held out from training", _held_out(training)),
    ]


def _held_out(training: Training) -> str:
    if not training.held_out_fraction:
        return "nothing"
    which = "the last" if not training.held_out_part else f"part {training.held_out_part} from the end"
    return f"{training.held_out_fraction:.0%} of the frames of every run: {which}"


def _methods(folder: RunFolder) -> str:
    phase1 = load_phase1(folder.given / PHASE1_FILE, folder.config.graph_model)
    versions = folder.facts("versions")
    n_known, n = int(np.sum(phase1.mass_action)), len(phase1.mass_action)
    learned = "a function of concentration and order that was learned"
    law = (
        "mass action"
        if n_known == n
        else learned
        if not n_known
        else f"mass action in {n_known} reactions, in others {learned}"
    )
    return sentences.methods(
        versions.get("metabolismgraph", ""),
        versions.get("jax", ""),
        by_trajectories=phase1.trajectories is not None,
        law=f"The rate law is {law}",
        homeostasis=folder.config.training.homeostasis_training,
    )
