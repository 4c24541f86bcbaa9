"""Parameters of a PEtab problem by maximum likelihood, from many starts."""

from __future__ import annotations

import dataclasses
import math
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.stats import chi2, norm

from metabolismgraph.errors import InputError
from metabolismgraph.formats.petab import read_petab
from metabolismgraph.kinetic_models.fit_result import (
    AT_LOWER,
    AT_UPPER,
    FLAT,
    OTHER,
    OUT_OF_TIME,
    SAME,
    STILL_IMPROVING,
    PetabFit,
)
from metabolismgraph.kinetic_models.likelihood import Compiler, simulated_table
from metabolismgraph.kinetic_models.starts import draw_points
from metabolismgraph.system.progress import Progress, silent

try:
    from metabolismgraph.kinetic_models.compiled_model import compile_rates
    from metabolismgraph.kinetic_models.held_out import predicted, split
    from metabolismgraph.kinetic_models.objective import Objective
    from metabolismgraph.kinetic_models.search import MOST_STEPS, OBJECTIVES, Start, run_start
    from metabolismgraph.kinetic_models.symbols import SYMBOLS
except ImportError as error:
    raise InputError(
        f"parameter estimation needs {error.name}, which is not installed; pip install 'metabolismgraph[petab]'"
    ) from None

_TRIES = 20  # points of which the likeliest one is a start
_AT_BOUND = 1e-3  # distance on the scale of the parameter table; on linear scale at most this share of the range
_WIDE = math.log(10)  # logarithm of the ratio of the ends of a 95 % interval
_AGREED = 1e-3  # difference of the objective between two integrators, absolute and relative
_FAR = 5.0  # standard errors: a start with equal likelihood that is farther away is another optimum
_MISSED = 3.0  # standard deviations of a simulated value from a limit on whose wrong side it is
_UNLIKELY = 0.01  # p-value of the misfit


def fit_petab(
    path: str | Path,
    starts: int = 20,
    *,
    hold_out: Sequence[str] = (),
    hold_out_after: float = math.inf,
    also_from: Sequence[Mapping[str, float]] = (),
    minutes: float = math.inf,
    seed: int = 0,
    processes: int = 1,
    progress: Progress = silent,
) -> PetabFit:
    r"""Estimate the parameters of a PEtab problem by maximum likelihood, or maximum posterior where it has priors.

    Starts are a Latin hypercube between the bounds of the parameter table, on its scales (Raue et al. 2013; version 2
    has none: log10 for a positive lower bound, else linear), or have the distributions of the initialization priors;
    nominal values of estimated parameters are not used. From each one, a trust-region method with reflections at the
    bounds (fides, Fröhlich & Sorger 2022) goes down on the Fisher information, then on BFGS updates of it. Standard
    errors and intervals are those of the Fisher information at the best point.

    Args:
        path: YAML file of the problem, PEtab version 1 or 2.
        starts: their number.
        hold_out: conditions, or experiments of version 2, whose measurements are not fitted but predicted.
        hold_out_after: later measurements are not fitted but predicted.
        also_from: further starts, by parameter on linear scale; others have their nominal value.
        minutes: CPU time of each start, which then ends with the best point so far.
        seed: of the starts; without a limit of time the result depends on it alone, not on `processes`.
        processes: starts that run at the same time.
        progress: see `Progress`.

    Raises:
        InputError: as for `simulate_petab`; casadi or fides is not installed; bounds are missing or have no place on
            their scale; a condition to be held out has no measurement; or no start has a finite likelihood.

    Example:
        >>> from pathlib import Path
        >>> import metabolismgraph as mg
        >>> files = {
        ...     "parameters.tsv": "parameterId parameterScale lowerBound upperBound nominalValue estimate\n"
        ...     "k log10 0.001 100 7 1",
        ...     "conditions.tsv": "conditionId\nonly",
        ...     "observables.tsv": "observableId observableFormula noiseFormula\na A 0.1",
        ...     "measurements.tsv": "observableId simulationConditionId measurement time\na only 2.1 1\na only 1.0 2",
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
        >>> fit = mg.fit_petab("problem.yaml", starts=5)
        >>> fit.estimates[["estimate", "lower_95", "upper_95"]].rename_axis(None).round(2)
           estimate  lower_95  upper_95
        k      0.67      0.61      0.74
        >>> fit.reached
        5
    """
    if not minutes > 0:
        raise InputError(f"minutes must be positive, not {minutes:g}")
    if starts < 1:
        raise InputError(f"starts must be at least 1, not {starts}")
    problem, held = split(read_petab(Path(path)), hold_out, hold_out_after)
    objective = Objective(problem)
    drawn = draw_points(objective.problem, objective.lower, objective.upper, starts * _TRIES, seed)
    begin = [*drawn.reshape(starts, _TRIES, -1), *(objective.nearest(problem.nominal | {**more}) for more in also_from)]
    work = joblib.Parallel(n_jobs=min(processes, len(begin)), return_as="generator_unordered")
    found: dict[int, Start] = {}
    fit = uuid.uuid4().hex
    OBJECTIVES.clear()
    OBJECTIVES[fit] = objective  # for starts that run in this process
    for number, start in work(
        joblib.delayed(run_start)(objective.problem, fit, number, some, 60 * minutes)
        for number, some in enumerate(begin)
    ):
        found[number] = start
        least = min(start.objective for start in found.values())
        progress(
            "starts", len(found) / len(begin), f"{len(found)} of {len(begin)}, best {objective.quantity} {least:.6g}"
        )
    ordered = [found[number] for number in sorted(found)]
    best = min(ordered, key=lambda start: start.objective)
    if not math.isfinite(best.objective):
        raise InputError(
            f"{path}: no start of {len(begin)} has a finite likelihood; check bounds, model and measurements"
        )
    equal = [start.point for start in ordered if start.objective < best.objective + SAME]
    information = objective(best.point)[2]
    estimates = _estimates(objective, best.point, information, np.array(equal))
    simulation, checked = _simulation(objective, best.point)
    numbers = pd.RangeIndex(len(begin), name="start")
    table = pd.DataFrame([start._asdict() for start in ordered], index=numbers).drop(columns="point")
    points = pd.DataFrame([objective.linear(start.point) for start in ordered], index=numbers)
    again = objective.priors.terms(best.point)[0] - float(simulation["log_likelihood"].sum())
    unseen = _unseen(information, objective.upper - objective.lower)
    unknown = [name for name, none in zip(objective.names, unseen, strict=True) if none]
    held_out, failed = predicted(held, problem, objective.fixed | objective.linear(best.point), unknown)
    result = PetabFit(problem, objective.quantity, best.objective, estimates, table, points, simulation, held_out, ())
    return dataclasses.replace(result, notes=(*checked, *failed, *_notes(objective, best, result, again)))


