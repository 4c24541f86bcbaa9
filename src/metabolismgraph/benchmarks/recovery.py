"""Recovery benchmark: many simulated systems, every case in the table, failures included."""

from __future__ import annotations

import functools
import json
import math
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil

from metabolismgraph.benchmarks.markdown import table
from metabolismgraph.benchmarks.simulations import LARGEST_SEED
from metabolismgraph.config import Config, load_config
from metabolismgraph.errors import SimulationDivergedError
from metabolismgraph.evaluation.evaluate import Evaluation, evaluate
from metabolismgraph.evaluation.report import metrics_json
from metabolismgraph.files import write_bytes
from metabolismgraph.fitting.result import FitResult
from metabolismgraph.formats.dataset import NETWORK, TIMESERIES
from metabolismgraph.ground_truth.simulator import Simulated, simulate
from metabolismgraph.homeostasis.fit import fit_homeostasis
from metabolismgraph.metrics import by_index
from metabolismgraph.processes import Child
from metabolismgraph.reactions.fit import fit_reactions
from metabolismgraph.runs.folder import RunFolder
from metabolismgraph.runs.pipeline import fit_files
from metabolismgraph.system.progress import Progress

_MAIN = "oscillatory_rank50"
Case = dict[str, Any]
T = TypeVar("T")


def run_recovery(
    configs: Sequence[str],
    seeds: int,
    repeats: int,
    datasets: Sequence[Path],
    overrides: Sequence[str],
    out: Path,
    progress: Progress,
) -> str:
    """Run every case, write recovery.json and recovery.md into `out`, return the Markdown.

    Args:
        configs: names of configurations; each is simulated with seeds 0, 1, ... A diverging
            simulation has no data: it is listed, and the next seed is used.
        seeds: simulations per configuration.
        repeats: training seeds per simulation.
        datasets: folders in the layout of a data set, with truth/, fitted from their files.
        overrides: as for --set.
    """
    out.mkdir(parents=True, exist_ok=True)
    cases: list[Case] = []
    diverged: list[dict[str, object]] = []
    total = len(configs) * seeds * repeats + len(datasets) + (_MAIN in configs)

    def add(config: str, simulation: int | None, training: int, fit: Callable[[], Case]) -> None:
        place = {"config": config, "simulation_seed": simulation, "training_seed": training}
        try:
            cases.append(place | fit())
        except Exception as error:
            cases.append(place | {"error": f"{type(error).__name__}: {error}"})
        progress("recovery", len(cases) / total, f"{config} simulation {simulation}")

    for name in configs:
        base = load_config(name, overrides)
        for seed, simulated in _simulations(base, seeds, name, diverged):
            for repeat in range(repeats):
                config = base.replace({"simulation.seed": seed, "training.seed": repeat})
                add(name, seed, repeat, functools.partial(_case, simulated, config))
    for folder in datasets:
        add(f"{folder.name} (files)", None, Config().training.seed, functools.partial(_files, folder))
    cold = _cold_run(overrides) if _MAIN in configs else None
    result = {"host": _host(), "cases": cases, "diverged": diverged, "cold_run": cold}
    write_bytes(out / "recovery.json", (json.dumps(result, indent=1) + "\n").encode())
    markdown = summarise(result)
    write_bytes(out / "recovery.md", markdown.encode())
    return markdown


def _simulations(base: Config, seeds: int, name: str, diverged: list[dict[str, object]]) -> list[tuple[int, Simulated]]:
    found: list[tuple[int, Simulated]] = []
    for seed in range(LARGEST_SEED):
        if len(found) == seeds:
            break
        try:
            found.append((seed, simulate(base.replace({"simulation.seed": seed}))))
        except SimulationDivergedError as error:
            diverged.append({"config": name, "simulation_seed": seed, "error": str(error)})
    return found


def _case(simulated: Simulated, config: Config) -> Case:
    """One fit, each phase twice: the second time without compilation."""
    seen, _ = simulated.observations.split(*config.training.held_out)
    graph_model, training = config.graph_model, config.training
    phase1, cold1, warm1 = _timed(lambda: fit_reactions(seen, graph_model, training))
    phase2, cold2, warm2 = _timed(lambda: fit_homeostasis(seen, phase1, graph_model, training))
    result = FitResult(simulated.observations, graph_model, training, phase1, phase2)
    times = {"phase1_cold_s": cold1, "phase1_s": warm1, "phase2_cold_s": cold2, "phase2_s": warm2}
    return times | _results(evaluate(result, simulated.truth))


def _results(evaluation: Evaluation) -> Case:
    return {"notes": list(evaluation.notes), "metrics": json.loads(metrics_json(evaluation.metrics))}


