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
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metabolismgraph.config import Config as Config
    from metabolismgraph.config import load_config as load_config
    from metabolismgraph.errors import InputError as InputError
    from metabolismgraph.evaluation.evaluate import evaluate as evaluate
    from metabolismgraph.fitting.fit import fit as fit
    from metabolismgraph.formats import read as read
    from metabolismgraph.formats.dataset import read_dataset as read_dataset
    from metabolismgraph.formats.dataset import read_inputs as read_inputs
    from metabolismgraph.ground_truth.simulator import simulate as simulate
    from metabolismgraph.ground_truth.truth import Truth as Truth
    from metabolismgraph.reactions.identifiability import identify as identify
    from metabolismgraph.system.network import ReactionNetwork as ReactionNetwork
    from metabolismgraph.system.observations import Observations as Observations

# Imported when first used: the command line must answer --help without loading JAX.
_HOME = {
    "Config": "config",
    "InputError": "errors",
    "Observations": "system.observations",
    "ReactionNetwork": "system.network",
    "Truth": "ground_truth.truth",
    "evaluate": "evaluation.evaluate",
    "fit": "fitting.fit",
    "identify": "reactions.identifiability",
    "load_config": "config",
    "read": "formats",
    "read_dataset": "formats.dataset",
    "read_inputs": "formats.dataset",
    "simulate": "ground_truth.simulator",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
