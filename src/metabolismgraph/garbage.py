"""When Python looks for garbage, which are objects that refer to each other: seldom, and not at the end of a process.

JAX and Matplotlib make millions of objects that stay in use. With the usual thresholds, a short fit spends a tenth of
its time on looking at them again and again.
"""

from __future__ import annotations

import gc

_OBJECTS = 100_000  # new ones until garbage is looked for; usually 700


def collect_seldom() -> None:
    """Look for garbage after many more new objects than usual, in this process and its forks."""
    gc.set_threshold(_OBJECTS)


def share_with_forks() -> None:
    """Never look at present objects again: memory that is not written to stays shared with the forks."""
    gc.collect()
    gc.freeze()


def end_without_collecting() -> None:
    """Leave all garbage to the operating system, which takes it back at the end of this process.

    Python would look at all objects several times before it ends.
    """
    gc.freeze()
