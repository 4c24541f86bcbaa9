"""Diagnostics of Phase 1: standard errors with f unknown, sampling errors, and a test of the stated rate laws."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple, TypeVar

import numpy as np
import scipy
from jaxtyping import Float

from metabolismgraph.reactions.data import Phase1Data
from metabolismgraph.reactions.linear_model import LinearModel, Solution
from metabolismgraph.reactions.reweighting import ReweightedFit
from metabolismgraph.reactions.shapes import reshaped, shape_changes
from metabolismgraph.system.derivative_rules import ORDERS, Rule
from metabolismgraph.system.kinetics import LogFunction
from metabolismgraph.system.tabulated_reactions import TabulatedReactions

F = TypeVar("F", bound=LogFunction)

# Beginning of the note on a stated rate law that does not hold.
LAW_REJECTED = "mass action, as stated in the network file, is rejected"
# If the forward rule has a relative residual below this, the data come from Euler steps.
_DISCRETE = 1e-3
_UNKNOWN_GROWTH = 3.0  # divisor of the change where too few frames are left to estimate its growth: 2^2 - 1
# A stated rate law is rejected if the p value is below the first number, another shape reduces the sum of squares to
# less than the second (a share), and the relative residual is above the third.
_P_VALUE, _REMAINING_SHARE, _RELEVANT_RESIDUAL = 1e-3, 0.25, 1e-3

# Of the search for other shapes: steps, halvings of a step, and the relative decrease of the misfit that ends it.
_STEPS, _HALVINGS, _SMALL_DECREASE = 12, 6, 0.05
_LARGEST_STEP = 2.0  # in log f; the linearisation does not hold farther away
_ENTRIES_PER_UNKNOWN = 3  # with fewer, a richer law fits in any case


class Checked(NamedTuple):
    """The results of the diagnostics.

    Attributes:
        error: standard error of each k, with the shape of learned rate laws among the unknowns.
        sampling_error: discretisation error of each k, in the unit of k; NaN where it cannot be estimated.
        line_sampling_error: the same for offset (concentration/time) and slope (1/time) of homeostasis; zero where it
            cannot be estimated.
        law_notes: a sentence if the data reject a rate law that was assumed to be known.
    """

    error: Float[np.ndarray, " reactions"]
    sampling_error: Float[np.ndarray, " reactions"]
    line_sampling_error: Float[np.ndarray, "species 2"]
    law_notes: tuple[str, ...]


def check_fit(reweighted: ReweightedFit[F], model: LinearModel, fitted: Solution) -> Checked:
    """Standard errors and sampling errors of a fit, and a test of the stated rate laws.

    Args:
        reweighted: f, entries in use and weights.
        model: the linear regression with these.
        fitted: its solution, with unconstrained rate constants.
    """
    data = reweighted.rows
    table = data.tabulated_reactions(reweighted.f)
    learned = ~table.structure.rate_laws.known
    if learned.any():
        joint = model.with_shapes(fitted, shape_changes(table, data.nodes, learned, additive=True))
        variance, hidden = joint.variance, joint.hidden
    else:
        variance, hidden = fitted.matrix.variance(), np.zeros(len(fitted.k), dtype=bool)
    error = np.where(hidden, np.inf, np.sqrt(np.maximum(variance, 0.0)))
    m, sampling = len(error), _sampling_errors(reweighted, fitted)
    if sampling is None:
        sampling = np.concatenate([np.full(m, np.nan), np.zeros(2 * len(data.fixed))])
    law_notes = tuple(_law_notes(reweighted, table, model, fitted))
    return Checked(error, sampling[:m], sampling[m:].reshape(-1, 2), law_notes)


def _values(data: Phase1Data, found: Solution) -> Float[np.ndarray, " values"]:
    """Rate constants, and offset and slope of homeostasis, side by side as one vector."""
    return np.concatenate([found.k, data.homeostatic_lines(found.theta).ravel()])


def _estimate(data: Phase1Data, reweighted: ReweightedFit[F]) -> Float[np.ndarray, " values"] | None:
    """The estimate from other data, with f and weights of the fit; None for fewer equations than unknowns."""
    moving = int((~data.fixed).sum())
    unknowns = data.observations.network.n_reactions + (data.training.nuisance_degree + 1) * moving
    if len(data.transitions.dt) * moving < unknowns:
        return None
    return _values(data, data.linear_model(reweighted.f, data.usable, reweighted.weight).solve())


def _sampling_errors(reweighted: ReweightedFit[F], fitted: Solution) -> Float[np.ndarray, " values"] | None:
    """Errors of k and homeostasis due to the error of the rule for dc/dt; None where they cannot be estimated.

    The result is the geometric mean of two estimates. The first is the change of the estimates under another rule. The
    second is an extrapolation from fewer frames. With every second frame, the error e of a rule of order p is 2^p e, so
    the estimates change by (2^p - 1) e. For coarse samples the growth is not 2^p. It is therefore measured: the change
    from every second to every fourth frame is 2^p times the first change, and e = change / (growth - 1)
    (Richardson 1911; Roache 1998).
    """
    data = reweighted.rows
    if data.rule == "forward" and np.exp(reweighted.losses[-1] / 2) < _DISCRETE:
        return None  # Euler steps have no discretisation error, and every second frame follows another equation
    # All estimates must use the same entries: all usable ones. If the fit had no outliers, its solution is one of them.
    complete = bool((reweighted.keep == data.usable).all())
    whole = _values(data, fitted) if complete else _estimate(data, reweighted)
    thinned = data.thinned()
    half = _estimate(thinned, reweighted)
    if whole is None or half is None:
        return None
    change = np.abs(half - whole)
    by_thinning = change / _UNKNOWN_GROWTH
    quarter = _estimate(thinned.thinned(), reweighted)
    if quarter is not None:
        growth = np.abs(quarter - half) / np.maximum(change, 1e-300)
        # At least 1, as for a rule of first order; at most the theoretical growth: noise can simulate any growth.
        by_thinning = change / np.clip(growth - 1, 1.0, 2.0 ** ORDERS[data.rule] - 1)
    rule: Rule = "trapezoid" if data.rule == "cubic" else "cubic"
    other = _estimate(Phase1Data(data.observations, data.graph_model, data.training, rule=rule), reweighted)
    by_rule = by_thinning if other is None else np.abs(other - whole)
    return np.asarray(np.sqrt(by_thinning * by_rule))


def _law_notes(
    reweighted: ReweightedFit[F], table: TabulatedReactions, model: LinearModel, fitted: Solution
) -> list[str]:
    """A likelihood-ratio test of mass action, where it was assumed, against other shapes of the rate law.

    With unknown variance, the statistic is n log(misfit / misfit with free shapes), asymptotically chi-squared with as
    many degrees of freedom as there are shapes (Wilks 1938). Weights are 1/variance of equivalent independent errors,
    so the misfit itself is n, the equivalent number of independent entries.
    """
    known = table.structure.rate_laws.known
    if not known.any() or np.exp(reweighted.losses[-1] / 2) < _RELEVANT_RESIDUAL:
        return []
    unknowns = len(fitted.k) + fitted.theta.size
    if (model.weight > 0).sum() < _ENTRIES_PER_UNKNOWN * unknowns:
        return []
    free, shapes = _best_shapes(reweighted.rows, table, model, fitted)
    statistic = fitted.misfit * np.log(fitted.misfit / max(free, 1e-12 * fitted.misfit))
    p_value = float(scipy.special.chdtrc(shapes, statistic))
    # The second condition is one of effect size: with many frames, a tiny misfit of the law is significant too.
    if p_value > _P_VALUE or free > _REMAINING_SHARE * fitted.misfit:
        return []
    return [
        f"{LAW_REJECTED} by these data: another rate law reduces the residual "
        f"to {100 * np.sqrt(free / fitted.misfit):.2g} % (likelihood ratio test, p "
        f"{'< 1e-12' if p_value < 1e-12 else f'= {p_value:.0e}'}); correct the network, or learn the law with "
        "--set graph_model.rate_law=learned"
    ]


def _best_shapes(
    data: Phase1Data, table: TabulatedReactions, model: LinearModel, fitted: Solution
) -> tuple[float, int]:
    """The least misfit with the shapes of all known laws free, and the number of shapes.

    By Gauss-Newton steps, each halved until it lowers the misfit.
    """
    known, misfit, shapes = table.structure.rate_laws.known, fitted.misfit, 0
    for _ in range(_STEPS):
        changes = shape_changes(table, data.nodes, known)
        step, shapes = model.with_shapes(fitted, changes).shapes, changes.shape[-1]
        step = step * min(1.0, _LARGEST_STEP / max(float(np.abs(step).max(initial=0.0)), 1e-300))
        for halved in range(_HALVINGS):
            trial_table = reshaped(table, data.nodes, known, step / 2**halved)
            trial_model = dataclasses.replace(model, v=data.mean_substrate_factors(trial_table))
            trial = trial_model.solve()
            if trial.misfit < misfit:
                break
        else:
            break
        decrease, misfit = 1 - trial.misfit / misfit, trial.misfit
        table, model, fitted = trial_table, trial_model, trial
        if decrease < _SMALL_DECREASE:
            break
    return misfit, shapes
