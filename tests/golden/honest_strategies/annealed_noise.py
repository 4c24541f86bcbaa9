"""Noise on the embeddings that is annealed to zero during the training."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import Field

from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.strategies.base import Part, Strategy
from metabolismgraph.homeostasis.training_plan import Loss, Objective, Plan
from metabolismgraph.system.model import MetabolismModel


class Noisy(Objective):
    """Another objective, evaluated with noisy embeddings."""

    inner: Objective
    sigma: Float[Array, ""]
    until: Float[Array, ""]

    @property
    def unit(self) -> str:
        return self.inner.unit

    def __call__(self, model: MetabolismModel, key: PRNGKeyArray, share: Float[Array, ""]) -> Loss:
        noise_key, inner_key = jax.random.split(key)
        left = jnp.clip(1.0 - share / self.until, 0.0, 1.0)
        noise = self.sigma * left * jax.random.normal(noise_key, model.embeddings.shape)
        noisy = eqx.tree_at(lambda m: m.embeddings, model, model.embeddings + noise)
        loss = self.inner(noisy, inner_key, share)
        return Loss(loss.value, loss.misfit, {**loss.parts, "embedding_noise": self.sigma * left})


def _jitter(scale, key):
    def start(model):
        shift = scale * jax.random.normal(key, model.embeddings.shape)
        return eqx.tree_at(lambda m: m.embeddings, model, model.embeddings + shift)

    return start


class AnnealedNoise(Strategy):
    """Perturb embeddings in every step, less and less, so that they do not settle in poor minima."""

    number: ClassVar = 20
    summary: ClassVar = "noise on the embeddings, annealed to zero"
    reference: ClassVar = "Neelakantan et al. 2015 (gradient noise); Geman & Geman 1984 (annealing)"
    adjusts: ClassVar[frozenset[Part]] = frozenset({"objective", "start"})

    sigma: float = Field(0.1, ge=0, le=2, description="standard deviation of the noise at the start")
    until: float = Field(0.7, gt=0, le=1, description="share of the training after which there is no noise")

    def apply(self, plan: Plan, data: Phase2Data) -> Plan:
        before, jitter = plan.start, _jitter(0.1 * self.sigma, data.key(20))
        objective = Noisy(inner=plan.objective, sigma=jnp.asarray(self.sigma), until=jnp.asarray(self.until))
        return dataclasses.replace(plan, objective=objective, start=lambda model: jitter(before(model)))
