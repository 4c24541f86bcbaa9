"""Rollouts of the frozen reactions with a trainable MLP_node, from tables.

The frozen rate law is a function of one variable per substrate order, and MLP_node a function of
one variable per species. Both are interpolated from cubic tables, so a step takes a few look-ups instead
of thousands of evaluations of a network. The number of steps is a traced value: one compilation is
valid for every length of a rollout up to the capacity. The gradient is the discrete adjoint (see `rolled`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from metabolismgraph.system.derivative_rules import Rule
from metabolismgraph.system.integrate import STEPS
from metabolismgraph.system.node_table import NodeTable
from metabolismgraph.system.tabulated_reactions import TabulatedReactions

__all__ = ["NodeTable", "Scheme", "rolled"]  # strategy files import all three from here


class Scheme(NamedTuple):
    """Integration scheme of a rollout.

    Attributes:
        rule: rule for dc/dt of the data, which selects the method (see `integrate.STEPS`).
        detach: True: gradients do not pass through the reactions.
    """

    rule: Rule = "forward"
    detach: bool = False


def _step(
    node: NodeTable,
    reactions: TabulatedReactions,
    c: Float[Array, "batch species"],
    dt: Float[Array, " batch"],
    scheme: Scheme,
) -> Float[Array, "batch species"]:
    """One step of the scheme."""

    def rate(c: Float[Array, "batch species"]) -> Float[Array, "batch species"]:
        return reactions(jax.lax.stop_gradient(c) if scheme.detach else c) + node(c)

    ahead: Array = STEPS[scheme.rule](rate, c, dt)
    return ahead


@eqx.filter_custom_vjp
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
        node: trainable homeostasis, the only argument with a gradient.
        reactions: frozen reactions.
        start: initial concentrations.
        dt: length of each step.
        n_steps: number of steps, up to the capacity; states after it are zero. It may be traced. Forward and
            backward pass are loops of this length (reverse-mode adjoint of the discrete steps, Griewank & Walther
            2008), so that no length needs its own compilation.
        scheme: integration scheme.

    Returns:
        Concentrations after each step.
    """
    # The derivative is defined below, since JAX cannot differentiate a loop of traced length in reverse mode.

    def body(t: Int[Array, ""], carry: tuple[Array, Array]) -> tuple[Array, Array]:
        c, states = carry
        c = _step(node, reactions, c, dt[t], scheme)
        return c, states.at[t].set(c)

    states: Array = jax.lax.fori_loop(0, n_steps, body, (start, jnp.zeros((len(dt), *start.shape))))[1]
    return states


@rolled.def_fwd  # type: ignore[untyped-decorator]
def _forward(perturbed: Any, node: NodeTable, *rest: Any) -> tuple[Array, Array]:
    del perturbed
    states = rolled(node, *rest)
    return states, states


@rolled.def_bwd  # type: ignore[untyped-decorator]
def _backward(  # the signature that Equinox requires: stored values, cotangents, perturbed arguments, the arguments
    states: Float[Array, "capacity batch species"],
    cotangents: Float[Array, "capacity batch species"],
    perturbed: Any,
    node: NodeTable,
    reactions: TabulatedReactions,
    start: Float[Array, "batch species"],
    dt: Float[Array, "capacity batch"],
    n_steps: Int[Array, ""],
    scheme: Scheme,
) -> NodeTable:
    """Gradient of a loss by `node`, from its cotangents: the partial derivatives of the loss by the states."""
    # With c_t = step(node, c_{t-1}) and loss L(c_1, ..., c_n), the adjoint a_t = dL/dc_t (total derivative) satisfies
    #     a_t = (dL/dc_t partial) + (dc_{t+1}/dc_t)' a_{t+1},    dL/dnode = sum_t (dc_t/dnode)' a_t,
    # from t = n downwards. States are stored by the forward pass; the inner values of a step are computed again. In the
    # carry, `adjoint` is the second term of a_t.
    del perturbed

    def body(done: Int[Array, ""], carry: tuple[Array, NodeTable]) -> tuple[Array, NodeTable]:
        t = n_steps - 1 - done
        adjoint, gradient = carry
        before = jnp.where(t > 0, states[t - 1], start)
        _, pull_back = jax.vjp(lambda n, c: _step(n, reactions, c, dt[t], scheme), node, before)
        contribution, adjoint = pull_back(adjoint + cotangents[t])
        return adjoint, jax.tree.map(jnp.add, gradient, contribution)

    nothing = jax.tree.map(jnp.zeros_like, node)
    gradient: NodeTable = jax.lax.fori_loop(0, n_steps, body, (jnp.zeros_like(start), nothing))[1]
    return gradient
