"""Nuisance copies of a checkpoint's rate constants and substrate function, corrected by Gauss-Newton.

A frozen reaction model that is only about right leaves a residual that drowns homeostasis. What a
change of its rate constants and of its substrate function could explain is therefore projected out
of that residual: the tangent features are V_j S_ij for every k_j, and the derivatives of dc/dt by the
coefficients of a spline of log f in log c (Frisch-Waugh-Lovell; Neyman-orthogonal estimation,
Chernozhukov et al. 2018). One such step is not enough where the checkpoint is bad, so it is iterated on
copies of both, with the rate constants and a line of homeostasis per species always at their best
(variable projection, Golub & Pereyra 1973). The checkpoint itself stays as it is.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metabolismgraph.reactions.normal_equations import for_target, residual, solve_rate_constants
from metabolismgraph.reactions.projection import LinearFit, Problem, evaluate_loss, fit_linear
from metabolismgraph.system.kinetics import LogFunction, reaction_rates
from metabolismgraph.system.minimise import Minimum
from metabolismgraph.system.progress import Progress

_INTERVALS = 32  # of the spline
_MARGIN = 0.05  # how far the spline reaches beyond the data, as a share of their range
_SAMPLES = 400  # at which the checkpoint's f is read off
_SMOOTHING = 1e-9  # on second differences of coefficients, where no data determine them; zero for power laws
_RIDGE = 1e-12  # relative; the gauge makes one direction of every order immaterial
# Levenberg-Marquardt damping: at the start, its factor from step to step, and beyond which it is hopeless.
_DAMPING, _FACTOR, _MOST = 1e-3, 8.0, 1e12


class Spline(eqx.Module):
    """log f as a uniform cubic B-spline in log c, one per order of a learned rate law, with f(1) = 1.

    A power law is a straight line, which the spline holds exactly.

    Attributes:
        coefficients: of the basis functions.
        orders: substrate order of each row.
        low, step: left end of the first interval and width of all, in log c.
    """

    coefficients: Float[Array, "orders terms"]
    orders: Float[Array, " orders"]
    low: Float[Array, ""]
    step: Float[Array, ""]

    @classmethod
    def through(cls, f: LogFunction, problem: Problem) -> Spline:
        """The spline closest to a checkpoint's f over the data, weighted by how often each log c occurs."""
        c = np.asarray(problem.rows.concentration)[..., np.asarray(problem.structure.pair_species)]
        log_c = np.log(c[c > 0])
        low, high = min(log_c.min(initial=0.0), 0.0), max(log_c.max(initial=0.0), 0.0)
        margin = _MARGIN * max(high - low, 1e-3)
        step = (high - low + 2 * margin) / _INTERVALS
        orders = problem.orders[~np.asarray(problem.known)]
        empty = cls(jnp.zeros((len(orders), _INTERVALS + 3)), orders, jnp.asarray(low - margin), jnp.asarray(step))
        # Quantiles, where the data are, and an even grid, so that nothing runs away between them.
        at = np.concatenate([np.quantile(log_c, np.linspace(0, 1, _SAMPLES)), np.linspace(low, high, _SAMPLES)])
        basis = np.asarray(empty.basis(jnp.asarray(at)))
        rough = np.diff(np.eye(basis.shape[1]), 2, axis=0)
        normal = basis.T @ basis + _SMOOTHING * len(at) * rough.T @ rough
        values = np.array([np.asarray(_evaluate(f, jnp.asarray(at), order)) for order in orders]).reshape(-1, len(at))
        return dataclasses.replace(empty, coefficients=jnp.asarray(np.linalg.solve(normal, basis.T @ values.T).T))

    def basis(self, log_c: Float[Array, " points"]) -> Float[Array, "points terms"]:
        """Values of all basis functions."""
        u = jnp.clip((log_c - self.low) / self.step, 0.0, _INTERVALS)
        x = jnp.abs(u[..., None] - (jnp.arange(_INTERVALS + 3) - 1.0))
        near, far = 2 / 3 - x**2 + x**3 / 2, jnp.maximum(2 - x, 0.0) ** 3 / 6
        return jnp.where(x < 1, near, far)

    def __call__(self, log_c: Float[Array, " points"], order: Float[Array, ""]) -> Float[Array, " points"]:
        """log f at log concentrations `log_c` for one substrate order."""
        if not self.orders.size:  # every law is known
            return order * log_c
        row = self.coefficients[jnp.argmin(jnp.abs(self.orders - order))]
        at_one = self.basis(jnp.zeros(1))
        return (self.basis(log_c) - at_one) @ row


