"""Options, console and messages of all commands."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from metabolismgraph.config import Config

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
    from metabolismgraph.errors import InputError

    names: dict[str, str] = {}
    for pair in pairs or []:
        name, equals, key = (part.strip() for part in pair.rpartition("="))
        if not (name and equals and key):
            raise InputError(f"--map {pair}: expected NAME=ID, such as Glc=s_0563")
        if name in names:
            raise InputError(f"--map: {name} is given twice; keep one")
        names[name] = key
    return names


def read_values(pairs: list[str] | None) -> dict[str, float]:
    """Values by id, from ID=VALUE.

    Raises:
        InputError: a pair is not of this form, or an id is given twice.
    """
    from metabolismgraph.errors import InputError

    values: dict[str, float] = {}
    for pair in pairs or []:
        name, _, text = (part.strip() for part in pair.partition("="))
        try:
            value = float(text)
        except ValueError:
            raise InputError(f"--value {pair}: expected ID=VALUE, such as k1=0.5") from None
        if name in values:
            raise InputError(f"--value: {name} is given twice; keep one")
        values[name] = value
    return values


def console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr)


def say(message: str) -> None:
    sys.stderr.write(f"{message}\n")


@contextmanager
def interruptible(advice: str) -> Iterator[None]:
    """Report an interrupt; inside a command, since typer ends silently at one outside."""
    try:
        yield
    except KeyboardInterrupt:
        say(advice)
        raise typer.Exit(130) from None
