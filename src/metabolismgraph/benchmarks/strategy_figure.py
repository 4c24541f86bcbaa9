"""Figure of the strategy benchmark: slope ratios by strategy, checkpoint and rollout length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from metabolismgraph.figures.style import FAINT, TRUTH, legend_below, palette, panels

Row = Mapping[str, Any]

_COLUMNS = 4
_LINEAR = 0.1  # distance of ratios from 1 on a linear scale; larger ones are on a logarithmic scale
_FARTHEST = 100.0  # |ratio - 1| beyond which a point is drawn at the edge
_TICKS = (-10, 0, 0.8, 1, 1.2, 2, 11)
_ACCEPTED = (0.8, 1.2)
# Per checkpoint.
_LOOKS: tuple[dict[str, Any], ...] = (
    {"marker": "o", "linestyle": "-"},
    {"marker": "s", "linestyle": "--"},
    {"marker": "^", "linestyle": ":"},
)


def slope_ratios(config: str, cases: Sequence[Row], order: Sequence[str]) -> Figure:
    """Learned / true slope of every type against T; a panel per set of strategies.

    Median over the seeds with a bar from least to largest; sets that do not depend on T as a line
    with a band. Failed cases are counted in the corner of their panel.

    Args:
        config: name of the configuration, for the title.
        cases: rows of the benchmark's results, all of this configuration.
        order: sets of strategies in the order of their panels.
    """
    sets = [name for name in order if any(c["strategies"] == name for c in cases)]
    checkpoints = list(dict.fromkeys(c["checkpoint"] for c in cases))
    lengths = sorted({c["T"] for c in cases if c["T"] is not None}) or [1]
    n_types = max((len(c["slope_ratio"]) for c in cases if "error" not in c), default=1)
    colours = palette(n_types, "okabe_ito")
    columns = min(_COLUMNS, max(1, len(sets)))
    rows = max(1, -(-len(sets) // columns))
    figure, axes = panels(rows, columns, 0.8 + 3.0 * columns, 1.4 + 2.3 * rows, sharex=True, sharey=True)
    for ax, name in zip(axes.flat, sets, strict=False):
        mine = [c for c in cases if c["strategies"] == name]
        _background(ax, lengths)
        for number, checkpoint in enumerate(checkpoints):
            look = _LOOKS[number % len(_LOOKS)]
            shift = 1.0 + 0.07 * (number - (len(checkpoints) - 1) / 2)
            _ratios(ax, [c for c in mine if c["checkpoint"] == checkpoint], look, shift, colours)
        failed = sum("error" in c for c in mine)
        if failed:
            ax.annotate(f"{failed} failed", (0.98, 0.03), xycoords="axes fraction", ha="right", fontsize=10)
        ax.set_title("\n+".join(_wrapped(name)), fontsize=11)
    for ax in axes.flat[len(sets) :]:
        ax.set_axis_off()
    for ax in axes.flat[max(0, len(sets) - columns) : len(sets)]:
        # sharex hides the ticks of panels with another row below them, even an empty one
        ax.tick_params(labelbottom=True)
        ax.set_xlabel("T  [frames]")
    figure.supylabel("learned / true homeostatic slope")
    figure.suptitle(f"{config}: median over seeds, bars from least to largest")
    legend_below(figure, _handles(checkpoints, colours))
    return figure


def _wrapped(name: str) -> list[str]:
    """Names of a set, two to a line."""
    names = name.split("+")
    return ["+".join(names[i : i + 2]) for i in range(0, len(names), 2)]


def _background(ax: Axes, lengths: Sequence[int]) -> None:
    ax.axhspan(*_ACCEPTED, color="0.9", zorder=0)
    ax.axhline(1, color=TRUTH, linewidth=0.8, zorder=1)
    ax.set_xscale("log", base=2)
    ax.set_yscale("function", functions=(_compressed, _expanded))
    ax.set(xlim=(lengths[0] / 1.4, lengths[-1] * 1.4), ylim=(1 - _FARTHEST, 1 + _FARTHEST))
    ax.xaxis.set(major_locator=FixedLocator(lengths), major_formatter=FixedFormatter([str(n) for n in lengths]))
    ax.yaxis.set(major_locator=FixedLocator(_TICKS), major_formatter=FixedFormatter([f"{t:g}" for t in _TICKS]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_minor_locator(NullLocator())
    ax.grid(axis="y", color=FAINT, linewidth=0.4)


def _compressed(ratio: np.ndarray) -> np.ndarray:
    away = np.asarray(ratio) - 1
    return np.asarray(np.sign(away) * np.log10(1 + np.abs(away) / _LINEAR))


def _expanded(y: np.ndarray) -> np.ndarray:
    return np.asarray(1 + np.sign(y) * _LINEAR * (10 ** np.abs(y) - 1))


def _ratios(ax: Axes, cases: Sequence[Row], look: dict[str, Any], shift: float, colours: Sequence[str]) -> None:
    """All types of one set and checkpoint."""
    for t, colour in enumerate(colours):
        apart = shift * (1.0 + 0.02 * (t - (len(colours) - 1) / 2))
        by_length: dict[int | None, list[float]] = {}
        for case in cases:
            found = case.get("slope_ratio", [])
            if t < len(found) and found[t] is not None:
                by_length.setdefault(case["T"], []).append(_clipped(found[t]))
        for values in [by_length.pop(None)] if None in by_length else []:
            ax.axhspan(min(values), max(values), color=colour, alpha=0.08, linewidth=0)
            ax.axhline(float(np.median(values)), color=colour, linestyle=look["linestyle"], linewidth=1)
            by_length[round(float(np.sqrt(np.prod(ax.get_xlim()))))] = values
        if by_length:
            lengths = sorted(length for length in by_length if length is not None)
            middle = np.array([np.median(by_length[n]) for n in lengths])
            low, high = (np.array([f(by_length[n]) for n in lengths]) for f in (min, max))
            ax.errorbar(
                np.array(lengths) * apart,
                middle,
                yerr=[middle - low, high - middle],
                color=colour,
                markersize=4,
                linewidth=1,
                elinewidth=0.8,
                **look,
            )


def _clipped(ratio: float) -> float:
    return float(np.clip(ratio, 1 - _FARTHEST, 1 + _FARTHEST))


def _handles(checkpoints: Sequence[str], colours: Sequence[str]) -> list[Line2D | Patch]:
    types = [Patch(color=colour, label=f"type {t}") for t, colour in enumerate(colours)]
    kinds = [
        Line2D([], [], color="0.3", markersize=5, label=name, **look)
        for name, look in zip(checkpoints, _LOOKS, strict=False)
    ]
    return [*types, *kinds, Patch(color="0.9", label=f"{_ACCEPTED[0]}-{_ACCEPTED[1]}")]
