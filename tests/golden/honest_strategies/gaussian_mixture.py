"""Lines of homeostasis shrunk towards groups that are found from the residuals by expectation maximisation."""

from __future__ import annotations

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from pydantic import Field

from metabolismgraph.homeostasis.residuals import Phase2Data, Residuals
from metabolismgraph.homeostasis.strategies.base import Part, Strategy
from metabolismgraph.homeostasis.training_plan import Penalty, Plan
from metabolismgraph.system.model import MetabolismModel


@functools.partial(jax.jit, static_argnames=("iterations",))
def _fit_mixture(x: Float[Array, "n dim"], centres: Float[Array, "k dim"], width: Array, iterations: int = 30) -> Array:
    """Responsibilities of every species after some iterations of expectation maximisation."""

    def expectation(centres):
        return jax.nn.softmax(-jnp.sum((x[:, None] - centres) ** 2, axis=-1) / (2 * width**2), axis=1)

    def body(_, centres):
        p = expectation(centres)
        return (p.T @ x) / (jnp.sum(p, axis=0)[:, None] + 1e-9)

    return expectation(jax.lax.fori_loop(0, iterations, body, centres))


class Shrinkage(Penalty):
    """Squared distance of the embeddings of a species from the mean of its group."""

    responsibility: Float[Array, "species groups"]
    weight: Float[Array, ""]

    @property
    def name(self) -> str:
        return "shrinkage"

    def __call__(self, model: MetabolismModel) -> Float[Array, ""]:
        p, a = self.responsibility, model.embeddings
        means = (p.T @ a) / (p.sum(axis=0)[:, None] + 1e-9)
        return self.weight * jnp.mean(jnp.sum((a - p @ means) ** 2, axis=-1))


def _standardised(lines: Residuals) -> np.ndarray:
    x = np.stack([lines.slope, lines.offset], axis=1)
    centre = np.median(x, axis=0)
    scale = np.percentile(np.abs(x - centre), 75, axis=0)
    return np.clip((x - centre) / np.where(scale > 0, scale, 1.0), -3, 3)


class GaussianMixture(Strategy):
    """Groups of species from their residual lines pull their embeddings together; no labels."""

    number: ClassVar = 26
    summary: ClassVar = "pull embeddings of species with similar residual lines together"
    reference: ClassVar = "Dempster, Laird & Rubin 1977 (EM)"
    adjusts: ClassVar[frozenset[Part]] = frozenset({"penalties"})

    groups: int = Field(4, ge=1, le=16, description="number of groups")
    width: float = Field(0.5, gt=0, description="standard deviation of a group")
    weight: float = Field(0.1, ge=0, description="of the penalty")

    def apply(self, plan: Plan, data: Phase2Data) -> Plan:
        x = _standardised(plan.residuals)
        moving = data.moving.nonzero()[0]
        order = np.argsort(x[moving, 0])
        picks = moving[order[np.linspace(0, len(order) - 1, self.groups).astype(int)]]
        p = _fit_mixture(jnp.asarray(x), jnp.asarray(x[picks]), jnp.asarray(self.width), iterations=20)
        p = jax.tree.map(np.asarray, p) * data.moving[:, None]
        term = Shrinkage(responsibility=jnp.asarray(p), weight=jnp.asarray(self.weight))
        return dataclasses.replace(plan, penalties=(*plan.penalties, term))
