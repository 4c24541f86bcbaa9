"""Simulation of a kinetic model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.integrate
from jaxtyping import Float

from metabolismgraph.config.messages import nearest_name
from metabolismgraph.errors import InputError
from metabolismgraph.kinetic_models.from_sbml import ModelFile
from metabolismgraph.kinetic_models.model import Environment, KineticModel, state_key
from metabolismgraph.kinetic_models.stages import Stage

# Relative tolerance; absolute one relative to the largest value of a state, and what that one may be at most. The
# largest value is not known before the integration.
_RELATIVE, _ABSOLUTE, _MOST_ABSOLUTE, _REPEATS = 1e-9, 1e-12, 1e-10, 3
_STANDING, _PROGRESS = 2000, 1e-6  # evaluations without progress, in lengths of the integration
_FIRST_SPAN, _LONGEST, _AT_REST = 10.0, 1e10, 1e-6  # times, and relative change of a state at rest


def simulate_model(
    path: str | Path,
    time: Float[np.ndarray, " times"],
    variables: Sequence[str] | None = None,
    values: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Simulate an SBML or Antimony model by its own kinetic laws and rules.

    Args:
        path: SBML file of Level 2 or 3, or Antimony file, with a kinetic law for every reaction.
        time: increasing, >= 0, in the time unit of the model, whose initial values hold at time zero.
        variables: ids whose values are wanted, as formulas see them; None: the concentrations of all species.
        values: other values of parameters, compartments and species at the start, see `ModelFile.model`.

    Returns:
        A column `time` and one per variable. A concentration is named [id] where the id alone could be an amount.

    Raises:
        InputError: as for `ModelFile` and `follow`; or a variable is not in the model.

    Example:
        >>> from pathlib import Path
        >>> import numpy as np
        >>> import metabolismgraph as mg
        >>> law = "<apply><times/><ci> k </ci><ci> A </ci></apply>"
        >>> text = f'''<sbml xmlns="http://www.sbml.org/sbml/level2/version4" level="2" version="4"><model>
        ...   <listOfCompartments><compartment id="cell" size="1"/></listOfCompartments>
        ...   <listOfSpecies><species id="A" compartment="cell" initialConcentration="4"/></listOfSpecies>
        ...   <listOfParameters><parameter id="k" value="0.7"/></listOfParameters>
        ...   <listOfReactions><reaction id="loss">
        ...     <listOfReactants><speciesReference species="A"/></listOfReactants>
        ...     <kineticLaw><math xmlns="http://www.w3.org/1998/Math/MathML">{law}</math></kineticLaw>
        ...   </reaction></listOfReactions></model></sbml>'''
        >>> _ = Path("decay.xml").write_text(text)
        >>> mg.simulate_model("decay.xml", np.linspace(0, 1, 3)).round(3)
           time      A
        0   0.0  4.000
        1   0.5  2.819
        2   1.0  1.986
    """
    model = ModelFile(Path(path)).model(values)
    times = np.asarray(time, dtype=float)
    if times.ndim != 1 or not len(times) or not np.isfinite(times).all() or times[0] < 0 or (np.diff(times) <= 0).any():
        raise InputError(f"{path}: times must be finite, >= 0 and increasing")
    found = follow([*Stage(0.0, math.inf, model).parts()], times)
    if variables is None:
        return pd.DataFrame(
            {"time": times, **{_column(model, name): model.concentration(name, found) for name in model.species}}
        )
    for name in variables:
        if name not in found:
            raise InputError(f"{path}: the model has no quantity {name}; nearest: {nearest_name(name, found)}")
    return pd.DataFrame({"time": times, **{name: found[name] for name in variables}})


