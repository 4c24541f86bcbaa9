"""L-BFGS of optax on rollouts of fixed starts at the end of the training."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from pydantic import Field

from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.strategies.base import Part, Strategy
from metabolismgraph.homeostasis.training_plan import Plan


def is_trainable(model: Any) -> Any:
    """A mask that is True for MLP_node, apart from its standardisation, and False for everything else."""
    frozen = jax.tree.map(lambda _: False, model)
    node = jax.tree.map(lambda _: True, model.mlp_node)
    node = eqx.tree_at(lambda n: (n.center, n.width, n.unit), node, (False, False, False))
    return eqx.tree_at(lambda m: m.mlp_node, frozen, node)


class LbfgsFinish(Strategy):
    """Minimise the loss of the last minibatches by L-BFGS after the gradient steps; keep the better model."""

    number: ClassVar = 23
    summary: ClassVar = "L-BFGS on fixed minibatches after the gradient steps"
    reference: ClassVar = "Liu & Nocedal 1989 (L-BFGS)"
    adjusts: ClassVar[frozenset[Part]] = frozenset({"finish"})

    iterations: int = Field(10, ge=1, le=100, description="iterations of L-BFGS")
    batches: int = Field(2, ge=1, le=32, description="minibatches whose mean loss is minimised")

    def apply(self, plan: Plan, data: Phase2Data) -> Plan:
        objective, penalties, earlier = plan.objective, plan.penalties, plan.finish
        keys = jax.random.split(data.key(23), self.batches)
        iterations = self.iterations

        def finish(model, progress):
            model, losses = earlier(model, progress)
            parameters, constants = eqx.partition(model, is_trainable(model))
            optimiser = optax.lbfgs(memory_size=10)

            def loss(p):
                whole = eqx.combine(p, constants)
                values = jax.lax.map(lambda k: objective(whole, k, jnp.asarray(1.0)).value, keys)
                return jnp.mean(values) + sum(penalty(whole) for penalty in penalties)

            value_and_grad = optax.value_and_grad_from_state(loss)

            @eqx.filter_jit
            def step(p, state):
                value, grad = value_and_grad(p, state=state)
                updates, state = optimiser.update(grad, state, p, value=value, grad=grad, value_fn=loss)
                return optax.apply_updates(p, updates), state, value

            state, history = optimiser.init(parameters), []
            best, best_value = parameters, np.inf
            for i in range(iterations):
                new, state, value = step(parameters, state)
                if not np.isfinite(value):
                    break
                if value < best_value:
                    best, best_value = parameters, float(value)
                history.append(float(value))
                parameters = new
                progress("phase 2", 0.8 + 0.2 * (i + 1) / iterations, f"L-BFGS: {float(value):.3e}")
            return eqx.combine(best, constants), np.concatenate([losses, np.array(history)])

        return dataclasses.replace(plan, finish=finish)
