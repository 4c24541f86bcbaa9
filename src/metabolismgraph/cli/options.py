"""Options, console and messages of all commands."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from metabolismgraph.text import printable

if TYPE_CHECKING:
    from rich.console import Console

    from metabolismgraph.config import Config

T = TypeVar("T")

ConfigName = Annotated[str, typer.Argument(help="name of a ready-made configuration (see `configs`), or a YAML file")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="override of a key, such as training.seed=3; repeatable"),
]
Map = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="NAME=ID",
        help="what a name in the tables stands for, such as Glc=s_0563 or Zeit=time; repeatable",
    ),
]
Out = Annotated[Path | None, typer.Option(help="run folder; default: a new one under runs/")]
Checkpoint = Annotated[
    Path | None, typer.Option(help="run folder, or phase1.safetensors, to start Phase 2 from; Phase 1 is skipped")
]
Secret = Annotated[
    Path | None, typer.Option(help="secret.key of a truth folder, to simulate its system again; default: a new key")
]
Resume = Annotated[bool, typer.Option("--resume", help="continue the run in the folder after its last finished stage")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="remove the run in the folder first")]
Anyway = Annotated[bool, typer.Option("--anyway", help="also for a fit that is not to be trusted")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no progress bars, no table")]


def read_config(source: str, overrides: list[str] | None) -> Config:
    from metabolismgraph.config import load_config

    return load_config(source, overrides or [])


def read_names(pairs: list[str] | None) -> dict[str, str]:
    """Names in tables and what they stand for, from NAME=ID.

    Raises:
        InputError: a pair is not of this form, or a name is given twice.
    """
    return read_pairs("--map", pairs, "NAME=ID, such as Glc=s_0563")


def read_pairs(option: str, pairs: list[str] | None, form: str) -> dict[str, str]:
    """Words by name, from NAME=WORD; a name may have an equals sign.

    Raises:
        InputError: a pair is not of this form, or a name is given twice.
    """

    def parse(pair: str) -> tuple[str, str]:
        name, equals, word = (part.strip() for part in pair.rpartition("="))
        if not (name and equals and word):
            raise ValueError
        return name, word

    return _unique_pairs(option, pairs, parse, form)


def read_formulas(option: str, pairs: list[str] | None) -> dict[str, str]:
    """Formulas by name, from NAME=FORMULA; a formula may have an equals sign.

    Raises:
        InputError: a pair is not of this form, or a name is given twice.
    """

    def parse(pair: str) -> tuple[str, str]:
        name, _, formula = (part.strip() for part in pair.partition("="))
        if not (name and formula):
            raise ValueError
        return name, formula

    return _unique_pairs(option, pairs, parse, "NAME=FORMULA, such as total=A+2*B")


def read_values(pairs: list[str] | None) -> dict[str, float]:
    """Values by id, from ID=VALUE.

    Raises:
        InputError: a pair is not of this form, or an id is given twice.
    """

    def parse(pair: str) -> tuple[str, float]:
        name, _, text = (part.strip() for part in pair.partition("="))
        return name, float(text)

    return _unique_pairs("--value", pairs, parse, "ID=VALUE, such as k1=0.5")


def _unique_pairs(
    option: str, pairs: list[str] | None, parse: Callable[[str], tuple[str, T]], form: str
) -> dict[str, T]:
    """What a repeatable option gives, by name; `parse` raises a ValueError for what is not of the form."""
    from metabolismgraph.errors import InputError

    found: dict[str, T] = {}
    for pair in pairs or []:
        try:
            name, value = parse(pair)
        except ValueError:
            raise InputError(f"{option} {pair}: expected {form}") from None
        if name in found:
            raise InputError(f"{option}: {name} is given twice; keep one")
        found[name] = value
    return found


def console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr)


def say(message: str) -> None:
    with suppress(OSError):  # nobody hears it then
        sys.stderr.write(f"{printable(message)}\n")


@contextmanager
def interruptible(advice: str) -> Iterator[None]:
    """Report an interrupt; inside a command, since typer ends silently at one outside."""
    try:
        yield
    except KeyboardInterrupt:
        say(advice)
        raise typer.Exit(130) from None
