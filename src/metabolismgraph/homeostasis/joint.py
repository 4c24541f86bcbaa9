"""Joint refinement: after Phase 2, everything is unfrozen and learned together.

No longer Phase 2 alone, so it is off by default and reported apart (refined_*). Rate constants are always
at their best for the rate law and MLP_node of the moment (variable projection, Golub & Pereyra 1973).
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
    """Minimise what the whole model leaves of dc/dt, from the checkpoint and Phase 2 on.

    Returns:
        The refined model; rate constants that the data do not determine, or would make negative, stay
        as they are in the checkpoint.
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
    """Homeostasis is MLP_node's here, and nobody else's."""
    rows = dataclasses.replace(problem.rows, basis=jnp.zeros_like(problem.rows.basis))
    return dataclasses.replace(problem, rows=rows)


def _pull(model: MetabolismModel, problem: Problem, highest: Float[Array, " species"]) -> Float[Array, "rows species"]:
    """MLP_node at the rows, averaged over the nodes of the rule for dc/dt."""
    node = NodeTable.of(model, highest).only(problem.structure.moving.astype(highest.dtype))
    return jnp.einsum("et,eti->ti", problem.rows.node_weight, node(problem.rows.concentration))


@eqx.filter_jit
def _value_and_gradient(
    parameters: MetabolismModel, constants: MetabolismModel, problem: Problem, highest: Float[Array, " species"]
) -> tuple[Float[Array, ""], MetabolismModel]:
    def log_loss(p: MetabolismModel) -> Float[Array, ""]:
        model = eqx.combine(p, constants)
        rows = problem.rows
        v, pull = problem.substrate_factors(model.mlp_sub), _pull(model, problem, highest)
        # At the best k the loss is stationary in it: no gradient through the solution (Kaufman 1975).
        still, target = jax.lax.stop_gradient(v), jax.lax.stop_gradient(rows.derivative - pull)
        equations = normal_equations(still, rows, problem.structure)
        k = solve_rate_constants(for_target(equations, target, still, rows, problem.structure))
        without = dataclasses.replace(rows, derivative=rows.derivative - pull)
        theta = jnp.zeros(rows.basis.shape[1:])
        left = residual(v, k, theta, without, problem.structure)
        return jnp.log(jnp.sum(rows.full_weight * left**2) / jnp.sum(rows.full_weight * rows.derivative**2))

    return jax.value_and_grad(log_loss)(parameters)


@eqx.filter_jit
def _solve(
    model: MetabolismModel, problem: Problem, highest: Float[Array, " species"]
) -> tuple[Float[Array, " reactions"], tuple[Float[Array, "reactions reactions"], Float[Array, " reactions"]]]:
    """The best rate constants, and matrix and scale of their normal equations."""
    rows = problem.rows
    v = problem.substrate_factors(model.mlp_sub)
    equations = normal_equations(v, rows, problem.structure)
    target = rows.derivative - _pull(model, problem, highest)
    k = solve_rate_constants(for_target(equations, target, v, rows, problem.structure))
    return k, (equations.matrix, equations.scale)
