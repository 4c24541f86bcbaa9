"""SBML formulas (syntax trees of libsbml) as functions of NumPy arrays."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import libsbml
import numpy as np
from scipy import special

Values = Any  # an array of floats or booleans; operands are broadcast
Lookup = Callable[[str], Values]
Compiled = Callable[[Any], Values]  # of an environment, whose meaning is that of the lookup
Operations = Mapping[int, Callable[..., Values]]  # by types of nodes

TIME = "csymbol time"  # SBML ids do not contain spaces
AVOGADRO = 6.02214179e23  # the value prescribed by SBML Level 3
_MAX_CALLS = 30  # depth of nested calls of functions; a deeper one is taken as infinite recursion


class FormulaError(Exception):
    """The formula cannot be evaluated: it is malformed, or a quantity in it has no value."""


def evaluate(node: Any, lookup: Lookup, functions: Mapping[str, Any], calls: int = 0) -> Values:
    """The value of a formula, which can be NaN or infinite.

    Args:
        node: syntax tree of libsbml.
        lookup: value by name, including `TIME`.
        functions: function definitions (libsbml) by id.
        calls: depth of nested calls of functions.

    Raises:
        FormulaError: the formula cannot be evaluated.
    """
    with np.errstate(all="ignore"):
        return compiled(node, lambda name: lambda _: lookup(name), functions, calls)(None)


def compiled(
    node: Any,
    lookup: Callable[[str], Compiled],
    functions: Mapping[str, Any],
    calls: int = 0,
    operations: Operations | None = None,
) -> Compiled:
    """A formula as a function, for repeated evaluation.

    Args:
        node, functions, calls: as for `evaluate`.
        lookup: for every name, including `TIME`, the function that gives its value in an environment.
        operations: made by `operations_of`; None: those of NumPy.

    Raises:
        FormulaError: the formula is malformed. The function raises it if an operation has a wrong number of arguments.
    """
    if node is None:  # Level 3 Version 2 allows formulas without content
        raise FormulaError
    kind = node.getType()
    if node.isNumber() or kind in _CONSTANTS:
        value = np.float64(node.getValue()) if node.isNumber() else _CONSTANTS[kind]
        return lambda _: value
    if kind in {libsbml.AST_NAME, libsbml.AST_NAME_TIME}:
        return lookup(TIME if kind == libsbml.AST_NAME_TIME else node.getName())
    known = _OPERATIONS if operations is None else operations
    arguments = [compiled(child, lookup, functions, calls, known) for child in children(node)]
    if kind == libsbml.AST_FUNCTION:
        return _called(functions.get(node.getName()), arguments, functions, calls, known)
    operation = known.get(kind)
    if operation is None:
        raise FormulaError

    def apply(environment: Any) -> Values:
        try:
            return operation(*[argument(environment) for argument in arguments])
        except (TypeError, ValueError):  # a wrong number of arguments
            raise FormulaError from None

    return apply


def _called(
    definition: Any,
    arguments: Sequence[Compiled],
    functions: Mapping[str, Any],
    calls: int,
    operations: Operations,
) -> Compiled:
    """The body of a function of the model, with the arguments in the place of its own."""
    if definition is None or calls == _MAX_CALLS or definition.getNumArguments() != len(arguments):
        raise FormulaError
    bound = {definition.getArgument(i).getName(): value for i, value in enumerate(arguments)}

    def lookup(name: str) -> Compiled:
        if name not in bound:
            raise FormulaError
        return bound[name]

    return compiled(definition.getBody(), lookup, functions, calls + 1, operations)


def children(node: Any) -> Iterator[Any]:
    """The operands of a node."""
    return (node.getChild(i) for i in range(node.getNumChildren()))


def names(node: Any) -> set[str]:
    """The names in a formula, including `TIME`; bodies of functions contain only names of arguments."""
    if node is None:
        return set()
    if node.getType() == libsbml.AST_NAME_TIME:
        return {TIME}
    if node.getType() == libsbml.AST_NAME:
        return {node.getName()}
    timed = {TIME} if node.getType() in {libsbml.AST_FUNCTION_DELAY, libsbml.AST_FUNCTION_RATE_OF} else set()
    return timed.union(*(names(child) for child in children(node)))


def subtracts(node: Any, functions: Mapping[str, Any], calls: int = 0) -> bool:
    """Whether a formula, or a function that it calls, contains a minus."""
    if node is None or calls == _MAX_CALLS:
        return False
    if node.getType() == libsbml.AST_MINUS:
        return True
    called = functions.get(node.getName()) if node.getType() == libsbml.AST_FUNCTION else None
    if called is not None and subtracts(called.getBody(), functions, calls + 1):
        return True
    return any(subtracts(child, functions, calls) for child in children(node))


def operations_of(kit: Any) -> Operations:
    """What operations in formulas do, for values of a library.

    Args:
        kit: a namespace with the names of NumPy, such as `numpy` itself, and `gamma`.
    """

    def number(x: Values) -> Values:
        return x if type(x) is np.float64 else kit.asarray(x, float)  # the usual case, at a tenth of the time

    def minus(a: Values, b: Values | None = None) -> Values:
        return -number(a) if b is None else number(a) - number(b)

    def log(base: Values, x: Values | None = None) -> Values:
        return kit.log10(base) if x is None else kit.log(x) / kit.log(base)

    def root(degree: Values, x: Values | None = None) -> Values:
        return kit.sqrt(degree) if x is None else kit.float_power(x, 1 / number(degree))

    def piecewise(*pieces: Values) -> Values:
        """The value of the first true condition, of pairs (value, condition); otherwise the last value, or NaN."""
        result = number(pieces[-1] if len(pieces) % 2 else np.nan)
        last = len(pieces) - len(pieces) % 2
        for i in range(last - 2, -2, -2):  # in reverse order, so that the first true condition takes precedence
            result = kit.where(kit.asarray(pieces[i + 1], bool), pieces[i], result)
        return result

    def chain(relation: Callable[[Values, Values], Values]) -> Callable[..., Values]:
        """Extend a relation to any number of values: a < b < c means a < b and b < c."""
        return lambda *values: functools.reduce(
            kit.logical_and, (relation(a, b) for a, b in itertools.pairwise(values)), np.True_
        )

    def of_one(operation: Callable[[Values], Values]) -> Callable[[Values], Values]:
        """A function of exactly one argument; NumPy would use a second one as the output array."""
        return lambda x: operation(number(x))

    def related(name: str, reciprocal: str) -> dict[str, Callable[[Values], Values]]:
        """A trigonometric or hyperbolic function, its reciprocal, and the inverses of both."""
        direct, inverse = getattr(kit, name), getattr(kit, f"arc{name}")
        return {
            name: direct,
            reciprocal: lambda x: 1 / direct(x),
            f"arc{name}": inverse,
            f"arc{reciprocal}": lambda x: inverse(1 / x),
        }

    of_one_argument = {
        "abs": kit.abs,
        "exp": kit.exp,
        "ln": kit.log,
        "floor": kit.floor,
        "ceiling": kit.ceil,
        "factorial": lambda x: kit.gamma(x + 1),
        **dict(itertools.chain.from_iterable(related(*pair).items() for pair in _RECIPROCALS.items())),
    }
    return {
        libsbml.AST_PLUS: _fold(lambda a, b: number(a) + number(b), np.float64(0)),
        libsbml.AST_TIMES: _fold(lambda a, b: number(a) * number(b), np.float64(1)),
        libsbml.AST_MINUS: minus,
        libsbml.AST_DIVIDE: lambda a, b: number(a) / number(b),
        libsbml.AST_POWER: kit.float_power,
        libsbml.AST_FUNCTION_POWER: kit.float_power,
        libsbml.AST_FUNCTION_ROOT: root,
        libsbml.AST_FUNCTION_LOG: log,
        libsbml.AST_FUNCTION_PIECEWISE: piecewise,
        libsbml.AST_FUNCTION_MAX: _fold(kit.maximum),
        libsbml.AST_FUNCTION_MIN: _fold(kit.minimum),
        libsbml.AST_FUNCTION_QUOTIENT: lambda a, b: kit.trunc(number(a) / number(b)),
        libsbml.AST_FUNCTION_REM: kit.fmod,
        libsbml.AST_LOGICAL_AND: _fold(kit.logical_and, np.True_),
        libsbml.AST_LOGICAL_OR: _fold(kit.logical_or, np.False_),
        libsbml.AST_LOGICAL_XOR: _fold(kit.logical_xor, np.False_),
        libsbml.AST_LOGICAL_NOT: kit.logical_not,
        libsbml.AST_LOGICAL_IMPLIES: lambda a, b: kit.logical_or(kit.logical_not(a), b),
        libsbml.AST_RELATIONAL_EQ: chain(kit.equal),
        libsbml.AST_RELATIONAL_NEQ: kit.not_equal,
        libsbml.AST_RELATIONAL_LT: chain(kit.less),
        libsbml.AST_RELATIONAL_LEQ: chain(kit.less_equal),
        libsbml.AST_RELATIONAL_GT: chain(kit.greater),
        libsbml.AST_RELATIONAL_GEQ: chain(kit.greater_equal),
        **{getattr(libsbml, f"AST_FUNCTION_{name.upper()}"): of_one(f) for name, f in of_one_argument.items()},
    }


def _fold(operation: Callable[[Values, Values], Values], start: Values | None = None) -> Callable[..., Values]:
    """Extend an operation on two values to any number of values; without values, the result is `start`."""

    def folded(*values: Values) -> Values:
        if not values and start is None:
            raise FormulaError
        return functools.reduce(operation, values) if start is None else functools.reduce(operation, values, start)

    return folded


_CONSTANTS: dict[int, Values] = {
    libsbml.AST_CONSTANT_E: np.float64(np.e),
    libsbml.AST_CONSTANT_PI: np.float64(np.pi),
    libsbml.AST_CONSTANT_TRUE: np.True_,
    libsbml.AST_CONSTANT_FALSE: np.False_,
    libsbml.AST_NAME_AVOGADRO: np.float64(AVOGADRO),
}
_RECIPROCALS = {"sin": "csc", "cos": "sec", "tan": "cot", "sinh": "csch", "cosh": "sech", "tanh": "coth"}


class _NumPy:
    """NumPy and the one function of SciPy that formulas need."""

    gamma = staticmethod(special.gamma)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


_OPERATIONS = operations_of(_NumPy())
