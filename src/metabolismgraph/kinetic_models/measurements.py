"""The measured values of a PEtab problem as functions of its parameters."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from metabolismgraph.errors import InputError
from metabolismgraph.formats.formula import TIME, Compiled, FormulaError, Operations, Values, compiled, names
from metabolismgraph.formats.petab import PetabProblem
from metabolismgraph.formats.petab_formula import parse_formula
from metabolismgraph.formats.petab_v2 import Period
from metabolismgraph.kinetic_models.from_sbml import ModelFile
from metabolismgraph.kinetic_models.model import Environment, KineticModel, state_key
from metabolismgraph.kinetic_models.stages import Stage

_PLACEHOLDERS = {"observableParameters": "observableParameter", "noiseParameters": "noiseParameter"}


class Measurements:
    """Models and observables of a PEtab problem, for given values of its parameters: numbers or symbols.

    Args:
        operations: see `operations_of`; None: those of NumPy.

    Attributes:
        rows: the measurement table.

    Raises:
        InputError: as for `ModelFile`, or a formula is not valid.
    """

    def __init__(self, problem: PetabProblem, operations: Operations | None = None):
        self.problem, self.rows = problem, problem.measurements.reset_index(drop=True)
        self._operations, self._file = operations, ModelFile(problem.model)
        self._formulas = {
            (str(name), column): self._formula(str(name), row[column])
            for name, row in problem.observables.iterrows()
            for column in ("observableFormula", "noiseFormula")
        }
        needed = set[str]().union(*(names for names, _ in self._formulas.values()))
        self._outputs = needed - self._file.ids

    def groups(self) -> Iterator[tuple[tuple[Period, ...], pd.DataFrame]]:
        """The periods of every experiment, and its rows of the measurement table."""
        before = self.rows.get("preequilibrationConditionId", pd.Series(index=self.rows.index, dtype=object))
        before = before.astype(object).where(before.notna(), "")
        for (first, then), part in self.rows.groupby([before, "simulationConditionId"]):
            name, own = str(then), self.problem.experiments.get(str(then))
            conditions = [(-math.inf, str(first))] if str(first) else []
            yield own or tuple(Period(t, self._changes(one)) for t, one in [*conditions, (0.0, name)]), part

    def stages(self, periods: Sequence[Period], parameters: Mapping[str, Values]) -> list[Stage]:
        """The model in each period of an experiment, for values of the parameter table; periods are divided at events.

        Raises:
            InputError: as for `ModelFile.model`, a parameter has no value, a change depends on what it may not, or
                there are events and a period at -inf.
        """
        found: list[Stage] = []
        for period, end in zip(periods, [*(period.time for period in periods[1:]), math.inf], strict=True):
            if found and self.problem.experiments:
                model = self._changed(found[-1].model, period, parameters)
            else:
                values = {name: value for name, value in parameters.items() if name in self._file.quantities}
                begin = 0.0 if math.isinf(period.time) else period.time
                known = {TIME: np.float64(begin), **parameters}
                given = {name: self._number(entry, known) for name, entry in period.changes.items()}
                # Parameters of formulas of observables alone.
                outputs = {name: given.pop(name) for name in self._outputs & set(given)}
                model = self._file.model(values | given, self._operations, begin)
                model = dataclasses.replace(model, constants=model.constants | outputs)
            entered = functools.partial(self._entered, found[-1].model, model, period, parameters) if found else None
            if math.isinf(period.time) and model.jumps:
                raise InputError(
                    f"{self.problem.path}: events, and a steady state before the experiment, are not simulated "
                    "together yet"
                )
            found.append(Stage(period.time, end, model, entered))
        return [part for stage in found for part in stage.parts()]

    def _changed(self, before: KineticModel, period: Period, parameters: Mapping[str, Values]) -> KineticModel:
        """The model with other constants; those that are not changed keep their values from the period before."""
        constants = dict(before.constants)
        known = {**before.constants, TIME: np.float64(period.time), **parameters}
        new = {name: entry for name, entry in period.changes.items() if name not in before.states}
        for name in sorted(set(new) & frozenset[str]().union(*(jump.depends for jump in before.jumps))):
            raise InputError(
                f"{self.problem.path}: {name}, on which the time of an event depends, changes at time {period.time:g}"
            )
        for name, entry in new.items():
            if name not in constants and state_key(name) not in constants:
                raise InputError(
                    f"{self.problem.path}: {name}, which changes at time {period.time:g}, is not a parameter, "
                    "compartment or species of the model, or a rule computes it"
                )
            value = self._number(entry, known, name)
            constants[name if name in constants else state_key(name)] = value
        for name in before.diluted:
            key, size = state_key(name), before.compartments[name]
            if key in constants and size in constants and (name in new or size in new):
                value = constants[key] if name in new else constants[key] / before.constants[size]
                constants[key] = value * constants[size]
        return dataclasses.replace(before, constants=constants)

    def _entered(
        self,
        before: KineticModel,
        model: KineticModel,
        period: Period,
        parameters: Mapping[str, Values],
        states: Sequence[Values],
    ) -> list[Values]:
        """The states at the start of a period, from those at the end of the one before.

        Where the size of a compartment changes, the values of its species as formulas see them stay.
        """
        values = before.values(np.float64(period.time), states)
        known = {**values, **parameters}
        found = []
        for name, state in zip(model.states, states, strict=True):
            size = before.compartments.get(name, "") if name in model.diluted else ""
            old = values.get(size, 1.0)
            resized = size in before.states and size in period.changes
            new = self._number(period.changes[size], known) if resized else model.constants.get(size, old)
            if name in period.changes:
                found.append(self._number(period.changes[name], known) * new)
            else:
                found.append(state if new is old else state * (new / old))
        return found

    def simulated(self, row: pd.Series, values: Environment, parameters: Mapping[str, Values]) -> tuple[Values, Values]:
        """The simulated value of a measurement, and its noise.

        Args:
            row: of the measurement table.
            values: of all ids of the model, at the time of the row.
            parameters: values of the parameter table.

        Raises:
            InputError: a quantity in a formula has no value.
        """
        observable = str(row["observableId"])
        environment = {**parameters, **values}
        for column, placeholder in _PLACEHOLDERS.items():
            if column in row and pd.notna(row[column]):
                for number, entry in enumerate(str(row[column]).split(";"), start=1):
                    environment[f"{placeholder}{number}_{observable}"] = self._number(entry, parameters)
        environment[observable] = self._value(observable, "observableFormula", environment)
        return environment[observable], self._value(observable, "noiseFormula", environment)

    def _changes(self, condition: str) -> dict[str, Any]:
        """What the condition table of version 1 gives; an empty cell gives nothing."""
        row = self.problem.conditions.loc[condition].drop("conditionName", errors="ignore").dropna()
        return {str(name): entry for name, entry in row.items()}

    def _number(self, entry: Any, known: Mapping[str, Values], constant: str = "") -> Values:
        """A number, or the value of a formula of known quantities.

        Args:
            constant: id of the constant that gets this value, which may then not depend on the state.
        """
        try:
            return float(entry)
        except ValueError:
            needed, formula = self._compiled(str(entry), "a value in a table")
        for name in sorted(needed - set(known)):
            if constant:
                raise InputError(
                    f"{self.problem.path}: the change of {constant} depends on {name}, which is not a constant; only "
                    "changes of states may depend on such quantities"
                )
            raise InputError(f"{self.problem.path}: parameter {name} has no value")
        with np.errstate(all="ignore"):
            return formula(known)

    def _formula(self, observable: str, text: Any) -> tuple[set[str], Compiled]:
        if pd.isna(text):
            raise InputError(f"{self.problem.path}: observable {observable}: a formula is empty")
        return self._compiled(str(text), f"observable {observable}")

    def _compiled(self, text: str, where: str) -> tuple[set[str], Compiled]:
        """The names that a formula needs, and the formula."""
        try:
            node = parse_formula(text)
            return names(node), compiled(node, _lookup, {}, operations=self._operations)
        except FormulaError:
            raise InputError(f"{self.problem.path}: {where}: the formula {text!r} is not valid") from None

    def _value(self, observable: str, column: str, environment: Environment) -> Values:
        needed, formula = self._formulas[observable, column]
        absent = sorted(needed - set(environment))
        if absent:
            raise InputError(f"{self.problem.path}: observable {observable}: {absent[0]} has no value")
        with np.errstate(all="ignore"):
            return formula(environment)


def _lookup(name: str) -> Compiled:
    return lambda environment: environment[name]
