"""Parameters of a PEtab problem by maximum likelihood, from many starts."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import math
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.stats import chi2, norm

from metabolismgraph.errors import InputError
from metabolismgraph.formats.petab import PetabProblem, read_petab
from metabolismgraph.kinetic_models.fit_result import AT_LOWER, AT_UPPER, FLAT, OTHER, SAME, PetabFit
from metabolismgraph.kinetic_models.likelihood import Likelihood, simulated_table
from metabolismgraph.kinetic_models.priors import Priors
from metabolismgraph.kinetic_models.scales import UNITS, from_scale, to_scale
from metabolismgraph.kinetic_models.starts import draw_points
from metabolismgraph.system.progress import Progress, silent
from metabolismgraph.text import one_line

try:
    import fides

    from metabolismgraph.kinetic_models.held_out import predicted, split
    from metabolismgraph.kinetic_models.sensitivities import Simulated, SimulatedMeasurements, SimulationFailedError
except ImportError as error:
    raise InputError(
        f"parameter estimation needs {error.name}, which is not installed; pip install 'metabolismgraph[petab]'"
    ) from None

_PROBES, _ENOUGH = 50, 3  # points at which parameters of noise are told, and how many of them must be simulated
_MOST_STEPS = 500  # of each of two searches
_COARSE, _FINE = 1e-3, 1e-6  # change of the objective at which the first and the second one end
_TRIES = 20  # points of which the likeliest one is a start
_INSIDE = 1e-3  # least distance of a start from a bound, in ranges between bounds
_AT_BOUND = 1e-3  # distance on the scale of the parameter table
_WIDE = math.log(10)  # logarithm of the ratio of the ends of a 95 % interval
_AGREED = 1e-3  # difference of the objective between two integrators, absolute and relative
_FAR = 5.0  # standard errors: a start with equal likelihood that is farther away is another optimum
_UNLIKELY = 0.01  # p-value of the misfit


class Start(NamedTuple):
    """What came of one start.

    Attributes:
        objective: see `PetabFit`; infinite if there is none.
        point: parameters on the scales of the table.
        evaluations: of the likelihood.
        seconds: of computing.
        ending: why it ended, as fides names it.
    """

    objective: float
    point: Float[np.ndarray, " parameters"]
    evaluations: int
    seconds: float
    ending: str


def fit_petab(
    path: str | Path,
    starts: int = 20,
    *,
    hold_out: Sequence[str] = (),
    seed: int = 0,
    processes: int = 1,
    progress: Progress = silent,
) -> PetabFit:
    r"""Estimate the parameters of a PEtab problem by maximum likelihood, or maximum posterior where it has priors.

    Starts are a Latin hypercube between the bounds of the parameter table, on its scales (Raue et al. 2013), or have
    the distributions of the initialization priors; nominal values of estimated parameters are not used. From each one,
    a trust-region method with reflections at the bounds (fides, Fröhlich & Sorger 2022) goes down on the Fisher
    information, then on BFGS updates of it. Standard errors and intervals are those of the Fisher information at the
    best point.

    Args:
        path: YAML file of the problem, PEtab version 1.
        starts: their number.
        hold_out: conditions whose measurements are not fitted but predicted.
        seed: of the starts; the result depends on it alone, not on `processes`.
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
    if starts < 1:
        raise InputError(f"starts must be at least 1, not {starts}")
    problem, held = split(read_petab(Path(path)), hold_out)
    objective = _Objective(problem)
    drawn = draw_points(objective.problem, objective.lower, objective.upper, starts * _TRIES, seed)
    work = joblib.Parallel(n_jobs=min(processes, starts), return_as="generator_unordered")
    found: dict[int, Start] = {}
    fit = uuid.uuid4().hex
    _OBJECTIVES.clear()
    _OBJECTIVES[fit] = objective  # for starts that run in this process
    for number, start in work(
        joblib.delayed(_run)(objective.problem, fit, number, some)
        for number, some in enumerate(drawn.reshape(starts, _TRIES, -1))
    ):
        found[number] = start
        least = min(start.objective for start in found.values())
        progress("starts", len(found) / starts, f"{len(found)} of {starts}, best {objective.quantity} {least:.6g}")
    ordered = [found[number] for number in sorted(found)]
    best = min(ordered, key=lambda start: start.objective)
    if not math.isfinite(best.objective):
        raise InputError(f"{path}: no start of {starts} has a finite likelihood; check bounds, model and measurements")
    equal = [start.point for start in ordered if start.objective < best.objective + SAME]
    estimates = _estimates(objective, best.point, np.array(equal))
    simulation, checked = _simulation(objective, best.point)
    numbers = pd.RangeIndex(starts, name="start")
    table = pd.DataFrame([start._asdict() for start in ordered], index=numbers).drop(columns="point")
    points = pd.DataFrame([objective.linear(start.point) for start in ordered], index=numbers)
    again = objective.priors.terms(best.point)[0] - float(simulation["log_likelihood"].sum())
    held_out, failed = predicted(held, objective.fixed | objective.linear(best.point))
    result = PetabFit(problem, objective.quantity, best.objective, estimates, table, points, simulation, held_out, ())
    return dataclasses.replace(result, notes=(*checked, *failed, *_notes(objective, best, result, again)))


