"""metrics.json (the source, full precision) and analysis.log (a view of it)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from metabolismgraph.evaluation.evaluate import Metric

_SIX_DECIMALS = ("loss", "MLP_node_slope_", "MLP_node_offset_", "MLP_node_gt_", "log_k_", "phase2_node_magnitude")


def metrics_json(metrics: Mapping[str, Metric]) -> str:
    """One JSON object; NaN and infinities, which JSON lacks, become null."""
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in metrics.items()}
    return json.dumps(clean, indent=1) + "\n"


def analysis_log(metrics: Mapping[str, Metric]) -> str:
    """One `name: value` per line; floats with 4 decimals, slopes, offsets and losses with 6."""
    return "".join(f"{name}: {_shown(name, value)}\n" for name, value in metrics.items() if value not in (None, []))


def _shown(name: str, value: Metric) -> str:
    if isinstance(value, list):
        return "; ".join(value)
    if not isinstance(value, float):
        return str(value)
    fine = "_ratio_" not in name and (any(part in name for part in _SIX_DECIMALS))
    return f"{value:.6f}" if fine else f"{value:.4f}"
