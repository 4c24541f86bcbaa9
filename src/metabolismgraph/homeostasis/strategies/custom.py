"""Strategies outside the package: files of an exploration, available by name after loading.

Loading executes the file. Only a process with an active sandbox may do that (`sandbox/audit_hook.py`).
"""

from __future__ import annotations

import contextlib
import re
import sys
import traceback
import types
from collections.abc import Iterator, Mapping
from pathlib import Path

from metabolismgraph.errors import InputError
from metabolismgraph.homeostasis.strategies.base import Strategy
from metabolismgraph.text import one_line

FOLDER = "strategies"  # of a training folder
NAME = re.compile(r"[a-z][a-z0-9_]{1,40}")  # valid names of such strategies
_MODULES = "metabolismgraph_strategies"

_loaded: dict[str, type[Strategy]] = {}


def known() -> Mapping[str, type[Strategy]]:
    """The loaded strategies, by name."""
    return types.MappingProxyType(_loaded)


def register(name: str, kind: type[Strategy]) -> None:
    """Make a strategy available to `find` by the given name; replaces an earlier version."""
    _loaded[name] = kind


def forget() -> None:
    """Remove all loaded strategies."""
    _loaded.clear()


def load(path: Path) -> type[Strategy]:
    """Execute a strategy file and register its strategy by the name of the file.

    Raises:
        InputError: the file is not a strategy file, or its execution fails.
    """
    name = path.stem
    if not NAME.fullmatch(name):
        raise InputError(f"{FOLDER}/{path.name}: not a name of a strategy; use small letters, digits and _")
    module = types.ModuleType(f"{_MODULES}.{name}")
    with as_input_error([path]):
        source = path.read_text(encoding="utf-8")
        sys.modules[module.__name__] = module  # pydantic resolves annotations there
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)  # noqa: S102
        found = [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, Strategy) and value.__module__ == module.__name__
        ]
    if len(found) != 1:
        raise InputError(f"{FOLDER}/{path.name}: {len(found)} subclasses of Strategy; write one")
    register(name, found[0])
    return found[0]


@contextlib.contextmanager
def as_input_error(files: list[Path]) -> Iterator[None]:
    """Convert any error in strategy files into an InputError of one line, with file and line number.

    The complete traceback is written to standard error.

    Args:
        files: strategy files that are executed; the message names the innermost one in the traceback.

    Raises:
        InputError: an error occurred.
    """
    try:
        yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        if not files:
            raise
        traceback.print_exc()
        raise InputError(_blame(error, files)) from None


def _blame(error: BaseException, files: list[Path]) -> str:
    names = {str(path): f"{FOLDER}/{path.name}" for path in files}
    what = one_line(f"{type(error).__name__}: {error}", 200)
    if isinstance(error, SyntaxError) and error.filename in names:
        return f"{names[error.filename]}: line {error.lineno}: {what}"
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if frame.f_code.co_filename in names:
            return f"{names[frame.f_code.co_filename]}: line {line}: {what}"
    return f"{', '.join(names.values())}: {what}"
