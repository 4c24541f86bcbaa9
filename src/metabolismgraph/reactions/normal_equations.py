"""The linear part of the inverse problem: rate constants and homeostasis, given the substrate function f.

Let V[t, j] be the substrate factor of reaction j: the product (or sum) of f over its substrates. dc/dt is linear in
the rate constants k and in the coefficients theta of a small basis phi_l(c_i) per species, so the normal
equations give both exactly. The design matrix, with frames x species rows, is never formed: where
weights depend on the species only,

    A_kk = (S' W S) o (V' V)        A_k,il = S_ij sum_t w_i V[t, j] phi_l(c_i(t))

with o the elementwise product. The contribution of entries that are left out is subtracted as a low-rank
correction. This is the inner problem of variable projection (Golub & Pereyra 1973).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from metabolismgraph.errors import InputError
from metabolismgraph.system.arrays import on_device
from metabolismgraph.system.kinetics import Structure, reaction_rates
from metabolismgraph.system.observations import Transitions
from metabolismgraph.system.pytrees import pytree

# Relative ridges. Without them, the Cholesky factorisation fails where directions are undetermined. Determined
# directions of the benchmarks have eigenvalues above 1e-2, so the relative bias by RIDGE is about 1e-9.
RIDGE = 1e-11
_SAFE_RIDGE = 1e-7
_NUISANCE_RIDGE = 1e-10
# Lower bounds of the mean square of dc/dt of a species, relative to the largest one and absolute. A smaller mean
# square is rounding, and its inverse would be a huge weight.
_SMALLEST_SQUARE, _TINY = 1e-20, 1e-200
# A concentration varies if its standard deviation exceeds this share of it; a polynomial likewise.
_CONSTANT = 1e-9
LARGEST_DENSE = 1000  # reactions; above, the time of dense matrices and their decompositions exceeds that of all else
_LARGEST = 4000  # reactions; beyond it, a matrix takes hundreds of megabytes and its factorisation minutes
# Relative size below which the difference of two equal diagonal entries is rounding.
_CANCELLED = 1e-9


@pytree
@dataclasses.dataclass(frozen=True)
class Rows:
    """The regression rows: one equation per transition and species.

    Attributes:
        concentration: at the nodes of the rule for dc/dt, the frames at which the rates of a transition are evaluated.
        node_weight: weight of each node in the mean rate; the weights of a transition sum to one.
        derivative: left-hand side, in concentration/time.
        weight: 1/variance of the entries of each species; 0 for a species without an equation.
        keep: 1.0 for an entry in use, 0.0 for one left out.
        dropped_row, dropped_species: indices of the entries left out, padded.
        dropped_valid: 1.0 for an entry of these lists, 0.0 for padding.
        basis: nuisance basis phi_l(c_i) (dimensionless), orthonormal over the transitions of each species.

    Where a rule has several nodes, the basis is evaluated at the mean concentration. For a straight line this
    equals the mean of the basis over the nodes.
    """

    concentration: Float[Array, "nodes rows species"]
    node_weight: Float[Array, "nodes rows"]
    derivative: Float[Array, "rows species"]
    weight: Float[Array, " species"]
    keep: Float[Array, "rows species"]
    dropped_row: Int[Array, " dropped"]
    dropped_species: Int[Array, " dropped"]
    dropped_valid: Float[Array, " dropped"]
    basis: Float[Array, "rows species terms"]

    @property
    def full_weight(self) -> Float[Array, "rows species"]:
        """Weight of every entry."""
        return self.keep * self.weight


class NormalEquations(NamedTuple):
    """The normal equations of the scaled rate constants, scale * k, after elimination of theta.

    The scale gives A_kk a unit diagonal, before the elimination.

    Attributes:
        matrix: Schur complement of theta; its null space consists of the undetermined directions.
        rhs: right-hand side.
        scale: square root of the diagonal of A_kk.
        coupling, inverse_nuisance, nuisance_rhs: blocks for the back-substitution of theta.
        visible: False for a reaction with a rate only in entries that are left out.
    """

    matrix: Float[Array, "reactions reactions"]
    rhs: Float[Array, " reactions"]
    scale: Float[Array, " reactions"]
    coupling: Float[Array, "reactions species terms"]
    inverse_nuisance: Float[Array, "species terms terms"]
    nuisance_rhs: Float[Array, "species terms"]
    visible: Bool[Array, " reactions"]

    def nuisance(self, k: Float[Array, " reactions"]) -> Float[Array, "species terms"]:
        """The least-squares theta for given k, by back-substitution: inv(A_tt) (b_t - A_tk k)."""
        rest = self.nuisance_rhs - jnp.einsum("jil,j->il", self.coupling, k)
        return jnp.einsum("ilm,im->il", self.inverse_nuisance, rest)


def orthonormal_basis(
    c: Float[np.ndarray, "rows species"], degree: int
) -> tuple[Float[np.ndarray, "rows species terms"], Float[np.ndarray, "species terms terms"]]:
    """Polynomials in c up to `degree`, orthonormal over the rows of each species.

    Returns:
        The basis, and per species the matrix T from coefficients of the basis to coefficients of
        1, c, c^2, ...: basis = powers @ T. A polynomial that the data cannot distinguish from those of lower
        degree (as for a constant concentration) is replaced by zero.
    """
    width = c.std(axis=0)
    varies = width > _CONSTANT * np.maximum(np.abs(c).max(axis=0), 1e-300)
    unit = np.where(varies, width, 1.0)
    center = c.mean(axis=0)
    # Powers of a standardised concentration are well conditioned; those of c itself are not.
    z = ((c - center) / unit).T
    powers = np.stack([z**p for p in range(degree + 1)], axis=1)
    powers[~varies, 1:] = 0.0
    # Unit mean square instead of unit norm.
    q, inverse = orthonormalise(powers, _CONSTANT)
    size = np.sqrt(len(c))
    return np.moveaxis(size * q, -1, 0), _shift_and_scale(degree, center, unit) @ (size * inverse)


def orthonormalise(
    basis: Float[np.ndarray, "species terms rows"], rank: float
) -> tuple[Float[np.ndarray, "species terms rows"], Float[np.ndarray, "species terms terms"]]:
    """Q and inv(R) of the basis B = Q R of every species, with zeros for a term that depends on those before it.

    Args:
        rank: share of a term outside those before it, below which it depends on them.
    """
    q, (n, terms, _) = basis.copy(), basis.shape
    r = np.zeros((n, terms, terms))
    good = np.zeros((n, terms), dtype=bool)
    for term in range(terms):
        size = np.linalg.norm(q[:, term], axis=1)
        # Gram-Schmidt twice is as accurate as Householder's method (Giraud et al. 2005).
        for _ in range(2):
            for lower in range(term):
                part = np.einsum("it,it->i", q[:, lower], q[:, term])
                r[:, lower, term] += part
                q[:, term] -= part[:, None] * q[:, lower]
        left = np.linalg.norm(q[:, term], axis=1)
        good[:, term] = left > rank * size
        r[:, term, term] = np.where(good[:, term], left, 1.0)
        q[:, term] *= np.where(good[:, term], 1.0 / r[:, term, term], 0.0)[:, None]
    return q, np.linalg.inv(r) * (good[:, :, None] & good[:, None, :])


def _shift_and_scale(
    degree: int, center: Float[np.ndarray, " species"], width: Float[np.ndarray, " species"]
) -> Float[np.ndarray, "species terms terms"]:
    """Matrices whose column p holds the coefficients of ((c - center) / width)^p in 1, c, c^2, ..."""
    matrix = np.zeros((len(center), degree + 1, degree + 1))
    matrix[:, 0, 0] = 1.0
    for p in range(degree):
        matrix[:, 1:, p + 1] = matrix[:, :-1, p]
        matrix[:, :, p + 1] = (matrix[:, :, p + 1] - center[:, None] * matrix[:, :, p]) / width[:, None]
    return matrix


def default_weight(
    derivative: Float[np.ndarray, "rows species"], keep: Bool[np.ndarray, "rows species"]
) -> Float[np.ndarray, " species"]:
    """1 / mean square of dc/dt of each species: equal weights in relative terms, before the noise is estimated."""
    square = np.mean(np.where(keep, derivative, 0.0) ** 2, axis=0)
    return np.asarray(1.0 / np.maximum(square, max(_SMALLEST_SQUARE * square.max(initial=0.0), _TINY)))


class Nodes(NamedTuple):
    """Concentrations and weights of the nodes of a rule for dc/dt, as in `Rows`."""

    concentration: Float[np.ndarray, "nodes rows species"]
    weight: Float[np.ndarray, "nodes rows"]

    @property
    def mean_concentration(self) -> Float[np.ndarray, "rows species"]:
        return np.asarray(np.einsum("et,eti->ti", self.weight, self.concentration))

    def select(self, rows: slice) -> Nodes:
        """The nodes of the chosen rows."""
        return Nodes(self.concentration[:, rows], self.weight[:, rows])


def make_rows(
    transitions: Transitions,
    fixed: Bool[np.ndarray, " species"],
    *,
    degree: int,
    nodes: Nodes | None = None,
    keep: Bool[np.ndarray, "transitions species"] | None = None,
    weight: Float[np.ndarray, " species"] | None = None,
) -> tuple[Rows, Float[np.ndarray, "species terms terms"]]:
    """Rows for the given transitions, and the transform of `orthonormal_basis`.

    Args:
        fixed: True for species without an equation.
        degree: of the nuisance basis.
        nodes: nodes of the rule for dc/dt; None: the start of each transition.
        keep: entries in use; None: all that follow the equation (see `follows_equation`).
        weight: per species; None: 1 / mean square of its dc/dt.
    """
    if keep is None:
        keep = follows_equation(transitions)
    y = transitions.derivative
    if weight is None:
        weight = default_weight(y, keep)
    if nodes is None:
        nodes = Nodes(transitions.start[None], np.ones((1, len(transitions.dt))))
    basis, transform = orthonormal_basis(nodes.mean_concentration, degree)
    dropped = np.argwhere(~keep)
    # Padded to a power of two: a compiled program is valid for one shape only.
    capacity = max(64, 1 << (len(dropped) - 1).bit_length()) if len(dropped) else 64
    padded = np.zeros((capacity, 2), dtype=np.int64)
    padded[: len(dropped)] = dropped
    rows = Rows(
        concentration=on_device(nodes.concentration),
        node_weight=on_device(nodes.weight),
        derivative=on_device(y),
        weight=on_device(np.where(fixed, 0.0, weight)),
        keep=on_device(keep.astype(np.float64)),
        dropped_row=on_device(padded[:, 0]),
        dropped_species=on_device(padded[:, 1]),
        dropped_valid=on_device((np.arange(capacity) < len(dropped)).astype(np.float64)),
        basis=on_device(basis),
    )
    return rows, transform


def follows_equation(transitions: Transitions) -> Bool[np.ndarray, "transitions species"]:
    """False for transitions into or out of a concentration of exactly zero.

    Simulators clamp concentrations at zero, and a clamped step does not follow the rate equation. A zero in the first
    frame of a run is an initial condition, so that the transition out of it follows the equation.
    """
    first = np.diff(transitions.frame, prepend=-2) != 1
    clamped = (transitions.start == 0) & ~first[:, None]
    return np.asarray(np.where(transitions.start == 0, ~clamped | (transitions.end == 0), transitions.end != 0))


def check_dense(n_reactions: int, what: str) -> None:
    """Refuse a network that is too large for what solves these equations again and again.

    Args:
        n_reactions: of the network.
        what: what solves them, as a part of the message.

    Raises:
        InputError: it has too many reactions.
    """
    if n_reactions > _LARGEST:
        raise InputError(f"{what} is for up to {_LARGEST} reactions, and the network has {n_reactions}; leave it out")


def normal_equations(v: Float[Array, "rows reactions"], rows: Rows, structure: Structure) -> NormalEquations:
    """Assemble the normal equations for the substrate factors V and eliminate theta."""
    s = structure.stoichiometry
    # A_kk = sum over entries (t, i) of w_i (S_ij V_tj) (S_iq V_tq) factorises into sums over i and over t.
    a = (s.T @ (rows.weight[:, None] * s)) * (v.T @ v)
    # Entries left out break the factorisation; their rows of the design matrix are formed and subtracted.
    dropped = s[rows.dropped_species] * v[rows.dropped_row]
    dropped = dropped * jnp.sqrt(rows.weight[rows.dropped_species] * rows.dropped_valid)[:, None]
    full_diagonal = jnp.diag(a)
    a = a - dropped.T @ dropped
    # For a reaction with a rate only in entries left out, the difference is zero up to rounding. It is set to zero
    # exactly, since the scale below would amplify the rounding to a unit diagonal.
    visible = jnp.diag(a) > _CANCELLED * full_diagonal
    a = jnp.where(visible[:, None] & visible[None, :], a, 0.0)
    weighted = rows.full_weight[..., None] * rows.basis
    coupling = jnp.einsum("tj,til->jil", v, weighted) * jnp.where(visible[:, None], s.T, 0.0)[..., None]
    # Homeostasis of a species depends on its own concentration only, so A_tt is block diagonal, one block per species.
    nuisance = jnp.einsum("til,tim->ilm", weighted, rows.basis)
    size = jnp.maximum(rows.weight * rows.derivative.shape[0], 1.0 * (rows.weight == 0))
    nuisance = nuisance + _NUISANCE_RIDGE * size[:, None, None] * jnp.eye(nuisance.shape[-1])
    inverse = jnp.linalg.inv(nuisance)
    solved = jnp.einsum("jil,ilm->jim", coupling, inverse)
    # Scaled k = scale * k. Substrate factors differ by orders of magnitude; the scale makes eigenvalues comparable.
    diagonal = jnp.diag(a)
    scale = jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1.0))
    # Block elimination: A_kk - A_kt inv(A_tt) A_tk.
    schur = a - jnp.einsum("jil,qil->jq", solved, coupling)
    equations = NormalEquations(
        matrix=schur / scale[:, None] / scale[None, :],
        rhs=jnp.zeros_like(scale),
        scale=scale,
        coupling=coupling,
        inverse_nuisance=inverse,
        nuisance_rhs=jnp.zeros(nuisance.shape[:2]),
        visible=visible,
    )
    return for_target(equations, rows.derivative, v, rows, structure)


def for_target(
    equations: NormalEquations,
    target: Float[Array, "rows species"],
    v: Float[Array, "rows reactions"],
    rows: Rows,
    structure: Structure,
) -> NormalEquations:
    """The same normal equations with `target` as the left-hand side in place of dc/dt."""
    # b_k - A_kt inv(A_tt) b_t, with b = X' W target.
    weight = rows.full_weight
    nuisance_rhs = jnp.einsum("til,ti->il", weight[..., None] * rows.basis, target)
    rhs = jnp.where(equations.visible, jnp.sum(v * ((weight * target) @ structure.stoichiometry), axis=0), 0.0)
    through = jnp.einsum("jil,ilm,im->j", equations.coupling, equations.inverse_nuisance, nuisance_rhs)
    return equations._replace(rhs=(rhs - through) / equations.scale, nuisance_rhs=nuisance_rhs)


def solve_rate_constants(equations: NormalEquations) -> Float[Array, " reactions"]:
    """Unconstrained k, in concentration^(1-order)/time; along undetermined directions close to the minimum norm."""

    def solve(ridge: float) -> Float[Array, " reactions"]:
        factor = jax.scipy.linalg.cho_factor(equations.matrix + ridge * jnp.eye(len(equations.rhs)))
        return jax.scipy.linalg.cho_solve(factor, equations.rhs) / equations.scale

    k = solve(RIDGE)
    # Where weights differ by many orders, eigenvalues of the null space can be rounded to less than -RIDGE. The
    # Cholesky factorisation then fails and returns NaN.
    safe: Float[Array, " reactions"] = jax.lax.cond(jnp.all(jnp.isfinite(k)), lambda: k, lambda: solve(_SAFE_RIDGE))
    return safe


def residual(
    v: Float[Array, "rows reactions"],
    k: Float[Array, " reactions"],
    theta: Float[Array, "species terms"],
    rows: Rows,
    structure: Structure,
) -> Float[Array, "rows species"]:
    """The residual of dc/dt after reactions and nuisance homeostasis, in concentration/time."""
    # The gradient of a sparse product is a sum of single entries, which is slower than a dense product of this size.
    small = structure.n_reactions <= LARGEST_DENSE
    rates = (v * k) @ structure.stoichiometry.T if small else reaction_rates(v * k, structure)
    return rows.derivative - rates - jnp.einsum("til,il->ti", rows.basis, theta)
