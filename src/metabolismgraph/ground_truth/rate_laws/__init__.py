"""Rate laws of the simulator, one file each, by name."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from metabolismgraph.config import Simulation, nearest_name
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
    name, parameters = next(iter(settings.rate_law.items()))
    if name not in RATE_LAWS or len(settings.rate_law) != 1:
        near = nearest_name(name, RATE_LAWS)
        raise InputError(f"simulation.rate_law: unknown law {name}; did you mean {near}? (all: {', '.join(RATE_LAWS)})")
    try:
        return RATE_LAWS[name].model_validate(parameters)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        parameter = ".".join(str(part) for part in first["loc"])
        known = ", ".join(RATE_LAWS[name].model_fields) or "none"
        problem = "there is no such parameter" if first["type"] == "extra_forbidden" else first["msg"]
        raise InputError(
            f"simulation.rate_law: parameter {parameter} of {name}: {problem} (parameters: {known})"
        ) from None