def _timed(call: Callable[[], T]) -> tuple[T, float, float]:
    times = []
    for _ in range(2):
        started = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - started)
    return result, times[0], times[1]


def _files(folder: Path) -> Case:
    """Fit a data set from its files by the pipeline of `fit`, with a separate training process."""
    table = next(folder / name for name in TIMESERIES if (folder / name).exists())
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "run"
        evaluation = fit_files(folder / NETWORK, table, Config(), out, truth=folder / "truth")
        run = RunFolder.open(out)
        times = {"phase1_cold_s": run.seconds("phase 1"), "phase2_cold_s": run.seconds("phase 2")}
    return times | _results(evaluation)


def _cold_run(overrides: Sequence[str]) -> dict[str, float]:
    """The `run` command from a cold process: wall time and peak memory of its processes together."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-P", "-m", "metabolismgraph", "run", _MAIN, "--out", f"{scratch}/run", "--quiet"]
        for override in overrides:
            command += ["--set", override]
        started = time.perf_counter()
        # Compiled programs of earlier commands would make the start a warm one.
        with Child(command, env={**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}) as child:
            peak = _PeakMemory(child.pid)
            code = child.wait()
        seconds = time.perf_counter() - started
        return {"exit_code": code, "seconds": seconds, "peak_memory_gb": peak.stop() / 1e9}


class _PeakMemory:
    """Samples the resident memory of a process and its children."""

    def __init__(self, pid: int):
        self._pid = pid
        self._peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            try:
                root = psutil.Process(self._pid)
                processes = [root, *root.children(recursive=True)]
                self._peak = max(self._peak, sum(p.memory_info().rss for p in processes))
            except psutil.Error:
                continue

    def stop(self) -> int:
        self._ended.set()
        self._thread.join()
        return self._peak


def _host() -> dict[str, object]:
    return {"system": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()}


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


def _targets(cases: list[Case], failed: list[Case], cold: dict[str, float] | None) -> list[str]:
    def worst(values: list[float]) -> float:
        return float(np.max(values)) if values else math.nan

    def off(selected: list[Case]) -> float:
        return worst([abs(r - 1) for c in selected for w in ("slope", "offset") for r in ratios(c["metrics"], w)])

    main = [c for c in cases if c["config"].startswith(_MAIN)]
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
            ("Phase 1 compute, rank50, median, s", "at most 3", warm1, warm1 <= 3),
            ("Phase 2 compute, rank50, median, s", "at most 10", warm2, warm2 <= 10),
        ]
    if cold:
        rows += [
            ("`run` from a cold process, rank50, s", "at most 45", cold["seconds"], cold["seconds"] <= 45),
            ("its peak memory, GB", "at most 2", cold["peak_memory_gb"], cold["peak_memory_gb"] <= 2),
        ]
    rows.append(("failed or non-converged cases", "none", unfinished, not unfinished))
    shown = ((what, target, f"{value:.6g}", "yes" if met else "NO") for what, target, value, met in rows)
    return table("what | target | measured | met", shown)


def _converged(metrics: dict[str, Any]) -> bool:
    return metrics["classification"] == "converged" and bool(metrics["phase1_converged"])


def _median(values: list[float]) -> float:
    return float(np.median(values)) if values else math.nan


def _by_config(cases: list[Case]) -> list[str]:
    heads = (
        "configuration | cases | 1 - R² identifiable, largest | R² all, median (min, max) | median error of log10 k "
        "| slope ratio, median (min, max) | offset ratio, median (min, max) | accuracy, lowest | silhouette, lowest "
        "| Phase 1, s | Phase 2, s"
    )
    names = dict.fromkeys(c["config"] for c in cases)
    return table(heads, (_of_config([c for c in cases if c["config"] == name]) for name in names))


def _of_config(cases: list[Case]) -> list[str]:
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


def _seconds(case: Case, phase: str) -> float:
    """Compute time; for a case that was fitted once, compilation included."""
    return float(case[f"{phase}_s"] if f"{phase}_s" in case else case[f"{phase}_cold_s"])


def _spread(values: list[float], digits: int) -> str:
    return f"{np.median(values):.{digits}f} ({min(values):.{digits}f}, {max(values):.{digits}f})"


def _by_case(cases: list[Case]) -> list[str]:
    heads = (
        "configuration | simulation seed | training seed | 1 - R² identifiable | not identifiable | slope ratios "
        "| offset ratios | accuracy | silhouette"
    )
    return table(heads, map(_of_case, cases))


def _of_case(case: Case) -> list[str]:
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
