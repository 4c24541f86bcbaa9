"""How likely the measurements of a PEtab problem are under its model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.special import erfcx, log_ndtr

from metabolismgraph.config.messages import nearest_name
from metabolismgraph.errors import InputError
from metabolismgraph.formats.formula import Operations
from metabolismgraph.formats.petab import PetabProblem, read_petab, sides_of
from metabolismgraph.kinetic_models.measurements import Measurements
from metabolismgraph.kinetic_models.model import KineticModel
from metabolismgraph.kinetic_models.simulation import follow

_FAR_BELOW = -1e4  # argument of log Phi below which its curvature is -1 to eight digits


class Compiler(NamedTuple):
    """What makes the rates of a model faster.

    Attributes:
        operations: with which a second model is made, see `Measurements`.
        compile: a model like the first one, with faster rates, from both models.
    """

    operations: Operations
    compile: Callable[[KineticModel, KineticModel], KineticModel]


def simulate_petab(path: str | Path, values: Mapping[str, float] | None = None) -> pd.DataFrame:
    r"""Simulate the measurements of a PEtab problem, at the nominal values of its parameters.

    Args:
        path: YAML file of the problem, PEtab version 1 or 2.
        values: other values of parameters of the parameter table, on linear scale.

    Returns:
        The measurement table with the columns `simulation`, `noise` (standard deviation, or scale of a Laplace
        distribution) and `log_likelihood` (natural logarithm of the density, or of the probability of a limit) of
        every row.

    Raises:
        InputError: as for `read_petab`, `Measurements` and `follow`; a parameter has no value; a formula names
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
    return simulated_table(problem, parameters)


def simulated_table(
    problem: PetabProblem, parameters: Mapping[str, float], compiler: Compiler | None = None
) -> pd.DataFrame:
    """The measurement table with simulations, see `simulate_petab`, for values of the parameters on linear scale.

    Args:
        compiler: makes the rates faster.
    """
    measurements = Measurements(problem)
    symbolic = None if compiler is None else Measurements(problem, compiler.operations)
    likelihood = Likelihood(problem)
    simulated, noise = np.full((2, len(measurements.rows)), np.nan)
    for periods, part in measurements.groups():
        stages = measurements.stages(periods, parameters)
        if compiler is not None and symbolic is not None:
            stages = [
                dataclasses.replace(stage, model=compiler.compile(stage.model, other.model))
                for stage, other in zip(stages, symbolic.stages(periods, parameters), strict=True)
            ]
        times, where = np.unique(part["time"].to_numpy(float), return_inverse=True)
        found = follow(stages, times)
        at = [{name: values[k] for name, values in found.items()} for k in range(len(times))]
        for number, k, (_, row) in zip(part.index.to_numpy(), where, part.iterrows(), strict=True):
            simulated[number], noise[number] = measurements.simulated(row, at[k], parameters)
    densities = likelihood.log_densities(simulated, noise)
    columns = {"simulation": simulated, "noise": noise, "log_likelihood": densities}
    return pd.concat([measurements.rows, pd.DataFrame(columns)], axis=1)


