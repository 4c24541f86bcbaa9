"""Construction of formulas as MathML text, in which, unlike in infix notation, any id is allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def number(value: float) -> str:
    """A number, exact when it is read again."""
    text = repr(float(value))
    if "e" in text:
        mantissa, exponent = text.split("e")
        return f'<cn type="e-notation"> {mantissa} <sep/> {int(exponent)} </cn>'
    return f"<cn> {text.removesuffix('.0')} </cn>"


def name(id: str) -> str:
    """A reference to an id."""
    return f"<ci> {id} </ci>"


def apply(operator: str, *operands: str) -> str:
    """The application of an operator, or of a function of the model, to operands."""
    head = f"<{operator}/>" if operator in _OPERATORS else name(operator)
    return f"<apply>{head}{''.join(operands)}</apply>"


def product(factors: Sequence[str]) -> str:
    """The product of any number of factors."""
    return number(1.0) if not factors else factors[0] if len(factors) == 1 else apply("times", *factors)


def power(base: str, exponent: float) -> str:
    """The power base^exponent."""
    return base if exponent == 1 else apply("power", base, number(exponent))


def piecewise(pieces: Sequence[tuple[str, str]], otherwise: str) -> str:
    """The value of the first true condition, of pairs (value, condition)."""
    parts = "".join(f"<piece>{value}{condition}</piece>" for value, condition in pieces)
    return f"<piecewise>{parts}<otherwise>{otherwise}</otherwise></piecewise>"


def function(arguments: Sequence[str], body: str) -> str:
    """The definition of a function."""
    bound = "".join(f"<bvar>{name(argument)}</bvar>" for argument in arguments)
    return f"<lambda>{bound}{body}</lambda>"


def math(content: str) -> str:
    """A complete formula."""
    return f'<math xmlns="http://www.w3.org/1998/Math/MathML">{content}</math>'


def mass_action(k: str, concentrations: Mapping[str, str], orders: Mapping[str, float], volume: str | None) -> str:
    """The rate volume * k * Π concentration^order.

    Args:
        k: id of the rate constant.
        concentrations: formula of the concentration of each species.
        orders: order of each substrate.
        volume: id of the compartment; None: 1.
    """
    factors = [] if volume is None else [name(volume)]
    factors += [name(k), *(power(concentrations[s], order) for s, order in orders.items())]
    return product(factors)


_OPERATORS = {"times", "plus", "minus", "divide", "power", "lt", "leq", "exp", "ln"}