def _simulation(objective: _Objective, point: Float[np.ndarray, " parameters"]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The simulated measurements by the second integrator; by the first one, with a note, if that one fails."""
    try:
        return simulated_table(objective.problem, objective.fixed | objective.linear(point)), ()
    except InputError as error:
        at = objective.simulated(point)
        densities = objective.likelihood.log_densities(at.simulation, at.noise)
        found = pd.DataFrame({"simulation": at.simulation, "noise": at.noise, "log_likelihood": densities})
        table = pd.concat([objective.problem.measurements.reset_index(drop=True), found], axis=1)
        return table, (f"the estimates were not checked by a second integrator, since it failed: {error}",)


class _Objective:
    """The negative logarithm of the likelihood and of priors, on the scales of the parameter table.

    Attributes:
        evaluations: their number.
        precise: see `SimulatedMeasurements.at`.
    """

    def __init__(self, problem: PetabProblem):
        self.problem = problem
        self.lower, self.upper = _bounds(problem)
        self.names = problem.estimated
        self.scales = problem.parameters.loc[list(self.names), "parameterScale"].astype(str).tolist()
        self.fixed = {name: value for name, value in problem.nominal.items() if name not in self.names}
        self._simulated = SimulatedMeasurements(problem, self.fixed)
        self.likelihood = Likelihood(problem)
        self.priors = Priors(problem)
        self.evaluations = 0
        self.precise = True

    @property
    def quantity(self) -> str:
        """What is minimised."""
        return "-log posterior" if self.priors else "-log L"

    def __call__(self, point: Float[np.ndarray, " parameters"]) -> tuple[float, np.ndarray, np.ndarray]:
        """Value, gradient and information, with priors; infinite, without a gradient, where the simulation fails."""
        self.evaluations += 1
        try:
            at = self.simulated(point)
        except SimulationFailedError:
            at = None
        if at is not None:
            value = -float(self.likelihood.log_densities(at.simulation, at.noise).sum())
            gradient, information = self.likelihood.gradient(at.simulation, at.noise, at.of_simulation, at.of_noise)
            prior = self.priors.terms(point)
            value, gradient, information = value + prior[0], gradient + prior[1], information + prior[2]
            if np.isfinite([value, *gradient, *information.flat]).all():
                return value, gradient, information
        # A gradient of zero would pass for convergence.
        return math.inf, np.full(len(point), np.nan), np.eye(len(point))

    def simulated(self, point: Float[np.ndarray, " parameters"]) -> Simulated:
        """The simulated measurements with their derivatives."""
        return self._simulated.at(point, derivatives=True, precise=self.precise)

    def refined(self, point: Float[np.ndarray, " parameters"]) -> tuple[float, Float[np.ndarray, " parameters"]]:
        """A point with the likeliest values of the parameters that only scale the noise, and the objective there.

        These have a closed form. A value that is much too small makes a start useless: all other parameters then follow
        the measurements that happen to agree most.

        Raises:
            SimulationFailedError: there is no simulation at the point.
        """
        at = self._simulated.at(point, derivatives=False)
        z = self.likelihood.residuals(at.simulation, at.noise)
        found, noise = point.copy(), at.noise.copy()
        margin = _INSIDE * (self.upper - self.lower)
        for k, rows in self._noise_scales.items():
            factor, unit = math.sqrt(float(np.mean(z[rows] ** 2))) or 1.0, UNITS.get(self.scales[k])
            wanted = point[k] * factor if unit is None else point[k] + math.log(factor) / unit
            found[k] = np.clip(wanted, self.lower[k] + margin[k], self.upper[k] - margin[k])
            noise[rows] *= found[k] / point[k] if unit is None else math.exp((found[k] - point[k]) * unit)
        return self.priors.terms(found)[0] - float(self.likelihood.log_densities(at.simulation, noise).sum()), found

    @functools.cached_property
    def _noise_scales(self) -> dict[int, Bool[np.ndarray, " rows"]]:
        """Parameters to which the noise of some measurements is proportional and which do nothing else; these rows.

        They are told by the derivatives at random points, the same ones in every process.
        """
        seen, found = 0, dict[int, np.ndarray]()
        for point in draw_points(self.problem, self.lower, self.upper, _PROBES, 0):
            try:
                at = self.simulated(point)
            except SimulationFailedError:
                continue
            relative = at.of_noise / at.noise[:, None]
            now = {}
            for k, scale in enumerate(self.scales):
                rows = relative[:, k] != 0
                unit = UNITS.get(scale, 1 / point[k] if point[k] else 0.0)
                if rows.any() and not at.of_simulation[:, k].any() and np.allclose(relative[rows, k], unit, rtol=1e-6):
                    now[k] = rows
            found = {k: now[k] for k in now if seen == 0 or (k in found and (found[k] == now[k]).all())}
            seen += 1
            if seen == _ENOUGH:
                return found
        return {}

    def linear(self, point: Float[np.ndarray, " parameters"]) -> dict[str, float]:
        """The parameters on linear scale."""
        return {n: from_scale(float(x), s) for n, s, x in zip(self.names, self.scales, point, strict=True)}


def _bounds(problem: PetabProblem) -> tuple[Float[np.ndarray, " parameters"], Float[np.ndarray, " parameters"]]:
    """Lower and upper bounds on the scales of the parameter table."""
    if not problem.estimated:
        raise InputError(f"{problem.path}: no parameter has estimate 1; there is nothing to estimate")
    bounds = []
    for name in problem.estimated:
        row: dict[str, Any] = dict(problem.parameters.loc[name])
        scale, low, high = str(row["parameterScale"]), float(row["lowerBound"]), float(row["upperBound"])
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise InputError(f"{problem.path}: parameter {name}: bounds must be finite and in order, not {low}, {high}")
        if scale != "lin" and low <= 0:
            raise InputError(f"{problem.path}: parameter {name}: a bound on {scale} scale must be positive, not {low}")
        bounds.append([to_scale(low, scale), to_scale(high, scale)])
    lower, upper = np.array(bounds).T
    return lower, upper


_OBJECTIVES: dict[str, _Objective] = {}  # that of the present fit in this process, which has many starts


def _run(
    problem: PetabProblem, fit: str, number: int, points: Float[np.ndarray, "tries parameters"]
) -> tuple[int, Start]:
    """Number and result of a start, which begins at the likeliest of some points.

    Args:
        fit: name of the call of `fit_petab`.
    """
    if fit not in _OBJECTIVES:
        _OBJECTIVES.clear()
        _OBJECTIVES[fit] = _Objective(problem)
    objective, before = _OBJECTIVES[fit], time.process_time()
    objective.evaluations, objective.precise = 0, True
    tried = []
    for point in points:
        with contextlib.suppress(SimulationFailedError):
            tried.append(objective.refined(point))
    # The likeliest point may have no sensitivities, whose integration is harder.
    likeliest = (point for value, point in sorted(tried, key=lambda one: one[0]) if math.isfinite(value))
    point = next((point for point in likeliest if math.isfinite(objective(point)[0])), None)
    value, ending = math.inf, "no finite likelihood"
    if point is not None:
        # The Fisher information leaves out the curvature of the residuals, without which the last steps are small.
        try:
            objective.precise = False
            _, point, _ = _search(objective, point, _COARSE, None)
            objective.precise = True
            value, point, ending = _search(objective, point, _FINE, fides.HybridFixed(fides.BFGS(), switch_iteration=1))
        except (RuntimeError, ValueError, np.linalg.LinAlgError) as error:
            ending = f"the optimiser failed: {one_line(error)}"
    return number, Start(
        value, points[0] if point is None else point, objective.evaluations, time.process_time() - before, ending
    )


def _search(
    objective: _Objective,
    point: Float[np.ndarray, " parameters"],
    least_change: float,
    update: fides.hessian_approximation.HessianApproximation | None,
) -> tuple[float, Float[np.ndarray, " parameters"], str]:
    """Value, point and reason of the end of a search."""
    options = {
        fides.Options.MAXITER: _MOST_STEPS,
        fides.Options.FATOL: least_change,
        fides.Options.FRTOL: 0.0,
        fides.Options.SUBSPACE_DIM: fides.SubSpaceDim.FULL,
    }
    search = fides.Optimizer(objective, objective.upper, objective.lower, logging.CRITICAL, options, None, update)
    with np.errstate(all="ignore"):
        value, found, *_ = search.minimize(point)
    return float(value), found, search.exitflag.name


def _estimates(
    objective: _Objective, point: Float[np.ndarray, " parameters"], equal: Float[np.ndarray, "starts parameters"]
) -> pd.DataFrame:
    """Estimates with standard errors, intervals and notes.

    Args:
        equal: points of all starts with the best likelihood.
    """
    below, above = point - objective.lower < _AT_BOUND, objective.upper - point < _AT_BOUND
    free = ~(below | above)
    error = np.full(len(point), np.nan)
    error[free] = _standard_errors(objective(point)[2][np.ix_(free, free)])
    half = norm.ppf(0.975) * np.where(free, error, 0.0)
    ends = np.clip([point - half, point + half], objective.lower, objective.upper)
    lower, upper = (objective.linear(end) for end in ends)
    rows = []
    for i, (name, scale) in enumerate(zip(objective.names, objective.scales, strict=True)):
        # Half the width of an interval on linear scale may be as large as the estimate.
        width, most = (2 * half[i], 2 * abs(point[i])) if scale == "lin" else (2 * half[i], _WIDE)
        wide = free[i] and (width * (math.log(10) if scale == "log10" else 1.0) > most)
        other = free[i] and bool((np.abs(equal[:, i] - point[i]) > _FAR * error[i] + _AT_BOUND).any())
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


def _standard_errors(information: Float[np.ndarray, "free free"]) -> Float[np.ndarray, " free"]:
    """Square roots of the diagonal of the inverse; very large along directions without information."""
    scale = np.sqrt(np.diag(information))
    scale = np.where(scale > 0, scale, 1.0)
    values, vectors = np.linalg.eigh(information / np.outer(scale, scale))
    values = np.maximum(values, np.finfo(float).eps * max(len(values), 1) * values.max(initial=1.0))
    errors: np.ndarray = np.sqrt((vectors**2 / values).sum(axis=1)) / scale
    return errors


def _notes(objective: _Objective, best: Start, fit: PetabFit, again: float) -> tuple[str, ...]:
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
    if best.ending == fides.ExitFlag.MAXITER.name:
        notes.append(f"the best start was still improving after {_MOST_STEPS} steps")
    at = objective.simulated(best.point)
    freedom = len(at.simulation) - int((estimates["note"] == "").sum())
    if freedom > 0 and not np.any(at.of_noise):
        misfit = float((objective.likelihood.residuals(at.simulation, at.noise) ** 2).sum())
        chance = float(chi2.sf(misfit, freedom))
        if chance < _UNLIKELY:
            notes.append(
                f"the residuals are larger than the given noise: chi-squared {misfit:.4g} for {freedom} degrees of "
                f"freedom, p = {chance:.1g}; the model or the noise is not right, and intervals are too narrow"
            )
    for what, names in (
        (FLAT, estimates.index[estimates["note"] == FLAT]),
        ("not unique, since other starts have an equal likelihood", estimates.index[estimates["note"] == OTHER]),
        ("at a bound", estimates.index[estimates["note"].isin([AT_LOWER, AT_UPPER])]),
    ):
        if len(names):
            notes.append(f"{len(names)} of {len(estimates)} parameters are {what}: {', '.join(names)}")
    return tuple(notes)
