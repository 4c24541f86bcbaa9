"""Conversion of models between Antimony (Smith et al. 2009) and SBML, by libAntimony."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Literal

from metabolismgraph.errors import InputError
from metabolismgraph.processes import describe_exit, run
from metabolismgraph.text import one_line, printable

SUFFIXES = frozenset({".ant", ".antimony"})
_PROCESS = Path(__file__).with_name("antimony_process.py")
_SECONDS, _MOST_BYTES = 20.0, 200_000_000
_LINE = re.compile(r"Error in model string, line (\d+):\s*(.*)", re.DOTALL)
_OPENS_A_FILE = re.compile(r"Input file .* exists|Could not open ", re.DOTALL)


def is_antimony(path: Path) -> bool:
    """Whether a file is a model in Antimony, by its name."""
    return Path(path.name.removesuffix(".gz")).suffix.casefold() in SUFFIXES


def sbml_of(antimony: bytes, source: str) -> bytes:
    """A model in Antimony as SBML Level 3 Version 2: the last model of the file, or the one marked with a star.

    Args:
        antimony: content of the file.
        source: name of the file, for messages.

    Raises:
        InputError: the package antimony is not installed, or the content is not Antimony, or imports another file.
    """
    return _converted(antimony, "sbml", source)


def antimony_of(sbml: bytes, source: str) -> bytes:
    """An SBML model in Antimony, as far as Antimony can express it.

    Raises:
        InputError: the package antimony is not installed, or refuses the model.
    """
    return _converted(sbml, "antimony", source)


def _converted(model: bytes, wanted: Literal["sbml", "antimony"], source: str) -> bytes:
    if importlib.util.find_spec("antimony") is None:
        raise InputError(
            f"{source}: Antimony needs the package antimony; pip install 'metabolismgraph[antimony]', or give SBML"
        )
    try:
        text = model.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{source}: not a text file; write the model in UTF-8") from None
    if "\0" in text:  # the library would read no further
        raise InputError(f"{source}: not a text file (it holds a NUL character); write the model in UTF-8")
    if wanted == "sbml" and text.lstrip().startswith("<"):
        raise InputError(f"{source}: looks like SBML, not Antimony; give the file the suffix .xml")
    command = [sys.executable, "-P", str(_PROCESS), wanted]
    done = run(command, stdin=text.encode(), seconds=_SECONDS, output=_MOST_BYTES)
    if done.limit is not None:
        raise InputError(f"{source}: libAntimony needs too much {done.limit} for this model; give a smaller one")
    if done.code == 1 and done.stderr:
        message = done.stderr.decode(errors="replace")
        if wanted == "antimony":
            raise InputError(f"{source}: libAntimony refuses the model: {one_line(printable(message))}")
        raise InputError(f"{source}: {_explained(message)}")
    if done.code:
        raise InputError(f"{source}: libAntimony {describe_exit(done.code)} with this model; check it")
    return done.stdout


def _explained(message: str) -> str:
    """What libAntimony complains about, in one line."""
    found = _LINE.fullmatch(message.strip())
    where, what = (f"line {found[1]}: ", found[2]) if found else ("", message)
    if _OPENS_A_FILE.match(what):
        return f"{where}imports another file, which is never read; put its models into this one"
    return f"not valid Antimony: {where}{one_line(printable(what))}; correct it"
