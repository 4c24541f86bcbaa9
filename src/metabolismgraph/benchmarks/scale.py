"""Time, memory and accuracy of `run` against the size of the network and the number of frames."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from metabolismgraph.benchmarks.cold_run import measure_run
from metabolismgraph.benchmarks.markdown import shown, table
from metabolismgraph.benchmarks.recovery_report import MAIN, ratios
from metabolismgraph.benchmarks.results_file import Row, host
from metabolismgraph.figures.style import applied, legend_below, palette, panels, save
from metabolismgraph.files import write_bytes
from metabolismgraph.runs.folder import RunFolder
from metabolismgraph.text import one_line

_LARGE = 300  # species from which exponents are fitted
_DPI = 150


def run_scale(
    sizes: Sequence[int],
    densities: Sequence[float],
    frames: Sequence[int],
    out: Path,
    progress: Callable[[str], None],
) -> str:
    """Simulate and fit the main configuration in every size; write scale.json, scale.md and scale.png.

    Every case is one `run` in a process of its own, one after the other: data, both phases, evaluation and figures.

    Args:
        sizes: numbers of species.
        densities: reactions per species.
        frames: numbers of frames.
        out: folder of the results, in which each row is kept as soon as it is known.
        progress: called with a line before every case.

    Returns:
        The Markdown.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    text = ""
    for density, n, number in itertools.product(densities, sizes, frames):
        progress(f"{n} species, {round(density * n)} reactions, {number} frames")
        rows.append(_case(n, round(density * n), number) | {"density": density})
        text = _write(rows, out)
    return text


def _case(n: int, m: int, frames: int) -> Row:
    sizes = {"n_metabolites": n, "n_reactions": m, "n_frames": frames}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        measured = measure_run(MAIN, [f"simulation.{key}={value}" for key, value in sizes.items()], folder, {})
        row: Row = sizes | measured._asdict()
        if measured.exit_code:
            return row | {"error": f"exit code {measured.exit_code}"}
        try:
            run = RunFolder.open(folder)
            metrics = json.loads((folder / "metrics.json").read_bytes())
        except Exception as error:
            return row | {"error": one_line(f"{type(error).__name__}: {error}")}
        return row | {"stages": {name: run.seconds(name) for name in run.manifest["stages"]}, "metrics": metrics}


def _write(rows: list[Row], out: Path) -> str:
    result = {"host": host(), "cases": rows, "exponents": exponents(rows)}
    write_bytes(out / "scale.json", (json.dumps(result, indent=1) + "\n").encode())
    text = markdown(result)
    write_bytes(out / "scale.md", text.encode())
    if _series(rows):
        with applied():
            save(figure(rows), out / "scale.png", _DPI)
    return text


def exponents(rows: Sequence[Row]) -> dict[str, dict[str, float | None]]:
    """Powers of the number of species with which time and memory grow, by density, from 300 species on.

    Example:
        >>> row = {"density": 2.0, "n_frames": 700, "peak_memory_gb": 1.0}
        >>> rows = [row | {"n_metabolites": n, "cpu_seconds": 0.1 * n} for n in (300, 3000)]
        >>> {name: round(p, 6) for name, p in exponents(rows)["2, 700 frames"].items()}
        {'cpu_seconds': 1.0, 'peak_memory_gb': 0.0}
    """
    found = {}
    for (density, frames), own in _series(rows):
        large = [row for row in own if row["n_metabolites"] >= _LARGE]
        n = np.log([row["n_metabolites"] for row in large])
        found[f"{density:g}, {frames} frames"] = {
            name: float(np.polyfit(n, np.log([row[name] for row in large]), 1)[0]) if len(large) > 1 else None
            for name in ("cpu_seconds", "peak_memory_gb")
        }
    return found


def _series(rows: Sequence[Row]) -> list[tuple[tuple[float, int], list[Row]]]:
    """The cases without an error, by density and number of frames."""
    known = [row for row in rows if "error" not in row]
    keys = dict.fromkeys((row["density"], row["n_frames"]) for row in known)
    return [(key, [row for row in known if (row["density"], row["n_frames"]) == key]) for key in keys]


def markdown(result: dict[str, Any]) -> str:
    """A row per case, then the exponents."""
    heads = (
        "species | reactions | frames | CPU, s | wall, s | peak, GB | Phase 1, s | Phase 2, s | evaluation, s "
        "| 1 - R² identifiable | ratios, farthest from 1 | accuracy"
    )
    lines = ["# Size benchmark", "", *table(heads, map(_cells, result["cases"])), ""]
    lines += ["Powers of the number of species, from 300 species on:", ""]
    of_series = [
        (name, *map(shown, (found["cpu_seconds"], found["peak_memory_gb"])))
        for name, found in result["exponents"].items()
    ]
    return "\n".join([*lines, *table("reactions per species | CPU time | peak memory", of_series)]) + "\n"


def _cells(row: Row) -> list[object]:
    place = [row["n_metabolites"], row["n_reactions"], row["n_frames"]]
    used = [shown(float(f"{row[name]:.3g}")) for name in ("cpu_seconds", "seconds", "peak_memory_gb")]
    if "error" in row:
        return [*place, *used, f"{row['error']} | | | | |"]  # the other cells are empty
    metrics, stages = row["metrics"], row["stages"]
    farthest = max(abs(r - 1) for what in ("slope", "offset") for r in ratios(metrics, what))
    return [
        *place,
        *used,
        *(f"{stages.get(name, 0.0):.1f}" for name in ("phase 1", "phase 2", "evaluate")),
        f"{1 - metrics['rate_constants_R2_identifiable']:.0e}",
        f"{farthest:.1g}",
        f"{metrics['embedding_cluster_acc']:.3f}",
    ]


def figure(rows: Sequence[Row]) -> Figure:
    """Processor time and peak memory against the number of species, in logarithms."""
    drawn, axes = panels(1, 2, 9.0, 4.0)
    series = _series(rows)
    shown_in = {"cpu_seconds": "processor time of run [s]", "peak_memory_gb": "peak memory of run [GB]"}
    for ax, (name, label) in zip(axes.flat, shown_in.items(), strict=True):
        for colour, ((density, frames), own) in zip(palette(len(series), "okabe_ito"), series, strict=True):
            n = [row["n_metabolites"] for row in own]
            text = f"{density:g} reactions per species, {frames} frames"
            ax.loglog(n, [row[name] for row in own], "o-", color=colour, label=text)
        ax.set_xlabel("species")
        ax.set_ylabel(label)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_locator(NullLocator())
    legend_below(drawn, axes.flat[0].get_lines())
    return drawn
