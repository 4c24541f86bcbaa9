"""Jobs that are run until all of them have ended, without a journal."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

from metabolismgraph.explore.engines.attempts import retire
from metabolismgraph.explore.engines.base import Ended, Engine, Loss

_TICK = 0.5  # seconds


def completed(
    engine: Engine,
    folders: Mapping[int, Path],
    until: float = math.inf,
    *,
    goes_on: Callable[[Ended], bool] = lambda _: False,
    tick: Callable[[], None] = lambda: None,
) -> Generator[Ended, None, None]:
    """Run jobs; what a cluster loses is run again within the engine's budgets.

    Close the generator, which closes the engine.

    Args:
        folders: job -> its folder.
        until: when to stop [s of `time.monotonic`].
        goes_on: whether a job that ended, beyond its budget if it was lost, is to be run again, with new budgets.
        tick: called twice a second.

    Yields:
        Every job when it has ended for good.

    Raises:
        InputError: a scheduler refuses a job, or loses too many.
    """
    waiting, losses = set(folders), {job: Counter[Loss]() for job in folders}
    try:
        for job, folder in folders.items():
            engine.submit(job, folder)
        while waiting and time.monotonic() < until:
            tick()
            for ended in engine.wait(_TICK):
                job, lost = ended.job, losses[ended.job]
                if ended.kind and lost[ended.kind] < engine.budgets.get(ended.kind, 0):
                    lost[ended.kind] += 1
                elif goes_on(ended):
                    lost.clear()
                else:
                    waiting.remove(job)
                    yield ended
                    continue
                retire(folders[job])
                engine.submit(job, folders[job])
    finally:
        engine.close()
