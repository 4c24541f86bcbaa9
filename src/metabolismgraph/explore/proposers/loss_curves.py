"""Loss curves of runs for prompts: a few numbers, and a figure of several runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from metabolismgraph.config import GraphModel
from metabolismgraph.errors import InputError
from metabolismgraph.explore.state import Iteration
from metabolismgraph.homeostasis.fit import Phase2Result
from metabolismgraph.runs.checkpoint import PHASE2_FILE, load_phase2
from metabolismgraph.text import one_line

POINTS = 8  # of a curve in numbers
_DPI = 80
_MOST_PARTS = 8  # further terms of the loss


def read_curve(run: Path, graph_model: GraphModel) -> Phase2Result | None:
    """The result of Phase 2 in a run folder; None without one."""
    try:
        return load_phase2(run / "training" / PHASE2_FILE, graph_model)
    except InputError:
        return None


def in_numbers(result: Phase2Result) -> list[str]:
    """A loss curve in lines of text: values at log-spaced steps, its final slope, the other terms of the loss.

    Every value is the mean since the step before it, since the loss of minibatches is noisy.
    """
    steps = _gradient_steps(result)
    descent, polish = result.losses[:steps], result.losses[steps:]
    table = ", ".join(f"step {step}: {value:.3g}" for step, value in thinned(descent))
    slope = final_slope(descent)
    change = "unknown" if slope is None else f"{slope:+.3g} decades per decade of steps"
    lines = [f"phase2_loss [{one_line(result.loss_unit, 40)}] {table or 'none'}; final slope {change}"]
    if polish.size:
        lines.append(f"then L-BFGS, {polish.size} values: {polish[0]:.3g} to {polish[-1]:.3g}")
    terms = list(result.components.items())[:_MOST_PARTS]
    if terms:
        ends = (f"{one_line(name, 60)} {curve[0]:.3g} to {curve[-1]:.3g}" for name, curve in terms if curve.size)
        lines.append(f"other terms: {', '.join(ends)}")
    return lines


def thinned(curve: Float[np.ndarray, " steps"]) -> list[tuple[int, float]]:
    """Log-spaced steps, the last one included, each with the mean of the curve since the step before.

    Example:
        >>> thinned(np.arange(1.0, 101.0))[:3]
        [(1, 1.0), (2, 2.0), (4, 3.5)]
    """
    ends = np.unique(np.geomspace(1, len(curve), POINTS).round().astype(int)) if curve.size else np.zeros(0, dtype=int)
    begins = [0, *ends[:-1]]
    return [(int(end), float(curve[begin:end].mean())) for begin, end in zip(begins, ends, strict=False)]


def final_slope(curve: Float[np.ndarray, " steps"]) -> float | None:
    """Slope of log10 loss against log10 step over the last half of the steps; None where it has no meaning.

    Example:
        >>> final_slope(1 / np.arange(1.0, 101.0) ** 2)
        -2.0
    """
    late = curve[len(curve) // 2 :]
    if len(curve) < POINTS or not (np.isfinite(late) & (late > 0)).all():
        return None
    steps = np.arange(len(curve) // 2, len(curve)) + 1.0
    return round(float(np.polyfit(np.log10(steps), np.log10(late), 1)[0]), 3)


def draw(iterations: Sequence[Iteration], folder: Path, graph_model: GraphModel, path: Path) -> Path | None:
    """Draw the loss curves of several runs, each relative to its first step; None if no run has one.

    Args:
        folder: of the exploration.
        path: of the figure, a PNG.

    Raises:
        OSError: it cannot be written.
    """
    curves = list(_relative(iterations, folder, graph_model))
    if not curves:
        return None
    # Matplotlib takes a second to import.
    from metabolismgraph.figures.style import applied, panels, save  # noqa: PLC0415

    with applied():
        figure, ((ax,),) = panels(1, 1, 7.0, 4.5)
        for label, relative in curves:
            points = thinned(relative)
            (line,) = ax.loglog(np.arange(len(relative)) + 1, relative, linewidth=0.5, alpha=0.4)
            ax.loglog(*zip(*points, strict=True), color=line.get_color(), marker="o", label=label)
        ax.set_xlabel("step of Phase 2")
        ax.set_ylabel("loss relative to its first step")
        ax.legend()
        return save(figure, path, _DPI)


def _relative(
    iterations: Iterable[Iteration], folder: Path, graph_model: GraphModel
) -> Iterable[tuple[str, Float[np.ndarray, " steps"]]]:
    for iteration in iterations:
        result = read_curve(folder / iteration.started.folder, graph_model) if iteration.started else None
        if result is not None and result.losses.size and 0 < result.losses[0] < math.inf:
            yield f"iteration {iteration.number}", result.losses / result.losses[0]


def _gradient_steps(result: Phase2Result) -> int:
    """Number of gradient steps, which L-BFGS may follow; without other terms of the loss, it is not known."""
    return next((len(curve) for curve in result.components.values()), len(result.losses))
