"""Figure of profile likelihoods: small multiples, one per parameter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from metabolismgraph.figures.style import BLUE, FAINT, LOG_K, ORANGE, applied, legend_below, panels, save
from metabolismgraph.uncertainty.profile import THRESHOLD, Profile

_COLUMNS, _WIDTH, _HEIGHT, _FOR_LEGEND = 3, 3.2, 2.5, 0.7  # inches
_HIGHEST = 2 * THRESHOLD  # of the vertical axis
_ERRORS = 3.0  # standard errors on either side that are shown at least
_MARGIN = 0.06
_TICKS = 4
_FINE = 400  # values of a curve


def draw_profiles(profiles: Sequence[Profile], path: Path, dpi: int) -> Path:
    """Draw profiles beside the parabolas of the standard errors, with the limit of the 95 % interval."""
    with applied():
        return save(_figure(profiles), path, dpi)


def _figure(profiles: Sequence[Profile]) -> Figure:
    columns = min(_COLUMNS, len(profiles))
    rows = -(-len(profiles) // columns)
    figure, axes = panels(rows, columns, max(columns, 2) * _WIDTH, rows * _HEIGHT + _FOR_LEGEND, sharey=True)
    for ax, one in zip(axes.flat, profiles, strict=False):
        _panel(ax, one)
    for ax in axes.flat[len(profiles) :]:
        ax.set_axis_off()
    figure.supylabel("2 × increase of the misfit")
    legend_below(
        figure,
        [
            Line2D([], [], color=BLUE, marker="o", markersize=4, label="profile"),
            Line2D([], [], color=ORANGE, linestyle="--", label="standard error"),
            Line2D([], [], color=FAINT, label=f"95 %: {THRESHOLD}"),
        ],
    )
    return figure


def _panel(ax: Axes, one: Profile) -> None:
    """One parameter; the interval of the profile is shaded."""
    low, high = _limits(one)
    ax.axhline(THRESHOLD, color=FAINT, linewidth=1.2, zorder=0)
    ends = [end if np.isfinite(end) else edge for end, edge in ((one.lower, low), (one.upper, high))]
    ax.axvspan(*ends, color=BLUE, alpha=0.1, linewidth=0, zorder=0)
    if np.isfinite(one.standard_error) and one.standard_error > 0:
        value = np.linspace(low, high, 200)
        ax.plot(value, ((value - one.estimate) / one.standard_error) ** 2, color=ORANGE, linestyle="--")
    ax.plot(*_curve(one), color=BLUE)
    ax.plot(one.value, one.increase, color=BLUE, linestyle="none", marker="o", markersize=4)
    ax.set(xlim=(low, high), ylim=(-0.04 * _HIGHEST, _HIGHEST), xlabel=_label(one))
    ax.xaxis.set_major_locator(MaxNLocator(_TICKS))
    ax.set_title(one.name.partition(":")[2], loc="left")


def _curve(one: Profile) -> tuple[np.ndarray, np.ndarray]:
    """The profile between its points: its root is taken as straight there, as for the ends of the interval."""
    best = int(np.argmin(np.abs(one.increase)))
    side = np.where(np.arange(len(one.value)) < best, -1.0, 1.0)
    value = np.unique(np.concatenate([np.linspace(one.value[0], one.value[-1], _FINE), one.value]))
    root = np.interp(value, one.value, side * np.sqrt(np.maximum(one.increase, 0.0)))
    return value, root**2


def _limits(one: Profile) -> tuple[float, float]:
    """Limits of the horizontal axis: the points that are not far beyond the threshold, and the standard error."""
    shown = one.value[one.increase <= _HIGHEST]
    low, high = float(shown.min()), float(shown.max())
    if np.isfinite(one.standard_error):
        reach = _ERRORS * one.standard_error
        low, high = min(low, one.estimate - reach), max(high, one.estimate + reach)
    # An end that no point lies on is an interpolation towards one that is not shown.
    low, high = np.nanmin([low, one.lower]), np.nanmax([high, one.upper])
    margin = _MARGIN * (high - low) or abs(high) or 1.0
    return float(low - margin), float(high + margin)


def _label(one: Profile) -> str:
    return f"{LOG_K}   [k: {one.unit}]" if one.kind == "k" else f"{one.kind}   [{one.unit}]"