def follow(stages: Sequence[Stage], times: Float[np.ndarray, " times"]) -> Environment:
    """The values of every id at given times, through the stages of an experiment.

    Args:
        times: increasing, in the stages; the last one may be infinite: at rest.

    Raises:
        InputError: as for `integrate` and `steady_state`.
    """
    found: list[Environment] = []
    states: list[float] = []
    for stage in stages:
        start = stage.model.start if stage.entered is None else tuple(stage.entered(states))
        model = dataclasses.replace(stage.model, start=start)
        if math.isinf(stage.begin):
            states = list(steady_state(model))
            continue
        own = stage.own(times[np.isfinite(times)])
        wanted = own if math.isinf(stage.end) else np.union1d(own, [stage.end])
        if wanted.size:
            at = integrate(model, wanted, stage.begin)
            found.append({name: values[: len(own)] for name, values in at.items()})
            states = [float(at[state_key(name)][-1]) for name in model.states]
    if math.isinf(times[-1]):
        rest = steady_state(model, stage.begin)
        found.append(_shaped(model.values(np.float64(np.inf), rest[:, None]), 1))
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def integrate(model: KineticModel, time: Float[np.ndarray, " times"], begin: float = 0.0) -> Environment:
    """The values of every id of a model at given times, from its initial state, by LSODA (Petzold 1983).

    Its jumps are left out; see `follow`.

    Args:
        time: increasing, not before `begin`.
        begin: time of the initial state.

    Raises:
        InputError: a state has no value at the start, the integration fails, or a formula cannot be evaluated.
    """
    if not model.states:
        return _shaped(model.values(time, np.zeros((0, len(time)))), len(time))
    start = np.array(model.start, dtype=float)
    if not np.isfinite(start).all():
        name = model.states[int(np.argmin(np.isfinite(start)))]
        raise InputError(f"model {model.id}: {name} has no finite value at the start")
    given = time if time[0] == begin else np.concatenate([[begin], time])
    if len(given) == 1:
        return _shaped(model.values(time, start[:, None]), 1)
    rates = np.isfinite(model.rate(float(given[0]), start))
    if not rates.all():
        name = model.states[int(np.argmin(rates))]
        raise InputError(f"model {model.id}: {name} has no finite rate of change at time {given[0]:g}")
    scale = np.abs(start)
    absolute = _ABSOLUTE * np.where(scale > 0, scale, float(scale.max()) or 1.0)
    for _ in range(_REPEATS):
        found = scipy.integrate.solve_ivp(
            _watched(model, given[0], given[-1]),
            (given[0], given[-1]),
            start,
            "LSODA",
            given,
            rtol=_RELATIVE,
            atol=absolute,
            jac=model.jacobian,
            # A rule may switch at a time, which a longer step could miss.
            max_step=float(np.diff(given).max()),
        )
        if not found.success or not np.isfinite(found.y).all():
            reached = float(found.t[-1]) if len(found.t) else 0.0
            raise InputError(f"model {model.id}: the integration failed after time {reached:g}: {found.message}")
        largest = np.abs(found.y).max(axis=1)
        coarse = (absolute > _MOST_ABSOLUTE * largest) & (largest > 0)
        if not coarse.any():
            break
        absolute = np.where(coarse, _ABSOLUTE * largest, absolute)
    return _shaped(model.values(time, found.y[:, len(given) - len(time) :]), len(time))


def _watched(
    model: KineticModel, begin: float, end: float
) -> Callable[[float, np.ndarray], Float[np.ndarray, " states"]]:
    """The rate of change, which raises an error where the time stands still: LSODA would go on for ever."""
    left, mark = _STANDING, begin

    def rate(time: float, y: np.ndarray) -> Float[np.ndarray, " states"]:
        nonlocal left, mark
        left -= 1
        if abs(time - mark) > _PROGRESS * (end - begin):
            left, mark = _STANDING, time
        if not left:
            raise InputError(f"model {model.id}: the integration failed after time {mark:g}: its rates are too fast")
        return model.rate(time, y)

    return rate


def steady_state(model: KineticModel, begin: float = 0.0) -> Float[np.ndarray, " states"]:
    """The states of a model when they have come to rest, by integration over longer and longer times.

    Args:
        begin: time of the initial state.

    Raises:
        InputError: they do not come to rest, or the integration fails.
    """
    y, span = np.array(model.start, dtype=float), _FIRST_SPAN
    if not len(y):
        return y
    while span < _LONGEST:
        found = scipy.integrate.solve_ivp(
            _watched(model, begin, begin + span),
            (begin, begin + span),
            y,
            "LSODA",
            rtol=_RELATIVE,
            atol=_ABSOLUTE * (np.abs(y).max() or 1.0),
            jac=model.jacobian,
        )
        if not found.success or not np.isfinite(found.y).all():
            raise InputError(f"model {model.id}: the integration to a steady state failed: {found.message}")
        before, y = y, found.y[:, -1]
        size = np.maximum(np.abs(y), _AT_REST * np.abs(y).max())
        # Both: a slow change, and a fast one that has not begun to show.
        if (np.abs(y - before) <= _AT_REST * size).all() and (
            np.abs(model.rate(begin + span, y)) * span <= _AT_REST * size
        ).all():
            return y
        span *= 10
    raise InputError(f"model {model.id}: no steady state is reached within {_LONGEST:g} units of time")


def _shaped(values: Environment, count: int) -> Environment:
    """All values as arrays over the times."""
    return {name: np.broadcast_to(np.asarray(value, dtype=float), (count,)) for name, value in values.items()}


def _column(model: KineticModel, species: str) -> str:
    """The header of the concentration of a species: brackets where the id could be read as an amount.

    In a compartment without a size, an amount is all that is known.
    """
    size = model.compartments[species]
    if species in model.amounts and size not in model.constants and size not in dict(model.computed):
        return species
    return f"[{species}]" if species in model.amounts or model.constants.get(size) != 1 else species
