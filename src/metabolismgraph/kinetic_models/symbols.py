"""Formulas of models as symbols of CasADi (Andersson et al. 2019), whose derivatives and solvers are compiled code."""

from __future__ import annotations

import math
from collections.abc import Callable

import casadi as ca
from scipy import special

from metabolismgraph.formats.formula import FormulaError, Values, operations_of


def _symbol(x: Values, _: type = float) -> ca.SX:
    return x if isinstance(x, ca.SX) else ca.SX(float(x))


def _truncated(x: ca.SX) -> ca.SX:
    return ca.if_else(x < 0, ca.ceil(x), ca.floor(x))


def _power(base: Values, exponent: Values) -> ca.SX:
    base, exponent = _symbol(base), _symbol(exponent)
    if exponent.is_constant():
        return ca.power(base, exponent)
    # The derivative by the exponent has the logarithm of the base, which is not finite at zero.
    of_zero = ca.if_else(exponent > 0, 0, ca.if_else(exponent == 0, 1, math.inf))
    return ca.if_else(base == 0, of_zero, ca.power(ca.if_else(base == 0, 1, base), exponent))


def _gamma(x: ca.SX) -> ca.SX:
    if not x.is_constant():
        raise FormulaError("has a factorial of a quantity that changes, whose derivative is not known here")
    return ca.SX(float(special.gamma(float(x))))  # infinite where it is too large


def _of(operation: Callable[..., ca.SX]) -> staticmethod[..., ca.SX]:
    """An operation that takes numbers, too."""
    return staticmethod(lambda *values: operation(*map(_symbol, values)))


class _CasADi:
    """CasADi under the names of NumPy."""

    asarray, float_power, trunc, gamma = staticmethod(_symbol), _of(_power), _of(_truncated), _of(_gamma)
    exp, sqrt, log, log10, abs, floor, ceil = ca.exp, ca.sqrt, ca.log, ca.log10, ca.fabs, ca.floor, ca.ceil
    sin, cos, tan, sinh, cosh, tanh = ca.sin, ca.cos, ca.tan, ca.sinh, ca.cosh, ca.tanh
    arcsin, arccos, arctan, arcsinh, arccosh, arctanh = ca.asin, ca.acos, ca.atan, ca.asinh, ca.acosh, ca.atanh
    where, maximum, minimum, fmod = ca.if_else, ca.fmax, ca.fmin, ca.fmod
    logical_not, logical_and, logical_or = _of(ca.logic_not), _of(ca.logic_and), _of(ca.logic_or)
    logical_xor = _of(lambda a, b: ca.ne(a != 0, b != 0))
    equal, not_equal = _of(ca.eq), _of(ca.ne)
    less, less_equal, greater, greater_equal = _of(ca.lt), _of(ca.le), _of(ca.gt), _of(ca.ge)


SYMBOLS = operations_of(_CasADi)
