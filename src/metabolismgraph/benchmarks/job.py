"""A job of a benchmark, `python -P -m metabolismgraph.benchmarks.job FOLDER`: it runs the cases of a group.

`job.json` in the folder, or in the one above it for an attempt on a cluster, describes them; their rows go to
`rows.jsonl` in the folder. A job with a second argument, a time in seconds, begins no case after it, and leaves the
rest to the next one.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from metabolismgraph.benchmarks.results_file import Row, read_rows
from metabolismgraph.benchmarks.workers import library_variables
from metabolismgraph.errors import TrainingLostError
from metabolismgraph.explore.engines.attempts import is_retired
from metabolismgraph.explore.engines.base import NO_ROOM
from metabolismgraph.explore.engines.job import LOCK, settle
from metabolismgraph.explore.engines.outcome import Outcome, write_outcome, write_start
from metabolismgraph.json_lines import append_line
from metabolismgraph.processes import cores

DESCRIPTION, ROWS = "job.json", "rows.jsonl"


def main(place: Path, limit: float | None = None) -> int:
    """Run the job; exit code 0 when it has ended in order, `base.NO_ROOM` if a disk is full or fails.

    Args:
        limit: time after which no further case begins [s]; None: it ends with its parent.
    """
    settle(limit)
    started = time.perf_counter()
    try:
        with (place / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            write_start(place)
            described = place if (place / DESCRIPTION).exists() else place.parent
            description = json.loads((described / DESCRIPTION).read_bytes())
            _prepare_libraries(description)
            n_left = run_cases(description, described, place, limit)
            if not is_retired(place):
                write_outcome(place, Outcome({"cases_left": n_left}, None, time.perf_counter() - started))
    except (OSError, TrainingLostError) as error:
        sys.stdout.write(f"{error}\n")
        return NO_ROOM
    return 0


def _prepare_libraries(description: dict[str, Any]) -> None:
    """Set variables for JAX and BLAS, before they are imported: share of the cores, folder of compiled programs."""
    most = os.environ.get("NPROC", "")  # of a job of a cluster, which may see all cores of its node
    threads = min(len(cores()), int(most) if most.isdecimal() else sys.maxsize)
    # For each node: their processors may differ.
    compiled = Path(description["out"]) / "compiled" / platform.node() if description["compiled"] else None
    os.environ.update(library_variables(threads, compiled))


def run_cases(description: dict[str, Any], folder: Path, place: Path, limit: float | None) -> int:
    """Append the rows of all cases that have none; returns how many are left.

    Args:
        folder: of the job.
        place: of this attempt.
        limit: as for `main`.

    Raises:
        OSError: a row cannot be written.
        TrainingLostError: as `workers.failure`.
    """
    module: Any = importlib.import_module(f"metabolismgraph.benchmarks.{description['benchmark']}")
    settings = module.Settings(**_tuples(description["settings"]))
    *place_of_group, listed = _tuples(description["group"])
    cases = [module.Case(*case) for case in listed]
    done = {
        json.dumps({key: row.get(key) for key in module.Case._fields})
        for path in row_files(folder)
        for row in rows_in(path)
    }
    cases = [case for case in cases if json.dumps(case.row()) not in done]
    n_left, began = len(cases), time.monotonic()
    if not cases:
        return 0
    group = module.Group(*place_of_group, tuple(cases))
    for row in module.results_of(group, settings, Path(description["out"])):
        append_line(place / ROWS, json.dumps(row))
        n_left -= 1
        if limit is not None and time.monotonic() - began > limit:
            break
    return n_left


def row_files(folder: Path) -> tuple[Path, ...]:
    """Files of the rows of a job: of a process of this computer, and of all attempts on a cluster."""
    return folder / ROWS, *folder.glob(f"a*/{ROWS}")


def rows_in(path: Path) -> list[Row]:
    """The complete rows that a job has written to a file; none without a file.

    Raises:
        InputError: the file is damaged.
    """
    return read_rows(path, "remove it; its cases are run again")


def _tuples(value: Any) -> Any:
    """What was read from JSON, with tuples in place of lists."""
    if isinstance(value, dict):
        return {key: _tuples(entry) for key, entry in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).absolute(), *map(float, sys.argv[2:3])))
