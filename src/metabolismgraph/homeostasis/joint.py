"""Joint refinement: after Phase 2, rate constants, rate law, MLP_node and embeddings are learned together.

It changes the frozen checkpoint, so it is off by default, and its metrics are separate (refined_*). Rate constants
have their least-squares values for the current rate law and MLP_node (variable projection, Golub & Pereyra 1973).
"""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metabolismgraph.homeostasis.fit import Phase2Result
from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.reactions.data import Phase1Data
from metabolismgraph.reactions.identifiability import analyse
from metabolismgraph.reactions.normal_matrix import DenseMatrix
from metabolismgraph.reactions.projection import Problem, fit_linear, projected_misfit
from metabolismgraph.system.arrays import on_device
from metabolismgraph.system.minimise import compiled, minimise
from metabolismgraph.system.model import MetabolismModel
from metabolismgraph.system.node_table import NodeTable
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
    keep = data.keep & rows.usable
    weight = 1.0 / np.maximum(data.phase1.noise, 1e-12 * data.phase1.noise.max()) ** 2
    highest = on_device(data.highest)
    mask = eqx.tree_at(lambda m: m.mlp_sub, phase2_parameters(phase2.model), substrate_parameters(phase2.model.mlp_sub))
    found = minimise(
        compiled(_log_loss, rows.problem(keep, weight, stride=rows.stride), highest),
        phase2.model,
        mask,
        max_iterations=_ITERATIONS,
        tolerance=_TOLERANCE,
        after_iteration=lambda i, loss: progress(
            "refine", i / _ITERATIONS, f"unexplained {np.exp(loss / 2):.1e} of dc/dt"
        ),
    )
    progress("refine", 1.0, "")
    # The search used every stride-th transition; the final rate constants use all of them.
    k, matrix, scale = map(np.asarray, _solve(found.parameters, rows.problem(keep, weight), highest))
    known = analyse(DenseMatrix(matrix, scale), training.identifiability_tolerance).identifiable
    log_k = np.where(known & (k > 0), np.log10(np.where(k > 0, k, 1.0)), data.phase1.log_k)
    return dataclasses.replace(
        phase2,
        model=eqx.tree_at(lambda m: m.log_k, found.parameters, on_device(log_k)),
        losses=np.exp(np.array(found.losses)),
        loss_unit="share of dc/dt",
        components={},
        notes=(),
    )


def _without_homeostasis(model: MetabolismModel, problem: Problem, highest: Float[Array, " species"]) -> Problem:
    """The regression on the reactions of what MLP_node leaves of dc/dt, without nuisance homeostasis."""
    rows = problem.rows
    node = NodeTable.of(model, highest).only(jnp.asarray(problem.structure.moving, highest.dtype))
    homeostasis = jnp.einsum("et,eti->ti", rows.node_weight, node(rows.concentration))
    # A basis of zeros gives theta = 0, without a special case in `normal_equations`.
    rows = dataclasses.replace(rows, derivative=rows.derivative - homeostasis, basis=jnp.zeros_like(rows.basis))
    return dataclasses.replace(problem, rows=rows)


def _log_loss(model: MetabolismModel, problem: Problem, highest: Float[Array, " species"]) -> Float[Array, ""]:
    """Log of the unexplained share of dc/dt, with rate constants projected out."""
    misfit = projected_misfit(model.mlp_sub, _without_homeostasis(model, problem, highest))
    # The denominator is constant: the total sum of squares makes the loss the unexplained share of dc/dt.
    return jnp.log(misfit / jnp.sum(problem.rows.full_weight * problem.rows.derivative**2))


@eqx.filter_jit
def _solve(
    model: MetabolismModel, problem: Problem, highest: Float[Array, " species"]
) -> tuple[Float[Array, " reactions"], Float[Array, "reactions reactions"], Float[Array, " reactions"]]:
    """The least-squares rate constants, and matrix and scale of their normal equations."""
    fitted = fit_linear(model.mlp_sub, _without_homeostasis(model, problem, highest))
    return fitted.k, fitted.equations.matrix, fitted.equations.scale
