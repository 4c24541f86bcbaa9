"""libAntimony in a process of its own: `python -P antimony_process.py (sbml | antimony) < MODEL > CONVERTED`.

The argument is the format that is wanted. The library keeps state between models, changes the working folder while it
is loaded, and may end the process. It would also read any file that a model imports, so the process gives up the right
to open files before it loads the model. A short file with models within models can make an exponentially large one, so
its memory is limited, and its time, which also ends it where this process is killed.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import antimony

_MEMORY, _SECONDS = 1 << 30, 60  # bytes beyond those of the library, and seconds of the processor


def main(wanted: str) -> int:
    """Exit code: 0, or 1 with the reason on standard error."""
    model = sys.stdin.buffer.read().decode()
    most = _addresses() + _MEMORY
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    _limit(resource.RLIMIT_AS, most)
    _limit(resource.RLIMIT_CPU, _SECONDS)
    load = antimony.loadAntimonyString if wanted == "sbml" else antimony.loadSBMLString
    if load(model) < 0:
        sys.stderr.write(antimony.getLastError())
        return 1
    write = antimony.getSBMLString if wanted == "sbml" else antimony.getAntimonyString
    sys.stdout.buffer.write(write(antimony.getMainModuleName()).encode())
    return 0


def _limit(kind: int, most: int) -> None:
    """Set a limit, or keep a lower one that was set before."""
    hard = resource.getrlimit(kind)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))


def _addresses() -> int:
    """Bytes of addresses that this process has; 3 GB where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except OSError:
        return 3 << 30


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
