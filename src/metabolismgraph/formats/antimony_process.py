"""libAntimony in a process of its own: `python -P antimony_process.py (sbml | antimony) < MODEL > CONVERTED`.

The argument is the format that is wanted. The library keeps state between models, changes the working folder while it
is loaded, and may end the process. It would also read any file that a model imports, so the process gives up the right
to open files before it loads the model. A short file with models within models can make an exponentially large one, so
its memory is limited, and its time, which also ends it where this process is killed.
"""

from __future__ import annotations

import resource
import sys

import antimony

_MEMORY, _SECONDS = 3 << 29, 60  # bytes, and seconds of the processor


def main(wanted: str) -> int:
    """Exit code: 0, or 1 with the reason on standard error."""
    model = sys.stdin.buffer.read().decode()
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    load = antimony.loadAntimonyString if wanted == "sbml" else antimony.loadSBMLString
    if load(model) < 0:
        sys.stderr.write(antimony.getLastError())
        return 1
    write = antimony.getSBMLString if wanted == "sbml" else antimony.getAntimonyString
    sys.stdout.buffer.write(write(antimony.getMainModuleName()).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
