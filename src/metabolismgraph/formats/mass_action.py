"""Recognition of mass action kinetics in formulas, with k and orders.

A formula is expanded into terms `coefficient * product of symbol^power`. Symbols are species and, with the prefix
`UNKNOWN`, parameters without a value; everything else must have a numerical value.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import libsbml

from metabolismgraph.formats.formula import AVOGADRO

Monomial = tuple[tuple[str, float], ...]
Polynomial = dict[Monomial, float]
Lookup = Callable[[str], Polynomial]

UNKNOWN = "?"  # SBML ids do not begin with it
_MAX_TERMS = 64  # mass action has two terms; an intermediate result with more than this is another law
_CANCELLED = 1e-12  # relative size below which a sum is rounding: A + B - B has no term in B

_FUNCTIONS: dict[int, Callable[..., float]] = {
    libsbml.AST_FUNCTION_ABS: abs,
    libsbml.AST_FUNCTION_EXP: math.exp,
    libsbml.AST_FUNCTION_LN: math.log,
    libsbml.AST_FUNCTION_LOG: lambda base, x: math.log(x) / math.log(base),
}
_CONSTANTS: dict[int, float] = {
    libsbml.AST_CONSTANT_E: math.e,
    libsbml.AST_CONSTANT_PI: math.pi,
    libsbml.AST_NAME_AVOGADRO: AVOGADRO,
}


class NotPolynomialError(Exception):
    """The formula is not a sum of power products of species with constant coefficients."""


@dataclasses.dataclass(frozen=True)
class Term:
    """k * product of species^order, with k >= 0, or None if a parameter has no value."""

    orders: Mapping[str, float]
    k: float | None


@dataclasses.dataclass(frozen=True)
class MassAction:
    """The rate law forward - backward; backward is None for an irreversible law."""

    forward: Term
    backward: Term | None


def constant(value: float) -> Polynomial:
    """A polynomial without symbols.

    Raises:
        NotPolynomialError: the value is not finite.
    """
    if not math.isfinite(value):
        raise NotPolynomialError
    return {(): value}


def symbol(name: str, factor: float = 1.0) -> Polynomial:
    """The polynomial factor * name."""
    return {((name, 1.0),): factor}


def number(polynomial: Polynomial) -> float | None:
    """The value of a polynomial without symbols, otherwise None."""
    return polynomial[()] if set(polynomial) == {()} else None


def expand(node: Any, lookup: Lookup, functions: Mapping[str, Any]) -> Polynomial:
    """Expand a formula into a polynomial.

    Args:
        node: syntax tree of libsbml.
        lookup: polynomial by name.
        functions: function definitions (libsbml) by id.

    Raises:
        NotPolynomialError: the formula is not a polynomial.
    """
    if node is None:  # Level 3 Version 2 allows formulas without content
        raise NotPolynomialError
    kind = node.getType()
    if node.isNumber():
        return constant(node.getValue())
    if kind in _CONSTANTS:
        return constant(_CONSTANTS[kind])
    if kind == libsbml.AST_NAME:
        return lookup(node.getName())
    if kind == libsbml.AST_FUNCTION and node.getName() not in functions:
        raise NotPolynomialError
    arguments = [expand(node.getChild(i), lookup, functions) for i in range(node.getNumChildren())]
    if kind == libsbml.AST_FUNCTION:
        others = {name: f for name, f in functions.items() if name != node.getName()}  # SBML does not allow recursion
        return _call(functions[node.getName()], arguments, others)
    try:
        return _operate(kind, arguments)
    except IndexError:  # an operation without its arguments
        raise NotPolynomialError from None


def mass_action(polynomial: Polynomial, products: Iterable[str]) -> MassAction | None:
    """Interpret a polynomial as k * Π c^order, or as the difference of two such terms; None if it is neither.

    The second term of a difference is a backward reaction only if it depends on no other species than
    `products` (products and modifiers): k A (total - B) is a difference, but not a reversible reaction.
    """
    allowed = set(products)
    split = _signed_terms(polynomial)
    if split is None:
        return None
    candidates = [split, tuple([t for t in side if t.k != 0] for side in split)]  # with and without terms with k = 0
    for forward, backward in candidates:
        if len(forward) == 1 and not backward:
            return MassAction(forward[0], None)
        if len(forward) == 1 and len(backward) == 1 and set(backward[0].orders) <= allowed:
            return MassAction(forward[0], backward[0])
    return None


def _signed_terms(polynomial: Polynomial) -> tuple[list[Term], list[Term]] | None:
    """The terms with positive and with negative coefficients; None for negative powers or infinite coefficients."""
    found: dict[tuple[bool, Monomial], float | None] = {}
    for monomial, coefficient in polynomial.items():
        species = tuple((s, p) for s, p in monomial if not s.startswith(UNKNOWN))
        known = len(species) == len(monomial)
        if not math.isfinite(coefficient) or any(p < 0 for _, p in species):
            return None
        key = (math.copysign(1.0, coefficient) < 0, species)
        before = found.get(key, 0.0)
        found[key] = abs(coefficient) + before if known and before is not None else None
    sides: tuple[list[Term], list[Term]] = ([], [])
    for (negative, species), k in found.items():
        sides[negative].append(Term(dict(species), k))
    return sides


def _call(definition: Any, arguments: list[Polynomial], functions: Mapping[str, Any]) -> Polynomial:
    if definition.getBody() is None or definition.getNumArguments() != len(arguments):
        raise NotPolynomialError
    bound = {definition.getArgument(i).getName(): value for i, value in enumerate(arguments)}

    def lookup(name: str) -> Polynomial:
        if name not in bound:
            raise NotPolynomialError
        return bound[name]

    return expand(definition.getBody(), lookup, functions)


def _operate(kind: int, arguments: list[Polynomial]) -> Polynomial:
    if kind == libsbml.AST_PLUS:
        return _sum(arguments)
    if kind == libsbml.AST_TIMES:
        return functools.reduce(product, arguments, constant(1.0))
    if kind == libsbml.AST_MINUS:
        last = product(constant(-1.0), arguments[-1])
        return last if len(arguments) == 1 else _sum([arguments[0], last])
    if kind == libsbml.AST_DIVIDE:
        return product(arguments[0], _power(arguments[1], -1.0))
    if kind in {libsbml.AST_POWER, libsbml.AST_FUNCTION_POWER, libsbml.AST_FUNCTION_ROOT}:
        return _root_or_power(kind, arguments)
    return _apply(kind, arguments)


def _root_or_power(kind: int, arguments: list[Polynomial]) -> Polynomial:
    root = kind == libsbml.AST_FUNCTION_ROOT
    if root and len(arguments) == 1:
        arguments = [constant(2.0), *arguments]
    exponent = number(arguments[0 if root else 1])
    if exponent is None or (root and exponent == 0):
        raise NotPolynomialError
    return _power(arguments[1], 1 / exponent) if root else _power(arguments[0], exponent)


def _apply(kind: int, arguments: list[Polynomial]) -> Polynomial:
    """The value of a function of numbers; a function of species is not a polynomial."""
    values = [number(argument) for argument in arguments]
    if kind == libsbml.AST_FUNCTION_LOG and len(values) == 1:
        values = [10.0, *values]
    if kind not in _FUNCTIONS or None in values:
        raise NotPolynomialError
    try:
        return constant(_FUNCTIONS[kind](*values))
    except (ArithmeticError, ValueError):
        raise NotPolynomialError from None


def _sum(summands: Iterable[Polynomial]) -> Polynomial:
    total: Polynomial = {}
    for summand in summands:
        for monomial, coefficient in summand.items():
            if monomial not in total:
                total[monomial] = coefficient
                continue
            value = total[monomial] + coefficient
            if abs(value) > _CANCELLED * max(abs(total[monomial]), abs(coefficient)):
                total[monomial] = value
            else:
                del total[monomial]
    if len(total) > _MAX_TERMS:
        raise NotPolynomialError
    return total or {(): 0.0}


def product(a: Polynomial, b: Polynomial) -> Polynomial:
    """The polynomial a * b.

    Raises:
        NotPolynomialError: it has too many terms.
    """
    if len(a) * len(b) > _MAX_TERMS**2:
        raise NotPolynomialError
    return _sum({_join(m, n): x * y} for m, x in a.items() for n, y in b.items())


def _join(a: Monomial, b: Monomial) -> Monomial:
    powers = dict(a)
    for name, power in b:
        powers[name] = powers.get(name, 0.0) + power
    return tuple(sorted((name, power) for name, power in powers.items() if power))


def _power(base: Polynomial, exponent: float) -> Polynomial:
    if len(base) == 1:
        ((monomial, coefficient),) = base.items()
        try:
            value = math.pow(coefficient, exponent)
        except (ArithmeticError, ValueError):
            raise NotPolynomialError from None
        scaled = tuple((name, power * exponent) for name, power in monomial if power * exponent)
        return {scaled: constant(value)[()]}
    if exponent != int(exponent) or not 0 <= exponent <= _MAX_TERMS:
        raise NotPolynomialError
    return functools.reduce(product, [base] * int(exponent), constant(1.0))
