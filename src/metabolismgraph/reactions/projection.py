"""Variable projection: the substrate function is learned with rate constants at their least-squares values.

Given f, the model is linear in k and in the nuisance homeostasis, and `normal_equations` solves for both
exactly. Only f is searched for, by L-BFGS on the projected loss (Golub & Pereyra 1973). At the inner
optimum the loss is stationary in k and theta, so the gradient with both held constant is exact (Kaufman 1975).
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Bool, Float, Int

from metabolismgraph.reactions.linear_model import LinearModel
from metabolismgraph.reactions.normal_equations import (
    LARGEST_DENSE,
    NormalEquations,
    Rows,
    normal_equations,
    residual,
    solve_rate_constants,
)
from metabolismgraph.system.arrays import on_device
from metabolismgraph.system.kinetics import Aggregation, LogFunction, Structure, aggregate, pair_concentrations
from metabolismgraph.system.log_table import Knots, LogTable
from metabolismgraph.system.minimise import Minimum, ValueAndGradient, compiled, minimise, value_and_gradient
from metabolismgraph.system.model import SubstrateFunction
from metabolismgraph.system.progress import Progress
from metabolismgraph.system.pytrees import pytree
from metabolismgraph.system.trainable import substrate_parameters

_KNOTS = 512  # of the table of f during learning
_LARGEST = 1e100  # beyond it, the squares of substrate factors are no numbers
_EXPONENTS = (0.25, 3.0)  # search range of the best power law


@pytree
@dataclasses.dataclass(frozen=True)
class Problem:
    """The data of the projected loss: rows, and the knots on which f is tabulated.

    Attributes:
        rows: the regression rows.
        log_c: log concentration of every pair; 0 for a concentration of exactly zero.
        present: False for a concentration of exactly zero.
        knots: of the table of log f.
        orders, known: order of each rate law, and whether it is known to be mass action.
        law: index of the rate law of each pair.
    """

    rows: Rows
    log_c: Float[Array, "nodes rows pairs"]
    present: Bool[Array, "nodes rows pairs"]
    knots: Knots
    orders: Float[Array, " laws"]
    known: Bool[Array, " laws"]
    law: Int[Array, " pairs"]
    structure: Structure
    aggregation: Aggregation = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(cls, rows: Rows, structure: Structure, aggregation: Aggregation) -> Problem:
        """Knots that span the positive concentrations of the rows and c = 1, where f is fixed. f(0) = 0 needs none."""
        log_c, present = pair_concentrations(np.asarray(rows.concentration), structure)
        knots = Knots.over(float(log_c.min(initial=0.0)), float(log_c.max(initial=0.0)), _KNOTS, margin=True)
        orders, known, law = map(on_device, structure.rate_laws)
        return cls(rows, on_device(log_c), on_device(present), knots, orders, known, law, structure, aggregation)

    def substrate_factors(self, mlp_sub: LogFunction) -> Float[Array, "rows reactions"]:
        """V of every row, averaged over the nodes of the rule for dc/dt, in concentration^order."""
        # f is evaluated at 512 knots and interpolated: there are far more rows and pairs than knots.
        log_f = LogTable.of(mlp_sub, self.orders, self.known, self.knots)(self.log_c, self.law)
        v = aggregate(log_f, self.present, self.structure, self.aggregation)
        return jnp.einsum("et,etj->tj", self.rows.node_weight, v)

    @property
    def has_unknown_law(self) -> bool:
        """Whether any f is to be learned. Not available inside compiled functions, where arrays have no values."""
        return not bool(np.asarray(self.known).all())


class LinearFit(NamedTuple):
    """The least-squares rate constants and nuisance homeostasis for one f.

    Attributes:
        v: substrate factors, averaged over the nodes of the rule for dc/dt.
        equations: the normal equations of k.
        k: rate constants, in concentration^(1-order)/time.
        theta: coefficients of the nuisance basis, in concentration/time.
        residual: dc/dt minus the model, in concentration/time.
    """

    v: Float[Array, "rows reactions"]
    equations: NormalEquations
    k: Float[Array, " reactions"]
    theta: Float[Array, "species terms"]
    residual: Float[Array, "rows species"]


def projected_loss(mlp_sub: LogFunction, problem: Problem) -> Float[Array, ""]:
    """Log of the unexplained share of the weighted sum of squares of dc/dt, at the least-squares k and theta."""
    return jnp.log(projected_misfit(mlp_sub, problem) / _total(problem))


def projected_misfit(mlp_sub: LogFunction, problem: Problem) -> Float[Array, ""]:
    """Weighted sum of squares of the residual at the least-squares k and theta."""
    v = problem.substrate_factors(mlp_sub)
    fitted = _solve(*jax.lax.stop_gradient((v, problem)))
    return _misfit(v, problem, fitted.k, fitted.theta)


def loss_at(
    mlp_sub: LogFunction, problem: Problem, k: Float[Array, " reactions"], theta: Float[Array, "species terms"]
) -> Float[Array, ""]:
    """The same as `projected_loss`, with the least-squares k and theta given."""
    return jnp.log(_misfit(problem.substrate_factors(mlp_sub), problem, k, theta) / _total(problem))


def _misfit(
    v: Float[Array, "rows reactions"],
    problem: Problem,
    k: Float[Array, " reactions"],
    theta: Float[Array, "species terms"],
) -> Float[Array, ""]:
    # dL/df = dL/df at constant (k, theta) + dL/d(k, theta) d(k, theta)/df, and dL/d(k, theta) = 0 at the inner optimum.
    # Without a gradient through the solution, an evaluation is much cheaper, and ill-conditioned terms are avoided.
    error = residual(v, k, theta, problem.rows, problem.structure)
    return jnp.sum(problem.rows.full_weight * error**2)


def _total(problem: Problem) -> Float[Array, ""]:
    # The logarithm keeps relative progress visible to L-BFGS: the share falls by many orders of magnitude.
    return jnp.sum(problem.rows.full_weight * problem.rows.derivative**2)


@eqx.filter_jit
def fit_linear(mlp_sub: LogFunction, problem: Problem) -> LinearFit:
    """Solve for rate constants and nuisance homeostasis, given f."""
    return _solve(problem.substrate_factors(mlp_sub), problem)


def _solve(v: Float[Array, "rows reactions"], problem: Problem) -> LinearFit:
    equations = normal_equations(v, problem.rows, problem.structure)
    k = solve_rate_constants(equations)
    theta = equations.nuisance(k)
    return LinearFit(v, equations, k, theta, residual(v, k, theta, problem.rows, problem.structure))


def loss_and_gradient(problem: Problem) -> ValueAndGradient:
    """The projected loss of parameters and constants of f, and its gradient by the parameters.

    For a small network, one compiled program does all. For a large one, `LinearModel` solves for k and theta;
    its sparse equations are not compiled.
    """
    if problem.structure.n_reactions <= LARGEST_DENSE:
        return compiled(projected_loss, problem)
    rows = problem.rows
    derivative, weight, basis = map(np.asarray, (rows.derivative, rows.full_weight, rows.basis))

    def evaluated(parameters: Any, constants: Any) -> tuple[Float[Array, ""], Any]:
        v = np.asarray(_factors(parameters, constants, problem))
        if not (v < _LARGEST).all():  # for a step that is far too long, which the search then shortens
            return jnp.asarray(np.nan), parameters
        fitted = LinearModel(v, derivative, weight, basis, problem.structure.sparse_stoichiometry).estimate()
        at = (problem, on_device(fitted.k), on_device(fitted.theta))
        return value_and_gradient(loss_at, parameters, constants, at)

    return evaluated


@eqx.filter_jit
def _factors(parameters: Any, constants: Any, problem: Problem) -> Float[Array, "rows reactions"]:
    return problem.substrate_factors(eqx.combine(parameters, constants))


def best_power_law(start: SubstrateFunction, problem: Problem) -> SubstrateFunction:
    """Set the skip path to the exponent p of the best power law f = c^(p s).

    The loss has local minima where f is far from the true law. A single exponent can be searched
    for globally; the network then learns the deviation from the power law.
    """

    def share(exponent: float) -> float:
        # With the gradient, which is not used: L-BFGS needs the same program, and its compilation takes longer.
        parameters, constants = eqx.partition(with_exponent(start, exponent), substrate_parameters(start))
        return float(np.exp(evaluated(parameters, constants)[0]))

    evaluated = loss_and_gradient(problem)

    # A grid first, since the loss can have several minima in p too; then a bounded search between the neighbours, by
    # parabolas: the share itself is close to one, unlike its logarithm.
    grid = np.geomspace(*_EXPONENTS, 12)
    best = int(np.argmin([share(p) for p in grid]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found = scipy.optimize.minimize_scalar(share, bounds=(low, high), method="bounded", options={"xatol": 1e-4})
    return with_exponent(start, float(found.x))


def with_exponent(mlp_sub: SubstrateFunction, exponent: float) -> SubstrateFunction:
    """The power law f = c^(p s) with exponent p, provided that the last layer of the network is zero."""
    changed: SubstrateFunction = eqx.tree_at(lambda f: f.skip, mlp_sub, on_device([exponent, 0.0]))
    return changed


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


evaluate_loss = eqx.filter_jit(projected_loss)
