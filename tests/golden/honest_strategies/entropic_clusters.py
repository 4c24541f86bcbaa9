"""A clustering penalty on the embeddings: soft assignments of low entropy to balanced clusters."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from pydantic import Field

from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.strategies.base import Part, Strategy
from metabolismgraph.homeostasis.training_plan import Penalty, Plan
from metabolismgraph.system.model import MetabolismModel

EPS = 1e-12


class Entropic(Penalty):
    """Conditional minus marginal entropy of soft k-means assignments (mutual information of species and cluster)."""

    first: Float[Array, "clusters dim"]
    moving: Float[Array, " species"]
    temperature: Float[Array, ""]
    weight: Float[Array, ""]

    @property
    def name(self) -> str:
        return "entropic"

    def __call__(self, model: MetabolismModel) -> Float[Array, ""]:
        x = model.embeddings

        def assign(centres):
            d = jnp.sum((x[:, None, :] - centres[None, :, :]) ** 2, axis=-1)
            return jax.nn.softmax(-d / self.temperature, axis=1) * self.moving[:, None]

        def update(centres, _):
            p = assign(centres)
            new = (p.T @ x) / (p.sum(axis=0)[:, None] + EPS)
            return new, None

        spread = jnp.std(x, axis=0) + 1e-6
        centres, _ = jax.lax.scan(update, self.first * spread + jnp.mean(x, axis=0), None, length=5)
        p = assign(jax.lax.stop_gradient(centres))
        n = jnp.maximum(self.moving.sum(), 1.0)
        conditional = -jnp.sum(p * jnp.log(p + EPS)) / n
        marginal = p.sum(axis=0) / n
        balance = -jnp.sum(marginal * jnp.log(marginal + EPS))
        return self.weight * (conditional - 0.5 * balance)


class EntropicClusters(Strategy):
    """Pull embeddings towards a few clusters without saying which species belongs to which."""

    number: ClassVar = 21
    summary: ClassVar = "soft assignments of embeddings to clusters, of low entropy"
    reference: ClassVar = "Krause et al. 2010 (regularised information maximisation)"
    adjusts: ClassVar[frozenset[Part]] = frozenset({"penalties", "embeddings_wait"})

    clusters: int = Field(3, ge=2, le=8, description="number of clusters")
    temperature: float = Field(0.5, gt=0, description="softness of the assignment")
    weight: float = Field(0.01, ge=0, description="of the penalty")
    wait: float = Field(0.4, ge=0, lt=1, description="share of the training during which embeddings are constant")

    def apply(self, plan: Plan, data: Phase2Data) -> Plan:
        dim = data.graph_model.embedding_dim
        angles = 2.0 * np.pi * np.arange(self.clusters) / self.clusters
        first = np.zeros((self.clusters, dim))
        first[:, 0] = np.cos(angles)
        if dim > 1:
            first[:, 1] = np.sin(angles)
        term = Entropic(
            first=jnp.asarray(first),
            moving=jnp.asarray(data.moving, dtype=jnp.float64),
            temperature=jnp.asarray(self.temperature),
            weight=jnp.asarray(self.weight),
        )
        schedule = dataclasses.replace(plan.schedule, embeddings_wait=self.wait)
        return dataclasses.replace(plan, penalties=plan.penalties + (term,), schedule=schedule)
