"""Figures of MLP_node and the embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from metabolismgraph.figures.scene import Groups, Scene
from metabolismgraph.figures.style import (
    FAINT,
    RATE,
    TRUTH,
    legend_below,
    letter,
    panels,
    ratio,
    robust_limits,
    scientific,
    subscript,
)

_VISIBLE = 0.02  # smallest visible spread within groups, relative to the range
_INSET = 0.36  # size of an inset, relative to the axes
_TRUTH: dict[str, Any] = {"color": TRUTH, "linestyle": "--", "linewidth": 1.5}


def node_function(scene: Scene) -> Figure:
    """MLP_node per species, and the ratio of learned to true slope and offset (without truth: the slope)."""
    figure, axes = panels(1, 2, 9.0, 4.2, width_ratios=(3, 2))
    curves(axes[0, 0], scene)
    if scene.types:
        _ratios(axes[0, 1], scene)
    else:
        _slopes(axes[0, 1], scene)
    letter(list(axes.flat))
    legend_below(figure, curve_handles(scene))
    return figure


def curves(ax: Axes, scene: Scene) -> None:
    """A curve per species: strong over observed concentrations, faint elsewhere; the truth of each type dashed."""
    c, y = scene.values("sweep"), scene.values("node_curve")
    low, high = scene.values("lowest"), scene.values("highest")
    groups = scene.groups
    ax.axhline(0, color=FAINT, linewidth=1, zorder=0)
    for g, colour in groups.colours.items():
        members = groups.species(g)
        strength = float(np.clip(8 / len(members), 0.15, 0.6))
        everywhere = [np.column_stack([c, y[i]]) for i in members]
        ax.add_collection(LineCollection(everywhere, colors=colour, linewidths=1, alpha=strength / 2))
        seen = [_part(c, y[i], low[i], high[i]) for i in members]
        ax.add_collection(LineCollection(seen, colors=colour, linewidths=2.5, alpha=strength))
    if scene.types:
        slope, offset = scene.values("true_slope"), scene.values("true_offset")
        for g in groups.colours:
            members = groups.species(g)
            ax.plot(c, slope[members].mean() * c + offset[members].mean(), **_TRUTH)
    ax.autoscale_view()
    ax.set(xlim=(c[0], c[-1]), xlabel="concentration c", ylabel=f"MLP_node(c, a)\n[{RATE}]")


def _part(c: np.ndarray, y: np.ndarray, low: float, high: float) -> np.ndarray:
    """The part of a curve between low and high."""
    low, high = np.clip([low, high], c[0], c[-1])
    inside = (c > low) & (c < high)
    x = np.concatenate([[low], c[inside], [high]])
    return np.column_stack([x, np.interp(x, c, y)])


def curve_handles(scene: Scene) -> list[Line2D]:
    """Legend entries of `curves`."""
    handles = scene.groups.handles(linestyle="-", marker="", linewidth=3)
    return [*handles, Line2D([], [], **_TRUTH, label="truth")] if scene.types else handles


def _ratios(ax: Axes, scene: Scene) -> None:
    ax.axhline(1, color=TRUTH, linewidth=1, linestyle=":")
    worst = 0.0
    for name, marker, face, shift in (("slope", "o", None, -0.2), ("offset", "^", "none", 0.2)):
        found = ratio(scene.values(name), scene.values(f"true_{name}"))
        shown = scene.moving & np.isfinite(found)
        worst = max(worst, float(np.max(np.abs(found - 1), initial=0.0, where=shown)))
        for x, members, colour in _places(scene.groups, 0.15):
            ax.plot(x + shift, found[members], marker, color=colour, markersize=4, markerfacecolor=face, alpha=0.7)
    ax.legend(
        handles=[
            Line2D([], [], marker="o", color="0.3", linestyle="none", label="slope"),
            Line2D([], [], marker="^", color="0.3", linestyle="none", markerfacecolor="none", label="offset"),
        ],
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=2,
        borderpad=0,
        borderaxespad=0.2,
        handletextpad=0,
    )
    if worst < 1:
        half = max(0.05, 1.3 * worst)
        ax.set_ylim(1 - half, 1 + half)
    ax.set(ylabel="learned / true, per metabolite")
    _name_groups(ax, scene.groups)


def _slopes(ax: Axes, scene: Scene) -> None:
    slope = scene.values("slope")
    ax.axhline(0, color=FAINT, linewidth=1, zorder=0)
    for x, members, colour in _places(scene.groups):
        ax.plot(x, slope[members], "o", color=colour, markersize=4, alpha=0.7)
    ax.set(ylabel="slope of MLP_node  [1/time]")
    _name_groups(ax, scene.groups)


def _places(groups: Groups, spread: float = 0.35) -> list[tuple[np.ndarray, np.ndarray, str]]:
    """Positions of the species of each group on an axis of groups, within +- `spread`: (x, species, colour)."""
    found = []
    for i, (g, colour) in enumerate(groups.colours.items()):
        members = groups.species(g)
        x = i + (np.linspace(-spread, spread, len(members)) if len(members) > 1 else np.zeros(1))
        found.append((x, members, colour))
    return found


def _name_groups(ax: Axes, groups: Groups) -> None:
    n = len(groups.colours)
    step = -(-n // 12)
    ax.set_xticks(np.arange(0, n, step), [str(g) for g in list(groups.colours)[::step]])
    ax.set(xlabel=groups.name, xlim=(-0.6, n - 0.4))


def embedding(scene: Scene) -> Figure:
    """Embeddings by type (without truth, by slope of MLP_node) and by cluster."""
    figure, axes = panels(1, 2, 9.0, 4.2)
    left, right = axes[0]
    assert scene.clusters is not None
    if scene.types:
        embedding_by(left, scene, scene.types)
        left.set_title("by true type")
    else:
        x, y, *_ = _coordinates(scene)
        moving = scene.moving
        points = left.scatter(x[moving], y[moving], c=scene.values("slope")[moving], s=36, cmap="cividis", alpha=0.8)
        figure.colorbar(points, ax=left, label="slope  [1/time]", pad=0.02)
        left.set_title("by slope of MLP_node")
        _finish_embedding(left, scene)
    embedding_by(right, scene, scene.clusters)
    accuracy = scene.metrics.get("embedding_cluster_acc")
    right.set_title("by cluster" + (f" (accuracy {accuracy:.3g})" if isinstance(accuracy, float) else ""))
    handles = [*(scene.types.handles() if scene.types else []), *scene.clusters.handles(marker="D")]
    legend_below(figure, handles)
    return figure


def embedding_by(ax: Axes, scene: Scene, groups: Groups) -> None:
    x, y, *_ = _coordinates(scene)
    for g, colour in groups.colours.items():
        members = groups.species(g)
        ax.plot(
            x[members],
            y[members],
            "D" if groups.name == "cluster" else "o",
            color=colour,
            markersize=7,
            alpha=0.5,
            markeredgecolor="white",
            markeredgewidth=0.5,
        )
    _finish_embedding(ax, scene)
    _within_groups(ax, scene, groups)


def _within_groups(ax: Axes, scene: Scene, groups: Groups) -> None:
    """Add an inset with the deviations from the mean of each group, if they are too small to be visible."""
    at = np.stack(_coordinates(scene)[:2], axis=1)
    members = {g: groups.species(g) for g in groups.colours}
    offsets = {g: at[found] - at[found].mean(axis=0) for g, found in members.items() if len(found) > 1}
    shown = at[np.concatenate(list(members.values()))]
    span = np.ptp(shown, axis=0).max()
    spread = max((float(np.abs(offset).max()) for offset in offsets.values()), default=0.0)
    if not 0 < spread < _VISIBLE * span:
        return
    # Of nine positions, the one with the largest distance to any point.
    middle = (shown.max(axis=0) + shown.min(axis=0)) / 2
    places = {(x, y): middle + (np.array([x, y]) - 0.5) * span for x in (0.25, 0.5, 0.75) for y in (0.25, 0.5, 0.75)}
    x, y = max(places, key=lambda place: np.linalg.norm(shown - places[place], axis=1).min())
    inset = ax.inset_axes((x - _INSET / 2, y - _INSET / 2, _INSET, _INSET))
    for g, offset in offsets.items():
        inset.plot(*offset.T, "o", color=groups.colours[g], markersize=4, alpha=0.6, markeredgewidth=0)
    inset.set(xlim=(-1.2 * spread, 1.2 * spread), ylim=(-1.2 * spread, 1.2 * spread), xticks=[], yticks=[])
    # A text above the highest position would be in the title of the panel.
    write = inset.set_title if y < 0.75 else inset.set_xlabel
    write(f"distance from mean\nwithin ±{scientific(1.2 * spread)}", fontsize=9)
    for side in ("top", "right"):
        inset.spines[side].set_visible(True)


def _finish_embedding(ax: Axes, scene: Scene) -> None:
    _, _, x_label, y_label = _coordinates(scene)
    ax.set(xlabel=x_label, ylabel=y_label)
    ax.margins(0.15)


def _coordinates(scene: Scene) -> tuple[np.ndarray, np.ndarray, str, str]:
    """The two dimensions of the embeddings with the largest variance; for a single dimension, it and the slope."""
    a = scene.values("embedding")
    if a.shape[1] == 1:
        return a[:, 0], scene.values("slope"), "embedding a", "slope of MLP_node  [1/time]"
    first, second = sorted(np.argsort(-a[scene.moving].var(axis=0), kind="stable")[:2].tolist())
    return a[:, first], a[:, second], f"embedding a{subscript(first + 1)}", f"embedding a{subscript(second + 1)}"


def set_points(scene: Scene) -> Figure:
    """Strength and set point of homeostasis: minus the slope of MLP_node, and the concentration of its zero."""
    figure, axes = panels(1, 1, 5.5, 4.4)
    ax = axes[0, 0]
    strength, point = _strength(scene.values("slope_observed"), scene.values("offset_observed"))
    for g, colour in scene.groups.colours.items():
        members = scene.groups.species(g)
        ax.plot(point[members], strength[members], "o", color=colour, markersize=6, alpha=0.5, markeredgewidth=0)
    handles = scene.groups.handles()
    true_strength = true_point = np.zeros(0)
    if scene.types:
        true_strength, true_point = _strength(
            scene.values("true_slope")[scene.moving], scene.values("true_offset")[scene.moving]
        )
        ax.plot(true_point, true_strength, "+", color=TRUTH, markersize=13)
        handles.append(Line2D([], [], color=TRUTH, marker="+", markersize=10, linestyle="none", label="truth"))
    # The set point -offset/slope of a species with a slope close to zero can be an outlier.
    ax.set(
        xlim=robust_limits(point[scene.moving], true_point), ylim=robust_limits(strength[scene.moving], true_strength)
    )
    ax.set(xlabel="set point  [concentration]", ylabel="strength λ  [1/time]")
    legend_below(figure, handles)
    return figure


def _strength(slope: np.ndarray, offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return -slope, ratio(-offset, slope)
