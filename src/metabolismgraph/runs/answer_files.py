"""The answer as files: tables of the estimates, and model_fitted.xml for any SBML simulator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from metabolismgraph.evaluation.evaluate import Evaluation
from metabolismgraph.files import write_bytes
from metabolismgraph.fitting.result import FitResult
from metabolismgraph.fitting.tables import homeostasis_table
from metabolismgraph.formats.fitted_model import write_fitted_sbml
from metabolismgraph.runs.folder import FITTED_MODEL, HOMEOSTASIS, PARAMETERS, RATE_CONSTANTS, RATE_LAW
from metabolismgraph.system.model import PublishedSubstrateFunction


def write_answer(result: FitResult, evaluation: Evaluation, folder: Path, source: bytes | None) -> tuple[str, ...]:
    """Write the tables and the model with its estimates.

    Args:
        source: content of the SBML file of the network; None for a simulated network.

    Returns:
        Notes on the model file.
    """
    network, law = result.observations.network, result.phase1.mlp_sub
    aggregation = result.graph_model.aggr_type
    log_alpha = float(law.log_alpha) if isinstance(law, PublishedSubstrateFunction) else None
    constants, table = evaluation.rate_constants, evaluation.homeostasis
    _write_table(constants, folder / RATE_CONSTANTS)
    _write_table(table, folder / HOMEOSTASIS)
    _write_table(evaluation.parameters, folder / PARAMETERS)
    if "law_f" in evaluation.data:
        _write_table(_rate_law_table(evaluation.data), folder / RATE_LAW)
    return write_fitted_sbml(
        source,
        network,
        dict(zip(constants["reaction"], constants["k"], strict=True)),
        _lines(result),
        # The terms of a published sum can be negative, and the rate law of the file is written by its logarithm.
        {} if aggregation == "add" and log_alpha is not None else _rate_law(evaluation),
        folder / FITTED_MODEL,
        aggregation=aggregation,
        log_alpha=log_alpha,
        initial=dict(
            zip(result.observations.network.species, map(float, result.observations.concentration[0]), strict=True)
        ),
    )


def _write_table(table: pd.DataFrame, path: Path) -> None:
    write_bytes(path, table.to_csv(index=False, float_format="%.9g").encode())


def _rate_law_table(data: xr.Dataset) -> pd.DataFrame:
    """Learned rate laws: order, concentration, f, and the ends of its 95 % interval where they are known."""
    names = {"law_f": "f", "law_f_lower": "lower", "law_f_upper": "upper"}
    known = [name for name in names if name in data]
    table = data[known].to_dataframe().reset_index()
    at = data["law_concentration"].to_numpy()[table["law_point"]]
    values = {new: table.get(old) for old, new in names.items()}
    return pd.DataFrame({"order": table["law_order"], "concentration": at} | values)


def _lines(result: FitResult) -> dict[str, tuple[float, float]]:
    """Slope and offset of the species with a resolved homeostasis, also of a fit that is not to be trusted."""
    table = homeostasis_table(result.observations.network, result.phase1, None, trustworthy=True)
    lines = zip(table["slope"], table["offset"], strict=True)
    named = zip(table["species"], lines, table["resolved"], strict=True)
    return {str(name): (float(slope), float(offset)) for name, (slope, offset), resolved in named if resolved}


def _rate_law(evaluation: Evaluation) -> dict[float, tuple[np.ndarray, np.ndarray]]:
    """log f at log c for every order of a learned rate law."""
    data = evaluation.data
    if "law_f" not in data:
        return {}
    log_c = np.log(data["law_concentration"].values)
    return {
        float(order): (log_c, np.log(f))
        for order, f in zip(data["law_order"].values, data["law_f"].values, strict=True)
    }
