"""Figures of the fit of a PEtab problem: likelihoods of all starts, and measurements beside their simulation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from metabolismgraph.figures.style import (
    BLUE,
    FAINT,
    VERMILLION,
    applied,
    count_axis,
    legend_below,
    palette,
    panels,
    positive,
    save,
)
from metabolismgraph.formats.petab import sides_of
from metabolismgraph.kinetic_models.fit_result import SAME, PetabFit

_LIMITS = {-1: ("v", "below a limit"), 1: ("^", "above a limit")}  # marker and label by side
_COLUMNS, _WIDTH, _HEIGHT, _FOR_LEGEND = 4, 3.0, 2.4, 0.8  # inches
_MOST = 24  # panels
_LEAST = 1e-3  # of the vertical axis of a waterfall


def draw_waterfall(fit: PetabFit, path: Path, dpi: int) -> Path:
    """Draw the objective of all starts in order, above the best one."""
    with applied():
        above = np.sort(fit.starts["objective"].to_numpy(float)) - fit.objective
        shown = above[np.isfinite(above)]
        figure, axes = panels(1, 1, 5.5, 3.8)
        ax = axes[0, 0]
        order = np.arange(1, len(shown) + 1)
        ax.axhline(SAME, color=FAINT, linewidth=1.2, zorder=0)
        ax.plot(order, np.maximum(shown, _LEAST), color=FAINT, zorder=1)
        for same, colour, label in ((True, BLUE, "best likelihood"), (False, VERMILLION, "others")):
            part = (shown < SAME) == same
            ax.plot(
                order[part], np.maximum(shown[part], _LEAST), "o", color=colour, label=f"{label}: {int(part.sum())}"
            )
        failed = len(above) - len(shown)
        if failed:
            ax.plot([], [], " ", label=f"without a likelihood: {failed}")
        ax.set(
            yscale="log",
            xlim=(0, len(above) + 1),
            xlabel="start, in order",
            ylabel=f"{fit.quantity} above the best (at least {_LEAST:g})",
        )
        count_axis(ax)
        ax.legend(loc="best")
        return save(figure, path, dpi)


def draw_measurements(fit: PetabFit, path: Path, dpi: int) -> Path:
    """Draw measured values as points and simulated ones as lines: a panel per observable, a colour per condition."""
    with applied():
        return save(_measurements(fit, fit.simulation, "simulated"), path, dpi)


def draw_held_out(fit: PetabFit, path: Path, dpi: int) -> Path:
    """Draw held-out measurements as points and their prediction as lines, after fitted ones of the same conditions."""
    same = fit.simulation["simulationConditionId"].isin(fit.held_out["simulationConditionId"])
    same &= fit.simulation["observableId"].isin(fit.held_out["observableId"])
    table = pd.concat([fit.held_out.assign(fitted=False), fit.simulation[same].assign(fitted=True)], ignore_index=True)
    with applied():
        return save(_measurements(fit, table, "predicted"), path, dpi)


def _measurements(fit: PetabFit, table: pd.DataFrame, what: str) -> Figure:
    """A panel per observable.

    Args:
        table: measurements with simulations; those with `fitted` are drawn as open circles, limits as open triangles
            that point to where the values are.
    """
    rows = table.astype({"observableId": str, "simulationConditionId": str})
    rows["fitted"] = rows["fitted"].astype(bool) if "fitted" in rows else False
    rows["side"] = sides_of(rows)
    observables = list(dict.fromkeys(rows["observableId"]))
    shown = observables[:_MOST]
    conditions = list(dict.fromkeys(rows["simulationConditionId"]))
    colours = dict(zip(conditions, palette(len(conditions), "okabe_ito"), strict=True))
    columns = min(_COLUMNS, math.ceil(math.sqrt(len(shown))))
    lines = -(-len(shown) // columns)
    figure, axes = panels(lines, columns, max(columns, 2) * _WIDTH, lines * _HEIGHT + _FOR_LEGEND)
    for ax, name in zip(axes.flat, shown, strict=False):
        scale = fit.problem.observables.loc[name].get("observableTransformation", "lin")
        _panel(ax, rows[rows["observableId"] == name], colours, logarithmic=scale in ("log", "log10"))
        ax.set_title(name, loc="left")
        ax.set_xlabel("time")
    for ax in axes.flat[len(shown) :]:
        ax.set_axis_off()
    if len(observables) > _MOST:
        figure.suptitle(f"the first {_MOST} of {len(observables)} observables")
    point: dict[str, Any] = {"color": "0.3", "marker": "o", "linestyle": "none", "markersize": 4}
    fitted = Line2D([], [], **point, markerfacecolor="none", label="measured and fitted")
    limits = {side: limit for side, limit in _LIMITS.items() if (rows["side"] == side).any()}
    legend_below(
        figure,
        [
            Line2D([], [], **point, label="measured, held out" if rows["fitted"].any() else "measured"),
            *([fitted] if rows["fitted"].any() else []),
            *(
                Line2D([], [], **{**point, "marker": marker}, markerfacecolor="none", label=label)
                for marker, label in limits.values()
            ),
            Line2D([], [], color="0.3", label=what),
            *(
                Line2D([], [], color=colours[name], linewidth=4, label=name)
                for name in conditions
                if len(conditions) > 1
            ),
        ],
    )
    return figure


def _panel(ax: Axes, rows: pd.DataFrame, colours: dict[str, str], *, logarithmic: bool) -> None:
    """One observable; values after an infinite time are drawn at the right end."""
    times = rows["time"].to_numpy(float)
    finite = times[np.isfinite(times)]
    last = float(finite.max(initial=0.0)) * 1.1 + (0.0 if finite.size else 1.0)
    rows = rows.assign(time=np.where(np.isfinite(times), times, last))
    for condition, part in rows.groupby("simulationConditionId", sort=False):
        colour, ordered = colours[str(condition)], part.sort_values("time", kind="stable")
        measured, simulated = ordered["measurement"].to_numpy(float), ordered["simulation"].to_numpy(float)
        if logarithmic:
            measured, simulated = positive(measured), positive(simulated)
        alone = len(np.unique(ordered["time"])) == 1
        ax.plot(ordered["time"], simulated, color=colour, marker="_" if alone else None, markersize=12)
        fitted, time = ordered["fitted"].to_numpy(dtype=bool), ordered["time"].to_numpy(float)
        side = ordered["side"].to_numpy(int)
        for which, marker, face in (
            ((side == 0) & ~fitted, "o", colour),
            ((side == 0) & fitted, "o", "none"),
            *((side == below_or_above, marker, "none") for below_or_above, (marker, _) in _LIMITS.items()),
        ):
            ax.plot(time[which], measured[which], marker, color=colour, markerfacecolor=face, markersize=4)
    if logarithmic:
        ax.set_yscale("log")
    if not finite.size:
        ax.set_xticks([last], ["∞"])
