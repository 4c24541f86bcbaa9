"""Joint refinement: after Phase 2, rate constants, rate law, MLP_node and embeddings are learned together.

It changes the frozen checkpoint, so it is off by default, and its metrics are separate (refined_*). Rate constants
have their least-squares values for the current rate law and MLP_node (variable projection, Golub & Pereyra 1973).
"""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metabolismgraph.homeostasis.fit import Phase2Result
from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.rollouts import NodeTable
from metabolismgraph.reactions.data import Phase1Data
from metabolismgraph.reactions.identifiability import analyse
from metabolismgraph.reactions.normal_equations import for_target, normal_equations, residual, solve_rate_constants
from metabolismgraph.reactions.projection import Problem
from metabolismgraph.system.minimise import minimise
from metabolismgraph.system.model import MetabolismModel
from metabolismgraph.system.progress import Progress
from metabolismgraph.system.trainable import phase2_parameters, substrate_parameters
from metabolismgraph.system.units import Units

_ITERATIONS = 300
_TOLERANCE = 1e-3  # over ten iterations, see `minimise`


def refine(data: Phase2Data, phase2: Phase2Result, progress: Progress) -> Phase2Result:
    """Minimise the residual of the complete model, starting from the result of Phase 2.

    Args:
        data: observations and checkpoint.
        phase2: result of Phase 2.
        progress: see `system.progress`.

    Returns:
        The refined model. Rate constants that are undetermined, or that would be negative, keep the values of
        the checkpoint.
    """
    network, units = data.observations.network, Units.of(data.observations, data.graph_model)
    own = data.in_units(units)
    found = _refine(own, dataclasses.replace(phase2, model=units.inverse().model(phase2.model, network)), progress)
    return dataclasses.replace(found, model=units.model(found.model, network))


def _refine(data: Phase2Data, phase2: Phase2Result, progress: Progress) -> Phase2Result:
    training = data.training
    rows = Phase1Data(data.observations, data.graph_model, training, rule=data.phase1.rule)
    keep, weight = (
        data.keep & rows.usable,
        1.0 / np.maximum(data.phase1.noise, 1e-12 * data.phase1.noise.max()) ** 2,
    )
    problem = _without_nuisance(rows.problem(keep, weight, stride=rows.stride))
    highest = jnp.asarray(data.highest)
    mask = eqx.tree_at(lambda m: m.mlp_sub, phase2_parameters(phase2.model), substrate_parameters(phase2.model.mlp_sub))
    parameters, constants = eqx.partition(phase2.model, mask)
    found = minimise(
        lambda p: _value_and_gradient(p, constants, problem, highest),
        parameters,
        max_iterations=_ITERATIONS,
        tolerance=_TOLERANCE,
        after_iteration=lambda i, loss: progress(
            "refine", i / _ITERATIONS, f"unexplained {np.exp(loss / 2):.1e} of dc/dt"
        ),
    )
    progress("refine", 1.0, "")
    model = eqx.combine(found.parameters, constants)
    # The search used every stride-th transition; the final rate constants use all of them.
    k, equations = _solve(model, _without_nuisance(rows.problem(keep, weight)), highest)
    known = analyse(np.asarray(equations[0]), np.asarray(equations[1]), training.identifiability_tolerance).identifiable
    positive = np.asarray(k) > 0
    log_k = np.where(known & positive, np.log10(np.where(positive, k, 1.0)), data.phase1.log_k)
    return dataclasses.replace(
        phase2,
        model=eqx.tree_at(lambda m: m.log_k, model, jnp.asarray(log_k)),
        losses=np.exp(np.array(found.losses)),
        loss_unit="share of dc/dt",
        components={},
        notes=(),
    )


def _without_nuisance(problem: Problem) -> Problem:
    """The problem without nuisance homeostasis, since homeostasis is that of MLP_node here."""
    # A basis of zeros gives theta = 0, without a special case in `normal_equations`.
    rows = dataclasses.replace(problem.rows, basis=jnp.zeros_like(problem.rows.basis))
    return dataclasses.replace(problem, rows=rows)


def _homeostasis(
    model: MetabolismModel, problem: Problem, highest: Float[Array, " species"]
) -> Float[Array, "rows species"]:
    """MLP_node for every row, averaged over the nodes of the rule for dc/dt, in concentration/time."""
    node = NodeTable.of(model, highest).only(problem.structure.moving.astype(highest.dtype))
    return jnp.einsum("et,eti->ti", problem.rows.node_weight, node(problem.rows.concentration))


@eqx.filter_jit
def _value_and_gradient(
    parameters: MetabolismModel, constants: MetabolismModel, problem: Problem, highest: Float[Array, " species"]
) -> tuple[Float[Array, ""], MetabolismModel]:
    """Value and gradient of the log of the unexplained share, with rate constants projected out."""

    def log_loss(p: MetabolismModel) -> Float[Array, ""]:
        model = eqx.combine(p, constants)
        rows = problem.rows
        v, homeostasis = problem.substrate_factors(model.mlp_sub), _homeostasis(model, problem, highest)
        # The model is linear in k only: k solves the regression of dc/dt - MLP_node on V. The loss is stationary in k
        # at the solution, so no gradient is needed through it (Kaufman 1975).
        constant_v, target = jax.lax.stop_gradient(v), jax.lax.stop_gradient(rows.derivative - homeostasis)
        equations = normal_equations(constant_v, rows, problem.structure)
        k = solve_rate_constants(for_target(equations, target, constant_v, rows, problem.structure))
        by_reactions = dataclasses.replace(rows, derivative=rows.derivative - homeostasis)
        theta = jnp.zeros(rows.basis.shape[1:])
        error = residual(v, k, theta, by_reactions, problem.structure)
        # The denominator is constant: the total sum of squares makes the loss the unexplained share of dc/dt.
        return jnp.log(jnp.sum(rows.full_weight * error**2) / jnp.sum(rows.full_weight * rows.derivative**2))

    return jax.value_and_grad(log_loss)(parameters)


@eqx.filter_jit
def _solve(
    model: MetabolismModel, problem: Problem, highest: Float[Array, " species"]
) -> tuple[Float[Array, " reactions"], tuple[Float[Array, "reactions reactions"], Float[Array, " reactions"]]]:
    """The least-squares rate constants, and matrix and scale of their normal equations."""
    rows = problem.rows
    v = problem.substrate_factors(model.mlp_sub)
    equations = normal_equations(v, rows, problem.structure)
    target = rows.derivative - _homeostasis(model, problem, highest)
    k = solve_rate_constants(for_target(equations, target, v, rows, problem.structure))
    return k, (equations.matrix, equations.scale)
