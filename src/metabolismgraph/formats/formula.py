"""SBML formulas (syntax trees of libsbml) as functions of NumPy arrays."""

from __future__ import annotations

import functools
import graphlib
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import libsbml
import numpy as np
from scipy import special

Values = Any  # an array of floats or booleans; operands are broadcast
Lookup = Callable[[str], Values]
Compiled = Callable[[Any], Values]  # of an environment, whose meaning is that of the lookup
Operations = Mapping[int, Callable[..., Values]]  # by types of nodes

TIME = "csymbol time"  # SBML ids do not contain spaces
AVOGADRO = 6.02214179e23  # the value prescribed by SBML Level 3
_MAX_CALLS = 30  # depth of nested calls of functions


class FormulaError(Exception):
    """The formula cannot be evaluated: it is malformed, or a quantity in it has no value."""


def evaluate(node: Any, lookup: Lookup, functions: Mapping[str, Any]) -> Values:
    """The value of a formula, which can be NaN or infinite.

    Args:
        node: syntax tree of libsbml.
        lookup: value by name, including `TIME`.
        functions: function definitions (libsbml) by id.

    Raises:
        FormulaError: the formula cannot be evaluated.
    """
    with np.errstate(all="ignore"):
        return compiled(node, lambda name: lambda _: lookup(name), functions)(None)


def compiled(
    node: Any, lookup: Callable[[str], Compiled], functions: Mapping[str, Any], operations: Operations | None = None
) -> Compiled:
    """A formula as a function, for repeated evaluation.

    Args:
        node, functions: as for `evaluate`.
        lookup: for every name, including `TIME`, the function that gives its value in an environment.
        operations: made by `operations_of`; None: those of NumPy.

    Raises:
        FormulaError: the formula is malformed. The function raises it if an operation has a wrong number of arguments.
    """
    return _Compilation(functions, _OPERATIONS if operations is None else operations).formula(node, lookup)


class _Compilation:
    """The compilation of a formula, and once of each function that it calls."""

    def __init__(self, functions: Mapping[str, Any], operations: Operations):
        self._functions, self._operations = functions, operations
        self._bodies = dict[str, Compiled]()  # in the environment of their arguments
        self._open = set[str]()

    def formula(self, node: Any, lookup: Callable[[str], Compiled]) -> Compiled:
        """See `compiled`."""
        if node is None:  # Level 3 Version 2 allows formulas without content
            raise FormulaError
        kind = node.getType()
        if node.isNumber() or kind in _CONSTANTS:
            value = np.float64(node.getValue()) if node.isNumber() else _CONSTANTS[kind]
            return lambda _: value
        if kind in {libsbml.AST_NAME, libsbml.AST_NAME_TIME}:
            return lookup(TIME if kind == libsbml.AST_NAME_TIME else node.getName())
        arguments = [self.formula(child, lookup) for child in children(node)]
        if kind == libsbml.AST_FUNCTION:
            return self._call(node.getName(), arguments)
        operation = self._operations.get(kind)
        if operation is None:
            raise FormulaError

        def apply(environment: Any) -> Values:
            try:
                return operation(*[argument(environment) for argument in arguments])
            except (TypeError, ValueError):  # a wrong number of arguments
                raise FormulaError from None

        return apply

    def _call(self, name: str, arguments: Sequence[Compiled]) -> Compiled:
        """A call of a function of the model.

        Each argument is evaluated once, however often the body has it: nested calls would double the work each time.
        """
        definition = self._functions.get(name)
        if definition is None or name in self._open or definition.getNumArguments() != len(arguments):
            raise FormulaError
        own = [definition.getArgument(i).getName() for i in range(len(arguments))]

        def lookup(argument: str) -> Compiled:
            if argument not in own:
                raise FormulaError
            return lambda bound: bound[argument]

        if name not in self._bodies:
            self._open.add(name)
            self._bodies[name] = self.formula(definition.getBody(), lookup)
            self._open.remove(name)
        body = self._bodies[name]
        return lambda environment: body({n: argument(environment) for n, argument in zip(own, arguments, strict=True)})


class _Expanded(NamedTuple):
    """Size of the body of a function, without its arguments, and how often it has each of them."""

    size: int
    arguments: Counter[str]


def check_size(formulas: Iterable[Any], functions: Mapping[str, Any], most: int) -> None:
    """Check that no formula is very long when functions of the model are replaced by their bodies.

    A few functions, each of which calls the next one twice, make billions of operations.

    Args:
        formulas: syntax trees of libsbml.
        most: numbers, names and operations that a formula may have.

    Raises:
        FormulaError: a formula is longer, a function calls itself, or functions call one another too deeply; with the
            reason.
    """
    calls = {name: _called_functions(function.getBody()) & set(functions) for name, function in functions.items()}
    try:
        order = list(graphlib.TopologicalSorter(calls).static_order())
    except graphlib.CycleError as error:
        raise FormulaError(f"function {error.args[1][0]} calls itself") from None
    known, depth = dict[str, _Expanded](), dict[str, int]()
    for name in order:
        depth[name] = 1 + max((depth[other] for other in calls[name]), default=0)
        if depth[name] > _MAX_CALLS:
            raise FormulaError(f"function {name} calls functions that call others more than {_MAX_CALLS} deep")
        known[name] = _expanded(functions[name].getBody(), functions, known)
        if known[name].size + known[name].arguments.total() > most:
            raise FormulaError(f"function {name}, with the functions that it calls, has more than {most} operations")
    for formula in formulas:
        found = _expanded(formula, functions, known)
        if found.size + found.arguments.total() > most:
            raise FormulaError(f"a formula, with the functions that it calls, has more than {most} operations")


def _called_functions(node: Any) -> set[str]:
    if node is None:
        return set()
    own = {node.getName()} if node.getType() == libsbml.AST_FUNCTION else set()
    return own.union(*(_called_functions(child) for child in children(node)))


def _expanded(node: Any, functions: Mapping[str, Any], known: Mapping[str, _Expanded]) -> _Expanded:
    """Numbers of operations, and of each name, of a formula with the bodies of its functions."""
    if node is None:
        return _Expanded(0, Counter())
    if node.getType() == libsbml.AST_NAME:
        return _Expanded(0, Counter([node.getName()]))
    parts = [_expanded(child, functions, known) for child in children(node)]
    called = known.get(node.getName()) if node.getType() == libsbml.AST_FUNCTION else None
    if called is None:
        return _Expanded(1 + sum(p.size for p in parts), sum((p.arguments for p in parts), Counter()))
    definition, size, arguments = functions[node.getName()], called.size, Counter[str]()
    for i, part in enumerate(parts[: definition.getNumArguments()]):
        times = called.arguments[definition.getArgument(i).getName()]
        size += times * part.size
        arguments.update({name: times * count for name, count in part.arguments.items()})
    return _Expanded(size, arguments)


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
    libsbml.AST_CONSTANT_E: np.float64(math.e),
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
