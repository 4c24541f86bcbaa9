"""What tests ask about a worker and its forks, which have its command line."""

import contextlib
from pathlib import Path


def is_fork(process):
    """Whether a process is a worker, or a fork of one."""
    return "metabolismgraph.explore.engines.worker" in process.cmdline()


def is_server(process):
    """Whether a process is the server of a worker: it reads nothing, unlike its parent, and unlike jobs."""
    with contextlib.suppress(OSError):
        return is_fork(process) and _reads_nothing(process) and not _reads_nothing(process.parent())
    return False


def _reads_nothing(process):
    return Path(f"/proc/{process.pid}/fd/0").readlink() == Path("/dev/null")
