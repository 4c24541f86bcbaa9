"""The observables of a problem: what is measured, with which noise, and the measurements."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from metabolismgraph.errors import InputError
from metabolismgraph.formats.formula import FormulaError, names
from metabolismgraph.formats.petab import CENSORING_BOUNDS, KINDS, MEASUREMENT_TYPE
from metabolismgraph.formats.petab_formula import parse_formula
from metabolismgraph.formats.wording import some
from metabolismgraph.kinetic_models.edited_model import EditedModel
from metabolismgraph.kinetic_models.experiments import Experiment
from metabolismgraph.kinetic_models.rate_laws import LIN, LOG10, Parameter

_LEAST_NOISE, _MOST_NOISE = 1e-4, 10.0  # bounds of a standard deviation, in ranges of the values
_DETECTION = 0.01  # value below which relative noise does not fall, relative to the largest one
_SCALES, _NEARER = 1e4, 30.0  # bounds and starts of the scale of relative values: factors
_OFFSETS = 10.0  # bounds of an offset beyond the values: ranges of these


class ObservableTable:
    """The observables of a problem, one for each measured species and formula.

    Attributes:
        rows: of the observable table.
        measurements: rows of the measurement table.
        parameters: scales, offsets and standard deviations.
        notes: assumptions, in sentences.

    Raises:
        InputError: nothing is to be fitted; standard deviations are given for some tables only; or noise is to be
            estimated from limits alone.
    """

    def __init__(self, model: EditedModel, formulas: Mapping[str, str], noise: float | None):
        self._model, self._formulas, self._noise = model, formulas, noise
        self.parameters: list[Parameter] = []
        self._left_out: set[tuple[str, str]] = set()  # names with a scale or an offset, and held-out experiments
        self._of_tables: dict[tuple[str, str], str] = {}  # noise of relative values, by name and table
        self.rows = list(self._observed())
        if not self.rows:
            raise InputError(f"{model.path}: nothing is to be fitted: all species with measurements are inputs")
        self.measurements = list(self._measured())
        self.notes = [*self._note_amounts(), *self._note_left_out(), *self._note_limits()]

    def _observed(self) -> Iterable[dict[str, Any]]:
        species = {name: self._model.concentration(name) for name in self._model.index.species}
        for name, formula in {**species, **self._formulas}.items():
            measured = [e for e in self._model.experiments if len(e.known(name)[0])]
            if any(name in e.relative | e.offset for e in measured):
                self._left_out |= {(name, e.id) for e in measured if e.held_out}
                measured = [e for e in measured if not e.held_out]
            if measured and name not in self._model.inputs:
                scaled = self._scaled(name, formula, measured)
                noise = self._noise_formula(name, scaled, measured)
                yield {"observableId": f"of_{name}", "observableFormula": scaled, "noiseFormula": noise}

    # -- scales and offsets

    def _scaled(self, name: str, formula: str, measured: Sequence[Experiment]) -> str:
        """The formula of a species or observable with scale and offset, whose parameters are added."""
        relative, shifted = name in measured[0].relative, name in measured[0].offset
        if not relative and not shifted:
            return formula
        expected = self._at_start(formula)
        for table, own in _by_table(measured).items():
            values = _typical(name, own)
            if relative:
                self.parameters.append(_scale(_scale_of(name, table), values, expected, shifted=shifted))
            if shifted:
                self.parameters.append(_offset(_offset_of(name, table), values, 0.0 if relative else expected))
        factor = f"observableParameter1_of_{name} * " if relative else ""
        term = f" + observableParameter{1 + relative}_of_{name}" if shifted else ""
        return f"{factor}{f'({formula})' if name in self._formulas else formula}{term}"

    def _at_start(self, formula: str) -> float:
        """Absolute value of a formula at the start of the model; 1 where it is not known, or zero."""
        try:
            value = abs(float(self._model.index.start.evaluate(parse_formula(formula))))
        except FormulaError:
            return 1.0
        return value if 0 < value < math.inf else 1.0

    # -- noise

    def _noise_formula(self, name: str, formula: str, measured: Sequence[Experiment]) -> str:
        """The noise of a species or observable, whose parameters are added."""
        given, of_table = [e for e in measured if name in e.deviations], f"noiseParameter1_of_{name}"
        if given and len(given) < len(measured):
            without = next(e for e in measured if e not in given)
            raise InputError(
                f"{self._model.path}: {name} has standard deviations in {given[0].id}, not in {without.id}"
            )
        if given:
            return of_table
        relative = name in measured[0].relative
        if relative:  # values of different tables are not comparable
            for table, own in _by_table(measured).items():
                self._of_tables[name, table] = self._noise_of(name, own, f"{name}_{table}")
        least = of_table if relative else self._noise_of(name, measured, name)
        if self._noise is None:
            return least
        if name in self._formulas or name in measured[0].offset:  # which may be negative
            size = f"abs(of_{name})"
        else:
            size = f"of_{name}" if relative else formula
        return f"{self._noise:.12g} * ({size} + {least})"

    def _noise_of(self, name: str, measured: Sequence[Experiment], of: str) -> str:
        """Standard deviation of some measurements, a parameter or a number; with relative noise, the term to add.

        Args:
            of: end of the id of the parameter.
        """
        values = _typical(name, measured)
        if self._noise is not None:
            return f"{_DETECTION * _largest(values):.12g}"
        size = _range(values)
        if not any(experiment.fitted(name).size for experiment in measured):
            if any(experiment.fitted(name, limits=True).size for experiment in measured):
                raise InputError(
                    f"{self._model.path}: all values of {name} to be fitted are limits, from which its noise cannot be "
                    "estimated; give noise or deviations"
                )
            return f"{size / 10:.12g}"
        parameter = Parameter(f"sd_{of}", LOG10, size * _LEAST_NOISE, size * _MOST_NOISE, (size / 10, size))
        self.parameters.append(parameter)
        return parameter.id

    # -- measurements

    def _measured(self) -> Iterable[dict[str, Any]]:
        for row in self.rows:
            name = row["observableId"].removeprefix("of_")
            for experiment in self._model.experiments:
                if (name, experiment.id) in self._left_out:
                    continue
                time, values = experiment.known(name)
                spread, side = experiment.spread(name), experiment.side(name)
                parameters = [_scale_of(name, experiment.table)] * (name in experiment.relative)
                parameters += [_offset_of(name, experiment.table)] * (name in experiment.offset)
                of_table = self._of_tables.get((name, experiment.table), "")
                for k, (t, value) in enumerate(zip(time, values, strict=True)):
                    limit = {MEASUREMENT_TYPE: KINDS[side[k]], CENSORING_BOUNDS: float(value)} if side[k] else {}
                    yield {
                        "observableId": row["observableId"],
                        "simulationConditionId": experiment.id,
                        "measurement": float(value),
                        "time": float(t),
                        "observableParameters": ";".join(parameters),
                        "noiseParameters": of_table if spread is None else f"{spread[k]:.12g}",
                        **limit,
                    }

    # -- notes

    def _note_amounts(self) -> Iterable[str]:
        """Species whose ids are amounts in the model, and concentrations in formulas of observables."""
        model = self._model
        mentioned = set[str]().union(*(names(parse_formula(formula)) for formula in self._formulas.values()))
        amounts = [name for name in model.index.species if name in mentioned and model.index.volume_of(name) != 1]
        if amounts:
            yield (
                "Amounts in the model, but concentrations in formulas of observables: "
                f"{some(amounts, len(amounts))}; an amount is written with its compartment, such as "
                f"{model.index.species[amounts[0]].getCompartment()}*{amounts[0]}."
            )

    def _note_left_out(self) -> Iterable[str]:
        left_out = sorted({name for name, _ in self._left_out})
        if left_out:
            yield (
                "Values with a scale or an offset in held-out tables are not predicted, since it is not known: "
                f"{some(left_out)}."
            )

    def _note_limits(self) -> Iterable[str]:
        limits = [row["observableId"].removeprefix("of_") for row in self.measurements if MEASUREMENT_TYPE in row]
        if limits:
            yield (
                f"{len(limits)} of {len(self.measurements)} values are limits ({some(list(dict.fromkeys(limits)))}). "
                f"The problem marks them by the columns {MEASUREMENT_TYPE} and {CENSORING_BOUNDS}, as pyPESTO does; "
                "programs that do not know these take the limits as values."
            )


def _by_table(experiments: Sequence[Experiment]) -> dict[str, list[Experiment]]:
    return {e.table: [other for other in experiments if other.table == e.table] for e in experiments}


def _typical(name: str, measured: Sequence[Experiment]) -> Float[np.ndarray, " values"]:
    """Values of some measurements to be fitted; without these, their limits; without these, those held out."""
    fitted = np.concatenate([experiment.fitted(name) for experiment in measured])
    limits = np.concatenate([experiment.fitted(name, limits=True) for experiment in measured])
    held_out = np.concatenate([experiment.known(name)[1] for experiment in measured])
    return next(values for values in (fitted, limits, held_out) if values.size)


def _largest(values: Float[np.ndarray, " values"]) -> float:
    """The largest absolute value; 1 if all are zero."""
    return float(np.abs(values).max()) or 1.0


def _range(values: Float[np.ndarray, " values"]) -> float:
    """The range of some values; their size if they are equal."""
    return float(np.ptp(values)) or _largest(values)


def _scale(name: str, values: Float[np.ndarray, " values"], expected: float, *, shifted: bool) -> Parameter:
    """The scale of values.

    Args:
        expected: size of what they are proportional to.
        shifted: whether they have an offset as well.
    """
    middle = (_range(values) if shifted else _largest(values)) / expected
    return Parameter(name, LOG10, middle / _SCALES, middle * _SCALES, (middle / _NEARER, middle * _NEARER))


def _offset(name: str, values: Float[np.ndarray, " values"], expected: float) -> Parameter:
    """The offset of values, of which a part of the expected size is none."""
    low, high, reach = float(values.min()), float(values.max()), max(_range(values), expected)
    return Parameter(name, LIN, low - _OFFSETS * reach, high + _OFFSETS * reach, (low - reach, high))


def _scale_of(name: str, table: str) -> str:
    return f"scale_{name}_{table}"


def _offset_of(name: str, table: str) -> str:
    return f"offset_{name}_{table}"
