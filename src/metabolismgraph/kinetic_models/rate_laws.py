"""Rate laws that a reaction may have instead of the one in its model, as formulas with parameters to be estimated."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from jaxtyping import Float

FROM_MODEL = "from_model"
LIN, LOG10 = "lin", "log10"
_BEYOND = 100.0  # bounds of a half-saturation constant, relative to the concentrations
_HILL = 4.0  # largest Hill coefficient
_EFFECT = 1e3  # largest change of a rate by a modifier
_KNOTS = 3  # of a learned dependence on one species
_LEAST_SPAN = math.log(4)  # of the knots of a species, in logarithms of its concentration
_EXPONENT, _BEND = 4.0, 6.0  # largest exponent, and change of it at a knot
_AROUND = 0.3  # of the order: exponents of the starts
_BACKWARD = 1e5  # least backward rate, relative to the size of the rate
_PRIOR_EXPONENT, _PRIOR_BEND = 1.0, 1.0  # standard deviations of their priors


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A parameter that is to be estimated.

    Attributes:
        id: of the parameter.
        scale: of the parameter table.
        lower, upper: bounds.
        start: range of the starts, within the bounds.
        prior: centre and standard deviation on the scale of the parameter table; None for none.
        given: nominal value, at which the model is nearest to the one without the parameter; None: from the starts.
    """

    id: str
    scale: str
    lower: float
    upper: float
    start: tuple[float, float]
    prior: tuple[float, float] | None = None
    given: float | None = None

    @property
    def nominal(self) -> float:
        """The given value, or the middle of the starts on the scale."""
        if self.given is not None:
            return self.given
        low, high = self.start
        return math.sqrt(low * high) if self.scale == LOG10 else (low + high) / 2


@dataclasses.dataclass(frozen=True)
class Argument:
    """A species on which a rate depends.

    Attributes:
        species: its id.
        concentration: formula of its concentration.
        order: how many of it the reaction consumes; zero for modifiers and products.
        values: positive concentrations that it has, or may have.
        produced: how many of it the reaction produces.
    """

    species: str
    concentration: str
    order: float
    values: Float[np.ndarray, " values"]
    produced: float = 0.0

    @property
    def reference(self) -> float:
        """The geometric mean of its positive values."""
        return float(np.exp(np.log(self.values).mean()))

    @property
    def knots(self) -> Float[np.ndarray, " knots"]:
        """Concentrations at which the exponent of a learned law changes."""
        low, high = np.quantile(np.log(self.values), [0.05, 0.95])
        missing = max(0.0, _LEAST_SPAN - (high - low)) / 2
        found: np.ndarray = np.exp(np.linspace(low - missing, high + missing, _KNOTS))
        return found


@dataclasses.dataclass(frozen=True)
class Law:
    """A rate per volume: a formula of concentrations, and its parameters."""

    formula: str
    parameters: tuple[Parameter, ...]


def _rate(reaction: str, arguments: tuple[Argument, ...], size: float) -> Parameter:
    """The rate at the reference concentrations.

    Args:
        size: of the rate in the series, mostly at large concentrations. At the reference it is smaller, the more the
            concentrations fall.
    """
    low = size * math.prod(_fall(a) for a in arguments)
    return Parameter(f"{reaction}_rate", LOG10, low / 1e3, size * 1e3, (low / 3, size * 3))


def _fall(argument: Argument) -> float:
    """By which factor a rate is smaller at the reference concentration than at the largest one, by mass action."""
    return float((argument.reference / float(argument.values.max())) ** argument.order)


def mass_action(reaction: str, arguments: tuple[Argument, ...], size: float) -> Law:
    """The rate constant times the concentrations of the reactants, each to the power of its stoichiometry."""
    rate = _rate(reaction, arguments, size)
    factors = [f"{_relative(a, a.reference)}^{a.order:.12g}" for a in arguments if a.order]
    return Law(" * ".join([rate.id, *factors]), (rate,))


def power_law(reaction: str, arguments: tuple[Argument, ...], size: float) -> Law:
    """A product of powers of concentrations (Savageau 1969), with positive exponents of reactants."""
    rate = _rate(reaction, arguments, size)
    return _product(rate, (_power(reaction, a, 0.0 if a.order else -_EXPONENT) for a in arguments))


def michaelis_menten(reaction: str, arguments: tuple[Argument, ...], size: float) -> Law:
    """A product of c / (K + c), each to the power of its stoichiometry (Michaelis & Menten 1913).

    A species that is not consumed changes the rate by a factor (1 + e c / K) / (1 + c / K), from 1 without it to e.
    """
    return _saturating(reaction, arguments, size, hill=False)


def hill(reaction: str, arguments: tuple[Argument, ...], size: float) -> Law:
    """A product of c^h / (K^h + c^h), each to the power of its stoichiometry, with h of at least 1 (Hill 1910).

    A species that is not consumed changes the rate as in `michaelis_menten`, with powers.
    """
    return _saturating(reaction, arguments, size, hill=True)


