"""metrics.json (the source, full precision) and analysis.log (a view of it)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from metabolismgraph.metrics import Value


def metrics_json(metrics: Mapping[str, Value]) -> str:
    """One JSON object; NaN and infinities, which JSON lacks, become null."""
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in metrics.items()}
    return json.dumps(clean, indent=1) + "\n"


def analysis_log(metrics: Mapping[str, Value]) -> str:
    """One `name: value` per line; floats with six significant digits."""
    return "".join(f"{name}: {_shown(value)}\n" for name, value in metrics.items() if value not in (None, []))


def _shown(value: Value) -> str:
    if isinstance(value, list):
        return "; ".join(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
