"""Gauss-Newton correction of copies of a checkpoint's rate constants and substrate function.

Errors of a frozen reaction model contribute more to the residual than homeostasis does. Everything that a change of
its rate constants and substrate function could explain is therefore projected out of the residual. The
tangents are V_j S_ij for every k_j, and the derivatives of dc/dt by the coefficients of a spline of log f in
log c (Frisch & Waugh 1933; Neyman-orthogonal estimation, Chernozhukov et al. 2018). One linearised step is
not sufficient for a bad checkpoint, so the step is iterated on copies of both, with rate constants and a line
of homeostasis per species at their least-squares values (variable projection, Golub & Pereyra 1973). The checkpoint
does not change.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metabolismgraph.reactions.normal_equations import check_dense, for_target, residual, solve_rate_constants
from metabolismgraph.reactions.projection import LinearFit, Problem, evaluate_loss, fit_linear
from metabolismgraph.system.arrays import on_device
from metabolismgraph.system.kinetics import AnyArray, LogFunction, array_library, reaction_rates
from metabolismgraph.system.minimise import Minimum
from metabolismgraph.system.progress import Progress

_INTERVALS = 32  # of the spline
_MARGIN = 0.05  # how far the spline reaches beyond the data, as a share of their range
_SAMPLES = 400  # quantiles, and points of an even grid, at which the checkpoint's f is evaluated
# Relative weight of squared second differences of the coefficients (Eilers & Marx 1996). It determines coefficients in
# gaps of the data, and vanishes for power laws.
_SMOOTHING = 1e-9
# Relative. f(1) = 1 for any constant added to all coefficients of an order, so the normal matrix is singular.
_RIDGE = 1e-12
# Levenberg-Marquardt damping: initial value, factor between trials, and the largest value that is tried.
_DAMPING, _FACTOR, _MAX_DAMPING = 1e-3, 8.0, 1e12


class Spline(eqx.Module):
    """log f as a uniform cubic B-spline in log c, one per order of a learned rate law, with f(1) = 1.

    A power law is a straight line, which the spline represents exactly.

    Attributes:
        coefficients: of the basis functions (dimensionless).
        orders: substrate order of each row.
        low, step: left end of the first interval and width of every interval, in log c.
    """

    coefficients: Float[Array, "orders terms"]
    orders: Float[Array, " orders"]
    low: Float[Array, ""]
    step: Float[Array, ""]

    @classmethod
    def through(cls, f: LogFunction, problem: Problem) -> Spline:
        """The least-squares approximation of a checkpoint's f over the observed log concentrations."""
        c = np.asarray(problem.rows.concentration)[..., np.asarray(problem.structure.pair_species)]
        log_c = np.log(c[c > 0])
        low, high = min(log_c.min(initial=0.0), 0.0), max(log_c.max(initial=0.0), 0.0)
        margin = _MARGIN * max(high - low, 1e-3)
        step = (high - low + 2 * margin) / _INTERVALS
        orders: Any = np.asarray(problem.orders)[~np.asarray(problem.known)]
        shape = len(orders), _INTERVALS + 3
        empty = cls(*map(on_device, (np.zeros(shape), orders, low - margin, step)))
        # Quantiles give a good approximation where the data are; an even grid bounds the spline in gaps between them.
        at: Any = np.concatenate([np.quantile(log_c, np.linspace(0, 1, _SAMPLES)), np.linspace(low, high, _SAMPLES)])
        basis = empty.basis(at)
        second_differences = np.diff(np.eye(basis.shape[1]), 2, axis=0)
        normal = basis.T @ basis + _SMOOTHING * len(at) * second_differences.T @ second_differences
        values = np.array([f(at, order) for order in orders[:, None]]).reshape(-1, len(at))
        return dataclasses.replace(empty, coefficients=on_device(np.linalg.solve(normal, basis.T @ values.T).T))

    def basis(self, log_c: Float[AnyArray, " points"]) -> Float[AnyArray, "points terms"]:
        """Values of all basis functions at log concentrations; beyond the ends, those at the ends.

        NumPy arrays are processed with NumPy, see `array_library`.
        """
        xp = array_library(log_c, self.low)
        # The cardinal cubic B-spline of the distance x to its centre, in intervals (de Boor 1978): it is piecewise
        # cubic on |x| < 1 and 1 < |x| < 2, and zero beyond. Centres are the knots, and one more on either side.
        u = xp.clip((log_c - xp.asarray(self.low)) / xp.asarray(self.step), 0.0, _INTERVALS)
        x = xp.abs(u[..., None] - (xp.arange(_INTERVALS + 3) - 1.0))
        near, far = 2 / 3 - x**2 + x**3 / 2, xp.maximum(2 - x, 0.0) ** 3 / 6
        values: AnyArray = xp.where(x < 1, near, far)
        return values

    def __call__(self, log_c: Float[Array, " points"], order: Float[Array, ""]) -> Float[Array, " points"]:
        """log f at log concentrations `log_c` for one substrate order."""
        if not self.orders.size:  # every rate law is known to be mass action
            return order * log_c
        row = self.coefficients[jnp.argmin(jnp.abs(self.orders - order))]
        at_one = self.basis(jnp.zeros(1))  # subtracted: f = 1 at log c = 0 for all coefficients
        return (self.basis(log_c) - at_one) @ row


