"""The search for the substrate function: L-BFGS on the projected loss, from the best power law.

f enters the loss through its values on the knots of a table. These are a program of JAX, which does not depend on the
size of the data and is compiled once. All else, and its gradient by the values, is computed in NumPy: log f at the data
is a fixed sparse matrix times the values, and k and theta are solved for on the regressions of `columns`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
import scipy
from jaxtyping import Array, Bool, Float

from metabolismgraph.reactions.normal_equations import LARGEST_DENSE
from metabolismgraph.reactions.normal_matrix import DenseMatrix
from metabolismgraph.reactions.projection import Problem
from metabolismgraph.reactions.sparse_matrix import SparseMatrix
from metabolismgraph.system.kinetics import tabulate_laws
from metabolismgraph.system.minimise import Minimum, ValueAndGradient, minimise
from metabolismgraph.system.model import SubstrateFunction
from metabolismgraph.system.progress import Progress
from metabolismgraph.system.trainable import substrate_parameters

_LARGEST = 1e100  # beyond it, the squares of substrate factors are no numbers
_TINY = 1e-300  # least sum of squares, so that it has a logarithm
_EXPONENTS = (0.25, 3.0)  # search range of the best power law


Factors = Float[np.ndarray, "reactions rows"]  # V, averaged over the nodes of the rule for dc/dt
PullBack = Callable[[Factors], Float[np.ndarray, "laws knots"]]


class Loss(NamedTuple):
    """The projected loss of a table of log f, and its gradient.

    Attributes:
        value: log of the unexplained share of the weighted sum of squares of dc/dt, at the least-squares k and theta.
        of_values: derivative by log f on the knots.
    """

    value: float
    of_values: Float[np.ndarray, "laws knots"]


def projected_loss(values: Float[np.ndarray, "laws knots"], problem: Problem) -> Loss:
    """The projected loss for log f on the knots; NaN if f is too large for numbers."""
    found = _substrate_factors(values, problem)
    if found is None:  # for a step that is far too long, which the search then shortens
        return Loss(np.nan, np.zeros_like(values))
    v, pull_back = found
    rows, stoichiometry = problem.rows, problem.structure.sparse_stoichiometry
    derivative, weight, basis = map(np.asarray, (rows.derivative, rows.full_weight, rows.basis))
    columns = problem.columns.with_factors(v.T)
    # An ill-conditioned matrix does no harm here: all of its solutions have the same misfit.
    small = problem.structure.n_reactions <= LARGEST_DENSE
    k = (DenseMatrix.of(columns) if small else SparseMatrix.of(columns, v.T)).solve_roughly(columns.rhs)
    nuisance = np.einsum("til,il->ti", basis, columns.theta(derivative, k))
    residual = derivative - (stoichiometry @ (k[:, None] * v)).T - nuisance
    misfit, total = (max(float(np.sum(weight * x**2)), _TINY) for x in (residual, derivative))
    # dL/df = dL/df at constant (k, theta) + dL/d(k, theta) d(k, theta)/df, and dL/d(k, theta) = 0 at the inner optimum
    # (Kaufman 1975). Without a gradient through the solution, ill-conditioned terms are avoided.
    of_v = -2.0 / misfit * k[:, None] * (stoichiometry.T @ (weight * residual).T)
    # The logarithm keeps relative progress visible to L-BFGS: the share falls by many orders of magnitude.
    return Loss(float(np.log(misfit / total)), pull_back(of_v))


def _substrate_factors(values: Float[np.ndarray, "laws knots"], problem: Problem) -> tuple[Factors, PullBack] | None:
    """V for log f on the knots, and the map from a derivative by V to that by these values; None if f is too large."""
    structure, product = problem.structure, problem.aggregation == "mul"
    substrates, node_weight = structure.sparse_substrates, np.asarray(problem.rows.node_weight)
    # Pairs and reactions come first: sums over the substrates of a reaction then are sums of whole rows of numbers.
    log_f = problem.interpolation @ values.ravel()
    log_f[problem.absent] = -np.inf
    log_f = log_f.reshape(substrates.shape[1], -1)
    with np.errstate(over="ignore"):
        factors = log_f if product else np.exp(log_f)
        at_nodes = np.exp(substrates @ factors) if product else substrates @ factors
    if not product:
        at_nodes[np.asarray(structure.empty)] = 1.0
    if not (at_nodes < _LARGEST).all():
        return None

    def pull_back(of_v: Factors) -> Float[np.ndarray, "laws knots"]:
        of_nodes = (of_v[:, None] * node_weight).reshape(at_nodes.shape)
        of_log_f = substrates.T @ (of_nodes * at_nodes) if product else (substrates.T @ of_nodes) * factors
        return np.asarray((problem.interpolation.T @ of_log_f.ravel()).reshape(values.shape))

    return np.einsum("jet,et->jt", at_nodes.reshape(-1, *node_weight.shape), node_weight), pull_back


def loss_and_gradient(problem: Problem) -> ValueAndGradient:
    """The projected loss of parameters and constants of f, and its gradient by the parameters, for `minimise`."""
    laws = problem.knots.values, problem.orders, problem.known

    def evaluated(parameters: Any, constants: Any) -> tuple[float, Any]:
        values, by_parameters = _tabulated(parameters, constants, *laws)
        loss = projected_loss(np.asarray(values), problem)
        return loss.value, _pulled_back(by_parameters, loss.of_values)[0]

    return evaluated


@jax.jit
def _tabulated(
    parameters: Any,
    constants: Any,
    log_c: Float[Array, " knots"],
    orders: Float[Array, " laws"],
    known: Bool[Array, " laws"],
) -> tuple[Float[Array, "laws knots"], Any]:
    """log f on the knots, and the map from a derivative by these values to those by the parameters."""
    return jax.vjp(lambda p: tabulate_laws(eqx.combine(p, constants), log_c, orders, known), parameters)


@jax.jit
def _pulled_back(by_parameters: Any, of_values: Float[Array, "laws knots"]) -> Any:
    return by_parameters(of_values)


def best_power_law(start: SubstrateFunction, problem: Problem) -> SubstrateFunction:
    """Set the skip path to the exponent p of the best power law f = c^(p s).

    The loss has local minima where f is far from the true law. A single exponent can be searched
    for globally; the network then learns the deviation from the power law.
    """
    laws = problem.knots.values, np.asarray(problem.orders), np.asarray(problem.known)
    at_zero, at_one = (tabulate_laws(start.with_exponent(p), *laws) for p in (0.0, 1.0))

    def share(exponent: float) -> float:
        # log f is linear in the exponent.
        value = projected_loss(at_zero + exponent * (at_one - at_zero), problem).value
        return 1.0 if np.isnan(value) else float(np.exp(value))  # what is not a number explains nothing

    # A grid first, since the loss can have several minima in p too; then a bounded search between the neighbours, by
    # parabolas: the share itself is close to one, unlike its logarithm.
    grid = np.geomspace(*_EXPONENTS, 12)
    best = int(np.argmin([share(p) for p in grid]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found = scipy.optimize.minimize_scalar(share, bounds=(low, high), method="bounded", options={"xatol": 1e-4})
    return start.with_exponent(float(found.x))


def learn_substrate_function(
    start: SubstrateFunction,
    problem: Problem,
    target: float | None = None,
    *,
    max_iterations: int,
    tolerance: float,
    progress: Progress,
) -> Minimum[SubstrateFunction]:
    """Minimise the projected loss over the parameters of f; see `minimise` for the arguments."""
    return minimise(
        loss_and_gradient(problem),
        start,
        substrate_parameters(start),
        max_iterations=max_iterations,
        tolerance=tolerance,
        after_iteration=lambda i, loss: progress(
            "phase 1", i / max_iterations, f"unexplained {np.exp(loss / 2):.1e} of dc/dt"
        ),
        target=target,
    )
