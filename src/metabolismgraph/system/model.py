"""The graph network: rate constants on reaction nodes, MLP_sub on edges, MLP_node and embeddings on species."""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from metabolismgraph.config import GraphModel
from metabolismgraph.system.kinetics import (
    Aggregation,
    Structure,
    aggregate,
    log_factors,
    pair_concentrations,
    reaction_rates,
)

_RAW_SPREAD = 0.1  # standard deviation of the untrained network's output where its input is raw
_SOFTPLUS_IS_EXP = -15.0


class Perceptron(eqx.Module):
    """Fully connected tanh network; hidden weights are random, the last layer starts at zero."""

    weights: list[Float[Array, "inputs outputs"]]
    biases: list[Float[Array, " outputs"]]

    def __init__(self, sizes: Sequence[int], key: PRNGKeyArray):
        keys = jax.random.split(key, len(sizes) - 1)
        self.weights = [
            jax.random.normal(k, (a, b)) / jnp.sqrt(a) for k, a, b in zip(keys, sizes[:-1], sizes[1:], strict=True)
        ]
        self.biases = [jnp.zeros(b) for b in sizes[1:]]
        self.weights[-1] = jnp.zeros_like(self.weights[-1])

    def hidden(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch units"]:
        """Output of the last hidden layer."""
        for w, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = jnp.tanh(x @ w + b)
        return x

    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        return self.hidden(x) @ self.weights[-1] + self.biases[-1]


class SubstrateFunction(eqx.Module):
    """MLP_sub: log f(c, |s|), a network of log c with a linear skip path, shared by all reactions.

    The skip path makes a power law a straight line. The scale gauge between f and k is fixed by
    construction: f is that of mass action, c^|s|, at one reference concentration. So k is the rate constant
    of mass action there. The reference is 1, or another power of ten where the data are far from 1: a
    gauge at 1 mol/l would hang on extrapolation over nine decades if concentrations are nanomolar.

    Attributes:
        skip: slopes of the skip path: of |s| log c and of log c.
        center, width: mean and standard deviation of log c in the data; constants, never trained.
        reference: log of the reference concentration; a constant.
    """

    perceptron: Perceptron
    skip: Float[Array, " 2"]
    center: Float[Array, ""]
    width: Float[Array, ""]
    reference: Float[Array, ""]

    def __init__(self, hidden: int, layers: int, center: float, width: float, key: PRNGKeyArray):
        self.perceptron = Perceptron([2, *[hidden] * (layers - 1), 1], key)
        self.skip = jnp.zeros(2)
        self.center = jnp.asarray(center)
        self.width = jnp.asarray(width)
        self.reference = jnp.zeros(())

    def __call__(self, log_c: Float[Array, "*batch"], order: Float[Array, "*#batch"]) -> Float[Array, "*batch"]:
        """log f at log concentrations `log_c` for substrate orders `order` (same shape, or broadcast)."""
        order = jnp.broadcast_to(order, log_c.shape)
        beyond = log_c - self.reference
        linear = self.skip[0] * order * beyond + self.skip[1] * beyond
        at_reference = self._raw(jnp.full_like(order, self.reference), order)
        return order * self.reference + linear + self._raw(log_c, order) - at_reference

    def _raw(self, log_c: Float[Array, "*batch"], order: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        x = jnp.stack([(log_c - self.center) / self.width, order - 1.0], axis=-1)
        return self.perceptron(x)[..., 0]


class RawSubstrateFunction(eqx.Module):
    """MLP_sub as published: f(c, |s|) = softplus of a network of the concentration itself.

    Nothing makes f a power law, rising, or 1 at c = 1: that is left to the data and to penalties.

    Attributes:
        center, width: mean and standard deviation of c in the data; constants, never trained.
        gauge: log f(1, 1) of the network, subtracted so that f(1, 1) = 1; zero while it is trained.
    """

    perceptron: Perceptron
    center: Float[Array, ""]
    width: Float[Array, ""]
    gauge: Float[Array, ""]

    def __init__(self, hidden: int, layers: int, center: float, width: float, key: PRNGKeyArray):
        network_key, last_key = jax.random.split(key)
        perceptron = Perceptron([2, *[hidden] * (layers - 1), 1], network_key)
        last = _RAW_SPREAD * jax.random.normal(last_key, (hidden, 1)) / jnp.sqrt(hidden)
        # softplus(log(e - 1)) = 1
        bias = jnp.full(1, jnp.log(jnp.expm1(1.0)))
        self.perceptron = eqx.tree_at(lambda p: (p.weights[-1], p.biases[-1]), perceptron, (last, bias))
        self.center = jnp.asarray(center)
        self.width = jnp.asarray(width)
        self.gauge = jnp.zeros(())

    def __call__(self, log_c: Float[Array, "*batch"], order: Float[Array, "*#batch"]) -> Float[Array, "*batch"]:
        """log f at log concentrations `log_c` for substrate orders `order` (same shape, or broadcast)."""
        order = jnp.broadcast_to(order, log_c.shape)
        x = jnp.stack([(jnp.exp(log_c) - self.center) / self.width, order - 1.0], axis=-1)
        y = self.perceptron(x)[..., 0]
        # Far below zero softplus(y) is exp(y), and would round to zero.
        return (
            jnp.where(y < _SOFTPLUS_IS_EXP, y, jnp.log(jax.nn.softplus(jnp.maximum(y, _SOFTPLUS_IS_EXP)))) - self.gauge
        )


AnySubstrateFunction = SubstrateFunction | RawSubstrateFunction


def new_substrate_function(
    graph_model: GraphModel, c: Float[np.ndarray, " values"], key: PRNGKeyArray
) -> AnySubstrateFunction:
    """MLP_sub with random weights, of the kind that `graph_model.substrate_input` names.

    Args:
        c: concentrations > 0 by which its input is standardised; may be empty.
    """
    raw = graph_model.substrate_input == "raw"
    x = (c if raw else np.log(c)) if c.size else np.zeros(1)
    kind = RawSubstrateFunction if raw else SubstrateFunction
    center, width = float(x.mean()), max(float(x.std()), 1e-6)
    return kind(graph_model.hidden_dim_sub, graph_model.n_layers_sub, center, width, key)


def empty_substrate_function(graph_model: GraphModel) -> AnySubstrateFunction:
    """MLP_sub of the right shapes, for a checkpoint to be read into."""
    return new_substrate_function(graph_model, np.zeros(0), jax.random.key(0))


class NodeFunction(eqx.Module):
    """MLP_node: homeostatic dc/dt of a species from its concentration and its embedding.

    As in MLP_sub the network is a correction to a skip path, here a straight line in c whose slope
    and offset are affine in the embedding: beyond the observed concentrations a line goes on, where
    tanh units would go flat.

    Attributes:
        slope, offset: of the skip path, per embedding dimension and, last, independent of it; in the
            network's own units.
        center, width: of the concentrations in the data; `unit`: rms of the residual it is to explain,
            so that the network's own output is of order one. Constants, never trained.
    """

    perceptron: Perceptron
    slope: Float[Array, " dim_and_one"]
    offset: Float[Array, " dim_and_one"]
    center: Float[Array, ""]
    width: Float[Array, ""]
    unit: Float[Array, ""]

    def __init__(
        self,
        hidden: int,
        layers: int,
        embedding_dim: int,
        key: PRNGKeyArray,
        *,
        center: float = 0.0,
        width: float = 1.0,
        unit: float = 1.0,
    ):
        self.perceptron = Perceptron([1 + embedding_dim, *[hidden] * (layers - 1), 1], key)
        self.slope = jnp.zeros(embedding_dim + 1)
        self.offset = jnp.zeros(embedding_dim + 1)
        self.center = jnp.asarray(center)
        self.width = jnp.asarray(width)
        self.unit = jnp.asarray(unit)

    def __call__(self, c: Float[Array, "*batch"], embedding: Float[Array, "*batch dim"]) -> Float[Array, "*batch"]:
        """dc/dt in concentration per time."""
        line, correction = self.parts(c, embedding)
        return line + correction

    def parts(
        self, c: Float[Array, "*batch"], embedding: Float[Array, "*batch dim"]
    ) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
        """The straight line, and what the network adds to it, in concentration per time."""
        z = (c - self.center) / self.width
        slope, offset = self.line(embedding)
        correction = self.perceptron(jnp.concatenate([z[..., None], embedding], axis=-1))[..., 0]
        return slope * c + offset, self.unit * correction

    def line(self, embedding: Float[Array, "*batch dim"]) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
        """Slope (1/time) and offset (concentration/time) of the straight line."""
        slope = (embedding @ self.slope[:-1] + self.slope[-1]) * self.unit / self.width
        offset = (embedding @ self.offset[:-1] + self.offset[-1]) * self.unit
        return slope, offset - slope * self.center


class MetabolismModel(eqx.Module):
    """The whole model; everything that a checkpoint holds.

    Attributes:
        log_k: log10 of the rate constants.
        embeddings: one point per species.
        aggregation: "mul" or "add", see `kinetics`.
    """

    log_k: Float[Array, " reactions"]
    mlp_sub: AnySubstrateFunction
    mlp_node: NodeFunction
    embeddings: Float[Array, "species dim"]
    aggregation: Aggregation = eqx.field(static=True)

    def substrate_factors(
        self, c: Float[Array, "*batch species"], structure: Structure
    ) -> Float[Array, "*batch reactions"]:
        """V_j: what multiplies k_j in the flux."""
        log_c, present = pair_concentrations(c, structure)
        return aggregate(log_factors(self.mlp_sub, log_c, structure), present, structure, self.aggregation)

    def reactions(self, c: Float[Array, "*batch species"], structure: Structure) -> Float[Array, "*batch species"]:
        """dc/dt by the reactions alone; the part that Phase 2 holds frozen."""
        return reaction_rates(10.0**self.log_k * self.substrate_factors(c, structure), structure)

    def homeostasis(self, c: Float[Array, "*batch species"]) -> Float[Array, "*batch species"]:
        """dc/dt by homeostasis alone."""
        return self.mlp_node(c, jnp.broadcast_to(self.embeddings, (*c.shape, self.embeddings.shape[-1])))

    def __call__(self, c: Float[Array, "*batch species"], structure: Structure) -> Float[Array, "*batch species"]:
        """dc/dt in concentration per time; zero for fixed species."""
        return self.reactions(c, structure) + jnp.where(structure.moving, self.homeostasis(c), 0.0)
