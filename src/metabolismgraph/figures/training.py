"""How training went."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from metabolismgraph.figures.scene import Scene
from metabolismgraph.figures.style import FAINT, GREEN, ORANGE, log_axis, panels, positive

_SQUARED = "(concentration/time)²"


def loss(scene: Scene) -> Figure:
    """Losses per step, linear above and logarithmic below; that of Phase 2 in blue."""
    parts: list[tuple[str, str, str, dict[str, Any]]] = [
        ("phase2_loss", f"Phase 2 loss\n[{_SQUARED}]", "Phase 2 step", {"color": "blue", "linewidth": 3}),
        ("similarity_loss", "similarity loss", "Phase 2 step", {"color": ORANGE}),
        ("phase1_loss", "Phase 1 loss\n[unexplained share]", "Phase 1 iteration", {"color": GREEN}),
    ]
    parts = [part for part in parts if scene.has(part[0])]
    figure, axes = panels(2, len(parts), 1.0 + 3.2 * len(parts), 5.2, sharex="col")
    for column, (name, label, step, line) in zip(axes.T, parts, strict=True):
        values = scene.values(name)
        number = np.arange(1, len(values) + 1)
        column[0].plot(number, values, **line)
        column[1].plot(number, positive(values), **line)
        log_axis(column[1], "y", values)
        column[0].set_title(label, pad=14)  # above the axis's power of ten
        column[1].set_xlabel(step)
        column[0].set_ylim(bottom=min(0.0, float(np.min(values, initial=0.0, where=np.isfinite(values)))))
    if scene.has("similarity_loss"):
        # The embeddings are held while L-BFGS polishes MLP_node, so their loss ends earlier.
        polish = scene.data.sizes["similarity_step"]
        for ax in axes[:, 0]:
            ax.axvline(polish, color=FAINT, linewidth=1, zorder=0)
        axes[0, 0].annotate("L-BFGS ", (polish, 0.5), xycoords=("data", "axes fraction"), ha="right", color="0.4")
    axes[0, 0].set_ylabel("linear")
    axes[1, 0].set_ylabel("logarithmic")
    return figure
