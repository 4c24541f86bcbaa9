"""Figures of an evaluation, drawn from the arrays and metrics of `Evaluation`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import xarray as xr
from matplotlib.figure import Figure

from metabolismgraph.config import Plotting
from metabolismgraph.figures import dynamics, homeostasis, rates, training
from metabolismgraph.figures.scene import Scene
from metabolismgraph.figures.style import VERMILLION, applied, check_colormap, save
from metabolismgraph.figures.summary import summary
from metabolismgraph.metrics import Value
from metabolismgraph.system.progress import Progress, silent

__all__ = ["check_colormap", "draw_all"]


def draw_all(
    data: xr.Dataset,
    metrics: Mapping[str, Value],
    folder: Path,
    plotting: Plotting,
    *,
    below: str = "",
    snapshots: Mapping[int, tuple[Mapping[str, Value], xr.Dataset]] = MappingProxyType({}),
    progress: Progress = silent,
) -> list[Path]:
    """Draw every figure for which there are data.

    Args:
        data, metrics: of an `Evaluation`; truth and Phase 2 may be missing.
        folder: run folder; figures are written to its folders `tmp_training` and `figures`.
        plotting: section of the configuration.
        below: prefix of the paths (in the folder) of the files to draw.
        snapshots: metrics and data of models on the way, by their numbers of steps.
        progress: see `system.progress`.

    Returns:
        Paths of the files.

    Raises:
        InputError: plotting.colormap is not a colour map.
    """
    check_colormap(plotting.colormap)
    scene = Scene.of(data, metrics, plotting.colormap)
    wanted = {name: (draw, scene) for name, draw in _figures(scene).items() if name.startswith(below)}
    for step, (then, at_step) in snapshots.items():
        early = Scene.of(at_step, {**metrics, **then}, plotting.colormap)
        wanted |= {name: (draw, early) for name, draw in _of_step(early, f"{step:06d}").items()}
    written = []
    with applied():
        for done, (name, (draw, shown)) in enumerate(wanted.items()):
            progress("figures", done / len(wanted), name)
            figure = draw(shown)
            if metrics.get("trustworthy") is False and _shows_model(name, shown):
                figure.suptitle("Not to be trusted: see why_not in metrics.json", color=VERMILLION)
            written.append(save(figure, folder / name, plotting.dpi, plotting.formats))
    progress("figures", 1.0, "")
    return written


def _shows_model(name: str, scene: Scene) -> bool:
    """Whether a figure shows more than the data."""
    of_data = name.endswith("singular_values.png")
    return not (of_data or (name.endswith("traces.png") and scene.model_trace is None))


def _figures(scene: Scene) -> dict[str, Callable[[Scene], Figure]]:
    """Functions for all figures, by file name. The step is zero-padded, so that names are in the order of steps."""
    step = f"{scene.data.sizes.get('phase2_step', 0):06d}"
    found: dict[str, Callable[[Scene], Figure]] = {
        **_of_step(scene, step),
        "tmp_training/loss.tif": training.loss,
        "figures/traces.png": dynamics.traces,
        "figures/singular_values.png": dynamics.singular_values,
        "figures/summary.png": summary,
    }
    if scene.has("law_f"):
        found["figures/mlp_sub.png"] = rates.rate_law
    if scene.has("derivative"):
        found["figures/kinograph.png"] = dynamics.kinograph
    if scene.has("node_curve"):
        found["figures/homeostasis.png"] = homeostasis.set_points
    return found


def _of_step(scene: Scene, step: str) -> dict[str, Callable[[Scene], Figure]]:
    """The figures whose names hold a step, so that a folder shows the development of training."""
    found: dict[str, Callable[[Scene], Figure]] = {
        f"tmp_training/rate_constants/comparison_p2_{step}.png": rates.comparison
    }
    if scene.has("node_curve"):
        found |= {
            f"tmp_training/function/rate_func/MLP_node_p2_{step}.png": homeostasis.node_function,
            f"tmp_training/embedding/embedding_p2_{step}.png": homeostasis.embedding,
        }
    return found
