"""The measured values of a PEtab problem as functions of its parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import libsbml
import numpy as np
import pandas as pd

from metabolismgraph.errors import InputError
from metabolismgraph.formats.formula import Compiled, FormulaError, Operations, Values, compiled, names
from metabolismgraph.formats.petab import PetabProblem
from metabolismgraph.kinetic_models.from_sbml import ModelFile
from metabolismgraph.kinetic_models.model import Environment, KineticModel

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

    def groups(self) -> Iterator[tuple[str, str, pd.DataFrame]]:
        """Condition of the steady state before, empty for none; condition; and rows of the measurement table."""
        before = self.rows.get("preequilibrationConditionId", pd.Series(index=self.rows.index, dtype=object))
        before = before.astype(object).where(before.notna(), "")
        for (first, then), part in self.rows.groupby([before, "simulationConditionId"]):
            yield str(first), str(then), part

    def model(self, condition: str, parameters: Mapping[str, Values]) -> KineticModel:
        """The model in a condition, for values of the parameter table.

        Raises:
            InputError: as for `ModelFile.model`, or a parameter has no value.
        """
        values = {name: value for name, value in parameters.items() if name in self._file.quantities}
        given = {name: self._number(entry, parameters) for name, entry in self._entries(condition)}
        return self._file.model(values | given, self._operations)

    def kept(self, model: KineticModel, condition: str) -> list[bool]:
        """Whether a state is that of the steady state before: the condition gives no value of its own."""
        own = {name for name, _ in self._entries(condition)}
        return [name not in own for name in model.states]

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

    def _entries(self, condition: str) -> list[tuple[str, Any]]:
        """Names and values that the condition table gives; an empty cell gives none."""
        row = self.problem.conditions.loc[condition].drop("conditionName", errors="ignore").dropna()
        return [(str(name), entry) for name, entry in row.items()]

    def _number(self, entry: Any, parameters: Mapping[str, Values]) -> Values:
        """A number, or the value of a parameter by its id."""
        try:
            return float(entry)
        except ValueError:
            name = str(entry).strip()
            if name in parameters:
                return parameters[name]
        raise InputError(f"{self.problem.path}: parameter {name} has no value")

    def _formula(self, observable: str, text: Any) -> tuple[set[str], Compiled]:
        if pd.isna(text):
            raise InputError(f"{self.problem.path}: observable {observable}: a formula is empty")
        node = libsbml.parseL3Formula(str(text))
        try:
            if node is None:
                raise FormulaError
            return names(node), compiled(node, _lookup, {}, operations=self._operations)
        except FormulaError:
            raise InputError(
                f"{self.problem.path}: observable {observable}: the formula {text!r} is not valid"
            ) from None

    def _value(self, observable: str, column: str, environment: Environment) -> Values:
        needed, formula = self._formulas[observable, column]
        absent = sorted(needed - set(environment))
        if absent:
            raise InputError(f"{self.problem.path}: observable {observable}: {absent[0]} has no value")
        with np.errstate(all="ignore"):
            return formula(environment)


def _lookup(name: str) -> Compiled:
    return lambda environment: environment[name]
