"""The report of the recovery benchmark, from its file of results."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from metabolismgraph.benchmarks.markdown import table
from metabolismgraph.benchmarks.results_file import RECOVERY_LINES, ResultsFile, Row
from metabolismgraph.metrics import by_index

MAIN = "oscillatory_rank50"


class RecoveryResults(ResultsFile):
    """The file of results of this benchmark.

    Attributes:
        cold_run: `run` from a cold process: seconds, peak memory and exit code; None: not measured.
    """

    lines: ClassVar = RECOVERY_LINES
    keys: ClassVar = ("config", "simulation_seed", "training_seed")
    cold_run: Row | None = None

    def _take(self, row: Row) -> None:
        if row.get("kind") == "cold_run":
            self.cold_run = {key: row[key] for key in ("exit_code", "seconds", "peak_memory_gb")}
            return
        super()._take(row)


def ratios(metrics: dict[str, Any], what: str) -> list[float]:
    """Slope or offset ratios of all types, over the sweep 0 to 40."""
    found = by_index(metrics, f"MLP_node_{what}_ratio_{{t}}")
    return [math.nan if v is None else v for v in found.values()]


def summarise(result: dict[str, Any]) -> str:
    """The Markdown report: targets with verdicts, a row per configuration, a row per case."""
    cases = [c for c in result["cases"] if "metrics" in c]
    failed = [c for c in result["cases"] if "metrics" not in c]
    lines = ["# Recovery benchmark", "", f"{len(result['cases'])} cases, {len(failed)} without a result.", ""]
    tables = (_targets(cases, failed, result["cold_run"]), _by_config(cases), _by_case(result["cases"]))
    lines += [line for table in tables for line in (*table, "")]
    if result["diverged"]:
        lines += ["Diverging simulations, which have no data (the next seed was used):", ""]
        lines += [f"- {d['config']} seed {d['simulation_seed']}: {d['error']}" for d in result["diverged"]]
    return "\n".join(lines) + "\n"


def _targets(cases: list[Row], failed: list[Row], cold: Row | None) -> list[str]:
    def worst(values: list[float]) -> float:
        return float(np.max(values)) if values else math.nan

    def off(selected: list[Row]) -> float:
        return worst([abs(r - 1) for c in selected for w in ("slope", "offset") for r in ratios(c["metrics"], w)])

    main = [c for c in cases if c["config"].startswith(MAIN)]
    unfinished = len(failed) + sum(not _converged(c["metrics"]) for c in cases)
    rows: list[tuple[str, str, float, bool]] = []
    if cases:
        r2 = min(c["metrics"]["rate_constants_R2_identifiable"] for c in cases)
        accuracies = [c["metrics"]["embedding_cluster_acc"] for c in cases]
        accurate = min(accuracies) >= 0.98 and sum(a < 1 for a in accuracies) <= max(1, len(cases) // 50)
        silhouette = min(c["metrics"]["embedding_silhouette"] or math.nan for c in cases)
        rows += [
            ("1 - rate_constants_R2_identifiable, largest", "at most 1e-4", 1 - r2, r2 >= 0.9999),
            ("slope and offset ratios, farthest from 1", "within 0.02", off(cases), off(cases) <= 0.02),
            ("embedding_cluster_acc, lowest", "1.0; one case in fifty 0.98", min(accuracies), accurate),
            ("embedding_silhouette, lowest", "at least 0.9", silhouette, silhouette >= 0.9),
        ]
    if main:
        error = worst([c["metrics"]["log_k_median_error_identifiable"] for c in main])
        warm1, warm2 = (_median([c[k] for c in main if k in c]) for k in ("phase1_s", "phase2_s"))
        rows += [
            ("median error of log10 k, rank50, largest", "at most 1e-4", error, error <= 1e-4),
            ("slope and offset ratios, rank50, farthest from 1", "within 0.01", off(main), off(main) <= 0.01),
            ("Phase 1, rank50, median, CPU s", "at most 3", warm1, warm1 <= 3),
            ("Phase 2, rank50, median, CPU s", "at most 10", warm2, warm2 <= 10),
        ]
    if cold:
        done = cold["exit_code"] == 0
        rows += [
            ("`run` from a cold process, rank50, s", "at most 45", cold["seconds"], done and cold["seconds"] <= 45),
            ("its peak memory, GB", "at most 2", cold["peak_memory_gb"], done and cold["peak_memory_gb"] <= 2),
        ]
    rows.append(("failed or non-converged cases", "none", unfinished, not unfinished))
    shown = ((what, target, f"{value:.6g}", "yes" if met else "NO") for what, target, value, met in rows)
    return table("what | target | measured | met", shown)


def _converged(metrics: dict[str, Any]) -> bool:
    return metrics["classification"] == "converged" and bool(metrics["phase1_converged"])


def _median(values: list[float]) -> float:
    return float(np.median(values)) if values else math.nan


def _by_config(cases: list[Row]) -> list[str]:
    heads = (
        "configuration | cases | 1 - R² identifiable, largest | R² all, median (min, max) | median error of log10 k "
        "| slope ratio, median (min, max) | offset ratio, median (min, max) | accuracy, lowest | silhouette, lowest "
        "| Phase 1, CPU s | Phase 2, CPU s"
    )
    names = dict.fromkeys(c["config"] for c in cases)
    return table(heads, (_of_config([c for c in cases if c["config"] == name]) for name in names))


def _of_config(cases: list[Row]) -> list[str]:
    m = [c["metrics"] for c in cases]
    return [
        cases[0]["config"],
        str(len(cases)),
        f"{1 - min(x['rate_constants_R2_identifiable'] for x in m):.0e}",
        _spread([x["rate_constants_R2"] for x in m], 3),
        f"{_median([x['log_k_median_error_identifiable'] for x in m]):.1e}",
        *(_spread([r for x in m for r in ratios(x, what)], 4) for what in ("slope", "offset")),
        f"{min(x['embedding_cluster_acc'] for x in m):.2f}",
        f"{min(x['embedding_silhouette'] or math.nan for x in m):.3f}",
        *(f"{_median([_seconds(c, phase) for c in cases]):.1f}" for phase in ("phase1", "phase2")),
    ]


def _seconds(case: Row, phase: str) -> float:
    """CPU time; of a case that was fitted once from files, the time that passed, compilation included."""
    return float(case[f"{phase}_s"] if f"{phase}_s" in case else case[f"{phase}_cold_s"])


def _spread(values: list[float], digits: int) -> str:
    return f"{np.median(values):.{digits}f} ({min(values):.{digits}f}, {max(values):.{digits}f})"


def _by_case(cases: list[Row]) -> list[str]:
    heads = (
        "configuration | simulation seed | training seed | 1 - R² identifiable | not identifiable | slope ratios "
        "| offset ratios | accuracy | silhouette"
    )
    return table(heads, map(_of_case, cases))


def _of_case(case: Row) -> list[str]:
    seed = "-" if case["simulation_seed"] is None else case["simulation_seed"]
    place = [case["config"], str(seed), str(case["training_seed"])]
    if "metrics" not in case:
        return [*place, f"{case['error']} | | | | |"]  # the other cells are empty
    m = case["metrics"]
    return [
        *place,
        f"{1 - m['rate_constants_R2_identifiable']:.0e}",
        str(m["n_unidentifiable"]),
        *(", ".join(f"{r:.4f}" for r in ratios(m, what)) for what in ("slope", "offset")),
        f"{m['embedding_cluster_acc']:.2f}",
        f"{m['embedding_silhouette'] or math.nan:.3f}",
    ]
