"""Memory that a piece of work needs, compared with that of this machine before the work begins."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from metabolismgraph.errors import InputError

_GB = 1e9
# Limits of a container: control groups of version 2, then of version 1.
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory_of_machine() -> int:
    """Bytes that this process may use at most: the memory of the machine, or a lower limit that was set."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _LIMITS:
        try:
            found.append(int(Path(path).read_text(encoding="ascii")))
        except (OSError, ValueError):  # there is no such limit: the second file says `max` then
            continue
    found += [most for most in resource.getrlimit(resource.RLIMIT_AS) if most != resource.RLIM_INFINITY]
    return min(found)


def check_memory(needed: int, work: str, advice: str) -> None:
    """Check that a piece of work fits the memory of this machine.

    Args:
        needed: estimate of its largest memory, in bytes.
        work: what it is, for the message.
        advice: what to lower.

    Raises:
        InputError: it does not fit.
    """
    there = memory_of_machine()
    if needed > there:
        raise InputError(
            f"{work} needs about {needed / _GB:.3g} GB of memory, and this machine has {there / _GB:.3g} GB; {advice}"
        )
