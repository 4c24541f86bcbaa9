"""Parameter estimation problems in version 2 of the PEtab format, in terms of version 1."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from metabolismgraph.errors import InputError
from metabolismgraph.formats.formula import TIME, FormulaError, names
from metabolismgraph.formats.petab_formula import parse_formula
from metabolismgraph.text import one_line

_AS_IS = "as is"  # name of the experiment of measurements without one; not an id, since it has a space
_NEEDED = {
    "parameter": ("parameterId", "lowerBound", "upperBound", "estimate"),
    "measurement": ("observableId", "experimentId", "measurement", "time"),
    "observable": ("observableId", "observableFormula", "noiseFormula"),
    "condition": ("conditionId", "targetId", "targetValue"),
    "experiment": ("experimentId", "time", "conditionId"),
    "mapping": ("petabEntityId", "modelEntityId"),
}
_KEYS = ("format_version", "id", "model_files", *(f"{kind}_files" for kind in _NEEDED), "extensions")
# Columns of version 1 that version 2 states otherwise, or not at all.
_OLD = ("parameterScale", "objectivePriorType", "initializationPriorType", "observableTransformation")
_NOISE = {"normal": ("lin", "normal"), "laplace": ("lin", "laplace")}
_NOISE |= {"log-normal": ("log", "normal"), "log-laplace": ("log", "laplace")}
_PLACEHOLDERS = {
    "observablePlaceholders": ("observableParameters", "observableParameter"),
    "noisePlaceholders": ("noiseParameters", "noiseParameter"),
}


@dataclasses.dataclass(frozen=True)
class Period:
    """A part of an experiment, until the next one starts.

    Attributes:
        time: of its start; -inf: it lasts until the states are at rest.
        changes: new values at the start, numbers or formulas, by id in the model.
    """

    time: float
    changes: Mapping[str, Any]


_Parts = tuple[Path, pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame, dict[str, tuple[Period, ...]]]


def read_version_2(path: Path, spec: Mapping[str, Any]) -> _Parts:
    """Read the files of a problem of version 2 (specification: petab.readthedocs.io).

    Tables get the columns of version 1 that other modules read: observables `observableTransformation`; formulas the
    placeholders of version 1; measurements `simulationConditionId`, the experiment; parameters `parameterScale`, which
    is only that of the search: log10 for a positive lower bound.

    Args:
        path: the YAML file.
        spec: its content.

    Returns:
        Model, parameters, experiments as conditions without columns, observables, measurements, and the periods of
        every experiment with measurements, in order.

    Raises:
        InputError: as for `read_petab`.
    """
    tables = _tables(path, spec)
    name, model = _model(path, spec)
    parameters = _parameters(path, tables["parameter"])
    observables = _observables(path, tables["observable"])
    measurements = _measurements(path, tables["measurement"], tables["observable"], name)
    experiments = {
        name: _periods(path, tables, name, set(parameters.index))
        for name in sorted(set(measurements["simulationConditionId"]))
    }
    begins = {name: min(p.time for p in own if math.isfinite(p.time)) for name, own in experiments.items()}
    early = measurements["time"] < measurements["simulationConditionId"].map(begins)
    if early.any():
        row = int(early.to_numpy().argmax()) + 1
        raise InputError(f"{path}: row {row} of the measurements: time is before the start of the experiment")
    return model, parameters, pd.DataFrame(index=list(experiments)), observables, measurements, experiments


def _tables(path: Path, spec: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    for key in spec:
        if key not in _KEYS:
            raise InputError(f"{path}: {key} is not a key of PEtab version 2; known: {', '.join(_KEYS)}")
    extensions = spec.get("extensions") or {}
    if not isinstance(extensions, dict):
        raise InputError(f"{path}: extensions must be a mapping of names to settings")
    for name, extension in extensions.items():
        if not isinstance(extension, dict) or extension.get("required", True):
            raise InputError(f"{path}: the extension {name} is required, and not supported")
    tables = {}
    for kind in _NEEDED:
        named = spec.get(f"{kind}_files") or []
        if not isinstance(named, list):
            raise InputError(f"{path}: {kind}_files must be a list of files")
        if not named and kind in ("parameter", "measurement", "observable"):
            raise InputError(f"{path}: {kind}_files is missing")
        tables[kind] = _table(path, [path.parent / str(name) for name in named], kind)
    for entry, part in zip(tables["mapping"]["petabEntityId"], tables["mapping"]["modelEntityId"], strict=True):
        if pd.notna(part) and part != entry:
            raise InputError(f"{path}: {entry} stands for {part} in the model; such names are not supported yet")
    return tables


def _model(path: Path, spec: Mapping[str, Any]) -> tuple[str, Path]:
    models = spec.get("model_files")
    if not isinstance(models, dict) or len(models) != 1:
        raise InputError(f"{path}: expected one model in model_files; several are not supported yet")
    ((name, model),) = models.items()
    if not isinstance(model, dict) or not {"language", "location"} <= set(model):
        raise InputError(f"{path}: model {name} needs language and location")
    if model["language"] != "sbml":
        raise InputError(f"{path}: model {name} is {model['language']}; only sbml is supported")
    return str(name), path.parent / str(model["location"])


def _table(path: Path, files: Sequence[Path], kind: str) -> pd.DataFrame:
    """Tables of one kind as text, one below the other; empty cells are missing."""
    parts = []
    for file in files:
        try:
            table = pd.read_csv(file, sep="\t", dtype=str, keep_default_na=False)
        except FileNotFoundError:
            raise InputError(f"{file}: no such file, named in {path}") from None
        except (OSError, ValueError) as error:
            raise InputError(f"{file}: not a readable table: {one_line(error)}") from None
        for column in _NEEDED[kind]:
            if column not in table:
                raise InputError(f"{file}: column {column} is missing; PEtab version 2 needs it")
        for column in _OLD:
            if column in table:
                raise InputError(f"{file}: column {column} is not one of PEtab version 2; remove it")
        table = table.apply(lambda column: column.astype(str).str.strip())
        parts.append(table.astype(object).where(table != "", math.nan))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=_NEEDED[kind], dtype=object)


def _by_id(path: Path, table: pd.DataFrame, column: str) -> pd.DataFrame:
    for name, twice in zip(table[column], table[column].duplicated(), strict=True):
        if pd.isna(name):
            raise InputError(f"{path}: a {column} is empty")
        if twice:
            raise InputError(f"{path}: {column} {name} occurs twice")
    return table.set_index(column)


def _parameters(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    table = _by_id(path, table, "parameterId")
    nominal = table.get("nominalValue", pd.Series(index=table.index, dtype=object))
    for name, entry, value in zip(table.index, table["estimate"], nominal, strict=True):
        if entry not in ("true", "false"):
            raise InputError(f"{path}: parameter {name}: estimate is {entry!r}; expected true or false")
        if entry == "false" and pd.isna(value):
            raise InputError(f"{path}: parameter {name} is not estimated and has no nominalValue")
    for name, row in table[table["estimate"] == "true"].iterrows():
        if pd.isna(row["lowerBound"]) or pd.isna(row["upperBound"]):
            raise InputError(f"{path}: parameter {name} is estimated and has no lowerBound or upperBound")
    lower = pd.to_numeric(table["lowerBound"], errors="coerce")
    return table.assign(
        estimate=["1" if entry == "true" else "0" for entry in table["estimate"]],
        parameterScale=["log10" if 0 < low < math.inf else "lin" for low in lower],
    )


def _observables(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    table = _by_id(path, table, "observableId")
    given = table.get("noiseDistribution", pd.Series(index=table.index, dtype=object)).fillna("normal")
    for name, kind in given.items():
        if kind not in _NOISE:
            raise InputError(f"{path}: observable {name}: noiseDistribution {kind} is not known; known: {list(_NOISE)}")
    formulas: dict[str, list[Any]] = {"observableFormula": [], "noiseFormula": []}
    for name, row in table.iterrows():
        old = {
            placeholder: f"{word}{number}_{name}"
            for column, (_, word) in _PLACEHOLDERS.items()
            for number, placeholder in enumerate(_entries(row.get(column)), start=1)
        }
        for column, found in formulas.items():
            found.append(_renamed(row[column], old))
    return table.assign(
        **formulas,
        observableTransformation=[_NOISE[kind][0] for kind in given],
        noiseDistribution=[_NOISE[kind][1] for kind in given],
    )


def _renamed(formula: Any, new: Mapping[str, str]) -> Any:
    if pd.isna(formula):
        return formula
    return re.sub(r"[A-Za-z_]\w*", lambda word: new.get(word[0], word[0]), formula)


def _entries(cell: Any) -> list[str]:
    """The parts of a list in a cell."""
    return [part.strip() for part in cell.split(";")] if isinstance(cell, str) else []


def _measurements(path: Path, table: pd.DataFrame, observables: pd.DataFrame, model: str) -> pd.DataFrame:
    counts = {
        column: {row["observableId"]: len(_entries(row.get(column))) for _, row in observables.iterrows()}
        for column in _PLACEHOLDERS
    }
    for number, (_, row) in enumerate(table.iterrows(), start=1):
        where = f"{path}: row {number} of the measurements"
        for column, (overrides, _) in _PLACEHOLDERS.items():
            given = len(_entries(row.get(overrides)))
            if given != counts[column].get(row["observableId"], given):
                raise InputError(
                    f"{where}: {overrides} has {given} values for {counts[column][row['observableId']]} {column}"
                )
        if pd.notna(row.get("modelId")) and row["modelId"] != model:
            raise InputError(f"{where}: modelId {row['modelId']} is not that of the model, {model}")
    return table.drop(columns="preequilibrationConditionId", errors="ignore").assign(
        measurement=pd.to_numeric(table["measurement"], errors="coerce"),
        time=pd.to_numeric(table["time"], errors="coerce"),
        simulationConditionId=table["experimentId"].where(table["experimentId"].notna(), _AS_IS),
    )


def _periods(path: Path, tables: Mapping[str, pd.DataFrame], name: str, parameters: set[str]) -> tuple[Period, ...]:
    """The periods of an experiment in order."""
    if name == _AS_IS:
        return (Period(0.0, {}),)
    rows, conditions = tables["experiment"], tables["condition"]
    rows = rows[rows["experimentId"] == name]
    if not len(rows):
        raise InputError(f"{path}: the measurements name experiment {name}, which is not defined")
    times = pd.to_numeric(rows["time"], errors="coerce")
    if not (times < math.inf).all():
        raise InputError(f"{path}: experiment {name}: time must be a number or -inf")
    found: list[Period] = []
    for time in map(float, sorted(set(times))):
        changes: dict[str, Any] = {}
        for condition in rows["conditionId"][times == time].dropna():
            own = conditions[conditions["conditionId"] == condition]
            if not len(own):
                raise InputError(f"{path}: experiment {name} names condition {condition}, which is not defined")
            for target, value in zip(own["targetId"], own["targetValue"], strict=True):
                _check_change(path, condition, target, value, parameters, first=not found)
                if target in changes:
                    raise InputError(f"{path}: experiment {name}: {target} gets two values at time {time:g}")
                changes[target] = value
        found.append(Period(time, changes))
    if not math.isfinite(found[-1].time):
        raise InputError(f"{path}: experiment {name} has no period with a finite time")
    return tuple(found)


def _check_change(path: Path, condition: str, target: Any, value: Any, parameters: set[str], *, first: bool) -> None:
    where = f"{path}: condition {condition}"
    if pd.isna(target) or pd.isna(value):
        raise InputError(f"{where}: {'targetId' if pd.isna(target) else f'the targetValue of {target}'} is empty")
    if target in parameters:
        raise InputError(f"{where}: {target} is in the parameter table; a condition may not change it")
    try:
        needed = names(parse_formula(value))
    except FormulaError:
        raise InputError(f"{where}: {target}: the formula {value!r} is not valid") from None
    unknown = sorted(needed - parameters - {TIME})
    if first and unknown:
        raise InputError(
            f"{where}: {target} depends on {unknown[0]}, which is not in the parameter table; the first condition "
            "of an experiment may depend on parameters of this table only"
        )
