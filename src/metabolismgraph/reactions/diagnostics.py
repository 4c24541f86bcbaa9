"""A second look at a fit of Phase 1: errors that count the shape of f, sampling, and the rate laws that were stated."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple, TypeVar

import numpy as np
import scipy.special
from jaxtyping import Float

from metabolismgraph.reactions.data import Phase1Data
from metabolismgraph.reactions.linear_model import LinearModel, Solution, reshaped, shape_changes
from metabolismgraph.reactions.reweighting import ReweightedFit
from metabolismgraph.system.derivative_rules import Rule
from metabolismgraph.system.kinetics import LogFunction
from metabolismgraph.system.tabulated_reactions import TabulatedReactions

F = TypeVar("F", bound=LogFunction)

# A forward rule that leaves less than this of dc/dt is that of the simulator which made the data by Euler steps.
_DISCRETE = 1e-3
_ORDER = {"forward": 1, "trapezoid": 2, "cubic": 4}  # of the rules for dc/dt
_UNKNOWN_GROWTH = 3.0  # what the change is divided by where too few frames are left to see it grow
# A stated rate law is called wrong where chance has less than this probability, where another shape of it leaves less
# than this share of the sum of squares, and where more than this share of dc/dt is at stake.
_CHANCE, _SHARE_LEFT, _AT_STAKE = 1e-3, 0.25, 1e-3


# Of the search for other shapes: steps, halvings of a step, and the fall of the misfit that ends it.
_STEPS, _HALVINGS, _SMALL_FALL = 12, 6, 0.05
_LARGEST_STEP = 2.0  # in log f
_ENTRIES_PER_UNKNOWN = 3  # with fewer, any richer law fits


class Checked(NamedTuple):
    """What the second look finds.

    Attributes:
        error: standard error of each k, with the shape of learned rate laws among the unknowns.
        sampling_error: discretisation error of each k; NaN where it cannot be told.
        line_sampling_error: the same for offset and slope of homeostasis; zero where it cannot be told.
        law_notes: a sentence where the data speak against a rate law that was taken as known.
    """

    error: Float[np.ndarray, " reactions"]
    sampling_error: Float[np.ndarray, " reactions"]
    line_sampling_error: Float[np.ndarray, "species 2"]
    law_notes: tuple[str, ...]


def check_fit(reweighted: ReweightedFit[F], model: LinearModel, fitted: Solution) -> Checked:
    """Standard errors and sampling errors of a fit, and a test of the rate laws that were stated.

    Args:
        model: the regression with the f, the rows and the weights of the fit.
        fitted: its rate constants, unconstrained.
    """
    data = reweighted.data
    table = data.rate_table(reweighted.f)
    learned = ~table.structure.rate_laws.known
    covariance, hidden = fitted.covariance, np.zeros(len(fitted.k), dtype=bool)
    if learned.any():
        joint = model.with_shapes(fitted, shape_changes(table, data.nodes, learned, additive=True))
        covariance, hidden = joint.covariance, joint.hidden
    error = np.where(hidden, np.inf, np.sqrt(np.maximum(np.diag(covariance), 0.0)))
    m, sampling = len(error), _sampling_errors(reweighted, fitted)
    if sampling is None:
        sampling = np.concatenate([np.full(m, np.nan), np.zeros(2 * len(data.fixed))])
    law_notes = tuple(_law_notes(reweighted, table, model, fitted))
    return Checked(error, sampling[:m], sampling[m:].reshape(-1, 2), law_notes)


class _Estimate(NamedTuple):
    """Rate constants, and offset and slope of homeostasis, side by side as one vector."""

    data: Phase1Data
    values: Float[np.ndarray, " values"]

    @classmethod
    def of(cls, data: Phase1Data, reweighted: ReweightedFit[F]) -> _Estimate | None:
        """From some data, f as it is; None where they are too few."""
        moving = int((~data.fixed).sum())
        unknowns = data.observations.network.n_reactions + (data.training.nuisance_degree + 1) * moving
        if len(data.transitions.dt) * moving < unknowns:
            return None
        return cls.from_solution(data, data.linear_model(reweighted.f, data.usable, reweighted.weight).solve())

    @classmethod
    def from_solution(cls, data: Phase1Data, found: Solution) -> _Estimate:
        """From the regression on the same data."""
        return cls(data, np.concatenate([found.k, data.homeostatic_lines(found.theta).ravel()]))


def _sampling_errors(reweighted: ReweightedFit[F], fitted: Solution) -> Float[np.ndarray, " values"] | None:
    """How wrong k and homeostasis are because the rule for dc/dt is; None where that cannot be told.

    Two estimates, of which the geometric mean is taken. One is what another rule makes of the same frames. The other
    is what leaving out frames changes: with every second frame the error of a rule of order p is 2^p times as large.
    Whether the data are fine enough for that shows when every fourth frame is taken, since the change must grow by
    the same factor. So the error is the change divided by its growth less one (Richardson 1911; Roache 1998).
    """
    data = reweighted.data
    if data.rule == "forward" and np.exp(reweighted.losses[-1] / 2) < _DISCRETE:
        return None  # Euler steps are told by their length: every second frame does not follow the same equation
    # The others use every row that can be used. Where the fit does so too, it need not be solved again.
    complete = bool((reweighted.keep == data.usable).all())
    whole = _Estimate.from_solution(data, fitted) if complete else _Estimate.of(data, reweighted)
    half = _Estimate.of(data.thinned(), reweighted)
    if whole is None or half is None:
        return None
    change = np.abs(half.values - whole.values)
    by_thinning = change / _UNKNOWN_GROWTH
    quarter = _Estimate.of(half.data.thinned(), reweighted)
    if quarter is not None:
        growth = np.abs(quarter.values - half.values) / np.maximum(change, 1e-300)
        by_thinning = change / np.clip(growth - 1, 1.0, 2.0 ** _ORDER[data.rule] - 1)
    rule: Rule = "trapezoid" if data.rule == "cubic" else "cubic"
    other = _Estimate.of(Phase1Data(data.observations, data.graph_model, data.training, rule=rule), reweighted)
    by_rule = by_thinning if other is None else np.abs(other.values - whole.values)
    return np.asarray(np.sqrt(by_thinning * by_rule))


def _law_notes(
    reweighted: ReweightedFit[F], table: TabulatedReactions, model: LinearModel, fitted: Solution
) -> list[str]:
    """Whether mass action, where it was taken as known, holds: a likelihood ratio against other shapes of it.

    The variance is unknown, so the statistic is n log(misfit / misfit of the others) (Wilks 1938). Rows are weighed so
    that the misfit of the fit is the number n of independent ones among them.
    """
    known = table.structure.rate_laws.known
    if not known.any() or np.exp(reweighted.losses[-1] / 2) < _AT_STAKE:
        return []
    unknowns = len(fitted.k) + fitted.theta.size
    if (model.weight > 0).sum() < _ENTRIES_PER_UNKNOWN * unknowns:
        return []
    free, shapes = _best_shapes(reweighted.data, table, model, fitted)
    statistic = fitted.misfit * np.log(fitted.misfit / max(free, 1e-12 * fitted.misfit))
    chance = float(scipy.special.chdtrc(shapes, statistic))
    if chance > _CHANCE or free > _SHARE_LEFT * fitted.misfit:
        return []
    return [
        "mass action, as stated in the network file, is rejected by these data: another rate law reduces the residual "
        f"to {100 * np.sqrt(free / fitted.misfit):.2g} % (likelihood ratio test, p "
        f"{'< 1e-12' if chance < 1e-12 else f'= {chance:.0e}'}); correct the network, or learn the law with "
        "--set graph_model.rate_law=learned"
    ]


def _best_shapes(
    data: Phase1Data, table: TabulatedReactions, model: LinearModel, fitted: Solution
) -> tuple[float, int]:
    """The least misfit with the shapes of all known laws free, and how many shapes that are.

    Gauss-Newton steps, halved until they lower the misfit.
    """
    known, misfit, shapes = table.structure.rate_laws.known, fitted.misfit, 0
    for _ in range(_STEPS):
        changes = shape_changes(table, data.nodes, known)
        step, shapes = model.with_shapes(fitted, changes).shapes, changes.shape[-1]
        step = step * min(1.0, _LARGEST_STEP / max(float(np.abs(step).max(initial=0.0)), 1e-300))
        for halved in range(_HALVINGS):
            trial_table = reshaped(table, data.nodes, known, step / 2**halved)
            v = np.einsum("et,etj->tj", data.nodes.weight, trial_table.substrate_factors(data.nodes.concentration))
            trial_model = dataclasses.replace(model, v=v)
            trial = trial_model.solve()
            if trial.misfit < misfit:
                break
        else:
            break
        fall, misfit = 1 - trial.misfit / misfit, trial.misfit
        table, model, fitted = trial_table, trial_model, trial
        if fall < _SMALL_FALL:
            break
    return misfit, shapes
