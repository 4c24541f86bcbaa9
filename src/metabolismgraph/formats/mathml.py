"""Formulas as MathML text, part by part: unlike infix text, it has no words that cannot be ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def number(value: float) -> str:
    """A number that reads back as the same one."""
    text = repr(float(value))
    if "e" in text:
        mantissa, exponent = text.split("e")
        return f'<cn type="e-notation"> {mantissa} <sep/> {int(exponent)} </cn>'
    return f"<cn> {text.removesuffix('.0')} </cn>"


def name(id: str) -> str:
    """What an id stands for."""
    return f"<ci> {id} </ci>"


def apply(operator: str, *operands: str) -> str:
    """An operator, or a function that the model defines, on operands."""
    head = f"<{operator}/>" if operator in _OPERATORS else name(operator)
    return f"<apply>{head}{''.join(operands)}</apply>"


def product(factors: Sequence[str]) -> str:
    """Of any number of factors."""
    return number(1.0) if not factors else factors[0] if len(factors) == 1 else apply("times", *factors)


def power(base: str, exponent: float) -> str:
    """base^exponent."""
    return base if exponent == 1 else apply("power", base, number(exponent))


def piecewise(pieces: Sequence[tuple[str, str]], otherwise: str) -> str:
    """The value of the first condition that holds."""
    parts = "".join(f"<piece>{value}{condition}</piece>" for value, condition in pieces)
    return f"<piecewise>{parts}<otherwise>{otherwise}</otherwise></piecewise>"


def function(arguments: Sequence[str], body: str) -> str:
    """The definition of a function."""
    bound = "".join(f"<bvar>{name(argument)}</bvar>" for argument in arguments)
    return f"<lambda>{bound}{body}</lambda>"


def math(content: str) -> str:
    """A whole formula."""
    return f'<math xmlns="http://www.w3.org/1998/Math/MathML">{content}</math>'


def mass_action(k: str, concentrations: Mapping[str, str], orders: Mapping[str, float], volume: str | None) -> str:
    """volume * k * Π concentration^order.

    Args:
        k: id of the rate constant.
        concentrations: formula of the concentration of each species.
    """
    factors = [] if volume is None else [name(volume)]
    factors += [name(k), *(power(concentrations[s], order) for s, order in orders.items())]
    return product(factors)


_OPERATORS = {"times", "plus", "minus", "divide", "power", "lt", "leq", "exp"}
