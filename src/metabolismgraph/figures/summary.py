"""The whole result in one picture."""

from __future__ import annotations

from matplotlib.figure import Figure

from metabolismgraph.figures.homeostasis import curve_handles, curves, embedding_by
from metabolismgraph.figures.rates import law, rate_constants
from metabolismgraph.figures.scene import Scene
from metabolismgraph.figures.style import legend_below, letter, panels


def summary(scene: Scene) -> Figure:
    """Rate constants, rate law, homeostasis and embeddings; without Phase 2 the first two."""
    phase2 = scene.has("node_curve")
    figure, axes = panels(2 if phase2 else 1, 2, 9.0, 7.8 if phase2 else 4.2)
    letter(list(axes.flat))
    rate_constants(axes[0, 0], scene)
    axes[0, 0].set_title("rate constants")
    law(axes[0, 1], scene)
    axes[0, 1].set_title("rate law")
    if phase2:
        curves(axes[1, 0], scene)
        axes[1, 0].set_title("homeostasis")
        embedding_by(axes[1, 1], scene, scene.groups)
        axes[1, 1].set_title("metabolite embeddings")
        legend_below(figure, curve_handles(scene))
    return figure
