"""Unknown shapes of rate laws: additions to log f whose coefficients are further unknowns of a regression."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from metabolismgraph.reactions.normal_equations import Nodes
from metabolismgraph.system.kinetics import pair_concentrations, sum_over_substrates
from metabolismgraph.system.log_table import LogTable
from metabolismgraph.system.tabulated_reactions import TabulatedReactions

_SHAPES = 4  # possible errors of log f of each rate law: Legendre polynomials of log c, linear to quartic
# Possible additive errors of f: a constant and a multiple of c. A line of homeostasis can compensate both.
_ADDITIVE = 2
_MAX_NUMBERS = 20_000_000  # size of the array of shape derivatives; beyond it, only every n-th row is used


def shape_changes(
    table: TabulatedReactions, nodes: Nodes, laws: Bool[np.ndarray, " laws"], *, additive: bool = False
) -> Float[np.ndarray, "rows reactions shapes"]:
    """Derivative of V by the coefficient of each shape of the chosen laws, in the unit of V.

    A shape is a Legendre polynomial of log c that is added to log f. f is fixed at the reference concentration, so
    every shape is zero there. Of large data, only every n-th row is computed.

    Args:
        laws: True for the laws whose shape is unknown.
        additive: whether a constant and a multiple of c, added to f, are further shapes. An error of this form can be
            compensated by offset and slope of homeostasis, so standard errors must include it.
    """
    each = _SHAPES + _ADDITIVE * additive
    shapes = each * int(laws.sum())
    stride = 1 + nodes.weight.shape[1] * len(table.k) * shapes // _MAX_NUMBERS
    c, weight = nodes.concentration[:, ::stride], nodes.weight[:, ::stride]
    v = table.substrate_factors(c)
    log_c, present = pair_concentrations(c, table.structure)
    of_pair, seen = table.structure.rate_laws.of_pair, _range(nodes)
    changes = np.zeros((*v.shape[1:], shapes))
    for number in range(shapes):
        law, degree = int(np.flatnonzero(laws)[number // each]), number % each + 1
        change = np.where((of_pair == law) & present, _shape(table, law, degree, log_c, seen), 0.0)
        # V is a product over substrates, so dV/d(shape) = V * sum over substrates of d(log f)/d(shape).
        of_reactions = sum_over_substrates(change, table.structure)
        changes[..., number] = np.einsum("et,etj,etj->tj", weight, v, of_reactions)
    return changes


def reshaped(
    table: TabulatedReactions, nodes: Nodes, laws: Bool[np.ndarray, " laws"], shapes: Float[np.ndarray, " shapes"]
) -> TabulatedReactions:
    """The table with shapes added to log f of the chosen laws.

    Args:
        shapes: coefficient of each shape, in the order of `shape_changes` without additive ones.
    """
    knots, seen = table.table.knots, _range(nodes)
    at = knots.values
    log_f = np.stack([_log_f(table, law, at) for law in range(len(laws))])
    for number, amount in enumerate(shapes):
        law, degree = int(np.flatnonzero(laws)[number // _SHAPES]), number % _SHAPES + 1
        log_f[law] += amount * _shape(table, law, degree, at, seen)
    return dataclasses.replace(table, table=LogTable.through(log_f, knots))


def _shape(
    table: TabulatedReactions, law: int, degree: int, log_c: Float[np.ndarray, "*batch"], seen: tuple[float, float]
) -> Float[np.ndarray, "*batch"]:
    """Derivative of log f by the coefficient of a shape.

    Up to degree 4, a Legendre polynomial over the observed log concentrations; beyond, one of the additive shapes.
    All are zero at c = 1, the reference concentration in the internal units.

    Args:
        degree: from 1.
        seen: lowest and highest observed log concentration.
    """
    one = np.zeros(1)  # log c at the reference concentration
    if degree > _SHAPES:
        power = degree - _SHAPES - 1  # f + a c^power changes log f by a c^power / f

        def added(x: np.ndarray) -> np.ndarray:
            return np.asarray(np.exp(power * x - _log_f(table, law, x)))

        return np.asarray(added(log_c) - added(one)[0])
    low, high = seen
    middle, half = (high + low) / 2, max((high - low) / 2, 1e-3)
    polynomial = np.polynomial.Legendre.basis(degree)
    return np.asarray(polynomial((log_c - middle) / half) - polynomial(-middle / half))


def _log_f(table: TabulatedReactions, law: int, log_c: Float[np.ndarray, "*batch"]) -> Float[np.ndarray, "*batch"]:
    """log f of one law."""
    return np.asarray(table.table(log_c[..., None], np.array([law]))[..., 0])


def _range(nodes: Nodes) -> tuple[float, float]:
    """Lowest and highest observed log concentration."""
    c = nodes.concentration[nodes.concentration > 0]
    return (float(np.log(c.min())), float(np.log(c.max()))) if c.size else (0.0, 0.0)
