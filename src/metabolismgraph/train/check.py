"""A second look at a fit of Phase 1: errors that count the shape of f, sampling, and the rate laws that were stated."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
import scipy.stats
from jaxtyping import Float

from metabolismgraph.kinetics import LogFunction
from metabolismgraph.linear_model import LinearModel, Solution, shape_changes
from metabolismgraph.rate_table import RateTable
from metabolismgraph.train.settle import Settled

F = TypeVar("F", bound=LogFunction)

# A forward rule that leaves less than this of dc/dt is that of the simulator which made the data by Euler steps. Of
# such data every second frame is no sample of the same equation.
_DISCRETE = 1e-3
# A stated rate law is called wrong where chance has less than this probability, where another shape of it leaves less
# than this share of the sum of squares, and where more than this share of dc/dt is at stake.
_CHANCE, _SHARE_LEFT, _AT_STAKE = 1e-3, 0.25, 1e-3


class Checked(NamedTuple):
    """What the second look finds.

    Attributes:
        error: standard error of each k, with the shape of learned rate laws among the unknowns.
        thinned_k: k from every second frame, NaN where that says nothing.
        thinned_line: offset and slope of homeostasis from the same.
        law_notes: a sentence where the data speak against a rate law that was taken as known.
    """

    error: Float[np.ndarray, " reactions"]
    thinned_k: Float[np.ndarray, " reactions"]
    thinned_line: Float[np.ndarray, "species 2"]
    law_notes: tuple[str, ...]


def check_fit(settled: Settled[F], fitted: Solution) -> Checked:
    """Look at a fit once more.

    Args:
        fitted: the rate constants of the fit, unconstrained.
    """
    data = settled.data
    table = data.rate_table(settled.f)
    learned = ~table.laws.known
    model = data.linear_model(settled.f, settled.keep, settled.weight)
    covariance = fitted.covariance
    if learned.any():
        covariance, _ = model.with_shapes(fitted, shape_changes(table, data.nodes, learned))
    error = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    return Checked(error, *_thinned(settled), tuple(_law_notes(settled, table, model, fitted)))


def _thinned(settled: Settled[F]) -> tuple[Float[np.ndarray, " reactions"], Float[np.ndarray, "species 2"]]:
    """k and homeostasis from every second frame, f as it is.

    NaN where too few frames are left, or the data come from Euler steps.
    """
    data = settled.data
    m = data.observations.network.n_reactions
    thinned = data.thinned()
    moving = int((~data.fixed).sum())
    too_few = len(thinned.transitions.dt) * moving < m + (data.training.nuisance_degree + 1) * moving
    if too_few or (data.rule == "forward" and np.exp(settled.losses[-1] / 2) < _DISCRETE):
        return np.full(m, np.nan), np.full((len(data.fixed), 2), np.nan)
    found = thinned.linear_model(settled.f, thinned.usable, settled.weight).solve()
    return found.k, thinned.homeostatic_lines(found.theta)


def _law_notes(settled: Settled[F], table: RateTable, model: LinearModel, fitted: Solution) -> list[str]:
    """Whether mass action, where it was taken as known, holds: a likelihood ratio against other shapes of it.

    The other shapes are those that a small change of log f reaches (a score test, Rao 1948).
    """
    known = table.laws.known
    if not known.any() or np.exp(settled.losses[-1] / 2) < _AT_STAKE:
        return []
    changes = shape_changes(table, settled.data.nodes, known)
    _, misfit = model.with_shapes(fitted, changes)
    chance = float(scipy.stats.chi2.sf(fitted.misfit - misfit, changes.shape[-1]))
    if chance > _CHANCE or misfit > _SHARE_LEFT * fitted.misfit:
        return []
    return [
        "mass action, which the network states, does not hold in these data: another rate law would leave "
        f"{np.sqrt(misfit / fitted.misfit):.0%} of what it leaves unexplained (likelihood ratio, p "
        f"{'< 1e-12' if chance < 1e-12 else f'= {chance:.0e}'}); correct the network, or learn the law with "
        "--set graph_model.rate_law=learned"
    ]
