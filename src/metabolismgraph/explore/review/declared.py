"""What a strategy file declares, by its text: the explorer need not believe the process that executes the file."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

_VALUES = ("number", "summary", "reference", "sets", "needs", "draws_minibatches")
_REQUIRED = frozenset({"number", "summary", "reference"})
_DEFAULTS: dict[str, object] = {"sets": frozenset(), "needs": "", "draws_minibatches": False}
_KINDS = {"bool": "boolean", "int": "integer", "float": "number", "str": "string"}
_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
# What pydantic writes about options of the types that are allowed.
_KEYS = frozenset(
    {"title", "description", "default", "type", "enum", "const", "items", "prefixItems", "minItems", "maxItems"}
    | set(_BOUNDS.values())
)
_OF_ALL = {"type": "object", "additionalProperties": False}
_LARGEST = 20_000  # characters of the schema
_UNKNOWN = object()  # a value that is not a literal


class Written(NamedTuple):
    """The declaration as written.

    Attributes:
        values: class attributes that are literals, by name.
        options: what is written of every option, as in a JSON schema.
        complete: whether there are no other options, from a base class.
    """

    values: Mapping[str, Any]
    options: Mapping[str, Mapping[str, Any]]
    complete: bool


def read_declaration(source: str) -> Written:
    """The declaration in a file that `syntax.py` does not refuse; nothing is executed."""
    tree = ast.parse(source)
    constants = {
        name: node.value
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
        for name in _targets(node)
    }
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and any(
            isinstance(f, ast.FunctionDef) and f.name == "apply" for f in node.body
        ):
            assigned: dict[str, ast.Assign | ast.AnnAssign] = {
                name: inside
                for inside in node.body
                if isinstance(inside, ast.Assign | ast.AnnAssign)
                for name in _targets(inside)
            }
            if assigned.keys() >= _REQUIRED:
                return _written(node, assigned, {name: v for name, v in constants.items() if name not in assigned})
    return Written({}, {}, complete=False)


def disagreements(written: Written, declared: Mapping[str, Any]) -> Iterator[str]:
    """Names of what a process declares in another way than the file, or in a form that pydantic does not write.

    Args:
        declared: by the process that executed the file, as JSON.
    """
    for name, value in written.values.items():
        expected = sorted(value) if isinstance(value, frozenset) else value
        if not _same(declared.get(name), expected):
            yield name
    schema = declared.get("options")
    if not isinstance(schema, dict) or len(repr(schema)) > _LARGEST:
        yield "options"
        return
    found = schema.get("properties", {})
    rest = {key: value for key, value in schema.items() if key not in {"title", "description", "properties"}}
    texts = [schema.get("title", ""), schema.get("description", "")]
    if rest != _OF_ALL or not isinstance(found, dict) or not all(isinstance(text, str) for text in texts):
        yield "options"
        return
    missing = written.options.keys() - found.keys()
    more = found.keys() - written.options.keys() if written.complete else set()
    yield from sorted(f"option {name}" for name in missing | more)
    for name, option in found.items():
        fits = name.isidentifier() and isinstance(option, dict) and option.keys() <= _KEYS
        if not fits or any(not _same(option.get(key), value) for key, value in written.options.get(name, {}).items()):
            yield f"option {name}"


def _written(
    node: ast.ClassDef, assigned: Mapping[str, ast.Assign | ast.AnnAssign], constants: Mapping[str, ast.expr]
) -> Written:
    complete = [ast.unparse(base) for base in node.bases] == ["Strategy"]
    given = {name: _literal(assigned[name].value, constants) for name in _VALUES if name in assigned}
    values = (_DEFAULTS if complete else {}) | {name: v for name, v in given.items() if v is not _UNKNOWN}
    options = {
        name: dict(_option(inside, constants))
        for name, inside in assigned.items()
        if isinstance(inside, ast.AnnAssign) and not name.startswith("_") and not _is_of_class(inside.annotation)
    }
    return Written({name: v for name, v in values.items() if given.get(name) is not _UNKNOWN}, options, complete)


def _targets(node: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _is_of_class(annotation: ast.expr) -> bool:
    return ast.unparse(annotation).removeprefix("typing.").startswith("ClassVar")


def _option(node: ast.AnnAssign, constants: Mapping[str, ast.expr]) -> Iterator[tuple[str, object]]:
    """Yield the literal parts of an option: type, default, bounds, description."""
    if isinstance(node.annotation, ast.Name) and node.annotation.id in _KINDS:
        yield "type", _KINDS[node.annotation.id]
    value, named = node.value, {}
    if isinstance(value, ast.Call):
        named = {keyword.arg: keyword.value for keyword in value.keywords if keyword.arg}
        value = value.args[0] if value.args else named.get("default")
    parts = {"default": value, "description": named.get("description")}
    parts |= {word: named.get(bound) for bound, word in _BOUNDS.items()}
    for word, part in parts.items():
        found = _literal(part, constants) if part is not None else _UNKNOWN
        if found is not _UNKNOWN:
            yield word, found


def _literal(node: ast.expr | None, constants: Mapping[str, ast.expr]) -> object:
    """The value of an expression if it is a literal, a constant of the file that is one, or a frozenset of them."""
    if isinstance(node, ast.Name) and node.id in constants:
        node = constants[node.id]
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "frozenset" and len(node.args) <= 1:
        elements = _literal(node.args[0], constants) if node.args else ()
        return frozenset(elements) if isinstance(elements, set | list | tuple) else _UNKNOWN
    try:
        return ast.literal_eval(node) if node is not None else _UNKNOWN
    except (ValueError, TypeError, MemoryError, RecursionError):
        return _UNKNOWN


def _same(one: object, other: object) -> bool:
    """Whether two values are equal in JSON, where true is not 1, but 1 is 1.0, and tuples are lists."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return one == other