@eqx.filter_jit
def _evaluate(f: LogFunction, log_c: Float[Array, " points"], order: Float[Array, ""]) -> Float[Array, " points"]:
    return f(log_c, order)


def learn_spline(
    start: Spline, problem: Problem, *, max_iterations: int, tolerance: float, progress: Progress
) -> Minimum[Spline]:
    """Minimise the projected loss over the coefficients of the spline (Levenberg 1944; Marquardt 1963).

    Args:
        tolerance: converged when a step lowers the sum of squares by a smaller share than this.
    """
    spline, damping = start, _DAMPING
    loss = float(evaluate_loss(spline, problem))
    losses = [loss]
    converged = not problem.has_unknown_law
    max_iterations = 0 if converged else max_iterations
    for iteration in range(max_iterations):
        equations = _tangents(spline, problem)
        while damping < _MOST:
            trial = _stepped(spline, equations, jnp.asarray(damping))
            lower = float(evaluate_loss(trial, problem))
            if lower < loss:
                break
            damping *= _FACTOR
        else:
            converged = True  # no step lowers the loss: it is at its minimum, up to rounding
            break
        fall, spline, loss = loss - lower, trial, lower
        losses.append(loss)
        damping = max(damping / _FACTOR, 1e-15)
        progress("phase 2", 0.1 * iteration / max_iterations, f"unexplained {np.exp(loss / 2):.1e} of dc/dt")
        if fall < tolerance:
            converged = True
            break
    return Minimum(spline, losses, converged)


class _Tangents(NamedTuple):
    """Normal equations of one Gauss-Newton step for the coefficients, everything linear projected out."""

    matrix: Float[Array, "terms terms"]
    rhs: Float[Array, " terms"]


@eqx.filter_jit
def _tangents(spline: Spline, problem: Problem) -> _Tangents:
    fitted = fit_linear(spline, problem)

    def rates(coefficients: Float[Array, "orders terms"]) -> Float[Array, "rows species"]:
        v = problem.substrate_factors(dataclasses.replace(spline, coefficients=coefficients))
        return reaction_rates(v * fitted.k, problem.structure)

    features = jax.jacfwd(rates)(spline.coefficients)
    features = jnp.moveaxis(features.reshape(*features.shape[:2], -1), -1, 0)
    weight = problem.rows.full_weight
    left = jax.vmap(lambda feature: project_out(feature, fitted, problem))(features) * jnp.sqrt(weight)
    flat = left.reshape(len(left), -1)
    return _Tangents(flat @ flat.T, flat @ (jnp.sqrt(weight) * fitted.left).reshape(-1))


def project_out(
    target: Float[Array, "rows species"], fitted: LinearFit, problem: Problem
) -> Float[Array, "rows species"]:
    """What rate constants and nuisance homeostasis cannot explain of `target`."""
    equations = for_target(fitted.equations, target, fitted.v, problem.rows, problem.structure)
    k = solve_rate_constants(equations)
    rows = dataclasses.replace(problem.rows, derivative=target)
    return residual(fitted.v, k, equations.nuisance(k), rows, problem.structure)


@eqx.filter_jit
def _stepped(spline: Spline, tangents: _Tangents, damping: Float[Array, ""]) -> Spline:
    """The spline after one damped step."""
    terms = spline.coefficients.shape[1]
    rough = jnp.diff(jnp.eye(terms), 2, axis=0)
    smooth = jnp.kron(jnp.eye(len(spline.orders)), rough.T @ rough)
    size = jnp.trace(tangents.matrix) / len(tangents.rhs)
    matrix = tangents.matrix + damping * jnp.diag(jnp.diag(tangents.matrix))
    matrix = matrix + size * (_SMOOTHING * smooth + _RIDGE * jnp.eye(len(matrix)))
    rhs = tangents.rhs - size * _SMOOTHING * smooth @ spline.coefficients.reshape(-1)
    step = jnp.linalg.solve(matrix, rhs).reshape(spline.coefficients.shape)
    return dataclasses.replace(spline, coefficients=spline.coefficients + step)
