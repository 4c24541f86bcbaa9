"""The graph network: rate constants on reaction nodes, MLP_sub on edges, MLP_node and embeddings on species."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metabolismgraph.config import GraphModel
from metabolismgraph.system.arrays import on_device
from metabolismgraph.system.kinetics import (
    SMALLEST_OUTPUT,
    Aggregation,
    AnyArray,
    Structure,
    aggregate,
    aggregate_published,
    array_library,
    log_factors,
    pair_concentrations,
    reaction_rates,
)

_RAW_SPREAD = 0.1  # standard deviation of the output of an untrained network with raw input
_SOFTPLUS_IS_EXP = -15.0  # below it, softplus(y) = exp(y) up to a relative error of 2e-7


class Perceptron(eqx.Module):
    """Fully connected tanh network. Initially, hidden weights are random and the last layer is zero.

    This network and those below process NumPy arrays with NumPy, other arrays with JAX, see `array_library`.
    """

    weights: list[Float[Array, "inputs outputs"]]
    biases: list[Float[Array, " outputs"]]

    def __init__(self, sizes: Sequence[int], rng: np.random.Generator):
        hidden = [on_device(rng.normal(size=(a, b)) / np.sqrt(a)) for a, b in itertools.pairwise(sizes[:-1])]
        # The network starts as the zero function, with a nonzero gradient of its last layer.
        self.weights = [*hidden, on_device(np.zeros(sizes[-2:]))]
        self.biases = [on_device(np.zeros(b)) for b in sizes[1:]]

    def hidden(self, x: Float[AnyArray, "*batch inputs"]) -> Float[AnyArray, "*batch units"]:
        """Output of the last hidden layer."""
        xp = array_library(x, self.weights[-1])
        for w, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = xp.tanh(x @ xp.asarray(w) + xp.asarray(b))
        return x

    def __call__(self, x: Float[AnyArray, "*batch inputs"]) -> Float[AnyArray, "*batch outputs"]:
        xp = array_library(x, self.weights[-1])
        outputs: AnyArray = self.hidden(x) @ xp.asarray(self.weights[-1]) + xp.asarray(self.biases[-1])
        return outputs


class SubstrateFunction(eqx.Module):
    """MLP_sub: log f(c, |s|), a network of log c with a linear skip path, shared by all reactions.

    With the skip path alone, f is a power law over all decades of concentration. k and f can exchange a constant
    factor; it is fixed by construction: f = c^|s| at one reference concentration, where k is therefore the
    rate constant of mass action. The reference is 1, or another power of ten if the data are far from 1. For
    nanomolar concentrations, a reference of 1 mol/l would require extrapolation over nine decades.

    Attributes:
        perceptron: the network, of standardised log c and |s| - 1.
        skip: slopes of the skip path, of |s| log c and of log c.
        center, width: mean and standard deviation of log c in the data; constants, not trained.
        reference: log of the reference concentration; a constant.
    """

    perceptron: Perceptron
    skip: Float[Array, " 2"]
    center: Float[Array, ""]
    width: Float[Array, ""]
    reference: Float[Array, ""]

    def __init__(self, hidden: int, layers: int, center: float, width: float, rng: np.random.Generator):
        self.perceptron = Perceptron([2, *[hidden] * (layers - 1), 1], rng)
        self.skip = on_device(np.zeros(2))
        self.center = on_device(center)
        self.width = on_device(width)
        self.reference = on_device(0.0)

    def __call__(
        self, log_c: Float[AnyArray, "*batch"], order: Float[AnyArray, "*#batch"]
    ) -> Float[AnyArray, "*batch"]:
        """log f at log concentrations `log_c` for substrate orders `order` (same shape, or broadcast)."""
        xp = array_library(log_c, self.skip, self.perceptron.weights[-1])
        order = xp.asarray(order)
        skip, reference = xp.asarray(self.skip), xp.asarray(self.reference)
        # Every term except the first vanishes at the reference, so that log f = |s| log c there for any parameters.
        distance = log_c - reference
        linear = skip[0] * order * distance + skip[1] * distance
        # Once for each order given, not for each concentration.
        at_reference = self._raw(xp.full_like(order, reference), order)
        log_f: AnyArray = (
            order * reference + linear + self._raw(log_c, xp.broadcast_to(order, log_c.shape)) - at_reference
        )
        return log_f

    def with_exponent(self, exponent: float) -> SubstrateFunction:
        """The power law f = c^(p s) with exponent p, provided that the last layer of the network is zero."""
        changed: SubstrateFunction = eqx.tree_at(lambda f: f.skip, self, on_device([exponent, 0.0]))
        return changed

    def _raw(self, log_c: Float[AnyArray, "*batch"], order: Float[AnyArray, "*batch"]) -> Float[AnyArray, "*batch"]:
        """Output of the network, before the subtraction of its value at the reference."""
        xp = array_library(log_c, self.skip, self.perceptron.weights[-1])
        x: AnyArray = xp.stack([(log_c - xp.asarray(self.center)) / xp.asarray(self.width), order - 1.0], axis=-1)
        return self.perceptron(x)[..., 0]


class RawSubstrateFunction(eqx.Module):
    """MLP_sub as published (Allier 2026): f(c, |s|) = softplus of a network of the concentration itself.

    By construction f is neither a power law nor increasing nor 1 at c = 1; data and penalties must determine that.

    Attributes:
        perceptron: the network, of standardised c and |s| - 1.
        center, width: mean and standard deviation of c in the data; constants, not trained.
        gauge: log f(1, 1) of the network, subtracted so that f(1, 1) = 1; zero during training.
    """

    perceptron: Perceptron
    center: Float[Array, ""]
    width: Float[Array, ""]
    gauge: Float[Array, ""]

    def __init__(self, hidden: int, layers: int, center: float, width: float, rng: np.random.Generator):
        perceptron = Perceptron([2, *[hidden] * (layers - 1), 1], rng)
        last = on_device(_RAW_SPREAD * rng.normal(size=(hidden, 1)) / np.sqrt(hidden))
        # The initial f is close to 1: softplus(log(e - 1)) = 1.
        bias = on_device(np.full(1, np.log(np.expm1(1.0))))
        self.perceptron = eqx.tree_at(lambda p: (p.weights[-1], p.biases[-1]), perceptron, (last, bias))
        self.center = on_device(center)
        self.width = on_device(width)
        self.gauge = on_device(0.0)

    def __call__(
        self, log_c: Float[AnyArray, "*batch"], order: Float[AnyArray, "*#batch"]
    ) -> Float[AnyArray, "*batch"]:
        """log f at log concentrations `log_c` for substrate orders `order` (same shape, or broadcast)."""
        xp = array_library(log_c, self.perceptron.weights[-1])
        order = xp.broadcast_to(order, log_c.shape)
        x = xp.stack([(xp.exp(log_c) - xp.asarray(self.center)) / xp.asarray(self.width), order - 1.0], axis=-1)
        y = self.perceptron(x)[..., 0]
        # For y far below zero, softplus(y) = exp(y) would underflow, and its logarithm be -inf; log f = y there. The
        # maximum keeps the branch that is not selected finite, since NaN in it would spread to the gradient.
        softplus = xp.logaddexp(xp.maximum(y, _SOFTPLUS_IS_EXP), 0.0)
        log_f: AnyArray = xp.where(y < _SOFTPLUS_IS_EXP, y, xp.log(softplus)) - xp.asarray(self.gauge)
        return log_f


class PublishedSubstrateFunction(eqx.Module):
    """MLP_sub of a converted checkpoint of the published program (Allier 2026).

    The program puts a softplus around the product (or sum) of the outputs of MLP_sub over the substrates of a
    reaction, so that its flux is not a product of functions f; `aggregate_published` computes it from `output`.

    Attributes:
        perceptron: the network, of c and |s|.
        log_alpha: log of alpha, the absolute output at c = 1 and |s| = 1.
    """

    perceptron: Perceptron
    log_alpha: Float[Array, ""]

    def __init__(self, perceptron: Perceptron):
        self.perceptron = perceptron
        at_one = self.output(np.zeros(1), np.ones(1))[0]
        # As in the program, which corrects rate constants by log10(|alpha| + 1e-8) per substrate.
        self.log_alpha = on_device(np.log(np.abs(at_one) + SMALLEST_OUTPUT))

    def output(self, log_c: Float[AnyArray, "*batch"], order: Float[AnyArray, "*#batch"]) -> Float[AnyArray, "*batch"]:
        """Output of the network, of any sign; -inf as log concentration stands for c = 0."""
        xp = array_library(log_c, self.perceptron.weights[-1])
        x: AnyArray = xp.stack([xp.exp(log_c), xp.broadcast_to(order, log_c.shape)], axis=-1)
        return self.perceptron(x)[..., 0]

    def __call__(
        self, log_c: Float[AnyArray, "*batch"], order: Float[AnyArray, "*#batch"]
    ) -> Float[AnyArray, "*batch"]:
        """log f, with f = |output| / alpha, the factor inside the softplus; at least 1e-8 / alpha."""
        xp = array_library(log_c, self.perceptron.weights[-1])
        f = xp.maximum(xp.abs(self.output(log_c, order)), SMALLEST_OUTPUT)
        log_f: AnyArray = xp.log(f) - xp.asarray(self.log_alpha)
        return log_f


AnySubstrateFunction = SubstrateFunction | RawSubstrateFunction | PublishedSubstrateFunction


def new_substrate_function(
    graph_model: GraphModel, c: Float[np.ndarray, " values"], rng: np.random.Generator
) -> AnySubstrateFunction:
    """MLP_sub with random weights, of the kind that `graph_model.substrate_input` selects.

    Args:
        graph_model: section of the configuration.
        c: concentrations > 0, for the standardisation of the input; may be empty.
        rng: for the random weights.
    """
    if graph_model.substrate_input == "published":
        hidden = [graph_model.hidden_dim_sub] * (graph_model.n_layers_sub - 1)
        return PublishedSubstrateFunction(Perceptron([2, *hidden, 1], rng))
    raw = graph_model.substrate_input == "raw"
    x = (c if raw else np.log(c)) if c.size else np.zeros(1)
    kind = RawSubstrateFunction if raw else SubstrateFunction
    center, width = float(x.mean()), max(float(x.std()), 1e-6)
    return kind(graph_model.hidden_dim_sub, graph_model.n_layers_sub, center, width, rng)


def empty_substrate_function(graph_model: GraphModel) -> AnySubstrateFunction:
    """MLP_sub of the right shapes, as a template for reading a checkpoint."""
    return new_substrate_function(graph_model, np.zeros(0), np.random.default_rng(0))


class NodeFunction(eqx.Module):
    """MLP_node: homeostatic dc/dt of a species from its concentration and its embedding.

    As in MLP_sub, the network is a correction to a skip path: a straight line in c, with slope and
    offset affine in the embedding. It extrapolates beyond the observed concentrations, where tanh units
    are constant.

    Attributes:
        perceptron: the network, of standardised c and the embedding.
        slope, offset: coefficients of the skip path per embedding dimension, then the constant; in units of `unit`
            and `width`.
        center, width: mean and standard deviation of c in the data; constants, not trained.
        unit: rms of the residual to be explained, in concentration/time; a constant. The output of the network, in
            this unit, is of order one.
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
        rng: np.random.Generator,
        *,
        center: float = 0.0,
        width: float = 1.0,
        unit: float = 1.0,
    ):
        self.perceptron = Perceptron([1 + embedding_dim, *[hidden] * (layers - 1), 1], rng)
        self.slope = on_device(np.zeros(embedding_dim + 1))
        self.offset = on_device(np.zeros(embedding_dim + 1))
        self.center = on_device(center)
        self.width = on_device(width)
        self.unit = on_device(unit)

    def __call__(
        self, c: Float[AnyArray, "*batch"], embedding: Float[AnyArray, "*batch dim"]
    ) -> Float[AnyArray, "*batch"]:
        """dc/dt by homeostasis, in concentration/time."""
        line, correction = self.parts(c, embedding)
        total: AnyArray = line + correction
        return total

    def parts(
        self, c: Float[AnyArray, "*batch"], embedding: Float[AnyArray, "*batch dim"]
    ) -> tuple[Float[AnyArray, "*batch"], Float[AnyArray, "*batch"]]:
        """The straight line and the correction by the network, in concentration/time."""
        xp = array_library(c, embedding, self.slope)
        z = (c - xp.asarray(self.center)) / xp.asarray(self.width)
        slope, offset = self.line(xp.asarray(embedding))
        correction = self.perceptron(xp.concatenate([z[..., None], embedding], axis=-1))[..., 0]
        line: AnyArray = slope * c + offset
        return line, xp.asarray(self.unit) * correction

    def line(
        self, embedding: Float[AnyArray, "*batch dim"]
    ) -> tuple[Float[AnyArray, "*batch"], Float[AnyArray, "*batch"]]:
        """Slope (1/time) and offset (concentration/time) of the straight line."""
        xp = array_library(embedding, self.slope)
        of_slope, of_offset, unit = xp.asarray(self.slope), xp.asarray(self.offset), xp.asarray(self.unit)
        slope = (embedding @ of_slope[:-1] + of_slope[-1]) * unit / xp.asarray(self.width)
        offset = (embedding @ of_offset[:-1] + of_offset[-1]) * unit
        return slope, offset - slope * xp.asarray(self.center)