class Likelihood:
    """Density of the measurements of a problem, given their simulated values and noise; of limits the probability.

    A value below a limit has the probability Phi((limit - simulated) / noise), one above it
    Phi((simulated - limit) / noise) (Tobin 1958).

    Attributes:
        measured: values, or limits, after the transformation.
        exact: whether the row is a measured value, not a limit.

    Raises:
        InputError: a measurement with a logarithmic transformation is not positive, or a limit has Laplace noise.
    """

    def __init__(self, problem: PetabProblem):
        rows = problem.measurements
        settings = problem.observables.loc[rows["observableId"].astype(str).tolist()]
        scale = _setting(settings, "observableTransformation", "lin")
        measured = rows["measurement"].to_numpy(float)
        self._logarithmic = scale != "lin"
        self._base = np.where(scale == "log10", math.log(10), 1.0)
        wrong = self._logarithmic & (measured <= 0)
        if wrong.any():
            k = int(wrong.argmax())
            raise InputError(f"{problem.path}: a measurement on a {scale[k]} scale is {measured[k]:g}, not positive")
        self._laplace = _setting(settings, "noiseDistribution", "normal") == "laplace"
        self._side = sides_of(rows)
        self.exact = self._side == 0
        wrong = self._laplace & ~self.exact
        if wrong.any():
            name = rows["observableId"].iloc[int(wrong.argmax())]
            raise InputError(
                f"{problem.path}: observable {name} has a censored measurement and Laplace noise; only normal noise is "
                "supported for these"
            )
        positive = np.where(self._logarithmic, measured, 1.0)
        self.measured = np.where(self._logarithmic, np.log(positive) / self._base, measured)
        # Log of the derivative of the transformation.
        self._change = np.where(self._logarithmic & self.exact, -np.log(positive * self._base), 0.0)

    def log_densities(
        self, simulated: Float[np.ndarray, " rows"], noise: Float[np.ndarray, " rows"]
    ) -> Float[np.ndarray, " rows"]:
        """Natural logarithm of the density of every measurement; -inf where simulation or noise allow none."""
        with np.errstate(all="ignore"):
            z = self.residuals(simulated, noise)
            normal = -0.5 * np.log(2 * np.pi * noise**2) - 0.5 * z**2
            laplace = -np.log(2 * noise) - np.abs(z)
            found = self._change + np.where(self._laplace, laplace, normal)
            found = np.where(self.exact, found, log_ndtr(-self._side * z))
        return np.where((noise > 0) & np.isfinite(found), found, -np.inf)

    def gradient(
        self,
        simulated: Float[np.ndarray, " rows"],
        noise: Float[np.ndarray, " rows"],
        of_simulated: Float[np.ndarray, "rows parameters"],
        of_noise: Float[np.ndarray, "rows parameters"],
    ) -> tuple[Float[np.ndarray, " parameters"], Float[np.ndarray, "parameters parameters"]]:
        """Gradient of the negative logarithm of the likelihood, and Fisher information.

        That of a limit is the Gauss-Newton form: -log Phi is convex, so that its second derivative by its argument,
        without that of the argument by the parameters, is positive semidefinite.

        Args:
            of_simulated, of_noise: derivatives of both with respect to the parameters.
        """
        with np.errstate(all="ignore"):
            z = self.residuals(simulated, noise)
            of_mean = of_simulated * self.slopes(simulated, noise)[:, None]
            relative = of_noise / noise[:, None]
            of_values, of_limits = self._of_values(z, of_mean, relative), self._of_limits(z, of_mean, relative)
        return of_values[0] + of_limits[0], of_values[1] + of_limits[1]

    def _of_values(
        self,
        z: Float[np.ndarray, " rows"],
        of_mean: Float[np.ndarray, "rows parameters"],
        of_noise: Float[np.ndarray, "rows parameters"],
    ) -> tuple[Float[np.ndarray, " parameters"], Float[np.ndarray, "parameters parameters"]]:
        """Gradient and information of the measured values; derivatives are relative to the noise."""
        z, of_mean, of_noise, laplace = (x[self.exact] for x in (z, of_mean, of_noise, self._laplace))
        by_mean = -np.where(laplace, np.sign(z), z)
        by_noise = 1 - np.where(laplace, np.abs(z), z**2)
        weight = np.where(laplace, 1.0, 2.0)[:, None]
        return by_mean @ of_mean + by_noise @ of_noise, of_mean.T @ of_mean + of_noise.T @ (weight * of_noise)

    def _of_limits(
        self,
        z: Float[np.ndarray, " rows"],
        of_mean: Float[np.ndarray, "rows parameters"],
        of_noise: Float[np.ndarray, "rows parameters"],
    ) -> tuple[Float[np.ndarray, " parameters"], Float[np.ndarray, "parameters parameters"]]:
        """The same of limits."""
        slope, curvature = _log_phi(-self._side * z)
        # Certain limits have no slope, also where the simulated value is infinite, as the logarithm of zero.
        matters = ~self.exact & (slope != 0)
        z, slope, curvature, side = z[matters], slope[matters], curvature[matters], self._side[matters]
        of_z = of_mean[matters] + z[:, None] * of_noise[matters]
        return -(side * slope) @ of_z, of_z.T @ (curvature[:, None] * of_z)

    def missed(
        self, simulated: Float[np.ndarray, " rows"], noise: Float[np.ndarray, " rows"]
    ) -> Float[np.ndarray, " rows"]:
        """How far simulated values are on the other side of the limits, relative to their noise; zero for values."""
        found: np.ndarray = np.maximum(self._side * self.residuals(simulated, noise), 0.0)
        return found

    def residuals(
        self, simulated: Float[np.ndarray, " rows"], noise: Float[np.ndarray, " rows"]
    ) -> Float[np.ndarray, " rows"]:
        """Measured minus simulated values after the transformation, relative to their noise."""
        found: np.ndarray = (self.measured - self._transformed(simulated)) / noise
        return found

    def slopes(
        self, simulated: Float[np.ndarray, " rows"], noise: Float[np.ndarray, " rows"]
    ) -> Float[np.ndarray, " rows"]:
        """Derivatives of simulated values after the transformation, relative to their noise, by those before it."""
        with np.errstate(all="ignore"):
            found: np.ndarray = np.where(self._logarithmic, 1 / (simulated * self._base), 1.0) / noise
        return found

    def range_of(self, rows: Bool[np.ndarray, " rows"]) -> float:
        """Range of some measured values after the transformation, without limits; 0 if there are none."""
        values = self.measured[rows & self.exact]
        return float(np.ptp(values)) if values.size else 0.0

    def _transformed(self, simulated: Float[np.ndarray, " rows"]) -> Float[np.ndarray, " rows"]:
        with np.errstate(all="ignore"):
            found: np.ndarray = np.where(self._logarithmic, np.log(simulated) / self._base, simulated)
        return found


def _log_phi(z: Float[np.ndarray, " rows"]) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
    """First and negative second derivative of the logarithm of the normal distribution function."""
    slope = math.sqrt(2 / math.pi) / erfcx(-z / math.sqrt(2))  # without a quotient of two vanishing numbers
    curvature = np.where(slope > 0, slope * (z + slope), 0.0)
    return slope, np.where(z < _FAR_BELOW, 1.0, curvature)


def _setting(settings: pd.DataFrame, column: str, usual: str) -> np.ndarray:
    """A column of the observable table as text; the usual value where it is empty or missing."""
    if column not in settings:
        return np.full(len(settings), usual, dtype=object)
    return settings[column].fillna(usual).to_numpy(object)
