"""Data of those figures of a page that answer to the pointer: rate constants, embeddings, concentrations, residuals.

Arrays are thinned to what a screen shows; the whole data are in the run folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from metabolismgraph.errors import InputError
from metabolismgraph.evaluation.variables import MODEL_TRACES, model_trace
from metabolismgraph.reports.page import plain
from metabolismgraph.system.observations import Observations

_POINTS = 5000  # of a scatter
_NEEDED = ("reaction", "species", "moving", "cluster")  # the last three only with embeddings
_NUMBERS, _FRAMES = 30_000, 300  # of the concentrations: all together, and of one species
_CELLS = 100  # of the residuals, in each direction


def read_evaluation(path: Path, observations: Observations) -> xr.Dataset | None:
    """evaluation.nc of a run; None if there is none.

    Raises:
        InputError: it is damaged, or has other numbers of frames or species than these.
    """
    if not path.exists():
        return None
    try:
        found = xr.load_dataset(path, engine="h5netcdf")
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise InputError(f"{path}: damaged ({error}); `metabolismgraph evaluate` writes it again") from None
    for name in _NEEDED[: None if "embedding" in found else 1]:
        if name not in found.variables:
            raise InputError(f"{path}: the variable {name} is missing; `metabolismgraph evaluate` writes it again")
    shape = (observations.n_frames, observations.network.n_species)
    if any(name in found and found[name].shape != shape for name in MODEL_TRACES):
        raise InputError(f"{path}: made for other data than this run; `metabolismgraph evaluate` writes it again")
    return found


def rate_points(constants: pd.DataFrame, evaluation: xr.Dataset | None) -> dict[str, Any]:
    """Determined rate constants: true values against estimates; without truth, in order with their errors.

    Args:
        constants: rate_constants.csv.
    """
    known = constants[constants["identifiable"]].sort_values("log10_k").head(_POINTS)
    true = _by_reaction(evaluation, "true_log_k")
    x = [true.get(name) for name in known["reaction"]] if true else range(1, len(known) + 1)
    rows = zip(known["reaction"], known["equation"], x, known["log10_k"], known["standard_error"], strict=True)
    return {
        "x": "true log10 k" if true else "rank of the rate constant",
        "y": "estimated log10 k",
        "diagonal": bool(true),
        "points": [
            [f"{name}: {equation}", plain(at), plain(k), plain(error), ""]
            for name, equation, at, k, error in rows
            if at is not None
        ],
    }


def embedding_points(evaluation: xr.Dataset | None) -> dict[str, Any] | None:
    """Embeddings of the species that may change, by cluster; None without Phase 2, or for one dimension."""
    if evaluation is None or "embedding" not in evaluation or evaluation.sizes["dim"] < 2:
        return None
    shown = np.flatnonzero(evaluation["moving"].to_numpy())[:_POINTS]
    a, clusters = evaluation["embedding"].to_numpy(), evaluation["cluster"].to_numpy()
    names = evaluation["species"].to_numpy()
    return {
        "x": "embedding a1",
        "y": "embedding a2",
        "diagonal": False,
        "points": [[str(names[i]), plain(a[i, 0]), plain(a[i, 1]), None, f"type {clusters[i]}"] for i in shown],
    }


def trace_lines(observations: Observations, evaluation: xr.Dataset | None) -> dict[str, Any]:
    """Concentrations over time: of every species where they are few, otherwise of those that change most.

    With those of the model in held-out frames, up to one measured range away from the measured range.
    """
    frames = np.unique(np.linspace(0, observations.n_frames - 1, _FRAMES).astype(int))
    c = observations.concentration
    most = min(observations.network.n_species, max(1, _NUMBERS // len(frames)))
    largest = np.sort(np.argsort(-np.ptp(c, axis=0), kind="stable")[:most])
    missing = observations.interpolated
    values = c if missing is None else np.where(missing, np.nan, c)
    found = {
        "names": [str(observations.network.species[i]) for i in largest],
        "shown": f"{len(frames)} of {observations.n_frames} frames",
        "left_out": observations.network.n_species - most,
        "time": [plain(t) for t in observations.time[frames]],
        "run": [int(r) for r in observations.run[frames]],
        "values": _rows(values[np.ix_(frames, largest)]),
    }
    shown = None if evaluation is None else model_trace(evaluation)
    if evaluation is not None and shown is not None:
        model = evaluation[shown].to_numpy()
        lowest, highest = c.min(axis=0), c.max(axis=0)
        margin = np.where(highest > lowest, highest - lowest, 0.1 * highest)
        found["model"] = _rows(np.clip(model, lowest - margin, highest + margin)[np.ix_(frames, largest)])
        found["dashed"] = MODEL_TRACES[shown]
    return found


def _rows(values: Float[np.ndarray, "frames species"]) -> list[list[Any]]:
    """A row for each species, with four digits; None for NaN."""
    return [[plain(float(f"{value:.4g}")) for value in row] for row in values.T]


def residual_cells(evaluation: xr.Dataset | None) -> dict[str, Any] | None:
    """Residuals of dc/dt, relative to the root mean square of each species; None if there are none.

    Species are in order of their residuals, the largest first. A cell stands for several steps where they are many, and
    has the largest residual among them; it is empty where nothing was measured.
    """
    if evaluation is None or "predicted_derivative" not in evaluation:
        return None
    observed, predicted = evaluation["derivative"].to_numpy(), evaluation["predicted_derivative"].to_numpy()
    signal, error = _size(observed), _size(observed - predicted)
    order = np.argsort(-error / np.where(signal > 0, signal, np.inf), kind="stable")
    found = np.array([i for i in order if signal[i] > 0 and np.isfinite(error[i])], dtype=int)
    if not found.size:
        return None
    shown = found[:_CELLS]
    residual = (observed - predicted)[:, shown] / signal[shown]
    first = np.unique(np.linspace(0, len(residual), _CELLS, endpoint=False).astype(int))
    worst = [np.nan_to_num(np.abs(part), nan=-1.0).argmax(axis=0) for part in np.split(residual, first[1:])]
    cells = [residual[start + at, np.arange(len(at))] for start, at in zip(first, worst, strict=True)]
    return {
        "names": [str(evaluation["species"].to_numpy()[i]) for i in shown],
        "left_out": int(found.size - shown.size),
        "time": [plain(float(t)) for t in evaluation["transition_time"].to_numpy()[first]],
        "steps": len(residual),
        "values": [[plain(float(f"{value:.3g}")) for value in cell] for cell in cells],
    }


def _size(values: np.ndarray) -> np.ndarray:
    """Root mean square of every column, without what is missing; 0 where all is missing."""
    known = np.isfinite(values)
    total = (np.where(known, values, 0.0) ** 2).sum(axis=0)
    return np.asarray(np.sqrt(total / np.maximum(known.sum(axis=0), 1)))


def _by_reaction(evaluation: xr.Dataset | None, name: str) -> dict[str, float]:
    if evaluation is None or name not in evaluation:
        return {}
    return dict(zip(map(str, evaluation["reaction"].to_numpy()), map(float, evaluation[name].to_numpy()), strict=True))
