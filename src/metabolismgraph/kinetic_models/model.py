"""A model of ordinary differential equations whose every quantity has its own rate law or rule."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from metabolismgraph.errors import InputError
from metabolismgraph.formats.formula import TIME, Compiled, FormulaError, Values

Environment = dict[str, Values]
_STEP = 1e-8  # of differences, relative to the value


class Instant(NamedTuple):
    """A moment: of the values at a time, or just after them."""

    time: float
    after: bool


@dataclasses.dataclass(frozen=True)
class Jump:
    """New values of states at a time.

    Attributes:
        instant: when it happens.
        changes: formulas of the new values by id, from the values before.
        depends: ids of the constants from which the time was computed.
    """

    instant: Instant
    changes: Mapping[str, Compiled]
    depends: frozenset[str]


@dataclasses.dataclass(frozen=True)
class KineticModel:
    """A model of ordinary differential equations, dy/dt = rate(t, y).

    Attributes:
        id: of the model.
        states: ids of the quantities that are integrated: amounts of species that reactions change, variables of
            rate rules, and what else changes in jumps.
        start: their values at the start.
        species: ids of all species.
        compartments: for every species the id of its compartment.
        amounts: species whose id is an amount in formulas (hasOnlySubstanceUnits).
        diluted: species whose id is a concentration in formulas, but whose state or constant is an amount.
        constants: values that never change, by id; amounts of constant species by their `state_key`.
        computed: ids with their formulas, so that each comes after those that it needs.
        rates: of change of the states.
        jumps: in order of time, all after the start.
    """

    id: str
    states: tuple[str, ...]
    start: tuple[Values, ...]
    species: tuple[str, ...]
    compartments: Mapping[str, str]
    amounts: frozenset[str]
    diluted: frozenset[str]
    constants: Environment
    computed: tuple[tuple[str, Compiled], ...]
    rates: tuple[Compiled, ...]
    jumps: tuple[Jump, ...]

    def values(self, time: Values, y: Iterable[Values]) -> Environment:
        """The value of every id, as formulas see it, at a time or at several times.

        Args:
            time: number, array of numbers, or symbol.
            y: the states in order, of the same kind.

        Raises:
            InputError: a formula cannot be evaluated.
        """
        environment = {**self.constants, TIME: time, **dict(zip(map(state_key, self.states), y, strict=True))}
        for name, formula in self.computed:
            environment[name] = self._value(name, formula, environment)
        return environment

    def after(self, jump: Jump, y: Sequence[Values]) -> list[Values]:
        """The states after a jump, from those before it. The size of a compartment changes without its amounts.

        Raises:
            InputError: a formula cannot be evaluated.
        """
        before = self.values(np.float64(jump.instant.time), y)
        new = {name: self._value(name, formula, before) for name, formula in jump.changes.items()}
        found = []
        for name, state in zip(self.states, y, strict=True):
            size = self.compartments.get(name, "")
            if name in new:
                found.append(new[name] * (before[size] if name in self.diluted else 1.0))
            elif size in new and name not in self.amounts | self.diluted:  # a concentration with a rate rule
                found.append(state * before[size] / new[size])
            else:
                found.append(state)
        return found

    def _value(self, name: str, formula: Compiled, environment: Environment) -> Values:
        with np.errstate(all="ignore"):
            try:
                return formula(environment)
            except FormulaError as error:
                reason = str(error) or "has an operation with wrong arguments"
                raise InputError(f"model {self.id}: the formula of {name} {reason}") from None

    def rate(self, time: float, y: Float[np.ndarray, " states"]) -> Float[np.ndarray, " states"]:
        """dy/dt."""
        environment = self.values(time, y)
        with np.errstate(all="ignore"):
            return np.array([float(rate(environment)) for rate in self.rates])

    def jacobian(self, time: float, y: Float[np.ndarray, " states"]) -> Float[np.ndarray, "states states"]:
        """Derivatives of dy/dt by the states, by forward differences: all in one evaluation of the formulas."""
        steps = _STEP * np.maximum(np.abs(y), np.abs(y).max(initial=0.0) * _STEP)
        steps = np.where(steps > 0, steps, _STEP)
        environment = self.values(time, [*np.concatenate([y[:, None], y[:, None] + np.diag(steps)], axis=1)])
        count = len(y) + 1
        with np.errstate(all="ignore"):
            rates = np.array([np.broadcast_to(np.asarray(rate(environment), float), count) for rate in self.rates])
        found: np.ndarray = (rates[:, 1:] - rates[:, :1]) / steps
        finite: np.ndarray = np.nan_to_num(found, posinf=0.0, neginf=0.0)
        return finite

    def concentration(self, species: str, values: Environment) -> Values:
        """Concentration of a species from the values of all ids."""
        return values[species] / (values.get(self.compartments[species], 1.0) if species in self.amounts else 1.0)

    def amount(self, species: str, values: Environment) -> Values:
        """Amount of a species from the values of all ids."""
        return values[species] * (1.0 if species in self.amounts else values.get(self.compartments[species], 1.0))


def state_key(name: str) -> str:
    """Key of a state, which is not a name in SBML."""
    return f"state {name}"
