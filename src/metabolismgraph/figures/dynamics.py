"""Figures of concentrations over time: traces, derivatives and singular values."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from metabolismgraph.evaluation.variables import MODEL_TRACES
from metabolismgraph.figures.scene import Scene
from metabolismgraph.figures.style import (
    BLUE,
    CONCENTRATION,
    ORANGE,
    RATE,
    count_axis,
    log_axis,
    palette,
    panels,
    positive,
    power_of_ten,
    scientific,
)

_TRACES = 5
_LAST_RANK = 0.8  # relative rank by variation of the last trace; some metabolites are constant
_COLUMNS = 4000  # of a heat map, at most; the resolution of a figure is lower
_ROBUST = 0.98  # quantile of |values| at the end of the colour scale
_MAX_NAMES = 12  # names of species along an axis
_MAX_RUNS = 8  # names of runs along an axis
_HELD_OUT = "0.9"
_MODEL: dict[str, Any] = {"color": "black", "linestyle": "--", "linewidth": 1}


def traces(scene: Scene) -> Figure:
    """Concentrations of a few metabolites over time, in descending order of variation.

    In held-out frames, those of the model are drawn over them.
    """
    chosen = _examples(scene)
    figure, axes = panels(len(chosen), 1, 8.0, 1.0 + 1.0 * len(chosen), sharex=True)
    run, time = scene.values("run"), scene.values("time")
    runs = np.unique(run)
    model = None if scene.model_trace is None else scene.values(scene.model_trace)
    colours = [BLUE] if len(runs) == 1 else palette(len(runs), "okabe_ito")
    for ax, i in zip(axes.flat, chosen.tolist(), strict=True):
        top = _top(scene, i)
        for start, end in _held_out_spans(scene):
            ax.axvspan(start, end, color=_HELD_OUT, linewidth=0, zorder=0)
        for r, colour in zip(runs, colours, strict=True):
            here = run == r
            values = scene.values("concentration")[here, i]
            points = {"marker": ".", "markersize": 2, "linestyle": ""} if np.isnan(values).any() else {"linewidth": 1}
            ax.plot(time[here], values, color=colour, label=f"run {r}", **points)
            if model is not None:
                ax.plot(time[here], np.clip(model[here, i], -top, 2 * top), **_MODEL)
        ax.set_ylim(0, top)
        ax.set_title(_named(scene, i), loc="left", pad=2)
        ax.yaxis.set_major_locator(MaxNLocator(2))
        ax.margins(x=0)
    axes[-1, 0].set_xlabel("time")
    figure.supylabel(CONCENTRATION)
    handles = [line for line in axes[0, 0].lines if str(line.get_label()).startswith("run")]
    handles = handles if 1 < len(runs) <= _MAX_RUNS else []
    if scene.model_trace is not None:
        handles.append(Line2D([], [], **_MODEL, label=MODEL_TRACES[scene.model_trace]))
    if _held_out_spans(scene):
        handles.append(Patch(color=_HELD_OUT, label="held out from training"))
    if handles:
        figure.legend(handles=handles, loc="outside upper right", ncols=6)
    return figure


def _top(scene: Scene, i: int) -> float:
    """Upper limit of the axis of a species, by its measurements: the model may diverge."""
    return 1.1 * float(np.nanmax(scene.values("concentration")[:, i], initial=0.0)) or 1.0


def _examples(scene: Scene) -> np.ndarray:
    moving = np.flatnonzero(scene.moving)
    spread = np.nanstd(scene.values("concentration")[:, moving], axis=0)
    order = moving[np.argsort(-spread, kind="stable")]
    if len(order) <= _TRACES:
        return order
    return np.asarray(order[np.unique(np.linspace(0, _LAST_RANK * (len(order) - 1), _TRACES).astype(int))])


def _named(scene: Scene, i: int) -> str:
    name = str(scene.values("species")[i])
    if scene.types or scene.clusters:
        name += f"  ({scene.groups.name} {scene.groups.member[i]})"
    return name


def _held_out_spans(scene: Scene) -> list[tuple[float, float]]:
    """First and last time of the held-out frames of each run, without duplicates."""
    if not scene.has("held_out"):
        return []
    run, time, held_out = scene.values("run"), scene.values("time"), scene.values("held_out")
    parts = [time[(run == r) & held_out] for r in np.unique(run)]
    return sorted({(float(t[0]), float(t[-1])) for t in parts if t.size})


def kinograph(scene: Scene) -> Figure:
    """dc/dt of every species over time: observed, predicted, and the residual on a separate scale."""
    observed, predicted = scene.values("derivative"), scene.values("predicted_derivative")
    residual = observed - predicted
    shared, own = _limit(np.concatenate([observed, predicted])), _limit(residual)
    finer = f", colours {scientific(shared / own)} times finer" if own < shared / 2 else ""
    figure, axes = panels(3, 1, 8.0, 7.5, sharex=True)
    top, middle, bottom = axes[:, 0]
    _heat_map(top, scene, observed, shared, "RdBu_r")
    image = _heat_map(middle, scene, predicted, shared, "RdBu_r")
    _colour_bar(figure, image, [top, middle], shared)
    _colour_bar(figure, _heat_map(bottom, scene, residual, own, "PuOr_r"), [bottom], own)
    for ax, title in zip((top, middle, bottom), ("observed dc/dt", "predicted dc/dt", f"residual{finer}"), strict=True):
        ax.set_title(title, loc="left", pad=10)
    _mark_held_out(top, scene)
    _time_axis(bottom, scene)
    return figure


def _limit(values: np.ndarray) -> float:
    size = np.abs(values[np.isfinite(values)])
    if not size.size:
        return 1.0
    return float(np.quantile(size, _ROBUST)) or float(size.max()) or 1.0


def _heat_map(ax: Axes, scene: Scene, values: np.ndarray, limit: float, colours: str) -> AxesImage:
    n, species = values.shape
    step = -(-n // _COLUMNS)
    unit = _unit(limit)
    image = ax.imshow(
        values[::step].T / unit,
        aspect="auto",
        cmap=colours,
        vmin=-limit / unit,
        vmax=limit / unit,
        extent=(0, n, species - 0.5, -0.5),
        interpolation_stage="data",
    )
    if species <= _MAX_NAMES:
        ax.set_yticks(np.arange(species), scene.values("species"))
    ax.set(ylabel="metabolite")
    ax.spines[["top", "right"]].set_visible(True)
    for place in _run_starts(scene):
        ax.axvline(float(place), color="black", linewidth=1)
    return image


def _colour_bar(figure: Figure, image: AxesImage, axes: list[Axes], limit: float) -> None:
    unit = _unit(limit)
    power = "" if unit == 1 else f"{power_of_ten(round(np.log10(unit)))} "
    label = f"[{power}{RATE}]"
    bar = figure.colorbar(image, ax=axes, extend="both", pad=0.01, aspect=18 * len(axes), label=label)
    bar.locator = MaxNLocator(5, symmetric=True)
    bar.update_ticks()


def _unit(limit: float) -> float:
    """The power of ten that gives short tick labels for values up to `limit`."""
    return 1.0 if 0.1 <= limit < 1000 else float(10.0 ** np.floor(np.log10(limit)))


def _mark_held_out(ax: Axes, scene: Scene) -> None:
    """Draw a bar above the held-out columns."""
    if not scene.has("held_out"):
        return
    held_out = np.concatenate([[0], scene.values("held_out")[_transition_frames(scene)], [0]]).astype(int)
    starts, ends = np.flatnonzero(np.diff(held_out) == 1), np.flatnonzero(np.diff(held_out) == -1)
    for span in zip(starts, ends, strict=True):
        bar = ax.plot(span, (1.03, 1.03), color="black", linewidth=3, solid_capstyle="butt")[0]
        bar.set(transform=ax.get_xaxis_transform(), clip_on=False)
    if starts.size:
        ax.set_title("held out from training", loc="right", pad=10)


def _transition_frames(scene: Scene) -> np.ndarray:
    return np.flatnonzero(np.diff(scene.values("run")) == 0)


def _run_starts(scene: Scene) -> np.ndarray:
    """Indices of the columns at which a new run begins."""
    run = scene.values("run")[_transition_frames(scene)]
    return np.flatnonzero(np.diff(run)) + 1


def _time_axis(ax: Axes, scene: Scene) -> None:
    """Ticks at round times, since columns are frames; for several runs, the numbers of the runs."""
    time = scene.values("transition_time")
    starts = _run_starts(scene)
    if starts.size == 0:
        ticks = [t for t in MaxNLocator(7).tick_values(time[0], time[-1]) if time[0] <= t <= time[-1]]
        ax.set_xticks(np.interp(ticks, time, np.arange(len(time))), [f"{t:g}" for t in ticks])
        ax.set(xlabel="time")
        return
    edges = np.concatenate([[0], starts, [len(time)]])
    step = -(-len(edges[1:]) // _MAX_RUNS)
    middle = (edges[:-1] + edges[1:]) / 2
    run = scene.values("run")[_transition_frames(scene)][edges[:-1]]
    ax.set_xticks(middle[::step], [f"run {r}" for r in run[::step]])
    ax.set(xlabel="time, one run after another")


def singular_values(scene: Scene) -> Figure:
    """Singular values of the concentrations, with the activity rank."""
    figure, axes = panels(1, 1, 5.5, 4.0)
    ax = axes[0, 0]
    values = scene.values("singular_value")
    number = np.arange(1, len(values) + 1)
    found = scene.metrics.get("activity_rank")
    rank = found if isinstance(found, int) else 0
    ax.plot(number[:rank], positive(values[:rank]), "o", color=BLUE, markersize=5, label=f"activity rank {rank}")
    rest: dict[str, Any] = {"color": ORANGE, "markerfacecolor": "none"}
    ax.plot(number[rank:], positive(values[rank:]), "o", markersize=5, label="the rest", **rest)
    log_axis(ax, "y", values)
    count_axis(ax)
    ax.set(xlabel="component", ylabel=f"singular value  [{CONCENTRATION}]")
    ax.legend(loc="lower left")
    return figure
