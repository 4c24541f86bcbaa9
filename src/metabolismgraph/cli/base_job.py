"""The job that makes the base of an exploration, `python -P -m metabolismgraph.cli.base_job FOLDER`.

The folder is that of an attempt; `command.json` in the one above it says how.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from metabolismgraph.cli.base_run import COMMAND, run_command
from metabolismgraph.explore.engines.attempts import is_retired
from metabolismgraph.explore.engines.base import NO_ROOM
from metabolismgraph.explore.engines.outcome import Outcome, write_outcome, write_start
from metabolismgraph.processes import killed_from_outside


def main(place: Path) -> int:
    """Make the base in the folder of an attempt; exit code 0 with an outcome, failures included."""
    started = time.perf_counter()
    try:
        write_start(place)
        code, lines = run_command([*json.loads((place.parent / COMMAND).read_text()), "--quiet"], place / "run")
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
        if killed_from_outside(code):
            os.kill(os.getpid(), -code)  # so that the scheduler tells how
        if not is_retired(place):
            seconds = time.perf_counter() - started
            write_outcome(place, Outcome({"code": code, "said": "\n".join(lines)}, None, seconds))
    except OSError as error:
        sys.stdout.write(f"{error}\n")
        return NO_ROOM
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
