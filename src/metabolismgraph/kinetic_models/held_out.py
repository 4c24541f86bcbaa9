"""Prediction of measurements that were not fitted."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from metabolismgraph.config.messages import nearest_name
from metabolismgraph.errors import InputError
from metabolismgraph.formats.petab import PetabProblem, sides_of
from metabolismgraph.kinetic_models.scales import to_scale
from metabolismgraph.kinetic_models.sensitivities import SimulatedMeasurements, SimulationFailedError

PREDICTIONS = ("simulation", "nominal", "interpolation")


def split(
    problem: PetabProblem, conditions: Sequence[str], after: float = math.inf
) -> tuple[PetabProblem, PetabProblem]:
    """The problem with the measurements that are to be fitted, and with those that are held out.

    Args:
        conditions: all measurements of theirs, or in version 2 of experiments, are held out.
        after: measurements at later times are held out.

    Raises:
        InputError: a condition has no measurement, no time is later, or nothing is left to be fitted.
    """
    rows = problem.measurements
    of = rows["simulationConditionId"].astype(str)
    for name in conditions:
        if not (of == name).any():
            near = nearest_name(name, set(of))
            raise InputError(
                f"{problem.path}: no measurement has condition or experiment {name}, to be held out; nearest: {near}"
            )
    late = rows["time"].astype(float) > after
    if after < math.inf and not late.any():
        raise InputError(
            f"{problem.path}: no measurement is later than {after:g}, to be held out; give an earlier time"
        )
    held = of.isin(list(conditions)) | late
    if held.all():
        raise InputError(f"{problem.path}: all measurements are held out; nothing is left to be fitted")
    parts = (rows[~held].reset_index(drop=True), rows[held].reset_index(drop=True))
    fitted, rest = (dataclasses.replace(problem, measurements=part) for part in parts)
    return fitted, rest


def predicted(
    problem: PetabProblem, fitted: PetabProblem, values: Mapping[str, float], unknown: Collection[str] = ()
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Measurements beside their prediction and baselines, and notes on what cannot be predicted.

    Args:
        problem: with the held-out measurements.
        fitted: with the others.
        values: of all parameters, on linear scale.
        unknown: parameters of which the fitted measurements say nothing; what depends on them is not predicted.

    Returns:
        The measurement table with `simulation`, and as baselines `nominal` (simulated with the nominal values of the
        problem) and `interpolation` (on a straight line between the measurements before and after, constant beyond the
        last one; a prediction does not know held-out ones). NaN where there is none.
    """
    table, notes = problem.measurements.copy(), []
    if not len(table):
        return table.assign(**dict.fromkeys(PREDICTIONS, np.nan)), ()
    fixed = {name: value for name, value in values.items() if name not in problem.estimated}
    model = SimulatedMeasurements(problem, fixed)
    scales = problem.parameters["parameterScale"].astype(str)
    for column, given in (("simulation", values), ("nominal", problem.nominal)):
        table[column] = np.nan
        try:
            point = np.array([to_scale(given[name], scales[name]) for name in problem.estimated])
            at = model.at(point, derivatives=column == "simulation")
            table[column] = at.simulation
            if column == "simulation":
                guessed = {name: k for k, name in enumerate(problem.estimated) if name in unknown}
                slopes = np.abs(at.of_simulation)
                rounding = np.finfo(float).eps * slopes.max(axis=1, keepdims=True, initial=0.0)
                moved = slopes[:, list(guessed.values())] > rounding
                rows = moved.any(axis=1)
                table.loc[rows, column] = np.nan
                if rows.any():
                    names = ", ".join(name for name, some in zip(guessed, moved.any(axis=0), strict=True) if some)
                    which = f"{int(rows.sum())} held-out measurements are not predicted"
                    notes.append(f"{which}, since the fitted ones do not depend on {names}")
        except (KeyError, ValueError):
            continue  # the problem has no nominal values
        except SimulationFailedError:
            what = "estimates" if column == "simulation" else "nominal values"
            notes.append(f"held-out measurements cannot be simulated with the {what}")
    table["interpolation"] = np.nan
    groups = ["simulationConditionId", "observableId"]
    everything = pd.concat([table.assign(held=table.index), fitted.measurements.assign(held=-1)], ignore_index=True)
    for _, part in everything.groupby(groups):
        exact = sides_of(part) == 0
        found = _interpolated(part["time"].to_numpy(float), part["measurement"].to_numpy(float), exact)
        held = part["held"].to_numpy() >= 0
        table.loc[part["held"].to_numpy()[held], "interpolation"] = found[held]
    return table, tuple(notes)


def _interpolated(
    time: Float[np.ndarray, " rows"], values: Float[np.ndarray, " rows"], exact: Bool[np.ndarray, " rows"]
) -> Float[np.ndarray, " rows"]:
    """Each value from the exact ones at other times, constant beyond them."""
    found = np.full(len(time), np.nan)
    for k, t in enumerate(time):
        others = np.isfinite(time) & (time != t) & exact
        if others.any():
            order = np.argsort(time[others], kind="stable")
            found[k] = np.interp(t, time[others][order], values[others][order])
    return found


def skill(table: pd.DataFrame) -> pd.DataFrame:
    """How well each observable is predicted in each condition.

    Returns:
        By condition and observable: the number of `measurements`, without limits; for each prediction R2, the share of
        the variance that it explains: 1 for a perfect one, 0 for one as good as the mean, negative for a worse one, NaN
        for a constant observable; and its root mean square error.
    """
    rows = []
    for (condition, observable), part in table.groupby(["simulationConditionId", "observableId"], sort=False):
        exact = part[sides_of(part) == 0]
        y = exact["measurement"].to_numpy(float)
        spread = float(((y - y.mean()) ** 2).sum()) if len(y) else 0.0
        row = {"condition": condition, "observable": observable, "measurements": len(y)}
        for name in PREDICTIONS:
            misfit = float(((exact[name].to_numpy(float) - y) ** 2).sum())
            row[f"R2_{name}"] = 1 - misfit / spread if spread > 0 else np.nan
            row[f"error_{name}"] = math.sqrt(misfit / len(y)) if len(y) else np.nan
        rows.append(row)
    return pd.DataFrame(rows).set_index(["condition", "observable"])
