"""Rollouts of the frozen reactions with a learning MLP_node, from tables.

The frozen reaction term is a function of one variable per substrate order, and MLP_node a function of
one variable per species: both are read from cubic tables, so that a step costs a few look-ups instead
of thousands of evaluations of a network. The number of steps is a traced value: one compilation
serves every rollout length up to the capacity (the gradient is the discrete adjoint, see `rolled`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from metabolismgraph.system.derivative_rules import Rule
from metabolismgraph.system.integrate import STEPS
from metabolismgraph.system.log_table import cubic_coefficients
from metabolismgraph.system.model import MetabolismModel
from metabolismgraph.system.tabulated_reactions import TabulatedReactions

_NODE_KNOTS = 48  # of MLP_node's correction, per species
_HEADROOM = 1.5  # how far, as a factor on the highest concentration of a species, its table reaches


class NodeTable(eqx.Module):
    """MLP_node of every species: the straight line exactly, its correction from a table in sqrt(c).

    Attributes:
        slope, offset: of the line, in 1/time and concentration/time.
        step: spacing of the knots in sqrt(c), per species.
        coefficients: of the cubics.
    """

    slope: Float[Array, " species"]
    offset: Float[Array, " species"]
    step: Float[Array, " species"]
    coefficients: Float[Array, "species intervals 4"]

    @classmethod
    def of(cls, model: MetabolismModel, highest: Float[Array, " species"]) -> NodeTable:
        """Evaluate MLP_node on the knots; gradients pass through them.

        Args:
            highest: highest concentration of each species.
        """
        node, a = model.mlp_node, model.embeddings
        step = jnp.sqrt(_HEADROOM * highest) / _NODE_KNOTS
        root = step[:, None] * (jnp.arange(_NODE_KNOTS + 3) - 1.0)
        c = root * jnp.abs(root)  # the knot before zero lies below it
        _, correction = node.parts(c, jnp.broadcast_to(a[:, None], (*c.shape, a.shape[-1])))
        slope, offset = node.line(a)
        return cls(slope, offset, step, cubic_coefficients(correction))

    def __call__(self, c: Float[Array, "*batch species"]) -> Float[Array, "*batch species"]:
        # sqrt has no derivative at zero, where concentrations are clamped
        root = jnp.sqrt(jnp.maximum(c, 1e-12))
        return self.slope * c + self.offset + _read(self.coefficients, jnp.arange(len(self.slope)), root / self.step)

    def only(self, moving: Float[Array, " species"]) -> NodeTable:
        """Without the species where `moving` is zero."""
        return NodeTable(
            self.slope * moving, self.offset * moving, self.step, self.coefficients * moving[:, None, None]
        )


def _read(
    coefficients: Float[Array, "tables intervals 4"], table: Int[Array, " columns"], u: Float[Array, "*batch columns"]
) -> Float[Array, "*batch columns"]:
    """Piecewise cubics at the positions `u`, in intervals; constant beyond either end."""
    u = jnp.clip(u, 0.0, coefficients.shape[1])
    interval = jnp.minimum(u.astype(jnp.int32), coefficients.shape[1] - 1)
    t = u - interval
    a = coefficients[table, interval]
    return a[..., 0] + t * (a[..., 1] + t * (a[..., 2] + t * a[..., 3]))


class Scheme(NamedTuple):
    """How a step is taken.

    Attributes:
        rule: the rule for dc/dt that the data follow; see `integrate.STEPS`.
        detach: gradients do not pass through the reactions.
    """

    rule: Rule = "forward"
    detach: bool = False


def rolled(
    node: NodeTable,
    reactions: TabulatedReactions,
    start: Float[Array, "batch species"],
    dt: Float[Array, "capacity batch"],
    n_steps: Int[Array, ""],
    scheme: Scheme,
) -> Float[Array, "capacity batch species"]:
    """States after each of `n_steps` steps of dc/dt = reactions + node, clamped at zero.

    Args:
        n_steps: how many, up to the capacity; later states are zero. It may be traced: going forward
            and back are loops of that length (reverse-mode adjoint of the discrete steps, as in
            Griewank & Walther 2008), with no compilation for each length.
    """
    # As leaves: Equinox makes trees of booleans like its arguments, and a Structure holds no booleans.
    leaves, tree = jax.tree.flatten(reactions)
    states: Array = _rolled(node, leaves, tree, start, dt, n_steps, scheme)
    return states


def _step(
    node: NodeTable,
    reactions: TabulatedReactions,
    c: Float[Array, "batch species"],
    dt: Float[Array, " batch"],
    scheme: Scheme,
) -> Float[Array, "batch species"]:
    def rate(c: Float[Array, "batch species"]) -> Float[Array, "batch species"]:
        return reactions(jax.lax.stop_gradient(c) if scheme.detach else c) + node(c)

    return STEPS[scheme.rule](rate, c, dt)


@eqx.filter_custom_vjp
def _rolled(
    node: NodeTable,
    leaves: list[Array],
    tree: jax.tree_util.PyTreeDef,
    start: Float[Array, "batch species"],
    dt: Float[Array, "capacity batch"],
    n_steps: Int[Array, ""],
    scheme: Scheme,
) -> Float[Array, "capacity batch species"]:
    reactions: TabulatedReactions = jax.tree.unflatten(tree, leaves)

    def body(t: Int[Array, ""], carry: tuple[Array, Array]) -> tuple[Array, Array]:
        c, states = carry
        c = _step(node, reactions, c, dt[t], scheme)
        return c, states.at[t].set(c)

    states: Array = jax.lax.fori_loop(0, n_steps, body, (start, jnp.zeros((len(dt), *start.shape))))[1]
    return states


@_rolled.def_fwd  # type: ignore[untyped-decorator]
def _forward(perturbed: Any, node: NodeTable, *rest: Any) -> tuple[Array, Array]:
    del perturbed
    states = _rolled(node, *rest)
    return states, states


@_rolled.def_bwd  # type: ignore[untyped-decorator]
def _backward(  # the signature is Equinox's: residuals, cotangents, what is perturbed, the arguments
    states: Float[Array, "capacity batch species"],
    cotangents: Float[Array, "capacity batch species"],
    perturbed: Any,
    node: NodeTable,
    leaves: list[Array],
    tree: jax.tree_util.PyTreeDef,
    start: Float[Array, "batch species"],
    dt: Float[Array, "capacity batch"],
    n_steps: Int[Array, ""],
    scheme: Scheme,
) -> NodeTable:
    del perturbed
    reactions: TabulatedReactions = jax.tree.unflatten(tree, leaves)

    def body(done: Int[Array, ""], carry: tuple[Array, NodeTable]) -> tuple[Array, NodeTable]:
        t = n_steps - 1 - done
        adjoint, gradient = carry
        before = jnp.where(t > 0, states[t - 1], start)
        _, pull_back = jax.vjp(lambda n, c: _step(n, reactions, c, dt[t], scheme), node, before)
        more, adjoint = pull_back(adjoint + cotangents[t])
        return adjoint, jax.tree.map(jnp.add, gradient, more)

    nothing = jax.tree.map(jnp.zeros_like, node)
    gradient: NodeTable = jax.lax.fori_loop(0, n_steps, body, (jnp.zeros_like(start), nothing))[1]
    return gradient
