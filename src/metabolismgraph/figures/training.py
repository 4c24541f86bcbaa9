"""Figures of the losses during training."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from metabolismgraph.figures.scene import Scene
from metabolismgraph.figures.style import FAINT, GREEN, ORANGE, count_axis, log_axis, panels, positive


def loss(scene: Scene) -> Figure:
    """Losses per step, linear (top) and logarithmic (bottom): Phase 2 in blue, its components, and Phase 1.

    A noisy loss is shown in a light line, its running mean in a full one.
    """
    curves = _curves(scene)
    figure, axes = panels(2, len(curves), 1.0 + 3.2 * len(curves), 5.2, sharex="col")
    for column, (label, step, values, line) in zip(axes.T, curves, strict=True):
        number = np.arange(1, len(values) + 1)
        mean = _running_mean(values)
        for ax, shown in zip(column, (values, positive(values)), strict=True):
            if mean is None:
                ax.plot(number, shown, **line)
            else:
                ax.plot(number, shown, **{**line, "linewidth": 0.5, "alpha": 0.3})
                ax.plot(number, mean, **line)
        log_axis(column[1], "y", values)
        column[0].set_title(label, pad=14)  # above the power of ten of the axis
        column[1].set_xlabel(step)
        count_axis(column[1])
        column[0].set_ylim(bottom=min(0.0, float(np.min(values, initial=0.0, where=np.isfinite(values)))))
    descent = scene.data.sizes.get("phase2_gradient_step", 0)
    if 0 < descent < scene.data.sizes.get("phase2_step", 0):
        # After the gradient steps, MLP_node is optimised by L-BFGS, with constant embeddings.
        for ax in axes[:, 0]:
            ax.axvline(descent, color=FAINT, linewidth=1, zorder=0)
        axes[0, 0].annotate("L-BFGS ", (descent, 0.5), xycoords=("data", "axes fraction"), ha="right", color="0.4")
    axes[0, 0].set_ylabel("linear")
    axes[1, 0].set_ylabel("logarithmic")
    return figure


def _running_mean(values: np.ndarray) -> np.ndarray | None:
    """The mean over neighbouring steps, by which one sees whether a noisy loss decreases; None for a smooth loss."""
    width = len(values) // 50
    steps = np.diff(values)
    if width < 2 or not np.isfinite(values).all() or np.mean(steps[1:] * steps[:-1]) >= 0:
        return None  # steps of a smooth curve have the sign of their neighbours
    return np.convolve(values, np.ones(width), "same") / np.convolve(np.ones(len(values)), np.ones(width), "same")


def _curves(scene: Scene) -> list[tuple[str, str, np.ndarray, dict[str, Any]]]:
    """Title, label of the horizontal axis, values and style of every panel."""
    curves: list[tuple[str, str, np.ndarray, dict[str, Any]]] = []
    if scene.has("phase2_loss"):
        unit = scene.data["phase2_loss"].attrs.get("units", "(concentration/time)²")
        thick = {"color": "blue", "linewidth": 3}
        curves.append((f"Phase 2 loss\n[{unit}]", "Phase 2 step", scene.values("phase2_loss"), thick))
    if scene.has("phase2_components"):
        for part in scene.data["phase2_components"]:
            name = f"{part.component_name.item()}".replace("_", " ")
            curves.append((f"{name}\n[part of the loss]", "Phase 2 step", np.asarray(part), {"color": ORANGE}))
    if scene.has("phase1_loss"):
        label = "Phase 1 loss\n[unexplained share]"
        curves.append((label, "Phase 1 iteration", scene.values("phase1_loss"), {"color": GREEN}))
    return curves