def _saturating(reaction: str, arguments: tuple[Argument, ...], size: float, *, hill: bool) -> Law:
    """Factors that are 1 at the reference concentrations."""
    factors, parameters = list[str](), [_rate(reaction, arguments, size)]
    for a in arguments:
        least, most = float(a.values.min()), float(a.values.max())
        half = Parameter(f"{reaction}_half_{a.species}", LOG10, least / _BEYOND, most * _BEYOND, (least, most * 1.1))
        parameters.append(half)
        power = "1"
        if hill:
            coefficient = Parameter(f"{reaction}_hill_{a.species}", LIN, 1.0, _HILL, (1.0, 2.0))
            parameters.append(coefficient)
            power = coefficient.id
        here, there = (f"({c} / {half.id})^{power}" for c in (_positive(a), f"{a.reference:.12g}"))
        if a.order:  # (c^h / (K^h + c^h))^order
            saturation = f"{_relative(a, a.reference)}^{power} * (1 + {there}) / (1 + {here})"
            factors.append(f"({saturation})^{a.order:.12g}")
        else:
            effect = Parameter(f"{reaction}_effect_{a.species}", LOG10, 1 / _EFFECT, _EFFECT, (0.3, 3.0))
            parameters.append(effect)
            change = (f"(1 + {effect.id} * {x}) / (1 + {x})" for x in (here, there))
            factors.append("(({}) / ({}))".format(*change))
    return Law(" * ".join([parameters[0].id, *factors]), tuple(parameters))


def learned(reaction: str, arguments: tuple[Argument, ...], size: float) -> Law:
    """A product of functions of one concentration each, which are smooth broken lines in logarithms.

    Each function is a power of the concentration with factors (1 + (c/knot)^s)^(bend/s): the exponent changes by `bend`
    at a knot. Mass action, Michaelis-Menten and Hill laws are special cases. Toward zero, the exponent is at least one
    for reactants, whose concentrations cannot become negative then, and not negative for others.
    """
    return _learned(reaction, arguments, _rate(reaction, arguments, size))


def learned_reversible(reaction: str, arguments: tuple[Argument, ...], size: float) -> Law:
    """A forward rate minus a backward one, each of which is a `learned` law of all species.

    The forward rate consumes reactants, the backward one products; toward zero, exponents of these are at least one.
    Both may depend on any species, such as an inhibitor, or ATP that stands for ADP.
    """
    back = tuple(dataclasses.replace(a, order=a.produced, produced=a.order) for a in arguments)
    forward = _learned(reaction, arguments, _rate(reaction, arguments, size))
    low = size * math.prod(_fall(a) for a in back)
    # From a reaction that hardly runs backward to one near equilibrium.
    rate = Parameter(f"{reaction}_backward_rate", LOG10, low / _BACKWARD, size * 1e3, (low / 30, size))
    backward = _learned(f"{reaction}_backward", back, rate)
    return Law(f"({forward.formula} - {backward.formula})", forward.parameters + backward.parameters)


def _learned(reaction: str, arguments: tuple[Argument, ...], rate: Parameter) -> Law:
    """A rate times functions of one concentration each.

    Args:
        reaction: with which the ids of the parameters begin.
    """
    factors = []
    for a in arguments:
        factors.append(_power(reaction, a, 1.0 if a.order else 0.0))
        sharp = 2.0 / float(np.log(a.knots[1] / a.knots[0]))
        for number, knot in enumerate(a.knots, start=1):
            bend = Parameter(
                f"{reaction}_bend{number}_{a.species}", LIN, -_BEND, _BEND, (-0.1, 0.1), (0.0, _PRIOR_BEND)
            )
            at_reference = 1 + (a.reference / knot) ** sharp
            base = f"(1 + {_relative(a, knot)}^{sharp:.12g})/{at_reference:.12g}"
            factors.append((f"({base})^({bend.id}/{sharp:.12g})", bend))
    return _product(rate, factors)


def _product(rate: Parameter, factors: Iterable[tuple[str, Parameter]]) -> Law:
    """A rate times factors, each of which has a parameter."""
    formulas, parameters = zip(*[(rate.id, rate), *factors], strict=True)
    return Law(" * ".join(formulas), parameters)


def _power(reaction: str, argument: Argument, least: float) -> tuple[str, Parameter]:
    """A power of a concentration, and its exponent."""
    order = max(argument.order, least)
    start, prior = (max(order - _AROUND, least), order + _AROUND), (order, _PRIOR_EXPONENT)
    exponent = Parameter(f"{reaction}_exponent_{argument.species}", LIN, least, _EXPONENT, start, prior)
    return f"{_relative(argument, argument.reference)}^{exponent.id}", exponent


def _relative(argument: Argument, to: float) -> str:
    """A concentration relative to another one."""
    return f"({_positive(argument)} / {to:.12g})"


def _positive(argument: Argument) -> str:
    """A concentration; an integrator may step below zero, where powers are not defined."""
    c = argument.concentration
    return f"piecewise({c}, {c} > 0, 0)"


LAWS: Mapping[str, Callable[[str, tuple[Argument, ...], float], Law]] = {
    "mass_action": mass_action,
    "power_law": power_law,
    "michaelis_menten": michaelis_menten,
    "hill": hill,
    "learned": learned,
    "learned_reversible": learned_reversible,
}
REVERSIBLE = ("learned_reversible",)  # laws that depend on products, too
# Laws, each with those of which it is a special case.
SPECIAL_CASE_OF: Mapping[str, tuple[str, ...]] = {
    "mass_action": ("power_law", "michaelis_menten", "hill", "learned"),
    "power_law": ("learned",),
    "michaelis_menten": ("hill",),
}
