"""Jobs that are run until all of them have ended, without a journal."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Generator, Mapping
from pathlib import Path

from metabolismgraph.explore.engines.attempts import retire
from metabolismgraph.explore.engines.base import Ended, Engine

_TICK = 0.5  # seconds


def completed(engine: Engine, folders: Mapping[int, Path], until: float = math.inf) -> Generator[Ended, None, None]:
    """Run jobs; what a cluster loses is run again within the engine's budgets.

    Close the generator, which closes the engine.

    Args:
        folders: job -> its folder.
        until: when to stop [s of `time.monotonic`].

    Yields:
        Every job when it has ended for good.

    Raises:
        InputError: a scheduler refuses a job, or loses too many.
    """
    waiting, losses = set(folders), Counter[tuple[int, str]]()
    try:
        for job, folder in folders.items():
            engine.submit(job, folder)
        while waiting and time.monotonic() < until:
            for ended in engine.wait(_TICK):
                job, lost = ended.job, (ended.job, ended.kind)
                if ended.kind and losses[lost] < engine.budgets.get(ended.kind, 0):
                    losses[lost] += 1
                    retire(folders[job])
                    engine.submit(job, folders[job])
                else:
                    waiting.remove(job)
                    yield ended
    finally:
        engine.close()