def _simulation(objective: Objective, point: Float[np.ndarray, " parameters"]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The simulated measurements by the second integrator; by the first one, with a note, if that one fails."""
    try:
        values = objective.fixed | objective.linear(point)
        return simulated_table(objective.problem, values, Compiler(SYMBOLS, compile_rates)), ()
    except InputError as error:
        at = objective.simulated(point)
        densities = objective.likelihood.log_densities(at.simulation, at.noise)
        found = pd.DataFrame({"simulation": at.simulation, "noise": at.noise, "log_likelihood": densities})
        table = pd.concat([objective.problem.measurements.reset_index(drop=True), found], axis=1)
        return table, (f"the estimates were not checked by a second integrator, since it failed: {error}",)


def _estimates(
    objective: Objective,
    point: Float[np.ndarray, " parameters"],
    information: Float[np.ndarray, "parameters parameters"],
    equal: Float[np.ndarray, "starts parameters"],
) -> pd.DataFrame:
    """Estimates with standard errors, intervals and notes.

    Args:
        information: of the measurements and priors, at the point.
        equal: points of all starts with the best likelihood.
    """
    linear = np.array([scale == "lin" for scale in objective.scales])
    between = objective.upper - objective.lower
    near = _AT_BOUND * np.where(linear, np.minimum(between, 1.0), 1.0)
    below, above = point - objective.lower < near, objective.upper - point < near
    free = ~(below | above)
    error = np.full(len(point), np.nan)
    error[free] = _standard_errors(information[np.ix_(free, free)], between[free])
    half = norm.ppf(0.975) * np.where(free, error, 0.0)
    ends = np.clip([point - half, point + half], objective.lower, objective.upper)
    lower, upper = (objective.linear(end) for end in ends)
    rows = []
    for i, (name, scale) in enumerate(zip(objective.names, objective.scales, strict=True)):
        # Half the width of an interval on linear scale may be as large as the estimate.
        width, most = (2 * half[i], 2 * abs(point[i])) if scale == "lin" else (2 * half[i], _WIDE)
        wide = free[i] and (width * (math.log(10) if scale == "log10" else 1.0) > most)
        other = free[i] and bool((np.abs(equal[:, i] - point[i]) > _FAR * error[i] + near[i]).any())
        rows.append(
            {
                "estimate": objective.linear(point)[name],
                "standard_error": error[i],
                "lower_95": lower[name] if free[i] else math.nan,
                "upper_95": upper[name] if free[i] else math.nan,
                "note": AT_LOWER if below[i] else AT_UPPER if above[i] else FLAT if wide else OTHER if other else "",
            }
        )
    return pd.DataFrame(rows, index=pd.Index(objective.names, name="parameterId"))


def _standard_errors(
    information: Float[np.ndarray, "free free"], between: Float[np.ndarray, " free"]
) -> Float[np.ndarray, " free"]:
    """Square roots of the diagonal of the inverse; very large along directions without information.

    Args:
        between: distances of the bounds.
    """
    seen = ~_unseen(information, between)
    scale = np.where(seen, np.sqrt(np.diag(information)), 1 / between)
    values, vectors = np.linalg.eigh(np.outer(seen, seen) * information / np.outer(scale, scale))
    values = np.maximum(values, np.finfo(float).eps * max(len(values), 1) * values.max(initial=1.0))
    errors: np.ndarray = np.sqrt((vectors**2 / values).sum(axis=1)) / scale
    return errors


def _unseen(
    information: Float[np.ndarray, "free free"], between: Float[np.ndarray, " free"]
) -> Bool[np.ndarray, " free"]:
    """Parameters about which nothing is known but rounding errors of derivatives, as with limits that are far away.

    Args:
        between: distances of the bounds, which make parameters on linear scale comparable, whatever their units.
    """
    own = np.diag(information) * between**2
    unseen: np.ndarray = own <= np.finfo(float).eps ** 2 * own.max(initial=0.0)
    return unseen


def _notes(objective: Objective, best: Start, fit: PetabFit, again: float) -> tuple[str, ...]:
    """What not to trust, in sentences.

    Args:
        again: the objective at the estimates by the second integrator.
    """
    notes, starts, estimates = [], fit.starts, fit.estimates
    if abs(again - best.objective) > _AGREED * (1 + abs(best.objective)):
        notes.append(
            f"two integrators disagree at the estimates: {objective.quantity} is {best.objective:.6g} by CVODES and "
            f"{again:.6g} by LSODA; the result is not to be trusted"
        )
    failed = int((~np.isfinite(starts["objective"])).sum())
    if fit.reached == 1 and len(starts) > 1:
        notes.append(f"only one start of {len(starts)} found the best likelihood; more starts may find a better one")
    if failed:
        notes.append(f"{failed} of {len(starts)} starts have no finite likelihood, since the model cannot be simulated")
    late = int((starts["ending"] == OUT_OF_TIME).sum())
    if late:
        notes.append(f"{late} of {len(starts)} starts ran out of time; with more, they may find a better likelihood")
    if best.ending == STILL_IMPROVING:
        notes.append(f"the best start was still improving after {MOST_STEPS} steps")
    at = objective.simulated(best.point)
    exact = objective.likelihood.exact
    freedom = int(exact.sum()) - int((estimates["note"] == "").sum())
    if freedom > 0 and not np.any(at.of_noise):
        misfit = float((objective.likelihood.residuals(at.simulation, at.noise)[exact] ** 2).sum())
        chance = float(chi2.sf(misfit, freedom))
        if chance < _UNLIKELY:
            notes.append(
                f"the residuals are larger than the given noise: chi-squared {misfit:.4g} for {freedom} degrees of "
                f"freedom, p = {chance:.1g}; the model or the noise is not right, and intervals are too narrow"
            )
    missed = objective.likelihood.missed(at.simulation, at.noise) > _MISSED
    if missed.any():
        where = ", ".join(dict.fromkeys(objective.problem.measurements["observableId"][missed]))
        notes.append(
            f"limits that are missed by more than {_MISSED:g} standard deviations: {int(missed.sum())} ({where}); the "
            "model or the noise is not right"
        )
    for what, names in (
        (FLAT, estimates.index[estimates["note"] == FLAT]),
        ("not unique, since other starts have an equal likelihood", estimates.index[estimates["note"] == OTHER]),
        ("at a bound", estimates.index[estimates["note"].isin([AT_LOWER, AT_UPPER])]),
    ):
        if len(names):
            notes.append(f"{len(names)} of {len(estimates)} parameters are {what}: {', '.join(names)}")
    return tuple(notes)
