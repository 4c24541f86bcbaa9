"""Benchmark of noise and coarse samples: every method on the same data, with a row for every case."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metabolismgraph.benchmarks import weak_terms
from metabolismgraph.benchmarks.noise_figure import errors_against_noise
from metabolismgraph.benchmarks.noise_methods import WINDOW, Estimate, Sample, by_fit, by_weak_form
from metabolismgraph.benchmarks.noise_peers import PYSINDY, by_closed_form, by_pysindy, by_scipy
from metabolismgraph.benchmarks.noise_report import NoiseResults, described, markdown, summarise
from metabolismgraph.benchmarks.noise_scores import scores
from metabolismgraph.benchmarks.results_file import Results, Row
from metabolismgraph.benchmarks.simulations import find_seeds
from metabolismgraph.benchmarks.workers import Job, environment, left, run_jobs
from metabolismgraph.config import Config, load_config, nearest_name
from metabolismgraph.errors import InputError
from metabolismgraph.figures.style import applied, save
from metabolismgraph.files import write_bytes
from metabolismgraph.ground_truth.simulator import Simulated, simulate
from metabolismgraph.system.progress import Progress
from metabolismgraph.text import one_line
from metabolismgraph.trajectories.bound import Bound

SCIPY, CLOSED_FORM = "scipy", "closed form"


def _fit_by(phase1_method: str) -> Callable[[Sample, float], Estimate]:
    return lambda sample, _: by_fit(sample, phase1_method)


# A method is a function of a data set and of the CPU seconds that it may take; only that of SciPy needs a limit.
METHODS: Mapping[str, Callable[[Sample, float], Estimate]] = {
    "projection": _fit_by("projection"),
    "weak form": lambda sample, _: by_weak_form(sample),
    "shooting": _fit_by("shooting"),
    "auto": _fit_by("auto"),
    CLOSED_FORM: lambda sample, _: by_closed_form(sample),
    PYSINDY: lambda sample, _: by_pysindy(sample),
    SCIPY: by_scipy,
    **weak_terms.METHODS,
}
LAW_KNOWN = (CLOSED_FORM, PYSINDY, SCIPY, *weak_terms.METHODS)  # methods that are handed the rate law
_DPI = 150


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the benchmark; it is only continued with the same settings.

    Attributes:
        configs: names of configurations, or YAML files.
        noise: in % of the standard deviation of each species.
        every: every n-th frame is a sample.
        seeds: simulations per configuration; the noise has the seed of the simulation.
        methods: of `METHODS`.
        budget: CPU seconds of the method scipy, for one case.
        overrides: as for --set; without effect on keys that the benchmark sets.
    """

    configs: tuple[str, ...] = ("small", "oscillatory_rank50")
    noise: tuple[float, ...] = (0.0, 0.1, 1.0, 5.0, 10.0)
    every: tuple[int, ...] = (1, 2, 4, 8)
    seeds: int = 5
    methods: tuple[str, ...] = ("projection", "weak form", "shooting")
    budget: float = 60.0
    overrides: tuple[str, ...] = ()

    def config(self, name: str, seed: int = 0) -> Config:
        """The configuration of all cases of a simulation.

        Raises:
            InputError: no such configuration, or an override does not fit.
        """
        return load_config(name, self.overrides).replace({"simulation.seed": seed, "training.seed": seed})

    def header(self) -> Row:
        """The settings for the file of results.

        Raises:
            InputError: as `config`, or a value is not valid.
        """
        for what, values in (("configs", self.configs), ("noise", self.noise), ("every", self.every)):
            _check_values(what, values)
        _check_values("methods", self.methods)
        wrong = [value for value in self.noise if not 0 <= value < math.inf]
        if wrong:
            raise InputError(f"--noise: {wrong[0]:g} is not a number >= 0; give % of the standard deviation")
        if min(self.every) < 1:
            raise InputError(f"--every: {min(self.every)} is not a number of frames; 1 takes every frame")
        for name in self.methods:
            if name not in METHODS:
                near = nearest_name(name, METHODS)
                raise InputError(f"--methods: unknown method {name}; did you mean {near}? (all: {', '.join(METHODS)})")
        for name in self.configs:
            self.config(name)
        header: Row = json.loads(json.dumps(dataclasses.asdict(self)))
        return header


def _check_values(what: str, values: Sequence[object]) -> None:
    """Refuse an empty or a repeating list of an option."""
    twice = [value for value in values if values.count(value) > 1]
    if twice:
        raise InputError(f"--{what}: {twice[0]} is named twice; keep one")
    if not values:
        raise InputError(f"--{what}: the list is empty; name at least one")


def settings_of(*, quick: bool = False, **changes: Any) -> Settings:
    """The settings of the benchmark or of its quick form, a few cases of `small`; None stands for the default."""
    start = Settings()
    if quick:
        start = Settings(configs=("small",), noise=(0.0, 1.0), every=(1, 4), seeds=1)
    return dataclasses.replace(start, **{key: value for key, value in changes.items() if value is not None})


