"""The trial of a strategy file: `python -P -m metabolismgraph.explore.review.trial FOLDER NAME SECONDS`.

The process is sealed like a training process (`sandbox/audit_hook.py`) before it executes the file, which has not been
accepted yet. It checks the contract of strategies (`contract.py`) and trains a hundred steps on every system in FOLDER
(`examination.py`). Its events go to standard output (`sandbox/protocol.py`), output of the file to standard error.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path

from metabolismgraph.sandbox import audit_hook
from metabolismgraph.sandbox.protocol import write_event

MEMORY = 4 << 30  # bytes of a trial in addition to its libraries
_LARGEST_FILE = 1 << 24  # bytes


def main(folder: Path, name: str, seconds: int) -> None:
    """Check the file and report the result."""
    # A time limit of its own, since the parent process may have ended.
    signal.alarm(seconds)
    resource.setrlimit(resource.RLIMIT_FSIZE, (_LARGEST_FILE, _LARGEST_FILE))
    stdout = os.fdopen(os.dup(1), "w")
    audit_hook.seal(folder, keep_compiled=False)
    os.dup2(2, 1)
    import jax  # noqa: PLC0415

    from metabolismgraph.errors import FirewallError, InputError  # noqa: PLC0415
    from metabolismgraph.explore.review.examination import examine  # noqa: PLC0415

    jax.jit(lambda x: x + 1)(1.0)  # finds devices, and opens the cache of compiled programs
    _limit_memory()
    audit_hook.activate()

    try:
        declared, faults = examine(folder, name)
    except (InputError, FirewallError) as error:
        declared, faults = {}, [str(error)]
    for fault in faults:
        write_event(stdout, event="fault", fault=fault[:500])
    if not faults:
        write_event(stdout, event="passed", declared=declared)


def _limit_memory() -> None:
    held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
