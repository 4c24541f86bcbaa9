"""Strategy 3: label-free contrastive loss on the embeddings."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from pydantic import Field

from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.strategies.base import Part, Strategy
from metabolismgraph.homeostasis.training_plan import Penalty, Plan
from metabolismgraph.system.model import MetabolismModel

_GRID = 16  # concentrations at which response curves are compared
# Response curves that differ by less than this share of their typical norm count as equal.
_RESOLUTION = 0.05


class Similarity(Penalty):
    """Attract embeddings of species with equal response curves, repel others up to a distance of one.

    The mean over pairs of w |a_i - a_j|^2 + (1 - w) max(0, 1 - |a_i - a_j|)^2, with w = exp(-|R_i - R_j|^2 / (2 h^2)).
    h is a quarter of the median distance of two curves, with a lower bound. No gradient passes through w.

    Attributes:
        grid: concentrations at which curves are compared.
        unit: unit of the curves, in concentration/time.
        informed: True for species with entries in use.
        weight: of the term in the loss.
    """

    grid: Float[Array, " grid"]
    unit: Float[Array, ""]
    informed: Bool[Array, " species"]
    weight: Float[Array, ""]

    @property
    def name(self) -> str:
        return "similarity"

    def __call__(self, model: MetabolismModel) -> Float[Array, ""]:
        n = len(self.informed)
        curves = model.homeostasis(jnp.broadcast_to(self.grid[:, None], (len(self.grid), n))).T / self.unit
        pairs = (self.informed[:, None] & self.informed[None, :] & ~jnp.eye(n, dtype=bool)).astype(curves.dtype)
        distance = jnp.sqrt(_squared_distances(curves))
        typical = jnp.sqrt(jnp.mean(jnp.sum(curves**2, axis=1)))
        width = jnp.maximum(_masked_median(distance, pairs) / 4, _RESOLUTION / 2 * typical) + 1e-12
        # With a gradient through w, the loss could be reduced by making response curves different, against the data.
        w = jax.lax.stop_gradient(jnp.exp(-0.5 * (distance / width) ** 2))
        apart = _squared_distances(model.embeddings)
        # The derivative of sqrt is infinite at zero distance, hence the small constant.
        push = jax.nn.relu(1.0 - jnp.sqrt(apart + 1e-12)) ** 2
        total = jnp.sum(pairs * (w * apart + (1 - w) * push)) / jnp.maximum(jnp.sum(pairs), 1.0)
        return self.weight * total


def _squared_distances(x: Float[Array, "n dim"]) -> Float[Array, "n n"]:
    return jnp.sum((x[:, None] - x[None]) ** 2, axis=-1)


def _masked_median(values: Float[Array, "n n"], mask: Float[Array, "n n"]) -> Float[Array, ""]:
    return jnp.nan_to_num(jnp.nanmedian(jnp.where(mask > 0, values, jnp.nan)))


class Contrastive(Strategy):
    """Species with equal learned response curves get equal embeddings, others different ones; without labels."""

    number: ClassVar = 3
    summary: ClassVar = "equal response curves, equal embeddings; no labels"
    reference: ClassVar = "Chen et al. 2020 (SimCLR); Grill et al. 2020 (BYOL)"
    adjusts: ClassVar[frozenset[Part]] = frozenset({"penalties", "embeddings_wait"})

    wait: float = Field(0.4, ge=0, lt=1, description="share of the training during which embeddings are constant")

    def apply(self, plan: Plan, data: Phase2Data) -> Plan:
        residuals = plan.residuals
        term = Similarity(
            grid=jnp.asarray(np.quantile(residuals.at[residuals.keep], (np.arange(_GRID) + 0.5) / _GRID)),
            unit=jnp.asarray(residuals.unit),
            informed=jnp.asarray(residuals.keep.any(axis=0)),
            weight=jnp.asarray(data.training.coeff_similarity),
        )
        # Before MLP_node is trained, all curves are equal, and the loss would attract all embeddings to one point.
        schedule = dataclasses.replace(plan.schedule, embeddings_wait=self.wait)
        return dataclasses.replace(plan, penalties=(*plan.penalties, term), schedule=schedule)
