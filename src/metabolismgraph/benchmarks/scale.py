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
from metabolismgraph.config import load_config
from metabolismgraph.errors import InputError
from metabolismgraph.figures.style import applied, palette, panels, save
from metabolismgraph.files import write_bytes
from metabolismgraph.runs.folder import RunFolder
from metabolismgraph.text import one_line

_SETTINGS = ("set", "hub_share", "density", "n_metabolites", "n_reactions", "n_frames")  # of a row; their order
_LARGE = 300  # species from which exponents are fitted
_DPI = 150
_USED = {"cpu_seconds": "processor time of run [s]", "peak_memory_gb": "peak memory of run [GB]"}
# Numbers against which time and memory are drawn, their names, and the least value for exponents.
_AGAINST = {"n_metabolites": ("species", _LARGE), "n_frames": ("frames", 500)}
_LABELS = {
    "n_metabolites": "{} species",
    "density": "{:g} reactions per species",
    "n_frames": "{} frames",
    "hub_share": "hubs {:g}",
    "set": "{}",
}


def run_scale(
    sizes: Sequence[int],
    densities: Sequence[float],
    frames: Sequence[int],
    hub_shares: Sequence[float],
    out: Path,
    progress: Callable[[str], None],
    overrides: Sequence[str] = (),
) -> str:
    """Simulate and fit the main configuration in every size; write scale.json, scale.md and scale.png.

    Every case is one `run` in a process of its own, one after the other: data, both phases, evaluation and figures.

    Args:
        sizes: numbers of species.
        densities: reactions per species.
        frames: numbers of frames.
        hub_shares: values of `simulation.hub_share`.
        out: folder of the results, in which each row is kept as soon as it is known. Rows of other cases stay there.
        progress: called with a line before every case.
        overrides: of further keys of the configuration, as for --set.

    Returns:
        The Markdown.

    Raises:
        InputError: an override does not fit; the folder has results of another machine, or a damaged file.
    """
    load_config(MAIN, overrides)
    out.mkdir(parents=True, exist_ok=True)
    rows = _earlier(out)
    text = ""
    for hub_share, density, n, number in itertools.product(hub_shares, densities, sizes, frames):
        m = round(density * n)
        progress(f"{n} species, {m} reactions, {number} frames" + (f", hubs {hub_share:g}" if hub_share else ""))
        simulation: Row = {"n_metabolites": n, "n_reactions": m, "n_frames": number, "hub_share": hub_share}
        case = simulation | {"set": " ".join(overrides)}
        others = [row for row in rows if any(row[key] != value for key, value in case.items())]
        rows = [*others, case | {"density": density} | _run(simulation, overrides)]
        rows.sort(key=lambda row: tuple(row[key] for key in _SETTINGS))
        text = _write(rows, out)
    return text


def _earlier(out: Path) -> list[Row]:
    """The rows in a folder of results, for the same machine."""
    path = out / "scale.json"
    if not path.exists():
        return []
    try:
        result = json.loads(path.read_bytes())
        machine, rows = result["host"], list(result["cases"])
        if not all(row.keys() >= set(_SETTINGS) for row in rows):
            raise ValueError("rows without settings")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: expected results of `benchmark scale`; remove it, or give another --out") from error
    if machine != host():
        raise InputError(f"{path}: results of another machine; remove it, or give another --out")
    return rows


def _run(simulation: Row, overrides: Sequence[str]) -> Row:
    """What one run took and found."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        settings = [*overrides, *(f"simulation.{key}={value}" for key, value in simulation.items())]
        measured = measure_run(MAIN, settings, folder, {})
        row: Row = measured._asdict()
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
    if any(_series(rows, key) for key in _AGAINST):
        with applied():
            save(figure(rows), out / "scale.png", _DPI)
    return text


def exponents(rows: Sequence[Row]) -> dict[str, dict[str, float | None]]:
    """Powers of the number of species, from 300 on, and of frames with which time and memory grow, by series.

    Example:
        >>> row = {"density": 2.0, "n_frames": 700, "hub_share": 0.0, "set": "", "peak_memory_gb": 1.0}
        >>> rows = [row | {"n_metabolites": n, "cpu_seconds": 0.1 * n} for n in (300, 3000)]
        >>> {name: round(p, 6) for name, p in exponents(rows)["species; 2 reactions per species, 700 frames"].items()}
        {'cpu_seconds': 1.0, 'peak_memory_gb': 0.0}
    """
    found = {}
    for what, (name, least) in _AGAINST.items():
        for label, own in _series(rows, what):
            large = [row for row in own if row[what] >= least]
            x = np.log([row[what] for row in large])
            found[f"{name}; {label}"] = {
                used: float(np.polyfit(x, np.log([row[used] for row in large]), 1)[0]) if len(large) > 1 else None
                for used in _USED
            }
    return found


def _series(rows: Sequence[Row], against: str) -> list[tuple[str, list[Row]]]:
    """The cases without an error that differ in one number only, in its order; with what they have in common.

    Args:
        against: that number.
    """
    others = [key for key in _LABELS if key != against]
    known = sorted((row for row in rows if "error" not in row), key=lambda row: row[against])
    series: dict[tuple[Any, ...], list[Row]] = {}
    for row in known:
        series.setdefault(tuple(row[key] for key in others), []).append(row)
    return [
        (", ".join(_LABELS[key].format(value) for key, value in zip(others, values, strict=True) if value), own)
        for values, own in sorted(series.items())
        if len({row[against] for row in own}) > 1
    ]


def markdown(result: dict[str, Any]) -> str:
    """A row per case, then the exponents."""
    heads = (
        "species | reactions | frames | hubs | settings | CPU, s | wall, s | peak, GB | Phase 1, s | Phase 2, s "
        "| evaluation, s | 1 - R² identifiable | ratios, farthest from 1 | accuracy"
    )
    lines = ["# Size benchmark", "", *table(heads, map(_cells, result["cases"])), ""]
    lines += ["Powers with which time and memory grow, from 300 species or 500 frames on:", ""]
    of_series = [
        (name, *map(shown, (found["cpu_seconds"], found["peak_memory_gb"])))
        for name, found in result["exponents"].items()
    ]
    return "\n".join([*lines, *table("number that grows; others | CPU time | peak memory", of_series)]) + "\n"


def _cells(row: Row) -> list[object]:
    place = [row["n_metabolites"], row["n_reactions"], row["n_frames"], f"{row['hub_share']:g}", row["set"]]
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
    """Processor time and peak memory against the number of species, and of frames if it varies, in logarithms."""
    drawn_against = [key for key in _AGAINST if _series(rows, key)]
    drawn, axes = panels(len(drawn_against), 2, 9.0, 4.0 * len(drawn_against))
    for line, key in enumerate(drawn_against):
        series = _series(rows, key)
        for ax, (name, label) in zip(axes[line], _USED.items(), strict=True):
            for colour, (common, own) in zip(palette(len(series), "okabe_ito"), series, strict=True):
                ax.loglog([row[key] for row in own], [row[name] for row in own], "o-", color=colour, label=common)
            ax.set_xlabel(_AGAINST[key][0])
            ax.set_ylabel(label)
            for axis, ticks in ((ax.xaxis, (1.0, 2.0, 5.0)), (ax.yaxis, (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))):
                axis.set_major_locator(LogLocator(subs=ticks, numticks=20))
                axis.set_major_formatter("{x:g}")
                axis.set_minor_locator(NullLocator())
        if len(series) > 1:
            axes[line, 0].legend(fontsize="x-small")
        else:
            axes[line, 0].set_title(series[0][0], fontsize="small", loc="left")
    return drawn
