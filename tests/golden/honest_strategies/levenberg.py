"""A Levenberg-Marquardt finish on the binned residual."""

from __future__ import annotations

import dataclasses
import functools
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from pydantic import Field

from metabolismgraph.homeostasis.binned_regression import Points, Regress, condense, start_from_line
from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.strategies.base import Part, Strategy
from metabolismgraph.homeostasis.training_plan import Plan, Schedule
from metabolismgraph.system.model import MetabolismModel
from metabolismgraph.system.progress import Progress


def _parameters(model: MetabolismModel) -> list[Array]:
    node = model.mlp_node
    return [node.slope, node.offset, *node.perceptron.weights, *node.perceptron.biases]


def _with_parameters(model: MetabolismModel, values: list[Array]) -> MetabolismModel:
    return eqx.tree_at(_parameters, model, values)


def _unravel(flat: Array, like: list[Array]) -> list[Array]:
    sizes = np.cumsum([x.size for x in like])[:-1]
    return [part.reshape(x.shape) for part, x in zip(jnp.split(flat, sizes), like)]


@eqx.filter_jit
def _step(flat: Array, model: MetabolismModel, points: Points, damping: Array) -> tuple[Array, Array, Array]:
    """One damped Gauss-Newton step: the proposed parameters, the loss before, and the loss after."""
    like = _parameters(model)

    def errors(x: Array) -> Array:
        trial = _with_parameters(model, _unravel(x, like))
        e = trial.homeostasis(points.c.T).T / points.unit - points.residual
        return (jnp.sqrt(points.weight / jnp.sum(points.weight)) * e).ravel()

    e = errors(flat)
    jacobian = jax.jacrev(errors)(flat)
    # Fewer points than parameters: the step by the smaller of the two normal matrices.
    small = jacobian @ jacobian.T
    new = flat - jacobian.T @ jnp.linalg.solve(small + damping * jnp.eye(len(small)), e)
    return new, jnp.sum(e**2), jnp.sum(errors(new) ** 2)


def _finish(
    model: MetabolismModel, progress: Progress, points: Points, iterations: int
) -> tuple[MetabolismModel, Float[np.ndarray, " iterations"]]:
    like = _parameters(model)
    flat = jnp.concatenate([x.ravel() for x in like])
    damping, losses = 1e-2, []
    for i in range(iterations):
        new, before, after = _step(flat, model, points, jnp.asarray(damping))
        if bool(jnp.isfinite(after)) and float(after) < float(before):
            flat, damping = new, max(damping / 3, 1e-9)
            losses.append(float(after))
            if float(before) - float(after) < 1e-9 * float(before):
                break
        else:
            damping *= 5
            if damping > 1e6:
                break
        progress("phase 2", 0.8 + 0.2 * i / iterations, f"Levenberg-Marquardt iteration {i + 1}")
    return _with_parameters(model, _unravel(flat, like)), np.array(losses) * float(points.unit) ** 2


class Levenberg(Strategy):
    """Residual regression that ends with damped Gauss-Newton steps over all parameters of MLP_node."""

    number: ClassVar = 22
    summary: ClassVar = "residual regression with a Levenberg-Marquardt finish"
    reference: ClassVar = "Marquardt 1963; Moré 1978"
    sets: ClassVar[frozenset[Part]] = frozenset({"objective"})
    adjusts: ClassVar[frozenset[Part]] = frozenset({"steps", "schedule", "embeddings_wait", "start", "finish"})

    iterations: int = Field(15, ge=0, le=200, description="damped Gauss-Newton steps at the end")

    def apply(self, plan: Plan, data: Phase2Data) -> Plan:
        points = condense(plan.residuals)
        return dataclasses.replace(
            plan,
            objective=Regress(points),
            steps=data.training.phase2_steps,
            schedule=Schedule("restarts", warmup=0.05, cycles=2, embeddings_wait=0.4),
            start=functools.partial(start_from_line, points=points),
            finish=functools.partial(_finish, points=points, iterations=self.iterations),
        )
