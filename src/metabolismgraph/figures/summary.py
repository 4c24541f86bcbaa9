"""A figure that summarises a fit."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metabolismgraph.figures.homeostasis import curve_handles, curves, embedding_by
from metabolismgraph.figures.rates import law, rate_constants
from metabolismgraph.figures.scene import Scene
from metabolismgraph.figures.style import legend_below, letter, panels


def summary(scene: Scene) -> Figure:
    """Rate constants, rate law, homeostasis and embeddings, if available."""
    parts = [("rate constants", rate_constants)]
    if scene.has("law_f"):
        parts.append(("rate law", law))
    if scene.has("node_curve"):
        parts += [("homeostasis", curves), ("metabolite embeddings", _embeddings)]
    columns = min(2, len(parts))
    rows = -(-len(parts) // columns)
    figure, axes = panels(rows, columns, 0.6 + 4.2 * columns, 0.4 + 3.7 * rows)
    for ax, (title, draw) in zip(axes.flat, parts, strict=False):
        draw(ax, scene)
        ax.set_title(title)
    for ax in axes.flat[len(parts) :]:
        ax.set_axis_off()
    letter(axes.flat[: len(parts)])
    if scene.has("node_curve"):
        legend_below(figure, curve_handles(scene))
    return figure


def _embeddings(ax: Axes, scene: Scene) -> None:
    embedding_by(ax, scene, scene.groups)
