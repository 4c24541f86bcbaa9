"""The reactions of a model for NumPy: rate laws as tables in log c, for what runs once and needs no gradient."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from metabolismgraph.system.kinetics import Aggregation, LogFunction, RateLaws, Structure, tabulate_laws

_KNOTS = 4097
_MARGIN = 1.0  # how far, in log c, the table reaches beyond the data; beyond that f is a power law

_tabulate = eqx.filter_jit(tabulate_laws)


@dataclasses.dataclass(frozen=True)
class RateTable:
    """Rates of all reactions and a straight line of homeostasis per species.

    Attributes:
        low, step: first knot and spacing, in log c.
        log_f: log of each law's factor on the knots.
        laws: the laws, and which each pair follows.
        reference: log of the concentration at which f is fixed to c^|s|.
        k: rate constants.
        slope, offset: homeostasis, in 1/time and concentration/time.
    """

    low: float
    step: float
    log_f: Float[np.ndarray, "laws knots"]
    laws: RateLaws
    reference: float
    pair_species: Int[np.ndarray, " pairs"]
    substrates: Int[np.ndarray, "reactions width"]
    stoichiometry: Float[np.ndarray, "species reactions"]
    aggregation: Aggregation
    k: Float[np.ndarray, " reactions"]
    slope: Float[np.ndarray, " species"]
    offset: Float[np.ndarray, " species"]

    @classmethod
    def of(
        cls,
        f: LogFunction,
        k: Float[np.ndarray, " reactions"],
        structure: Structure,
        aggregation: Aggregation,
        c: Float[np.ndarray, "frames species"],
        *,
        reference: float = 0.0,
        slope: Float[np.ndarray, " species"] | None = None,
        offset: Float[np.ndarray, " species"] | None = None,
    ) -> RateTable:
        """Tabulate the rate laws over the concentrations `c` and somewhat beyond."""
        seen = np.log(c[c > 0]) if (c > 0).any() else np.zeros(1)
        low, high = seen.min() - _MARGIN, seen.max() + _MARGIN
        knots = np.linspace(low, high, _KNOTS)
        laws = structure.rate_laws
        log_f = np.zeros((len(laws.order), _KNOTS))
        log_f[laws.known] = laws.order[laws.known, None] * knots
        learned = ~laws.known
        if learned.any():
            order = jnp.asarray(laws.order[learned])
            log_f[learned] = np.asarray(_tabulate(f, jnp.asarray(knots), order, jnp.zeros(len(order), dtype=bool)))
        nothing = np.zeros(structure.stoichiometry.shape[0])
        return cls(
            low=float(low),
            step=float(knots[1] - knots[0]),
            log_f=log_f,
            laws=laws,
            reference=reference,
            pair_species=np.asarray(structure.pair_species),
            substrates=np.asarray(structure.substrates),
            stoichiometry=np.asarray(structure.stoichiometry),
            aggregation=aggregation,
            k=k,
            slope=nothing if slope is None else slope,
            offset=nothing if offset is None else offset,
        )

    @property
    def knots(self) -> Float[np.ndarray, " knots"]:
        """log c of the knots."""
        return self.low + self.step * np.arange(_KNOTS)

    @property
    def seen(self) -> tuple[float, float]:
        """Lowest and highest log c of the data."""
        return self.low + _MARGIN, self.low + self.step * (_KNOTS - 1) - _MARGIN

    def substrate_factors(self, c: Float[np.ndarray, "*batch species"]) -> Float[np.ndarray, "*batch reactions"]:
        """What multiplies k in each rate; f(0) = 0 holds exactly."""
        at = c[..., self.pair_species]
        present = at > 0
        factor = np.where(present, np.exp(self._interpolate(np.log(np.where(present, at, 1.0)))), 0.0)
        if self.aggregation == "mul":
            padded = np.concatenate([factor, np.ones((*factor.shape[:-1], 1))], axis=-1)
            return np.asarray(np.prod(padded[..., self.substrates], axis=-1))
        padded = np.concatenate([factor, np.zeros((*factor.shape[:-1], 1))], axis=-1)
        empty = np.all(self.substrates == len(self.pair_species), axis=1)
        return np.asarray(np.where(empty, 1.0, np.sum(padded[..., self.substrates], axis=-1)))

    def fluxes(self, c: Float[np.ndarray, "*batch species"]) -> Float[np.ndarray, "*batch reactions"]:
        """Rate of every reaction, in concentration per time."""
        return np.asarray(self.k * self.substrate_factors(c))

    def __call__(self, c: Float[np.ndarray, "*batch species"]) -> Float[np.ndarray, "*batch species"]:
        """dc/dt by reactions and homeostasis, in concentration per time. Reactions do not change fixed species."""
        return np.asarray(self.fluxes(c) @ self.stoichiometry.T + self.slope * c + self.offset)

    def _interpolate(self, log_c: Float[np.ndarray, "*batch pairs"]) -> Float[np.ndarray, "*batch pairs"]:
        """Linear between knots that are close together, and beyond the first and last."""
        if not log_c.shape[-1]:
            return log_c
        u = (log_c - self.low) / self.step
        left = np.clip(np.floor(u).astype(np.int64), 0, _KNOTS - 2)
        of_pair = self.laws.of_pair
        below, above = self.log_f[of_pair, left], self.log_f[of_pair, left + 1]
        return np.asarray(below + (u - left) * (above - below))
