"""Rate laws of the simulator, one file each, by name."""

from __future__ import annotations

from collections.abc import Mapping

from metabolismgraph.config import Simulation, nearest_name, parse_options
from metabolismgraph.errors import InputError
from metabolismgraph.ground_truth.rate_laws.base import RateLaw
from metabolismgraph.ground_truth.rate_laws.mass_action import MassAction
from metabolismgraph.ground_truth.rate_laws.michaelis_menten import MichaelisMenten

RATE_LAWS: Mapping[str, type[RateLaw]] = {
    "mass_action": MassAction,
    "michaelis_menten": MichaelisMenten,
}


def chosen_rate_law(settings: Simulation) -> RateLaw:
    """The rate law that a configuration selects, with its parameters.

    Args:
        settings: `rate_law` or, if it is empty, the published keys `use_mass_action` and `michaelis_constant`.

    Raises:
        InputError: unknown rate law or parameter, or invalid value.
    """
    if settings.rate_law is None:
        return (
            MassAction() if settings.use_mass_action else MichaelisMenten(half_saturation=settings.michaelis_constant)
        )
    if len(settings.rate_law) != 1:
        raise InputError(
            f"simulation.rate_law: found {len(settings.rate_law)} names, expected one: {{name: {{parameter: value}}}}"
        )
    ((name, parameters),) = settings.rate_law.items()
    if name not in RATE_LAWS:
        near = nearest_name(name, RATE_LAWS)
        raise InputError(f"simulation.rate_law: unknown law {name}; did you mean {near}? (all: {', '.join(RATE_LAWS)})")
    return parse_options(RATE_LAWS[name], parameters, "simulation.rate_law", name, "parameter")
