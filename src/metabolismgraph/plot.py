"""Figures of an evaluation, to be changed, shown or saved with Matplotlib.

Example:
    >>> import metabolismgraph as mg
    >>> config = mg.load_config("small", ["training.homeostasis_training=false"])
    >>> data = mg.simulate(config)
    >>> figure = mg.plot.rates(mg.evaluate(mg.fit(data.observations, config), data.truth))
    >>> figure.axes[0].get_xlabel()[:4]
    'true'
"""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.figure import Figure

from metabolismgraph.config import Plotting
from metabolismgraph.errors import InputError, check_argument
from metabolismgraph.evaluation.evaluate import Evaluation
from metabolismgraph.figures import dynamics, homeostasis, training
from metabolismgraph.figures import rates as of_rates
from metabolismgraph.figures.scene import Scene
from metabolismgraph.figures.style import applied
from metabolismgraph.figures.summary import summary as of_summary

__all__ = [
    "embedding",
    "kinograph",
    "loss",
    "node_function",
    "rate_law",
    "rates",
    "set_points",
    "singular_values",
    "summary",
    "traces",
]

_COLOURS = Plotting().colormap


def summary(evaluation: Evaluation, *, colormap: str = _COLOURS) -> Figure:
    """Rate constants, rate law, homeostasis and embeddings in one figure.

    Args:
        colormap: see `plotting.colormap`, here and below.

    Raises:
        InputError: there is no such colour map, here and below.
    """
    return _drawn(of_summary, evaluation, colormap)


def rates(evaluation: Evaluation, *, colormap: str = _COLOURS) -> Figure:
    """Rate constants against the true ones; without truth, in order with their standard errors."""
    return _drawn(of_rates.comparison, evaluation, colormap)


def rate_law(evaluation: Evaluation, *, colormap: str = _COLOURS) -> Figure:
    """The substrate function against concentration.

    Raises:
        InputError: every rate law is known.
    """
    return _drawn(of_rates.rate_law, evaluation, colormap, needs="law_f")


def node_function(evaluation: Evaluation, *, colormap: str = _COLOURS) -> Figure:
    """Homeostasis of every species against concentration.

    Raises:
        InputError: there was no Phase 2, here and in `embedding` and `set_points`.
    """
    return _drawn(homeostasis.node_function, evaluation, colormap, needs="node_curve")


def embedding(evaluation: Evaluation, *, colormap: str = _COLOURS) -> Figure:
    """Embeddings of the species, by type and by cluster."""
    return _drawn(homeostasis.embedding, evaluation, colormap, needs="node_curve")


def set_points(evaluation: Evaluation, *, colormap: str = _COLOURS) -> Figure:
    """Strength and baseline of homeostasis of every species."""
    return _drawn(homeostasis.set_points, evaluation, colormap, needs="node_curve")


def traces(evaluation: Evaluation, *, colormap: str = _COLOURS) -> Figure:
    """Concentrations over time; held-out frames are shaded.

    In these frames, the model is shown: trajectories from fitted states after a fit of trajectories, otherwise a
    rollout of the model of Phase 2, if nothing is missing.
    """
    return _drawn(dynamics.traces, evaluation, colormap)


def kinograph(evaluation: Evaluation, *, colormap: str = _COLOURS) -> Figure:
    """Concentrations of all species over time, and their residuals.

    Raises:
        InputError: nothing was measured twice in a row.
    """
    return _drawn(dynamics.kinograph, evaluation, colormap, needs="derivative")


def singular_values(evaluation: Evaluation, *, colormap: str = _COLOURS) -> Figure:
    """Singular values of the concentrations: how many directions the data explore."""
    return _drawn(dynamics.singular_values, evaluation, colormap)


def loss(evaluation: Evaluation, *, colormap: str = _COLOURS) -> Figure:
    """The losses of both phases."""
    return _drawn(training.loss, evaluation, colormap)


def _drawn(draw: Callable[[Scene], Figure], evaluation: Evaluation, colormap: str, needs: str | None = None) -> Figure:
    check_argument("evaluation", evaluation, Evaluation, "call mg.evaluate(result) first")
    scene = Scene.of(evaluation.data, evaluation.metrics, colormap)
    if needs is not None and not scene.has(needs):
        raise InputError(f"this evaluation has no {needs}, which the figure shows; see the data of the evaluation")
    with applied():
        return draw(scene)