class MetabolismModel(eqx.Module):
    """The complete model; the content of a checkpoint.

    Attributes:
        log_k: log10 of the rate constants, in concentration^(1-order)/time.
        mlp_sub, mlp_node: substrate function and homeostasis.
        embeddings: one vector per species (dimensionless).
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
        """The substrate factor V_j of each reaction, in concentration^order."""
        log_c, present = pair_concentrations(c, structure)
        if isinstance(self.mlp_sub, PublishedSubstrateFunction):
            outputs = self.mlp_sub.output(jnp.where(present, log_c, -jnp.inf), jnp.asarray(structure.pair_order))
            return aggregate_published(outputs, structure, self.aggregation, self.mlp_sub.log_alpha)
        return aggregate(log_factors(self.mlp_sub, log_c, structure), present, structure, self.aggregation)

    def reactions(self, c: Float[Array, "*batch species"], structure: Structure) -> Float[Array, "*batch species"]:
        """dc/dt by the reactions only, in concentration/time; the part that is frozen in Phase 2."""
        return reaction_rates(10.0**self.log_k * self.substrate_factors(c, structure), structure)

    def homeostasis(self, c: Float[AnyArray, "*batch species"]) -> Float[AnyArray, "*batch species"]:
        """dc/dt by homeostasis only, in concentration/time."""
        xp = array_library(c, self.embeddings, self.mlp_node.slope)
        embeddings: AnyArray = xp.broadcast_to(xp.asarray(self.embeddings), (*c.shape, self.embeddings.shape[-1]))
        return self.mlp_node(c, embeddings)

    def __call__(self, c: Float[Array, "*batch species"], structure: Structure) -> Float[Array, "*batch species"]:
        """dc/dt in concentration/time; zero for fixed species."""
        return self.reactions(c, structure) + jnp.where(structure.moving, self.homeostasis(c), 0.0)
