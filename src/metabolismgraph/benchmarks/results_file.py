"""The file of results of a benchmark that can be interrupted."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from metabolismgraph.errors import InputError
from metabolismgraph.files import write_bytes
from metabolismgraph.json_lines import append_line, read_lines

Row = dict[str, Any]
# Files of the benchmarks whose cases may be jobs of a cluster; a folder holds one of them.
STRATEGY_LINES, RECOVERY_LINES = "strategies.jsonl", "recovery.jsonl"
LINES_WITH_JOBS = (STRATEGY_LINES, RECOVERY_LINES)

_ADVICE = "restore it, or start again with --overwrite"


def host() -> Row:
    """The machine of this process, for the results."""
    return {"system": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()}


@dataclasses.dataclass(frozen=True)
class Results:
    """The results of a benchmark.

    Attributes:
        header: its settings.
        diverged: simulations without data.
        cases: a row per case; failed ones have an error and no metrics.
    """

    header: Row
    diverged: list[Row]
    cases: list[Row]


class ResultsFile:
    """The file of results, one JSON object per line: settings first, then seeds and cases as they finish.

    A benchmark has a subclass with the name of its file and the keys that identify a case.
    """

    lines: ClassVar[str]
    keys: ClassVar[tuple[str, ...]]

    def __init__(self, path: Path, lines: Sequence[Row]):
        self._path = path
        self.header = lines[0]
        self.seeds: dict[str, list[int]] = {}
        self.diverged: list[Row] = []
        self.cases: list[Row] = []
        self._known: set[str] = set()
        for line in lines[1:]:
            self._take(line)

    @classmethod
    def open(cls, out: Path, header: Row, *, overwrite: bool = False) -> ResultsFile:
        """Open the results in a folder, or start a new file; cases that were lost with their machine have no row then.

        Raises:
            InputError: results are of other settings or damaged, or the folder cannot be written.
        """
        path = out / cls.lines
        try:
            out.mkdir(parents=True, exist_ok=True)
            found = [] if overwrite else read_rows(path, _ADVICE)
            lines = [line for line in found if "lost" not in line]  # such cases are run again
            if not lines:
                write_bytes(path, json.dumps(header).encode() + b"\n")
                lines = [header]
            elif lines[0] != header:
                raise InputError(
                    f"{out}: holds results of other settings ({_difference(lines[0], header)}); "
                    "take another --out, or --overwrite them"
                )
            elif lines != found:
                write_bytes(path, b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        except OSError as error:
            raise InputError(f"{out}: cannot be written ({error.strerror}); choose another --out") from None
        return cls(path, lines)

    @classmethod
    def read(cls, out: Path) -> Results:
        """The results in a folder, finished or not.

        Raises:
            InputError: results are missing or damaged.
        """
        lines = read_rows(out / cls.lines, _ADVICE)
        if not lines:
            raise InputError(f"{out}: holds no {cls.lines}; run the benchmark first")
        return cls(out / cls.lines, lines).results()

    @classmethod
    def identity(cls, row: Row) -> str:
        """The keys of a case as text, unique among all cases."""
        return json.dumps([row[key] for key in cls.keys])

    def append(self, row: Row) -> None:
        """Write a line to the disk at once."""
        append_line(self._path, json.dumps(row))
        self._take(row)

    def has(self, case: Row) -> bool:
        """Whether the file has a line of a case, given by its keys."""
        return self.identity(case) in self._known

    def results(self) -> Results:
        return Results(self.header, self.diverged, self.cases)

    def _take(self, row: Row) -> None:
        if row.get("kind") == "seeds":
            self.seeds[row["config"]] = row["seeds"]
            self.diverged += row["diverged"]
            return
        self.cases.append(row)
        self._known.add(self.identity(row))


def read_rows(path: Path, advice: str) -> list[Row]:
    """All complete lines of a file with a JSON object per line; empty without a file.

    Args:
        advice: what to do if the file is damaged.

    Raises:
        InputError: it is damaged.
    """
    try:
        return read_lines(path, _row, advice)
    except FileNotFoundError:
        return []


def _row(value: object) -> Row:
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 (the line is wrong, not a type)
    return value


def _difference(there: Row, wanted: Row) -> str:
    return next(key for key in {**there, **wanted} if there.get(key) != wanted.get(key))
