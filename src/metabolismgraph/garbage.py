"""When Python looks for garbage, which are objects out of reach that refer to each other: seldom, and not at the end.

JAX and Matplotlib make millions of objects that stay in use. With the default thresholds, a short fit spends a tenth of
its time on looking at them again and again.
"""

from __future__ import annotations

import gc

_OBJECTS = 100_000  # new ones until garbage is looked for; by default about a thousand


def collect_seldom() -> None:
    """Look for garbage after many more new objects than by default, in this process and its later forks."""
    gc.set_threshold(_OBJECTS)


def share_with_forks() -> None:
    """Never look at present objects again: memory that is not written to stays shared with the forks."""
    gc.collect()
    gc.freeze()


def skip_last_collection() -> None:
    """Leave garbage to the operating system, which takes it back at the end of this process.

    Python would look at all objects several times as it ends.
    """
    gc.freeze()
