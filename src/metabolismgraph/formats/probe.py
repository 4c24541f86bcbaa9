"""Numerical tests of a kinetic law of unknown form, at many concentrations."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from metabolismgraph.formats.formula import FormulaError, subtracts
from metabolismgraph.formats.quantities import ModelIndex, State, local_parameters

Influence = Literal["up", "down", "none"]
Concentrations = dict[str, Float[np.ndarray, " states"]]

_N_STATES = 40
_DECADES = 3.0  # on either side of the initial concentrations, since inhibition can begin far from them
_TINY = 1e-15  # factor on the concentration of an exhausted reactant; its logarithm must be finite
_NOISE = 1e-10  # relative size of rounding errors


class Probe:
    """The rate of one reaction as a function of concentrations, with the parameters of the file."""

    def __init__(self, index: ModelIndex, written: Any) -> None:
        self.index = index
        self.node = written.getKineticLaw().getMath()
        self.local = local_parameters(written.getKineticLaw())

    @functools.cached_property
    def mentioned(self) -> set[str]:
        """The species on which the law depends, directly or through rules."""
        return self.index.mentioned(self.node, self.local) & set(self.index.species)

    @functools.cached_property
    def states(self) -> Concentrations:
        """Random positive concentrations around the initial ones."""
        start = {name: self.index.initial(name) for name in self.index.species}
        given = [c for c in start.values() if c is not None and c > 0]
        typical = float(np.median(given)) if given else 1.0
        random = np.random.default_rng(0)
        states = {}
        for name, c in start.items():
            center = c if c is not None and c > 0 else typical
            states[name] = center * 10 ** random.uniform(-_DECADES, _DECADES, _N_STATES)
        return states

    def rate(self, changed: Mapping[str, float]) -> Float[np.ndarray, " states"] | None:
        """The rate at all states; None if it cannot be computed.

        Args:
            changed: factors on the concentrations of some species.
        """
        states = {name: c * changed.get(name, 1.0) for name, c in self.states.items()}
        try:
            rate = State(self.index, states, frozen=True).evaluate(self.node, self.local)
        except FormulaError:
            return None
        rate = np.broadcast_to(np.asarray(rate, float), (_N_STATES,))
        return rate if np.isfinite(rate).any() else None

    def influence(self, species: str, *, one_way: bool) -> Influence | None:
        """Whether the rate increases or decreases with a species; None if the law cannot be computed.

        Args:
            species: the species.
            one_way: True: only states with a positive rate count; False: the absolute rate of all states counts.
        """
        if species not in self.mentioned:
            return "none"
        low, high = (self.rate({species: factor}) for factor in (0.5, 2.0))
        if low is None or high is None:
            return None
        use = np.isfinite(low) & np.isfinite(high) & ((low > 0) | (not one_way))
        if not one_way:
            low, high = np.abs(low), np.abs(high)
        if not use.any():
            return None
        low, high = low[use], high[use]
        change = high - low
        beyond = np.abs(change) > _NOISE * np.maximum(np.abs(low), np.abs(high))
        up, down = int(np.sum(beyond & (change > 0))), int(np.sum(beyond & (change < 0)))
        return "none" if not up + down else "up" if up >= down else "down"

    def runs_backward(self, reactants: Iterable[str], products: Iterable[str]) -> bool:
        """Whether the rate is negative without reactants.

        If the law cannot be computed: whether it depends on a product and contains a minus.
        """
        products = set(products)
        forward = self.rate({})
        backward = self.rate(dict.fromkeys(set(reactants) - products, _TINY))
        if forward is None or backward is None:
            return bool(self.mentioned & products) and self._subtracts()
        scale = np.nanmax(np.abs(forward[np.isfinite(forward)]))
        return bool(np.any(backward[np.isfinite(backward)] < -1e-12 * scale))

    def _subtracts(self) -> bool:
        rules = [
            self.index.assigned[name] for name in self.index.mentioned(self.node, self.local) & set(self.index.assigned)
        ]
        return any(subtracts(node, self.index.functions) for node in (self.node, *rules))