def numbers_of(option: str, text: str | None, kind: type[int | float]) -> tuple[Any, ...] | None:
    """The numbers of a comma-separated option; None if it is not given.

    Raises:
        InputError: a part is not such a number.

    Example:
        >>> numbers_of("--every", "1,4", int)
        (1, 4)
    """
    if text is None:
        return None
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise InputError(f"{option}: {text} is not a list of {what}; separate them by commas") from None


class Case(NamedTuple):
    """One method on one data set."""

    config: str
    noise: float
    every: int
    seed: int
    method: str

    def row(self) -> Row:
        """The keys of its line in the results."""
        return self._asdict()


class Group(NamedTuple):
    """Cases that share a simulation."""

    config: str
    seed: int
    cases: tuple[Case, ...]


def plan(settings: Settings, seeds: Mapping[str, Sequence[int]]) -> list[Group]:
    """All cases, seed by seed.

    Args:
        seeds: simulation seeds per configuration.
    """
    return [
        Group(
            config,
            seed,
            tuple(
                Case(config, noise, every, seed, method)
                for noise in settings.noise
                for every in settings.every
                for method in settings.methods
            ),
        )
        for number in range(settings.seeds)
        for config in settings.configs
        for seed in seeds[config][number : number + 1]
    ]


def run_noise(settings: Settings, out: Path, workers: int, progress: Progress, *, overwrite: bool = False) -> str:
    """Run every case that has no line in `out`/noise.jsonl yet, write the report, return its Markdown.

    Args:
        workers: number of parallel processes, each with its share of the cores.
        overwrite: replace existing results.

    Raises:
        InputError: the folder holds results of other settings, or the settings are not valid or give no data.
        TrainingFailedError: a simulation process was killed.
    """
    stored = NoiseResults.open(out, settings.header(), overwrite=overwrite)
    with environment(max(1, (os.cpu_count() or 1) // workers), out / "compiled"):
        find_seeds(settings, workers, stored)
        groups = plan(settings, stored.seeds)
        total = sum(len(group.cases) for group in groups)

        def report(row: Row) -> None:
            progress("noise", len(stored.cases) / total, described(row))

        jobs = (Job(results_of, (left(group, stored), settings)) for group in groups)
        run_jobs(deque(job for job in jobs if job.arguments[0].cases), workers, stored, report)
    shutil.rmtree(out / "compiled", ignore_errors=True)
    return write_report(stored.results(), out)


def write_report(results: Results, out: Path) -> str:
    """Write noise.json, noise.md and a figure per configuration; return the Markdown."""
    report = summarise(results)
    text = markdown(report)
    write_bytes(out / "noise.json", (json.dumps(report, indent=1) + "\n").encode())
    write_bytes(out / "noise.md", text.encode())
    for number, config in enumerate(results.header["configs"]):
        cases = [c for c in results.cases if c["config"] == config and "error" not in c]
        name = f"noise_{Path(config).stem}.png" if number else "noise.png"
        if cases:
            with applied():
                save(errors_against_noise(config, cases, results.header["methods"]), out / name, _DPI)
    return text


# -- in a worker


def results_of(group: Group, settings: Settings) -> Iterator[Row]:
    """The rows of the cases of a group."""
    try:
        config = settings.config(group.config, group.seed)
        simulated = simulate(config)
    except Exception as error:
        for case in group.cases:
            yield case.row() | _failure(error)
        return
    for noise, every in dict.fromkeys((case.noise, case.every) for case in group.cases):
        data = _Data(simulated, config, noise, every)
        for case in group.cases:
            if (case.noise, case.every) == (noise, every):
                yield case.row() | data.measure(case.method, settings.budget)


def _failure(error: Exception) -> Row:
    kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
    return {"error": one_line(f"{kind}{error}")}


class _Data:
    """One data set, with its bounds once a method needs them."""

    def __init__(self, simulated: Simulated, config: Config, noise: float, every: int):
        self._given = simulated, config, noise, every
        self._bounds: dict[tuple[bool, int], Bound | None] = {}

    @functools.cached_property
    def sample(self) -> Sample:
        return Sample.of(*self._given)

    def measure(self, method: str, budget: float) -> Row:
        """The results of a method; an error is a result too."""
        try:
            sample, started = self.sample, time.process_time()
            found = METHODS[method](sample, budget)
            seconds = time.process_time() - started
            bound = self._bound(law_known=method in LAW_KNOWN, length=max(found.window or 0, WINDOW))
            return scores(sample, found, bound) | {"cpu_s": seconds}
        except Exception as error:
            return _failure(error)

    def _bound(self, *, law_known: bool, length: int) -> Bound | None:
        if (law_known, length) not in self._bounds:
            self._bounds[law_known, length] = self.sample.bound(law_known=law_known, length=length)
        return self._bounds[law_known, length]
