"""Parametric bootstrap: do the intervals hold if the experiment is repeated? (Efron & Tibshirani 1993, chapter 6.)

Experiments are simulated from the fitted trajectories and the fitted noise, and each is fitted again from the
estimate, at the same windows, with the same priors and the same noise. The spread of these fits is what a standard
error promises.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from metabolismgraph.errors import InputError
from metabolismgraph.fitting.result import FitResult
from metabolismgraph.overview import Overview, Rows
from metabolismgraph.reactions.verdict import TWO_SIDED
from metabolismgraph.system.progress import Progress, silent
from metabolismgraph.system.threads import single_thread
from metabolismgraph.text import counted
from metabolismgraph.trajectories.gauss_newton import fit_windows
from metabolismgraph.trajectories.misfit import Measurements
from metabolismgraph.uncertainty.fitted_model import FittedModel

SAMPLES = 20
_LEAST_SAMPLES = 2


@dataclasses.dataclass(frozen=True, repr=False)
class Bootstrap(Overview):
    """Fits of simulated experiments.

    Values are in the units of the data: log10 of k, slope in 1/time, offset in concentration/time.

    Attributes:
        names: of the parameters.
        determined: False where the data do not determine the parameter; the fits then repeat its prior.
        estimate, standard_error: of the fit.
        estimates, errors: estimates and standard errors of the fits of simulated experiments.
        lost: simulated experiments whose fit failed.
    """

    names: tuple[str, ...]
    determined: Bool[np.ndarray, " parameters"]
    estimate: Float[np.ndarray, " parameters"]
    standard_error: Float[np.ndarray, " parameters"]
    estimates: Float[np.ndarray, "samples parameters"]
    errors: Float[np.ndarray, "samples parameters"]
    lost: int

    def _overview(self) -> tuple[str, Rows]:
        counts = [("fits", len(self.estimates)), ("fits that failed", self.lost)]
        return "bootstrap", [*counts, ("in short", self.sentence)]

    def _frame(self) -> pd.DataFrame:
        return self.table

    @property
    def table(self) -> pd.DataFrame:
        """A row per parameter that the data determine.

        Columns: parameter, estimate, standard_error, spread (standard deviation of the fits), ratio (spread /
        standard_error), coverage (share of the fits whose 95 % interval holds the estimate), bias (mean of the fits
        minus the estimate), samples.
        """
        use = self.determined
        values, errors = self.estimates[:, use], self.errors[:, use]
        estimate, error = self.estimate[use], self.standard_error[use]
        count = len(values)
        spread = values.std(axis=0, ddof=1) if count >= _LEAST_SAMPLES else np.full(len(estimate), np.nan)
        covered = np.abs(values - estimate) <= TWO_SIDED * errors
        return pd.DataFrame(
            {
                "parameter": [name for name, kept in zip(self.names, use, strict=True) if kept],
                "estimate": estimate,
                "standard_error": error,
                "spread": spread,
                "ratio": spread / error,
                "coverage": covered.mean(axis=0) if count else np.nan,
                "bias": values.mean(axis=0) - estimate if count else np.nan,
                "samples": count,
            }
        )

    @property
    def sentence(self) -> str:
        """Whether the standard errors hold, in one sentence."""
        table, count = self.table, len(self.estimates)
        lost = f"; {self.lost} of {count + self.lost} fits failed" if self.lost else ""
        if table.empty or count < _LEAST_SAMPLES:
            return f"{count} simulated experiments: nothing to compare{lost}"
        ratio, bias = table["ratio"], (table["bias"] / table["standard_error"]).abs()
        worst, biased = int(ratio.apply(math.log).abs().argmax()), int(bias.argmax())
        names, chance = table["parameter"], 1 / math.sqrt(2 * (count - 1))
        return (
            f"{count} simulated experiments: spread / standard error {ratio.median():.2f} (median; one parameter alone "
            f"has 1 ± {chance:.2f} by chance), farthest from 1 for {names.iloc[worst]} ({ratio.iloc[worst]:.2f}); 95 % "
            f"intervals hold in {100 * table['coverage'].mean():.0f} %; largest bias {bias.iloc[biased]:.2f} standard "
            f"errors ({names.iloc[biased]}){lost}"
        )


def bootstrap(
    result: FitResult,
    samples: int = SAMPLES,
    *,
    seed: int | None = None,
    anyway: bool = False,
    progress: Progress = silent,
) -> Bootstrap:
    """Simulate an experiment many times from a fit of trajectories, and fit every one.

    Args:
        result: of a fit with training.phase1_method=shooting, or where `auto` chose it.
        samples: number of simulated experiments.
        seed: of the noise; None: training.seed of the fit.
        anyway: whether a fit that is not to be trusted is taken as well.
        progress: see `system.progress`.

    Returns:
        Estimates and standard errors of all samples; `table` and `sentence` compare them with those of the fit.

    Raises:
        InputError: there are too few samples, or the fit is not one of trajectories, or not to be trusted.

    Example:
        >>> import metabolismgraph as mg
        >>> settings = ["simulation.n_frames=120", "training.phase1_method=shooting"]
        >>> config = mg.load_config("small", [*settings, "training.homeostasis_training=false"])
        >>> result = mg.fit(mg.simulate(config).observations, config)
        >>> mg.bootstrap(result, samples=2).estimates.shape
        (2, 132)
    """
    return bootstrap_of(FittedModel.trusted(result, anyway=anyway), samples, seed, progress)


def check_samples(samples: int) -> None:
    """Refuse fewer experiments than have a spread.

    Raises:
        InputError: there are too few.
    """
    if samples < _LEAST_SAMPLES:
        raise InputError(
            f"bootstrap: {counted(samples, 'experiment')} cannot tell how far estimates spread; ask for at least "
            f"{_LEAST_SAMPLES}"
        )


def bootstrap_of(model: FittedModel, samples: int, seed: int | None = None, progress: Progress = silent) -> Bootstrap:
    """The same for a fit that has been rebuilt."""
    check_samples(samples)
    first = model.seed if seed is None else seed
    parameters = len(model.names)
    fits = []
    with single_thread(), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for number in range(samples):
            progress("bootstrap", number / samples, f"experiment {number + 1} of {samples}")
            fits.append(_fit(model, np.random.default_rng([first, number])))
    progress("bootstrap", 1.0, "")
    found = np.array(fits).reshape(samples, 2, parameters)
    good = np.isfinite(found).all(axis=(1, 2))
    return Bootstrap(
        names=model.names,
        determined=model.determined[:parameters],
        estimate=model.all_in_units(model.theta),
        standard_error=model.error[:parameters] * model.scale,
        estimates=found[good, 0],
        errors=found[good, 1],
        lost=int((~good).sum()),
    )


def _fit(
    model: FittedModel, rng: np.random.Generator
) -> tuple[Float[np.ndarray, " parameters"], Float[np.ndarray, " parameters"]]:
    """Estimates and standard errors from one simulated experiment, in the units of the data."""
    problem = dataclasses.replace(model.problem, measurements=simulated(model, rng))
    fitted = fit_windows(problem, model.theta, model.x, goal="end")
    error = np.sqrt(np.maximum(np.diag(fitted.covariance), 0.0))[: len(model.names)]
    return model.all_in_units(fitted.theta), error * model.scale


def simulated(model: FittedModel, rng: np.random.Generator) -> Measurements:
    """Measurements of the fitted path with new noise, cut at zero; fixed species stay as they were measured."""
    old, moving = model.problem.measurements, model.stages.equation.moving
    noisy = np.maximum(model.start.path + old.sigma * rng.standard_normal(old.sigma.shape), 0.0)
    observations = dataclasses.replace(
        model.stages.observations, concentration=np.where(moving, noisy, model.stages.observations.concentration)
    )
    return Measurements.of(observations, old.sigma, moving, old.robust)
