"""Figures of rate constants and the rate law."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.container import Container
from matplotlib.figure import Figure

from metabolismgraph.figures.scene import Scene
from metabolismgraph.figures.style import (
    BLUE,
    FAINT,
    LOG_K,
    OKABE_ITO,
    TRUTH,
    VERMILLION,
    letter,
    log_axis,
    panels,
    positive,
    r2_text,
    ratio,
    scientific,
)

_FOR_LEGEND = 0.35  # space for the legend above the largest value, relative to the range
_KNOWN: dict[str, Any] = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 5,
    "color": BLUE,
    "alpha": 0.6,
    "markeredgewidth": 0,
}
_UNKNOWN: dict[str, Any] = {
    "linestyle": "none",
    "marker": "^",
    "markersize": 6,
    "color": VERMILLION,
    "markerfacecolor": "none",
}
_UNIT = "concentration¹⁻ᵒʳᵈᵉʳ/time"
_MAX_NAMES = 40  # names of reactions along an axis


def comparison(scene: Scene) -> Figure:
    """log10 k: learned against true values, and errors; without truth, sorted values with standard errors."""
    if scene.has("true_log_k"):
        figure, axes = panels(1, 2, 9.0, 4.2)
        against_truth(axes[0, 0], scene)
        _errors(axes[0, 1], scene)
    else:
        figure, axes = panels(2, 1, 8.0, 5.2, sharex=True, height_ratios=(3, 2))
        caterpillar(axes[0, 0], scene)
        axes[0, 0].set_xlabel("")
        _standard_errors(axes[1, 0], scene)
    letter(list(axes.flat))
    return figure


def rate_constants(ax: Axes, scene: Scene) -> None:
    """The first panel of `comparison`, for use in another figure."""
    (against_truth if scene.has("true_log_k") else caterpillar)(ax, scene)


def against_truth(ax: Axes, scene: Scene) -> None:
    learned, true, known = scene.values("log_k"), scene.values("true_log_k"), scene.values("identifiable")
    both = np.concatenate([learned, true])
    both = both[np.isfinite(both)]
    if both.size:
        margin = 0.05 * max(float(np.ptp(both)), 0.2)
        ends = (both.min() - margin, both.max() + margin)
        ax.plot(ends, ends, color=FAINT, linewidth=1, zorder=0)
        # Space for the legend, which would otherwise cover points.
        ax.set(xlim=ends, ylim=(ends[0], ends[1] + _FOR_LEGEND * (ends[1] - ends[0])))
    identifiable = r2_text(scene.metrics.get("rate_constants_R2_identifiable"))
    ax.plot(true[known], learned[known], **_KNOWN, label=f"identifiable ({known.sum()}): {identifiable}")
    if not known.all():
        ax.plot(true[~known], learned[~known], **_UNKNOWN, label=f"not identifiable ({(~known).sum()})")
    ax.set(xlabel=f"true {LOG_K}   [k: {_UNIT}]", ylabel=f"learned {LOG_K}")
    ax.legend(
        title=f"all ({known.size}): {r2_text(scene.metrics.get('rate_constants_R2'))}",
        loc="upper left",
        alignment="left",
        handletextpad=0.2,
        borderpad=0,
    )


def _errors(ax: Axes, scene: Scene) -> None:
    error = np.abs(scene.values("log_k") - scene.values("true_log_k"))
    true, known = scene.values("true_log_k"), scene.values("identifiable")
    ax.plot(true[known], positive(error[known]), **_KNOWN, label="identifiable")
    if not known.all():
        ax.plot(true[~known], positive(error[~known]), **_UNKNOWN, label="not identifiable")
    log_axis(ax, "y", error)
    median = scene.metrics.get("log_k_median_error_identifiable")
    if isinstance(median, float) and median > 0:
        ax.axhline(median, color=BLUE, linewidth=1, zorder=0)
        ax.set_title(f"identifiable: median {scientific(median)}", loc="right", color=BLUE)
    ax.set(xlabel=f"true {LOG_K}", ylabel=f"|learned − true {LOG_K}|")


def caterpillar(ax: Axes, scene: Scene) -> None:
    """Rate constants in ascending order with standard errors; those without a finite error have another symbol."""
    order = np.argsort(scene.values("log_k"), kind="stable")
    log_k, known = scene.values("log_k")[order], scene.values("identifiable")[order]
    error = scene.values("log_k_error")[order]
    place = np.arange(len(order))
    error = np.where(np.isfinite(error), error, 0.0)
    handles: list[Artist | Container] = [
        ax.errorbar(
            place[known],
            log_k[known],
            error[known],
            fmt="o",
            markersize=3,
            color=BLUE,
            elinewidth=1,
            label=f"identifiable ({known.sum()}) ± error",
        )
    ]
    if not known.all():
        label = f"not identifiable ({(~known).sum()})"
        handles += ax.plot(place[~known], log_k[~known], **_UNKNOWN, label=label, zorder=3)
    ax.set(ylabel=f"{LOG_K}\n[k: {_UNIT}]")
    ax.legend(handles=handles, loc="upper left", borderpad=0)
    _name_reactions(ax, scene, order)


def _standard_errors(ax: Axes, scene: Scene) -> None:
    order = np.argsort(scene.values("log_k"), kind="stable")
    error, known = scene.values("log_k_error")[order], scene.values("identifiable")[order]
    place = np.arange(len(order))
    ax.plot(place[known], positive(error[known]), **_KNOWN)
    log_axis(ax, "y", error[known])
    if not known.all():
        top = ax.get_xaxis_transform()
        ax.plot(place[~known], np.ones((~known).sum()), **_UNKNOWN, transform=top, clip_on=False)
        ax.annotate("∞ ", (0.0, 1.0), xycoords="axes fraction", ha="right", va="center", size="large")
    ax.set(ylabel=f"standard error\nof {LOG_K}")
    _name_reactions(ax, scene, order)


def _name_reactions(ax: Axes, scene: Scene, order: np.ndarray) -> None:
    if len(order) <= _MAX_NAMES:
        ax.set_xticks(np.arange(len(order)), scene.values("reaction")[order], rotation=90)
        ax.set(xlabel="reaction")
    else:
        ax.set(xlabel="reactions, sorted by rate constant")


def rate_law(scene: Scene) -> Figure:
    """The substrate function per order and, below, its deviation from the truth or from mass action."""
    figure, axes = panels(2, 1, 5.5, 5.6, sharex=True, height_ratios=(2, 1))
    law(axes[0, 0], scene)
    axes[0, 0].set(xlabel="")
    _law_deviation(axes[1, 0], scene)
    return figure


def law(ax: Axes, scene: Scene) -> None:
    c, orders, learned = scene.values("law_concentration"), scene.values("law_order"), scene.values("law_f")
    if scene.has("true_law_f"):
        reference, name, dashes = scene.values("true_law_f"), "truth", "--"
        title = f"{r2_text(scene.metrics.get('MLP_sub_R2'))} of log f"
    else:
        reference, name, dashes, title = c ** orders[:, None], "mass action", ":", None
    for i, order in enumerate(orders):
        label = f"learned, |s| = {order:g}"
        if scene.has("law_f_lower"):
            lower, upper = (positive(scene.values(f"law_f_{end}")[i]) for end in ("lower", "upper"))
            ax.fill_between(c, lower, upper, color=_order_colour(i), alpha=0.25, linewidth=0, label="_band")
        ax.plot(c, positive(learned[i]), color=_order_colour(i), linewidth=4, alpha=0.6, label=label)
    for i in range(len(orders)):
        label = "_" * (i > 0) + name  # one entry for all
        ax.plot(c, positive(reference[i]), color=TRUTH, linewidth=1.3, linestyle=dashes, label=label)
    log_axis(ax, "x", c)
    log_axis(ax, "y", np.concatenate([learned.ravel(), reference.ravel()]))
    ax.set(xlabel="substrate concentration c", ylabel="rate law f(c, |s|)")
    ax.legend(title=title, loc="upper left", alignment="left", borderpad=0)


def _law_deviation(ax: Axes, scene: Scene) -> None:
    c, orders, learned = scene.values("law_concentration"), scene.values("law_order"), scene.values("law_f")
    if scene.has("true_law_f"):
        deviation = np.abs(ratio(learned, scene.values("true_law_f")) - 1)
        log_axis(ax, "y", deviation)
        ax.set(ylabel="|relative error|")
    else:
        deviation = ratio(learned, c ** orders[:, None])
        half = max(0.05, 1.1 * float(np.max(np.abs(deviation - 1), initial=0.0, where=np.isfinite(deviation))))
        if half < 1:
            ax.set_ylim(1 - half, 1 + half)
        else:
            log_axis(ax, "y", deviation)
        ax.axhline(1, color=TRUTH, linewidth=1.3, linestyle=":")
        ax.set(ylabel="learned /\nmass action")
    for i in range(len(orders)):
        ax.plot(c, positive(deviation[i]), color=_order_colour(i))
    ax.set(xlabel="substrate concentration c")


def _order_colour(i: int) -> str:
    return OKABE_ITO[i % len(OKABE_ITO)]
