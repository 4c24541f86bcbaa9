"""The last wall around all commands: whatever goes wrong is one line on standard error, and an exit code."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import typer
from typer.exceptions import TyperException

from metabolismgraph.cli.options import say
from metabolismgraph.errors import FirewallError, InputError, SimulationDivergedError, TrainingFailedError
from metabolismgraph.text import one_line, printable

_LONGEST = 1500  # characters of a message


def open_closed_streams() -> None:
    """Give standard streams that are closed to the null device, and write what cannot be encoded with backslashes.

    The next file that is opened would take their place otherwise, and receive what is meant for them.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the least number that is free, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be text


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the program with one line for every error: exit code 2 for wrong input, 1 for a failure."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: say(f"warning: {_line(message)}")
            yield
    except TyperException as error:
        found: Any = error  # of a class that typer does not export
        if type(error).__name__ == "NoArgsIsHelpError":
            found.show()
            sys.exit(2)
        _end(f"{found.format_message().removesuffix('.')}; see --help", 2)
    except (typer.Abort, KeyboardInterrupt):
        _end("aborted", 1)
    except BrokenPipeError:  # nobody reads any more, as in `| head`
        _drop_output()
        sys.exit(1)
    except InputError as error:
        _end(error, 2)
    except (FirewallError, SimulationDivergedError, TrainingFailedError) as error:
        _end(error, 1)
    except MemoryError:
        _end("the memory of this machine is not enough for this input; give a smaller one", 2)
    except RecursionError:
        _end("the input is nested too deeply to be read; write it with fewer levels", 2)
    except OSError as error:
        where = "a file or standard output" if error.filename is None else error.filename
        _end(f"{where}: cannot be read or written ({error.strerror or error}); make room, or give access", 2)


def _end(message: object, code: int) -> None:
    _drop_output()
    say(f"error: {_line(message)}")
    sys.exit(code)


def _drop_output() -> None:
    """Write what is left of the output, or discard it: the interpreter would try again, and complain."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _line(message: object) -> str:
    return one_line(printable(str(message)), _LONGEST)
