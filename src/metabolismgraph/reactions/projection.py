"""Variable projection: the loss of a substrate function, with rate constants at their least-squares values.

Given f, the model is linear in k and in the nuisance homeostasis, and `normal_equations` solves for both
exactly. Only f is searched for (Golub & Pereyra 1973; `search`). At the inner optimum the loss is stationary in k
and theta, so the gradient with both held constant is exact (Kaufman 1975).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Bool, Float, Int

from metabolismgraph.reactions.columns import Columns
from metabolismgraph.reactions.normal_equations import (
    NormalEquations,
    Rows,
    normal_equations,
    residual,
    solve_rate_constants,
)
from metabolismgraph.system.arrays import on_device
from metabolismgraph.system.kinetics import Aggregation, LogFunction, Structure, aggregate, pair_concentrations
from metabolismgraph.system.log_table import Knots, LogTable, interpolation_matrix
from metabolismgraph.system.pytrees import pytree

_KNOTS = 512  # of the table of f during learning


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

    # What follows is not available inside compiled functions, where arrays have no values.

    @functools.cached_property
    def interpolation(self) -> scipy.sparse.csr_array:
        """The matrix from log f on the knots, law after law, to log f of every pair at every node of every row."""
        log_c = np.moveaxis(np.asarray(self.log_c), -1, 0)
        law = np.broadcast_to(np.asarray(self.law)[:, None, None], log_c.shape)
        return interpolation_matrix(self.knots, log_c.ravel(), law.ravel(), len(self.orders))

    @functools.cached_property
    def absent(self) -> Int[np.ndarray, " absent"]:
        """Places of concentrations of exactly zero among the rows of `interpolation`."""
        return np.flatnonzero(~np.moveaxis(np.asarray(self.present), -1, 0))

    @functools.cached_property
    def columns(self) -> Columns:
        """The regressions of all species, with zero for each V."""
        rows = self.rows
        derivative, weight, basis = map(np.asarray, (rows.derivative, rows.full_weight, rows.basis))
        v = np.zeros((len(derivative), self.structure.n_reactions))
        return Columns.of(v, derivative, weight, basis, self.structure.sparse_stoichiometry)

    @property
    def has_unknown_law(self) -> bool:
        """Whether any f is to be learned."""
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


def projected_misfit(mlp_sub: LogFunction, problem: Problem) -> Float[Array, ""]:
    """Weighted sum of squares of the residual at the least-squares k and theta."""
    v = problem.substrate_factors(mlp_sub)
    # dL/df = dL/df at constant (k, theta) + dL/d(k, theta) d(k, theta)/df, and dL/d(k, theta) = 0 at the inner optimum.
    # Without a gradient through the solution, an evaluation is much cheaper, and ill-conditioned terms are avoided.
    fitted = _solve(*jax.lax.stop_gradient((v, problem)))
    error = residual(v, fitted.k, fitted.theta, problem.rows, problem.structure)
    return jnp.sum(problem.rows.full_weight * error**2)


@eqx.filter_jit
def evaluate_loss(mlp_sub: LogFunction, problem: Problem) -> Float[Array, ""]:
    """Log of the unexplained share of the weighted sum of squares of dc/dt, at the least-squares k and theta."""
    # The logarithm keeps relative progress visible to the search: the share falls by many orders of magnitude.
    total = jnp.sum(problem.rows.full_weight * problem.rows.derivative**2)
    return jnp.log(projected_misfit(mlp_sub, problem) / total)


@eqx.filter_jit
def fit_linear(mlp_sub: LogFunction, problem: Problem) -> LinearFit:
    """Solve for rate constants and nuisance homeostasis, given f."""
    return _solve(problem.substrate_factors(mlp_sub), problem)


def _solve(v: Float[Array, "rows reactions"], problem: Problem) -> LinearFit:
    equations = normal_equations(v, problem.rows, problem.structure)
    k = solve_rate_constants(equations)
    theta = equations.nuisance(k)
    return LinearFit(v, equations, k, theta, residual(v, k, theta, problem.rows, problem.structure))
