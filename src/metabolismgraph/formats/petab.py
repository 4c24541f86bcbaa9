"""Parameter estimation problems in the PEtab format, versions 1 (Schmiester et al. 2021) and 2."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from jaxtyping import Int

from metabolismgraph.errors import InputError
from metabolismgraph.files import new_folder
from metabolismgraph.formats.petab_v2 import Period, read_version_2
from metabolismgraph.text import one_line

_NEEDED = {
    "parameters": ("parameterId", "parameterScale", "lowerBound", "upperBound", "estimate"),
    "conditions": ("conditionId",),
    "observables": ("observableId", "observableFormula", "noiseFormula"),
    "measurements": ("observableId", "simulationConditionId", "measurement", "time"),
}
_CHOICES = {"observableTransformation": ("lin", "log", "log10"), "noiseDistribution": ("normal", "laplace")}
# Columns for censored measurements, which PEtab does not have, by their names in pyPESTO.
MEASUREMENT_TYPE, CENSORING_BOUNDS = "measurementType", "censoringBounds"
SIDES = {"left-censored": -1, "right-censored": 1}
KINDS = {side: kind for kind, side in SIDES.items()}


@dataclasses.dataclass(frozen=True)
class PetabProblem:
    """The files of a problem.

    Attributes:
        path: the YAML file.
        model: the SBML file.
        parameters, conditions, observables: tables by id, with the columns of version 1; see `read_version_2`.
        measurements: one row per measured value, or per limit, see `sides_of`.
        experiments: in version 2 the periods of every experiment; empty in version 1.
    """

    path: Path
    model: Path
    parameters: pd.DataFrame
    conditions: pd.DataFrame
    observables: pd.DataFrame
    measurements: pd.DataFrame
    experiments: Mapping[str, tuple[Period, ...]] = dataclasses.field(default_factory=dict)

    @property
    def nominal(self) -> dict[str, float]:
        """The values of the parameter table, on linear scale; without those that have none."""
        values = self.parameters.get("nominalValue", pd.Series(dtype=float))
        return {str(name): float(value) for name, value in values.items() if pd.notna(value)}

    @property
    def estimated(self) -> tuple[str, ...]:
        """The parameters to be estimated."""
        return tuple(str(name) for name, wanted in self.parameters["estimate"].items() if _plain(wanted) == "1")


def read_petab(path: Path) -> PetabProblem:
    """Read a problem of PEtab version 1 or 2: its YAML file names an SBML model and tables.

    Raises:
        InputError: a file is missing or damaged, a column or an id is missing, or the problem needs something that is
            not supported yet: several problems or models, other models than SBML, and in version 2 extensions and names
            for parts of the model (mapping tables).
    """
    spec = _yaml(path)
    version = str(spec.get("format_version", ""))
    if version.partition(".")[0] not in ("1", "2"):
        raise InputError(f"{path}: PEtab version {version or 'unknown'} is not supported, only versions 1 and 2")
    found = PetabProblem(path, *read_version_2(path, spec)) if version.startswith("2") else _version_1(path, spec)
    found = dataclasses.replace(found, measurements=_with_limits(path, found.measurements))
    _check(found)
    _check_parameters(path, found.parameters)
    return found


def sides_of(measurements: pd.DataFrame) -> Int[np.ndarray, " rows"]:
    """By row: 0 where the number is the measured value; -1 where it is a limit that this is below, 1 where above."""
    if MEASUREMENT_TYPE not in measurements:
        return np.zeros(len(measurements), dtype=int)
    return measurements[MEASUREMENT_TYPE].map(SIDES).fillna(0).to_numpy(int)


def _with_limits(path: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """The measurement table with limits in the column of the measurements."""
    empty = pd.Series(np.nan, index=rows.index)
    kinds, bounds = rows.get(MEASUREMENT_TYPE, empty), rows.get(CENSORING_BOUNDS, empty)
    censored, limits = kinds.notna(), pd.to_numeric(bounds, errors="coerce")
    unknown, without, alone = censored & ~kinds.isin(SIDES), censored & limits.isna(), ~censored & bounds.notna()
    if unknown.any():
        raise InputError(
            f"{path}: row {_first(unknown)} of the measurements: {MEASUREMENT_TYPE} is not supported; known: "
            f"{', '.join(SIDES)}, or empty"
        )
    if without.any():
        raise InputError(f"{path}: row {_first(without)} of the measurements: {CENSORING_BOUNDS} is not a number")
    if alone.any():
        raise InputError(
            f"{path}: row {_first(alone)} of the measurements: {CENSORING_BOUNDS} needs a {MEASUREMENT_TYPE}"
        )
    return rows.assign(measurement=rows["measurement"].where(~censored, limits))


def _first(wrong: pd.Series) -> int:
    """Number of the first wrong row, from 1."""
    return int(wrong.to_numpy().argmax()) + 1


def _version_1(path: Path, spec: Mapping[str, Any]) -> PetabProblem:
    problems = spec.get("problems")
    if not isinstance(problems, list) or len(problems) != 1 or not isinstance(problems[0], dict):
        raise InputError(f"{path}: expected one entry in `problems`")
    files = {
        key: _files(path, problems[0], f"{key}_files") for key in ("sbml", "condition", "observable", "measurement")
    }
    if len(files["sbml"]) != 1:
        raise InputError(f"{path}: expected one SBML model, found {len(files['sbml'])}")
    named = spec.get("parameter_file")
    named = named if isinstance(named, list) else [named]
    parameters = _table(path, [path.parent / str(name) for name in named], "parameters")
    return PetabProblem(
        path,
        files["sbml"][0],
        _by_id(path, parameters, "parameterId"),
        _by_id(path, _table(path, files["condition"], "conditions"), "conditionId"),
        _by_id(path, _table(path, files["observable"], "observables"), "observableId"),
        _table(path, files["measurement"], "measurements"),
    )


def write_petab(folder: Path, model: str, tables: Mapping[str, pd.DataFrame]) -> Path:
    """Write the files of a problem of version 1, all of them or none.

    Args:
        folder: a new folder.
        model: SBML.
        tables: `parameters`, `conditions`, `observables` and `measurements`.

    Returns:
        The path of its YAML file.

    Raises:
        InputError: the folder cannot be written.
    """
    files = {f"{kind}_files": [f"{kind}s.tsv"] for kind in ("condition", "observable", "measurement")}
    problem = {"sbml_files": ["model.xml"], **files}
    with new_folder(folder) as part:
        (part / "model.xml").write_text(model, encoding="utf-8")
        for name, table in tables.items():
            table.to_csv(part / f"{name}.tsv", sep="\t", index=False)
        whole = {"format_version": 1, "parameter_file": "parameters.tsv", "problems": [problem]}
        (part / "problem.yaml").write_text(yaml.safe_dump(whole, sort_keys=False), encoding="utf-8")
    return folder / "problem.yaml"


def _yaml(path: Path) -> dict[str, Any]:
    try:
        spec = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not a readable YAML file: {one_line(error)}") from None
    if not isinstance(spec, dict):
        raise InputError(f"{path}: not a PEtab problem; expected format_version, parameter_file and problems")
    return spec


def _files(path: Path, problem: dict[str, Any], key: str) -> list[Path]:
    names = problem.get(key)
    if not isinstance(names, list) or not names:
        raise InputError(f"{path}: {key} is missing; other models than SBML are not supported yet")
    return [path.parent / str(name) for name in names]


def _table(path: Path, files: Sequence[Path], kind: str) -> pd.DataFrame:
    """Tables of one kind, one below the other."""
    parts = []
    for file in files:
        try:
            table = pd.read_csv(file, sep="\t", comment=None)
        except FileNotFoundError:
            raise InputError(f"{file}: no such file, named in {path}") from None
        except (OSError, ValueError) as error:
            raise InputError(f"{file}: not a readable table: {one_line(error)}") from None
        missing = [column for column in _NEEDED[kind] if column not in table.columns]
        if missing:
            raise InputError(f"{file}: column {missing[0]} is missing")
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


def _by_id(path: Path, table: pd.DataFrame, column: str) -> pd.DataFrame:
    twice = table[column][table[column].duplicated()]
    if len(twice):
        raise InputError(f"{path}: {column} {twice.iloc[0]} occurs twice")
    return table.set_index(table[column].astype(str)).drop(columns=column)


def _check(problem: PetabProblem) -> None:
    path, rows = problem.path, problem.measurements
    for column, table, what in (
        ("observableId", problem.observables, "observable"),
        ("simulationConditionId", problem.conditions, "condition"),
        ("preequilibrationConditionId", problem.conditions, "condition"),
    ):
        if column in rows:
            if column != "preequilibrationConditionId" and rows[column].isna().any():
                raise InputError(f"{path}: row {_first(rows[column].isna())} of the measurements: {column} is empty")
            unknown = sorted(set(rows[column].dropna().astype(str)) - set(table.index))
            if unknown:
                raise InputError(f"{path}: the measurements name {what} {unknown[0]}, which is not defined")
    for column, choices in _CHOICES.items():
        if column in problem.observables:
            other = sorted(set(problem.observables[column].dropna()) - set(choices))
            if other:
                raise InputError(f"{path}: {column} {other[0]} is not supported; known: {', '.join(choices)}")
    for column in ("measurement", "time"):
        numbers = pd.to_numeric(rows[column], errors="coerce")
        if numbers.isna().any():
            raise InputError(f"{path}: row {_first(numbers.isna())} of the measurements: {column} is not a number")
        if column == "time" and not problem.experiments and (numbers < 0).any():
            raise InputError(
                f"{path}: row {_first(numbers < 0)} of the measurements: time is negative; an experiment begins at zero"
            )
        if column == "measurement" and not numbers.map(math.isfinite).all():
            raise InputError(f"{path}: a measurement is not finite")


def _check_parameters(path: Path, parameters: pd.DataFrame) -> None:
    for column, known in (("parameterScale", {"lin", "log", "log10"}), ("estimate", {"0", "1"})):
        entries = parameters[column].map(_plain)
        for name, entry in entries[~entries.isin(known)].items():
            raise InputError(f"{path}: parameter {name}: {column} is {entry!r}; expected {', '.join(sorted(known))}")
    for column in ("lowerBound", "upperBound", "nominalValue"):
        if column in parameters:
            given = parameters[column][parameters[column].notna()]
            for name, entry in given[pd.to_numeric(given, errors="coerce").isna()].items():
                raise InputError(f"{path}: parameter {name}: {column} is {entry!r}, which is not a number")


def _plain(entry: object) -> str:
    """An entry as text: 1 and 1.0 alike."""
    return str(int(entry)) if isinstance(entry, float) and entry.is_integer() else str(entry).strip()
