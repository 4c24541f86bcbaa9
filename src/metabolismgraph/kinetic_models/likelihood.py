"""How likely the measurements of a PEtab problem are under its model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import libsbml
import numpy as np
import pandas as pd

from metabolismgraph.config.messages import nearest_name
from metabolismgraph.errors import InputError
from metabolismgraph.formats.formula import Compiled, FormulaError, compiled, names
from metabolismgraph.formats.petab import PetabProblem, read_petab
from metabolismgraph.kinetic_models.from_sbml import quantities, read_kinetic_model
from metabolismgraph.kinetic_models.model import Environment, KineticModel
from metabolismgraph.kinetic_models.simulation import integrate, steady_state

_PLACEHOLDERS = {"observableParameters": "observableParameter", "noiseParameters": "noiseParameter"}


def simulate_petab(path: str | Path, values: Mapping[str, float] | None = None) -> pd.DataFrame:
    r"""Simulate the measurements of a PEtab problem, at the nominal values of its parameters.

    Args:
        path: YAML file of the problem, PEtab version 1.
        values: other values of parameters of the parameter table, on linear scale.

    Returns:
        The measurement table with the columns `simulation`, `noise` (standard deviation, or scale of a Laplace
        distribution) and `log_likelihood` (natural logarithm of the density) of every row.

    Raises:
        InputError: as for `read_petab`, `read_kinetic_model` and `integrate`; a parameter has no value; a formula names
            an unknown quantity; or a measurement with a logarithmic transformation is not positive.

    Example:
        >>> from pathlib import Path
        >>> import metabolismgraph as mg
        >>> files = {
        ...     "parameters.tsv": "parameterId parameterScale lowerBound upperBound nominalValue estimate\n"
        ...     "k lin 0 9 0.7 1",
        ...     "conditions.tsv": "conditionId\nonly",
        ...     "observables.tsv": "observableId observableFormula noiseFormula\na A 0.1",
        ...     "measurements.tsv": "observableId simulationConditionId measurement time\na only 2.1 1",
        ... }
        >>> for name, text in files.items():
        ...     _ = Path(name).write_text(text.replace(" ", "\t"))
        >>> _ = Path("problem.yaml").write_text(
        ...     "format_version: 1\nparameter_file: parameters.tsv\nproblems:\n- sbml_files: [model.xml]\n"
        ...     "  condition_files: [conditions.tsv]\n  observable_files: [observables.tsv]\n"
        ...     "  measurement_files: [measurements.tsv]\n"
        ... )
        >>> law = "<apply><times/><ci> k </ci><ci> A </ci></apply>"
        >>> _ = Path("model.xml").write_text(
        ...     f'''<sbml xmlns="http://www.sbml.org/sbml/level2/version4" level="2" version="4"><model>
        ...   <listOfCompartments><compartment id="cell" size="1"/></listOfCompartments>
        ...   <listOfSpecies><species id="A" compartment="cell" initialConcentration="4"/></listOfSpecies>
        ...   <listOfParameters><parameter id="k"/></listOfParameters>
        ...   <listOfReactions><reaction id="loss">
        ...     <listOfReactants><speciesReference species="A"/></listOfReactants>
        ...     <kineticLaw><math xmlns="http://www.w3.org/1998/Math/MathML">{law}</math></kineticLaw>
        ...   </reaction></listOfReactions></model></sbml>'''
        ... )
        >>> mg.simulate_petab("problem.yaml")[["simulation", "noise", "log_likelihood"]].round(3)
           simulation  noise  log_likelihood
        0       1.986    0.1           0.738
    """
    problem = read_petab(Path(path))
    parameters = problem.nominal
    for name, value in (values or {}).items():
        if name not in problem.parameters.index:
            near = nearest_name(name, list(problem.parameters.index))
            raise InputError(f"{path}: the parameter table has no {name}; nearest: {near}")
        parameters[name] = float(value)
    return _Simulated(problem, parameters).table()


class _Simulated:
    """The measurements of a problem for given values of its parameters."""

    def __init__(self, problem: PetabProblem, parameters: Mapping[str, float]):
        self.problem, self.parameters = problem, parameters
        self.quantities = quantities(problem.model)
        columns = ("observableFormula", "noiseFormula")
        self.formulas = {
            (str(name), column): self._formula(str(name), row[column])
            for name, row in problem.observables.iterrows()
            for column in columns
        }

    def table(self) -> pd.DataFrame:
        rows = self.problem.measurements.reset_index(drop=True)
        found = pd.DataFrame(index=rows.index, columns=["simulation", "noise", "log_likelihood"], dtype=float)
        before = rows.get("preequilibrationConditionId", pd.Series(index=rows.index, dtype=object))
        before = before.astype(object).where(before.notna(), "")
        for (first, then), part in rows.groupby([before, "simulationConditionId"]):
            model = self._model(str(first), str(then))
            times = np.unique(part["time"].to_numpy(float))
            finite = times[np.isfinite(times)]
            at = integrate(model, finite) if finite.size else {}
            end = _single(model, steady_state(model)) if finite.size < times.size else {}
            for number, row in part.iterrows():
                k = int(np.searchsorted(finite, row["time"]))
                now = end if math.isinf(row["time"]) else {name: value[k] for name, value in at.items()}
                found.loc[number] = self._row(row, {**self.parameters, **now})
        return pd.concat([rows, found], axis=1)

    def _model(self, before: str, condition: str) -> KineticModel:
        """The model at the start of a condition, after a steady state of another one if there is one."""
        model = read_kinetic_model(self.problem.model, self._values(condition))
        if before:
            first = read_kinetic_model(self.problem.model, self._values(before))
            reached = dict(zip(first.states, steady_state(first), strict=True))
            own = self._of_condition(condition)
            start = [x if name in own else reached[name] for name, x in zip(model.states, model.start, strict=True)]
            model = dataclasses.replace(model, start=np.array(start, dtype=float))
        return model

    def _values(self, condition: str) -> dict[str, float]:
        """Values of quantities of the model: of the parameter table, then of the condition."""
        values = {name: value for name, value in self.parameters.items() if name in self.quantities}
        return values | self._of_condition(condition)

    def _of_condition(self, condition: str) -> dict[str, float]:
        """Values that the condition table gives; an empty cell gives none."""
        row = self.problem.conditions.loc[condition].drop("conditionName", errors="ignore").dropna()
        return {str(name): self._number(entry) for name, entry in row.items()}

    def _number(self, entry: Any) -> float:
        """A number, or the value of a parameter by its id."""
        try:
            return float(entry)
        except ValueError:
            name = str(entry).strip()
            if name in self.parameters:
                return self.parameters[name]
        raise InputError(f"{self.problem.path}: parameter {name} has no value")

    def _formula(self, observable: str, text: Any) -> tuple[set[str], Compiled]:
        node = libsbml.parseL3Formula(str(text))
        try:
            if node is None:
                raise FormulaError
            return names(node), compiled(node, lambda name: lambda environment: environment[name], {})
        except FormulaError:
            raise InputError(
                f"{self.problem.path}: observable {observable}: the formula {text!r} is not valid"
            ) from None

    def _row(self, row: Any, environment: Environment) -> tuple[float, float, float]:
        """Simulated value, noise and log likelihood of one measurement."""
        observable = str(row["observableId"])
        for column, placeholder in _PLACEHOLDERS.items():
            if column in row and pd.notna(row[column]):
                for number, entry in enumerate(str(row[column]).split(";"), start=1):
                    environment[f"{placeholder}{number}_{observable}"] = self._number(entry)
        simulated = self._value(observable, "observableFormula", environment)
        environment[observable] = simulated
        noise = self._value(observable, "noiseFormula", environment)
        settings = self.problem.observables.loc[observable]
        return simulated, noise, self._log_likelihood(float(row["measurement"]), simulated, noise, settings)

    def _value(self, observable: str, column: str, environment: Environment) -> float:
        needed, formula = self.formulas[observable, column]
        absent = sorted(needed - set(environment))
        if absent:
            raise InputError(f"{self.problem.path}: observable {observable}: {absent[0]} has no value")
        with np.errstate(all="ignore"):
            return float(formula(environment))

    def _log_likelihood(self, measured: float, simulated: float, noise: float, settings: Any) -> float:
        scale = settings.get("observableTransformation", "lin")
        if not noise > 0:
            return -math.inf
        change = 0.0  # log of the derivative of the transformation
        if scale in ("log", "log10"):
            if measured <= 0:
                raise InputError(f"{self.problem.path}: a measurement on a {scale} scale is {measured:g}, not positive")
            if not simulated > 0:
                return -math.inf
            base = 1.0 if scale == "log" else math.log(10)
            change = -math.log(measured * base)
            measured, simulated = math.log(measured) / base, math.log(simulated) / base
        z = (measured - simulated) / noise
        if settings.get("noiseDistribution", "normal") == "laplace":
            return change - math.log(2 * noise) - abs(z)
        return change - 0.5 * math.log(2 * math.pi * noise**2) - 0.5 * z**2


def _single(model: KineticModel, y: np.ndarray) -> dict[str, float]:
    """Values of all ids at one state, long after the start."""
    return {name: float(value) for name, value in model.values(np.float64(np.inf), y).items()}
