"""Which seeds of a configuration give data."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from metabolismgraph.benchmarks.results_file import ResultsFile, Row
from metabolismgraph.benchmarks.workers import Job, run_jobs
from metabolismgraph.config import Config
from metabolismgraph.errors import InputError, SimulationDivergedError, TrainingFailedError
from metabolismgraph.ground_truth.simulator import simulate
from metabolismgraph.text import one_line

LARGEST_SEED = 100  # diverging simulations are listed and replaced by the next seed, up to this one


@runtime_checkable
class Simulations(Protocol):
    """The settings of a benchmark with several simulations of several configurations."""

    @property
    def configs(self) -> tuple[str, ...]: ...

    @property
    def seeds(self) -> int: ...

    def config(self, name: str, seed: int = 0) -> Config: ...


def find_seeds(settings: Simulations, workers: int, stored: ResultsFile) -> None:
    """Record the seeds of every configuration that has none in the results.

    Raises:
        InputError: a configuration gives no data.
        TrainingFailedError: a simulation process was killed.
    """
    missing = [name for name in settings.configs if name not in stored.seeds]
    run_jobs(deque(Job(survey, (name, settings)) for name in missing), workers, stored)
    for name in missing:
        if name not in stored.seeds:
            raise TrainingFailedError(f"{name}: the process that simulates it was killed; start again")
    for name in settings.configs:
        if not stored.seeds[name]:
            why = next(d["error"] for d in stored.diverged if d["config"] == name)
            raise InputError(f"{name}: no seed gives data ({why}); change its simulation section")


def survey(name: str, settings: Simulations) -> Iterator[Row]:
    """Find the seeds of a configuration whose simulations do not diverge."""
    seeds: list[int] = []
    diverged: list[Row] = []
    for seed in range(LARGEST_SEED):
        if len(seeds) == settings.seeds:
            break
        try:
            simulate(settings.config(name, seed))
            seeds.append(seed)
        except SimulationDivergedError as error:
            diverged.append({"config": name, "seed": seed, "error": one_line(error)})
        except InputError as error:  # holds for every seed
            diverged.append({"config": name, "seed": seed, "error": one_line(error)})
            break
    yield {"kind": "seeds", "config": name, "seeds": seeds, "diverged": diverged}
