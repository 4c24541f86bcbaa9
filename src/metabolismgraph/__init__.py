"""Rate constants, rate law and homeostasis from a reaction network and a concentration time series.

import metabolismgraph as mg

config = mg.load_config("small")
data = mg.simulate(config)
result = mg.fit(data.observations, config)
evaluation = mg.evaluate(result, data.truth)
print(evaluation.metrics["avg_slope_ratio"])
"""

from __future__ import annotations

import importlib
import logging
from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metabolismgraph import plot as plot
    from metabolismgraph.config import Config as Config
    from metabolismgraph.config import load_config as load_config
    from metabolismgraph.errors import InputError as InputError
    from metabolismgraph.evaluation.evaluate import Evaluation as Evaluation
    from metabolismgraph.evaluation.evaluate import evaluate as evaluate
    from metabolismgraph.fitting.fit import fit as fit
    from metabolismgraph.fitting.result import FitResult as FitResult
    from metabolismgraph.formats import read as read
    from metabolismgraph.formats.dataset import write_dataset as write_dataset
    from metabolismgraph.ground_truth.simulator import simulate as simulate
    from metabolismgraph.ground_truth.truth import Truth as Truth
    from metabolismgraph.kinetic_models.comparison import compare_models as compare_models
    from metabolismgraph.kinetic_models.estimation import fit_petab as fit_petab
    from metabolismgraph.kinetic_models.likelihood import simulate_petab as simulate_petab
    from metabolismgraph.kinetic_models.problem import write_model_problem as write_model_problem
    from metabolismgraph.kinetic_models.simulation import simulate_model as simulate_model
    from metabolismgraph.reactions.identifiability import identify as identify
    from metabolismgraph.runs.conversion import convert as convert
    from metabolismgraph.system.network import ReactionNetwork as ReactionNetwork
    from metabolismgraph.system.observations import Observations as Observations
    from metabolismgraph.uncertainty.bootstrap import bootstrap as bootstrap
    from metabolismgraph.uncertainty.next_measurement import next_measurement as next_measurement
    from metabolismgraph.uncertainty.posterior import posterior as posterior
    from metabolismgraph.uncertainty.profile import profile as profile

# Imported when first used: the command line must answer --help without loading JAX. Empty for a module itself.
_HOME = {
    "Config": "config",
    "Evaluation": "evaluation.evaluate",
    "FitResult": "fitting.result",
    "InputError": "errors",
    "Observations": "system.observations",
    "ReactionNetwork": "system.network",
    "Truth": "ground_truth.truth",
    "bootstrap": "uncertainty.bootstrap",
    "compare_models": "kinetic_models.comparison",
    "convert": "runs.conversion",
    "evaluate": "evaluation.evaluate",
    "fit": "fitting.fit",
    "fit_petab": "kinetic_models.estimation",
    "identify": "reactions.identifiability",
    "load_config": "config",
    "next_measurement": "uncertainty.next_measurement",
    "plot": "",
    "posterior": "uncertainty.posterior",
    "profile": "uncertainty.profile",
    "read": "formats",
    "simulate": "ground_truth.simulator",
    "simulate_model": "kinetic_models.simulation",
    "simulate_petab": "kinetic_models.likelihood",
    "write_model_problem": "kinetic_models.problem",
    "write_dataset": "formats.dataset",
}

__all__ = list(_HOME)

# Silent unless the program that uses this library sets logging up.
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> object:
    if name == "__version__":
        value: object = metadata.version(__name__)
    elif _HOME.get(name) == "":
        value = importlib.import_module(f"{__name__}.{name}")
    elif name in _HOME:
        value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
