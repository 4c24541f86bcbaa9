"""Strategy 3: label-free contrastive loss on the embeddings."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from pydantic import Field

from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.species_blocks import divide
from metabolismgraph.homeostasis.strategies.base import Part, Strategy
from metabolismgraph.homeostasis.training_plan import Penalty, Plan
from metabolismgraph.system.model import MetabolismModel

_GRID = 16  # concentrations at which response curves are compared
# Response curves that differ by less than this share of their typical norm count as equal.
_RESOLUTION = 0.05
_FOR_WIDTH = 46  # species for the median distance of their pairs, which takes a sort at every step


class Similarity(Penalty):
    """Attract embeddings of species with equal response curves, repel others up to a distance of one.

    The mean over pairs of w |a_i - a_j|^2 + (1 - w) max(0, 1 - |a_i - a_j|)^2, with w = exp(-|R_i - R_j|^2 / (2 h^2)).
    h is a quarter of the median distance of two curves, with a lower bound. No gradient passes through w. Of more
    than 128 species a random part of the pairs is compared.

    Attributes:
        grid: concentrations at which curves are compared.
        unit: unit of the curves, in concentration/time.
        blocks: species of each block, see `divide`.
        weight: of the term in the loss.
    """

    grid: Float[Array, " grid"]
    unit: Float[Array, ""]
    blocks: Int[Array, "blocks size"]
    weight: Float[Array, ""]

    @property
    def name(self) -> str:
        return "similarity"

    def __call__(self, model: MetabolismModel) -> Float[Array, ""]:
        if self.blocks.shape[1] < 2:
            return jnp.zeros(())
        # With a gradient through w, the loss could be reduced by making response curves different, against the data.
        still = jax.lax.stop_gradient(model)
        grid = jnp.broadcast_to(self.grid[:, None], (len(self.grid), len(model.embeddings)))
        curves = still.homeostasis(grid).T / self.unit
        distance = jnp.sqrt(_squared_distances(curves, self.blocks))
        typical = jnp.sqrt(jnp.mean(jnp.sum(curves**2, axis=1)))
        # Padding is at the end of a block, and blocks have at least half their largest size.
        some = np.triu_indices(min(self.blocks.shape[1], _FOR_WIDTH), 1)
        width = jnp.maximum(jnp.median(distance[0][some]) / 4, _RESOLUTION / 2 * typical) + 1e-12
        w = jnp.exp(-0.5 * (distance / width) ** 2)
        apart = _squared_distances(model.embeddings, self.blocks)
        # The derivative of sqrt is infinite at zero distance, hence the small constant.
        push = jax.nn.relu(1.0 - jnp.sqrt(apart + 1e-12)) ** 2
        there = self.blocks < len(model.embeddings)
        pairs = there[:, :, None] & there[:, None, :] & ~jnp.eye(self.blocks.shape[1], dtype=bool)
        return self.weight * jnp.mean(w * apart + (1 - w) * push, where=pairs)


def _squared_distances(
    x: Float[Array, "species dim"], blocks: Int[Array, "blocks size"]
) -> Float[Array, "blocks size size"]:
    own = x[jnp.minimum(blocks, len(x) - 1)]
    return jnp.sum((own[:, :, None] - own[:, None]) ** 2, axis=-1)


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
            blocks=jnp.asarray(divide(np.asarray(residuals.keep.any(axis=0)), data.training.seed)),
            weight=jnp.asarray(data.training.coeff_similarity),
        )
        # Before MLP_node is trained, all curves are equal, and the loss would attract all embeddings to one point.
        schedule = dataclasses.replace(plan.schedule, embeddings_wait=self.wait)
        return dataclasses.replace(plan, penalties=(*plan.penalties, term), schedule=schedule)
