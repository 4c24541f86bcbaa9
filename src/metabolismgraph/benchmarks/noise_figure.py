"""Figure of the noise benchmark: errors of rate constants and slopes against noise, for every sampling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from metabolismgraph.benchmarks.markdown import spread
from metabolismgraph.benchmarks.noise_report import sampling
from metabolismgraph.figures.style import FAINT, TRUTH, legend_below, palette, panels

Row = Mapping[str, Any]

_BELOW = 5.0  # factor between the least noise and the place of no noise on the axis
_LEAST, _MOST = 1e-9, 1e2  # errors beyond are drawn at the edge
_MARKERS = "os^Dv*"


def errors_against_noise(config: str, cases: Sequence[Row], methods: Sequence[str]) -> Figure:
    """Errors against noise: rate constants above, slopes of homeostasis below; a column per sampling.

    Median over the seeds (and types) with a bar from least to largest. A marker is empty where most fits of a method
    are not trusted. The dashed lines are the median errors at the Cramér-Rao bound.

    Args:
        config: name of the configuration, for the title.
        cases: rows of the benchmark's results with metrics, all of this configuration.
        methods: in the order of the legend.
    """
    every = sorted({c["every"] for c in cases})
    noise = sorted({c["noise"] for c in cases})
    used = [name for name in methods if any(c["method"] == name for c in cases)]
    colours = dict(zip(used, palette(len(used), "okabe_ito"), strict=True))
    figure, axes = panels(2, len(every), max(6.5, 1.2 + 3.2 * len(every)), 7.0, sharex=True, sharey="row")
    for column, n in enumerate(every):
        mine = [c for c in cases if c["every"] == n]
        for ax, errors in zip(axes[:, column], (_of_k, _of_slopes), strict=True):
            _background(ax, noise)
            for number, name in enumerate(used):
                shift = 1.0 + 0.06 * (number - (len(used) - 1) / 2)
                own = [c for c in mine if c["method"] == name]
                _line(ax, own, noise, errors, shift, color=colours[name], marker=_MARKERS[number % len(_MARKERS)])
        _bound(axes[0, column], mine, noise, "bound_log_k")
        _bound(axes[1, column], mine, noise, "bound_slope")
        axes[0, column].set_title(sampling(n))
        axes[1, column].set_xlabel("noise  [% of the standard deviation]")
    axes[0, 0].set_ylabel("median error of log₁₀ k")
    axes[1, 0].set_ylabel("|slope ratio - 1|")
    figure.suptitle(f"{config}: median over seeds, bars from least to largest")
    handles = [Line2D([], [], color=colours[m], marker=_MARKERS[i % 6], label=m) for i, m in enumerate(used)]
    handles.append(Line2D([], [], color=TRUTH, linestyle="--", label="Cramér-Rao bound, law learned"))
    handles.append(Line2D([], [], color="0.3", marker="o", mfc="white", linestyle="none", label="not trusted"))
    legend_below(figure, handles)
    return figure


def _of_k(case: Row) -> list[float]:
    return [] if case["log_k_median_error"] is None else [case["log_k_median_error"]]


def _of_slopes(case: Row) -> list[float]:
    return [abs(ratio - 1) for ratio in case["slope_ratio"] if ratio is not None]


def _places(noise: Sequence[float]) -> np.ndarray:
    """Places on the logarithmic axis; no noise is to the left of the least noise."""
    least = min((x for x in noise if x > 0), default=1.0)
    return np.array([x if x > 0 else least / _BELOW for x in noise])


def _background(ax: Axes, noise: Sequence[float]) -> None:
    at = _places(noise)
    ax.set(xscale="log", yscale="log", xlim=(at.min() / 1.6, at.max() * 1.6))
    ax.xaxis.set(major_locator=FixedLocator(at.tolist()), major_formatter=FixedFormatter([f"{x:g}" for x in noise]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.grid(axis="y", color=FAINT, linewidth=0.4)


def _line(ax: Axes, cases: Sequence[Row], noise: Sequence[float], errors: Any, shift: float, **look: Any) -> None:
    """One method in one panel."""
    points = []
    for at, level in zip(_places(noise), noise, strict=True):
        own = [c for c in cases if c["noise"] == level]
        middle, low, high = spread([error for c in own for error in errors(c)])
        if middle is not None and low is not None and high is not None:
            told = [c["trustworthy"] for c in own if c["trustworthy"] is not None]
            full = not told or 2 * sum(told) > len(told)
            points.append((at * shift, *np.clip([middle, low, high], _LEAST, _MOST), full))
    if not points:
        return
    x, y, least, most = (np.array([point[i] for point in points]) for i in range(4))
    ax.errorbar(x, y, yerr=[y - least, most - y], linewidth=1, elinewidth=0.8, linestyle="-", color=look["color"])
    for at, value, *_, full in points:
        face = look["color"] if full else "white"
        ax.plot([at], [value], markersize=5, markerfacecolor=face, linestyle="none", zorder=3, **look)


def _bound(ax: Axes, cases: Sequence[Row], noise: Sequence[float], name: str) -> None:
    """The bound of a learned law, or of a known one if there are no other cases."""
    points = []
    for at, level in zip(_places(noise), noise, strict=True):
        # A learned law costs: the larger bound is that of the methods that learn it.
        by_seed: dict[int, float] = {}
        for c in cases:
            if c["noise"] == level and c[name] is not None:
                by_seed[c["seed"]] = max(by_seed.get(c["seed"], 0.0), c[name])
        if by_seed:
            points.append((at, float(np.median(list(by_seed.values())))))
    if points:
        ax.plot(*zip(*points, strict=True), color=TRUTH, linestyle="--", marker="_", linewidth=1.2, zorder=4)