def learn_spline(
    start: Spline, problem: Problem, *, max_iterations: int, tolerance: float, progress: Progress
) -> Minimum[Spline]:
    """Minimise the projected loss over the coefficients of the spline (Levenberg 1944; Marquardt 1963).

    Args:
        max_iterations: largest number of accepted steps.
        tolerance: a step that reduces the sum of squares by less than this relative amount is the last.
        progress: called after every accepted step.

    Raises:
        InputError: the network is too large.
    """
    check_dense(problem.structure.n_reactions, "the strategy orthogonalised")
    spline, damping = start, _DAMPING
    loss = float(evaluate_loss(spline, problem))
    losses = [loss]
    converged = not problem.has_unknown_law
    max_iterations = 0 if converged else max_iterations
    for iteration in range(max_iterations):
        equations = _tangents(spline, problem)
        # Gauss-Newton steps can increase the loss, since V is nonlinear in the coefficients. More damping turns the
        # step towards the scaled gradient and shortens it, until the loss decreases.
        while damping < _MAX_DAMPING:
            trial = _stepped(spline, equations, jnp.asarray(damping))
            lower = float(evaluate_loss(trial, problem))
            if lower < loss:
                break
            damping *= _FACTOR
        else:
            converged = True  # even tiny steps do not reduce the loss: a minimum, up to rounding
            break
        fall, spline, loss = loss - lower, trial, lower
        losses.append(loss)
        damping = max(damping / _FACTOR, 1e-15)  # close to the minimum, undamped steps converge fast
        progress("phase 2", 0.1 * iteration / max_iterations, f"unexplained {np.exp(loss / 2):.1e} of dc/dt")
        if fall < tolerance:
            converged = True
            break
    return Minimum(spline, losses, converged)


class _Tangents(NamedTuple):
    """Normal equations of one Gauss-Newton step for the spline coefficients, with k and theta projected out."""

    matrix: Float[Array, "terms terms"]
    rhs: Float[Array, " terms"]


@eqx.filter_jit
def _tangents(spline: Spline, problem: Problem) -> _Tangents:
    """The tangents of dc/dt by the spline coefficients at the least-squares k and theta, and their normal equations."""
    # Let J be the tangents, X the design matrix of k and theta and r the residual, all multiplied by the root of the
    # weight. With M = 1 - X pinv(X), the joint least-squares step of the coefficients solves (M J)' (M J) step =
    # (M J)' r (Frisch & Waugh 1933). M r = r, since r is the residual of the projection already. Derivatives of M are
    # neglected (Kaufman 1975).
    fitted = fit_linear(spline, problem)

    def rates(coefficients: Float[Array, "orders terms"]) -> Float[Array, "rows species"]:
        v = problem.substrate_factors(dataclasses.replace(spline, coefficients=coefficients))
        return reaction_rates(v * fitted.k, problem.structure)

    # Forward mode: there are far fewer coefficients than entries of dc/dt.
    tangents = jax.jacfwd(rates)(spline.coefficients)
    tangents = jnp.moveaxis(tangents.reshape(*tangents.shape[:2], -1), -1, 0)
    weight = problem.rows.full_weight
    projected = jax.vmap(lambda tangent: project_out(tangent, fitted, problem))(tangents) * jnp.sqrt(weight)
    flat = projected.reshape(len(projected), -1)
    return _Tangents(flat @ flat.T, flat @ (jnp.sqrt(weight) * fitted.residual).reshape(-1))


def project_out(
    target: Float[Array, "rows species"], fitted: LinearFit, problem: Problem
) -> Float[Array, "rows species"]:
    """The residual of `target` after its weighted regression on rate constants and nuisance homeostasis."""
    equations = for_target(fitted.equations, target, fitted.v, problem.rows, problem.structure)
    k = solve_rate_constants(equations)
    rows = dataclasses.replace(problem.rows, derivative=target)
    return residual(fitted.v, k, equations.nuisance(k), rows, problem.structure)


@eqx.filter_jit
def _stepped(spline: Spline, tangents: _Tangents, damping: Float[Array, ""]) -> Spline:
    """The spline after one damped step."""
    # (J'J + damping diag(J'J) + P) step = J' r - P b, with b the coefficients and b' P b the roughness penalty. The
    # damping is relative to the diagonal, hence independent of the scale of the coefficients (Marquardt 1963).
    terms = spline.coefficients.shape[1]
    second_differences = jnp.diff(jnp.eye(terms), 2, axis=0)
    smooth = jnp.kron(jnp.eye(len(spline.orders)), second_differences.T @ second_differences)
    size = jnp.trace(tangents.matrix) / len(tangents.rhs)
    matrix = tangents.matrix + damping * jnp.diag(jnp.diag(tangents.matrix))
    matrix = matrix + size * (_SMOOTHING * smooth + _RIDGE * jnp.eye(len(matrix)))
    rhs = tangents.rhs - size * _SMOOTHING * smooth @ spline.coefficients.reshape(-1)
    step = jnp.linalg.solve(matrix, rhs).reshape(spline.coefficients.shape)
    return dataclasses.replace(spline, coefficients=spline.coefficients + step)
