"""Reading and writing of YAML, without pitfalls of reading, and with exact round trips of text."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

from metabolismgraph.errors import InputError

_MOST_MERGED = 10_000  # keys of a mapping after merging
_MOST_DIGITS = 400  # of a whole number; larger ones are not floats, either


class Loader(yaml.SafeLoader):
    """A safe loader for which 1E-3 is a number, as in YAML 1.2, and a duplicate key is an error.

    Mappings that merge others, which merge others, do not grow without limit.
    """

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > _MOST_MERGED:
            raise yaml.constructor.ConstructorError(None, None, "too many merged keys", node.start_mark)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > _MOST_DIGITS:
            raise yaml.constructor.ConstructorError(None, None, "a number has too many digits", node.start_mark)
        return super().construct_yaml_int(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, f"key {name} is given twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_yaml_int)
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


class Dumper(yaml.SafeDumper):
    """Quotes every text that `Loader` would not read as text; both use the same patterns."""

    yaml_implicit_resolvers = Loader.yaml_implicit_resolvers

    def represent_text(self, text: str) -> yaml.ScalarNode:
        # Line ends and invisible characters are preserved only as escapes, which require double quotes.
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


Dumper.add_representer(str, Dumper.represent_text)


def parse_yaml(text: str, where: str) -> object:
    """The value of a YAML document.

    Args:
        where: source of the text, for the message.

    Raises:
        InputError: the text is not valid YAML.
    """
    try:
        return yaml.load(text, Loader=Loader)  # noqa: S506 - a subclass of the safe loader
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(f"{where}{line}: not valid YAML ({problem})") from None
    except RecursionError:
        raise InputError(f"{where}: nested too deeply to be read") from None
