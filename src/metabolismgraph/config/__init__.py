"""Configuration: a YAML tree of frozen models; every key has a description, a unit and bounds.

`load_config` reads a file or a configuration of the package. Any error is reported as an InputError of one
line. No key is ignored silently: a misspelt key is an error, and obsolete keys of older files are listed in a
warning.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from metabolismgraph.config.exploration import Exploration as Exploration
from metabolismgraph.config.graph_model import GraphModel as GraphModel
from metabolismgraph.config.messages import nearest_name as nearest_name
from metabolismgraph.config.messages import parse_options as parse_options
from metabolismgraph.config.plotting import Plotting as Plotting
from metabolismgraph.config.training import Training as Training

if TYPE_CHECKING:
    from metabolismgraph.config.load import OldKeyWarning as OldKeyWarning
    from metabolismgraph.config.load import load_config as load_config
    from metabolismgraph.config.load import shipped_configs as shipped_configs
    from metabolismgraph.config.simulation import Simulation as Simulation
    from metabolismgraph.config.tree import Config as Config

# Imported when first used: they hold the simulation, whose values a training process must not see.
_HOME = {
    "Config": "tree",
    "OldKeyWarning": "load",
    "Simulation": "simulation",
    "load_config": "load",
    "shipped_configs": "load",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
