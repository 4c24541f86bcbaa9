"""Text of metrics.json (full precision) and analysis.log (six digits)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from metabolismgraph.metrics import Value


def metrics_json(metrics: Mapping[str, Value]) -> str:
    """Metrics as a JSON object; NaN and infinities, which JSON does not have, become null."""
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in metrics.items()}
    return json.dumps(clean, indent=1) + "\n"


def analysis_log(metrics: Mapping[str, Value]) -> str:
    """Metrics as lines `name: value`; floats with six significant digits; without undefined metrics."""
    return "".join(f"{name}: {_shown(value)}\n" for name, value in metrics.items() if value not in (None, []))


def _shown(value: Value) -> str:
    if isinstance(value, list):
        return "; ".join(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
