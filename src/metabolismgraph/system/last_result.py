"""A memory of one result per method, for values that are asked for several times in a row."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

Self = TypeVar("Self")
Argument = TypeVar("Argument")
Result = TypeVar("Result")


def keep_last_result(method: Callable[[Self, Argument], Result]) -> Callable[[Self, Argument], Result]:
    """A method of one argument that computes nothing if this is the same object as in the last call.

    Arguments are compared by identity, since modules with arrays have neither a hash nor a quick comparison. The
    object holds argument and result, so that both are released with it.

    Example:
        >>> class Squares:
        ...     @keep_last_result
        ...     def of(self, numbers):
        ...         print("computed")
        ...         return [n * n for n in numbers]
        >>> squares, numbers = Squares(), [1, 2]
        >>> squares.of(numbers)
        computed
        [1, 4]
        >>> squares.of(numbers)
        [1, 4]
    """
    name = f"_last_of_{method.__name__}"

    @functools.wraps(method)
    def kept(self: Any, argument: Argument) -> Result:
        last = self.__dict__.get(name)
        if last is None or last[0] is not argument:
            last = self.__dict__[name] = (argument, method(self, argument))
        found: Result = last[1]
        return found

    return kept
