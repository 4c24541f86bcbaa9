"""Contracts for what others add: a strategy of Phase 2, an engine that runs jobs.

Use them in the tests of your own package. Each raises an AssertionError that lists the faults.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from metabolismgraph.config import load_config
from metabolismgraph.errors import FirewallError
from metabolismgraph.explore.engines.base import Ended, Engine
from metabolismgraph.explore.review import contract
from metabolismgraph.ground_truth.simulator import simulate
from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.strategies import custom
from metabolismgraph.homeostasis.strategies.base import Strategy
from metabolismgraph.homeostasis.training_plan import Plan
from metabolismgraph.reactions.fit import fit_reactions
from metabolismgraph.text import one_line

_FRAMES = 400  # of the system that a strategy is tried on
_STEPS = 50  # of its training
_SECONDS = 60.0  # in which short jobs have to end


def check_strategy(kind: type[Strategy]) -> None:
    """Hold a strategy to the contract of `homeostasis.strategies.base.Strategy`.

    It declares itself in full, is a pure function of plan and data, names every part of the plan that it changes,
    leaves all of Phase 1 bit for bit as it is, learns something, and gives the same model for the same seed.

    Args:
        kind: the class; all of its options must have defaults.

    Raises:
        AssertionError: it breaks the contract; the message lists how.
        InputError: it refuses the data that it is tried on.

    Example:
        >>> from metabolismgraph.homeostasis.strategies.residual import Residual
        >>> check_strategy(Residual)
    """
    faults = contract.declaration_faults(kind)
    _refuse(kind.__name__, faults)
    name = "under_test"
    custom.register(name, kind)
    changes = {"training.strategies": [name], "training.phase2_steps": _STEPS, "training.homeostasis_time_step": 4}
    config = load_config("small", [f"simulation.n_frames={_FRAMES}"]).replace(changes)
    observations = simulate(config).observations
    phase1 = fit_reactions(observations, config.graph_model, config.training)
    frozen = copy.deepcopy(phase1)  # for comparison: the strategy is handed the original
    data = Phase2Data(observations, phase1, config.graph_model, config.training)
    _refuse(kind.__name__, contract.behaviour_faults(kind(), Plan.classical(data), data))
    try:
        _refuse(kind.__name__, contract.training_faults(data, frozen))
    except FirewallError as error:
        raise AssertionError(f"{kind.__name__}: {error}") from None


def check_engine(make: Callable[[int, float, Sequence[str]], Engine], folder: Path) -> None:
    """Hold an engine to the contract of `explore.engines.base.Engine`.

    Every job that is submitted starts and is reported once; one that fails or takes too long is reported with a
    reason; one that is cancelled is stopped and not reported; and nothing runs any more once the engine is closed.

    Args:
        make: takes the number of jobs at the same time, the time limit of a job [s], and program and arguments that a
            job runs with its folder behind them.
        folder: an empty one, for the folders of the jobs.

    Raises:
        AssertionError: it breaks the contract; the message says how.

    Example:
        >>> from metabolismgraph.explore.engines.local import ProcessEngine
        >>> check_engine(ProcessEngine, Path.cwd())
    """
    good = _run(make, folder / "good", "open(sys.argv[1] + '/done', 'w')", jobs=3, limit=_SECONDS)
    _refuse(
        "engine", [f"job {job}: not reported exactly once" for job in range(3) if [e.job for e in good].count(job) != 1]
    )
    _refuse("engine", [f"job {e.job}: succeeded, but is reported with {e.reason!r}" for e in good if e.reason])
    missing = [job for job in range(3) if not (folder / "good" / str(job) / "done").exists()]
    _refuse("engine", [f"job {job}: reported as ended, but it did not run" for job in missing])
    bad = _run(make, folder / "bad", "sys.exit(3)", jobs=1, limit=_SECONDS)
    _refuse("engine", ["a job that fails is reported without a reason"] if not (bad and bad[0].reason) else [])
    slow = _run(make, folder / "slow", "import time; time.sleep(600)", jobs=1, limit=0.5)
    _refuse(
        "engine",
        ["a job that takes too long is not stopped, or has no reason"] if not (slow and slow[0].reason) else [],
    )
    beats = "import time\nwhile True: open(sys.argv[1] + '/beat', 'a').write('.'); time.sleep(0.05)"
    for ending in ("cancel", "close"):
        place = folder / ending / "0"
        engine = _engine(make, place, beats, _SECONDS)
        _until((place / "beat").exists)
        if ending == "cancel":
            engine.cancel(0)
            _refuse("engine", ["a job that was cancelled is reported"] if engine.wait(0.2) else [])
        engine.close()
        before = (place / "beat").stat().st_size
        time.sleep(0.3)
        still = (place / "beat").stat().st_size > before
        _refuse("engine", [f"a job still runs after {ending}"] if still else [])


def _engine(make: Callable[[int, float, Sequence[str]], Engine], place: Path, program: str, limit: float) -> Engine:
    """An engine with one job."""
    place.mkdir(parents=True)
    engine = make(1, limit, (sys.executable, "-c", f"import sys\n{program}"))
    engine.submit(0, place)
    return engine


def _run(
    make: Callable[[int, float, Sequence[str]], Engine], folder: Path, program: str, *, jobs: int, limit: float
) -> list[Ended]:
    """What an engine reports of some jobs, two of them at the same time."""
    engine = make(2, limit, (sys.executable, "-c", f"import sys\n{program}"))
    for job in range(jobs):
        (folder / str(job)).mkdir(parents=True)
        engine.submit(job, folder / str(job))
    ended: list[Ended] = []
    until = time.monotonic() + _SECONDS
    while len(ended) < jobs and time.monotonic() < until:
        ended += engine.wait(0.5)
    engine.close()
    return ended


def _until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + _SECONDS
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)


def _refuse(name: str, faults: list[str]) -> None:
    if faults:
        raise AssertionError(f"{name}: " + "; ".join(one_line(fault) for fault in faults))
