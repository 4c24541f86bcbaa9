"""Messages of one line on errors in a configuration."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from metabolismgraph.errors import InputError

M = TypeVar("M", bound=BaseModel)


def nearest_name(name: str, names: Iterable[str]) -> str:
    """The most similar of `names`."""
    return difflib.get_close_matches(name, list(names), 1, 0.0)[0]


def parse_options(kind: type[M], options: object, where: str, name: str, noun: str = "option") -> M:
    """A model from its options in a configuration.

    Args:
        kind: the model.
        where: key of the configuration, for messages.
        name: name of the model in the configuration.
        noun: word for an option.

    Raises:
        InputError: there is no such option, or its value does not fit.
    """
    try:
        return kind.model_validate(options)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = ".".join(str(part) for part in first["loc"])
        known = ", ".join(kind.model_fields) or "none"
        problem = f"there is no such {noun}" if first["type"] == "extra_forbidden" else first["msg"]
        raise InputError(f"{where}: {noun} {option} of {name}: {problem} ({noun}s: {known})") from None


def explain(loc: tuple[int | str, ...], problem: Mapping[str, Any]) -> str:
    """The value found and the value expected, for an error of pydantic.

    Args:
        loc, problem: location and error, as in `ValidationError.errors`.
    """
    whole_list = problem["type"] == "missing"  # the location is that of the missing element, not of the list
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc[: 2 if whole_list else None])
    key = key.lstrip(".")
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "value_error":
        # Messages of the checks in a section begin with the name of the key.
        return f"{key} is {shown(problem['input'])}, {message}" if "." in key else f"{key}.{message}"
    expected = message.removeprefix("Input should be ").split(", unable")[0].split(", got a number")[0]
    if problem["type"] in _BOUNDS:
        expected = f"a value {expected}"
    return f"{key} is {shown(problem['input'])}, expected {_PLAIN_WORDS.get(problem['type'], expected)}"


_BOUNDS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
_PLAIN_WORDS = {
    **dict.fromkeys(("float_parsing", "float_type"), "a number"),
    "finite_number": "a finite number",
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float", "int_parsing_size"), "a whole number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "true or false"),
    "string_type": "text (put it in quotes)",
    "tuple_type": "a list in brackets, such as [4.5, 5.5] or [residual]",
    **dict.fromkeys(("missing", "too_long"), "two numbers, such as [-2, -1]"),
}


def shown(value: object) -> str:
    """A value as short text on one line."""
    if isinstance(value, Mapping):
        return "a mapping"
    if value is None:
        return "empty"
    text = " ".join((str(value).lower() if isinstance(value, bool) else repr(value)).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
