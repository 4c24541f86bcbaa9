"""Stochastic weight averaging: further gradient steps after the training, whose iterates are averaged."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from pydantic import Field

from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.strategies.base import Part, Strategy
from metabolismgraph.homeostasis.training_plan import Objective, Plan
from metabolismgraph.system.model import MetabolismModel
from metabolismgraph.system.progress import Progress


def _average(objective: Objective, rate: float, steps: int, key: jax.Array):
    """A function that continues the descent with a constant rate and returns the mean of the iterates."""

    def finish(model: MetabolismModel, progress: Progress):
        trainable = (model.mlp_node.perceptron, model.mlp_node.slope, model.mlp_node.offset, model.embeddings)

        def with_parameters(p):
            return eqx.tree_at(
                lambda m: (m.mlp_node.perceptron, m.mlp_node.slope, m.mlp_node.offset, m.embeddings), model, p
            )

        optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(rate, momentum=0.9))

        def loss(p, k):
            value = objective(with_parameters(p), k, jnp.asarray(1.0))
            return value.value, value.misfit

        def step(carry, k):
            p, state, mean, n = carry
            (_, misfit), gradient = jax.value_and_grad(loss, has_aux=True)(p, k)
            updates, state = optimiser.update(gradient, state, p)
            p = optax.apply_updates(p, updates)
            mean = jax.tree.map(lambda m, x: m + (x - m) / (n + 1), mean, p)
            return (p, state, mean, n + 1), misfit

        @jax.jit
        def run(p, keys):
            return jax.lax.scan(step, (p, optimiser.init(p), p, jnp.asarray(1.0)), keys)

        (_, _, mean, _), misfits = run(trainable, jax.random.split(key, steps))
        progress("phase 2", 0.95, f"averaged {steps} iterates")
        return with_parameters(mean), np.asarray(misfits)

    return finish


class WeightAveraging(Strategy):
    """Average the weights over the last steps, which lie around the minimum, instead of taking the last of them."""

    number: ClassVar = 14
    summary: ClassVar = "average the weights over further steps at the end"
    reference: ClassVar = "Izmailov et al. 2018 (stochastic weight averaging)"
    adjusts: ClassVar[frozenset[Part]] = frozenset({"finish"})

    steps: int = Field(50, ge=1, le=1000, description="further gradient steps to average over")
    rate: float = Field(1e-3, gt=0, description="learning rate of these steps")

    def apply(self, plan: Plan, data: Phase2Data) -> Plan:
        before = plan.finish
        average = _average(plan.objective, self.rate, self.steps, data.key(141))

        def finish(model, progress):
            model, first = before(model, progress)
            model, second = average(model, progress)
            return model, np.concatenate([first, second])

        return dataclasses.replace(plan, finish=finish)
