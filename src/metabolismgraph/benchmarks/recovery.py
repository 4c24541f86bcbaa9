"""Recovery benchmark: many simulated systems, every case in the table, failures included.

A case is a fit of simulated data, or of a data set from its files. The cases of a simulation are one job, which may run
on a cluster. The last line of the results, `run` from a cold process, is no job: it is measured on this computer when
all jobs have ended.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from metabolismgraph.benchmarks.cold_run import cold_run
from metabolismgraph.benchmarks.jobs import Benchmark, all_cases
from metabolismgraph.benchmarks.recovery_report import MAIN, RecoveryResults, summarise
from metabolismgraph.benchmarks.results_file import Row, host
from metabolismgraph.benchmarks.workers import rows_of
from metabolismgraph.config import Config, load_config
from metabolismgraph.errors import InputError
from metabolismgraph.evaluation.evaluate import Evaluation, evaluate
from metabolismgraph.evaluation.report import metrics_json
from metabolismgraph.explore.engines.base import Engine
from metabolismgraph.files import write_bytes
from metabolismgraph.fitting.result import FitResult
from metabolismgraph.formats.dataset import NETWORK, TIMESERIES
from metabolismgraph.ground_truth.simulator import Simulated, simulate
from metabolismgraph.homeostasis.fit import fit_homeostasis
from metabolismgraph.reactions.fit import fit_reactions
from metabolismgraph.runs.folder import RunFolder
from metabolismgraph.runs.pipeline import fit_files
from metabolismgraph.system.progress import Progress

CONFIGS = ("oscillatory_rank20", MAIN, "oscillatory_rank70", "types3", "small")
_TRUTH = ("reactions.csv", "metabolites.csv")  # files that a truth folder has at least
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the benchmark; it is only continued with the same settings.

    Attributes:
        configs: names of configurations; each is simulated with seeds 0, 1, ... A diverging simulation has no data: it
            is listed, and the next seed is used.
        seeds: simulations per configuration.
        repeats: training seeds per simulation.
        datasets: absolute paths of folders in the layout of a data set, with truth/, fitted from their files.
        overrides: as for --set; without effect on data sets.
    """

    configs: tuple[str, ...] = CONFIGS
    seeds: int = 5
    repeats: int = 2
    datasets: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()

    def config(self, name: str, seed: int = 0) -> Config:
        """The configuration of a simulation.

        Raises:
            InputError: no such configuration, or an override does not fit.
        """
        return load_config(name, self.overrides).replace({"simulation.seed": seed})

    def header(self) -> Row:
        """The settings for the file of results.

        Raises:
            InputError: as `config`, a configuration is named twice, a data set lacks files or has the name of another.
        """
        for name in self.configs:
            if self.configs.count(name) > 1:
                raise InputError(f"--configs: {name} is named twice; keep one")
            self.config(name)
        _check_datasets([Path(folder) for folder in self.datasets])
        header: Row = json.loads(json.dumps(dataclasses.asdict(self)))
        return header


def _check_datasets(folders: Sequence[Path]) -> None:
    names: dict[str, Path] = {}
    for folder in folders:
        if folder.name in names:
            raise InputError(
                f"--dataset: {names[folder.name]} and {folder} have the same name; rename one of the folders"
            )
        names[folder.name] = folder
        needed = [(NETWORK,), TIMESERIES, *((f"truth/{name}",) for name in _TRUTH)]
        lacking = [these[0] for these in needed if not any((folder / name).is_file() for name in these)]
        if lacking:
            raise InputError(
                f"--dataset {folder}: {', '.join(lacking)} missing; name the folder of a data set with its truth"
            )


class Case(NamedTuple):
    """One fit.

    Attributes:
        config: of the simulation; of a data set: its name.
        simulation_seed: None for a data set.
    """

    config: str
    simulation_seed: int | None
    training_seed: int

    def row(self) -> Row:
        """The keys of its line in the results."""
        return self._asdict()


class Group(NamedTuple):
    """Cases that share a simulation, or the one of a data set.

    Attributes:
        source: configuration of the simulation, or folder of the data set.
        seed: of the simulation; None for a data set.
    """

    source: str
    seed: int | None
    cases: tuple[Case, ...]


def plan(settings: Settings, seeds: Mapping[str, Sequence[int]]) -> list[Group]:
    """All cases in the order of the report.

    Args:
        seeds: simulation seeds per configuration.
    """
    groups = [
        Group(name, seed, tuple(Case(name, seed, repeat) for repeat in range(settings.repeats)))
        for name in settings.configs
        for seed in seeds[name][: settings.seeds]
    ]
    training = Config().training.seed
    return groups + [
        Group(folder, None, (Case(f"{Path(folder).name} (files)", None, training),)) for folder in settings.datasets
    ]


_BENCHMARK = Benchmark("recovery", RecoveryResults, plan, compiled=False)


def run_recovery(
    settings: Settings,
    out: Path,
    workers: int,
    progress: Progress,
    *,
    overwrite: bool = False,
    engine: Engine | None = None,
    keep: Callable[[], None] = lambda: None,
) -> str:
    """Run every case that has no line in `out`/recovery.jsonl yet, write the report, return its Markdown.

    Args:
        workers: number of parallel processes, each with its share of the cores; several take longer for each case.
        overwrite: replace existing results.
        engine: where the cases run, see `jobs.engine_for`; None: in processes of this computer.
        keep: called once the folder of results is open.

    Raises:
        InputError: the folder holds results of other settings, or the settings are not valid or give no data.
        TrainingFailedError: a simulation process was killed.
    """
    bar = _Bar(progress, 1 if MAIN in settings.configs else 0)
    with all_cases(_BENCHMARK, settings, out, workers, bar, engine, overwrite=overwrite, keep=keep) as stored:
        if MAIN in settings.configs and stored.cold_run is None:
            progress("recovery", bar.share, f"run {MAIN} from a cold process")
            measured = cold_run(settings.overrides)
            # Lost: the next command measures again.
            stored.append({"kind": "cold_run", **measured} | ({"lost": "failed"} if measured["exit_code"] else {}))
        progress("recovery", 1.0, "")
        return write_report(stored, plan(settings, stored.seeds), out)


class _Bar:
    """The share of the cases that are finished; `further` lines come after them."""

    def __init__(self, progress: Progress, further: int):
        self._progress, self._further, self._total, self._done = progress, further, 1, 0

    @property
    def share(self) -> float:
        return self._done / self._total

    def begin(self, planned: Sequence[Row], done: Sequence[Row]) -> None:
        self._total, self._done = len(planned) + self._further, len(done)

    def add(self, row: Row) -> None:
        self._done += 1
        failed = ": failed" if "error" in row else ""
        self._progress("recovery", self.share, f"{row['config']} simulation {row['simulation_seed']}{failed}")


def write_report(stored: RecoveryResults, groups: Sequence[Group], out: Path) -> str:
    """Write recovery.json and recovery.md; return the Markdown.

    Args:
        groups: the plan, in whose order the cases are written.
    """
    places = {stored.identity(case.row()): n for n, case in enumerate(c for group in groups for c in group.cases)}
    keys = {"seed": "simulation_seed"}
    result = {
        "host": host(),
        "cases": sorted(stored.cases, key=lambda row: places[stored.identity(row)]),
        "diverged": [{keys.get(key, key): value for key, value in row.items()} for row in stored.diverged],
        "cold_run": stored.cold_run,
    }
    write_bytes(out / "recovery.json", (json.dumps(result, indent=1) + "\n").encode())
    markdown = summarise(result)
    write_bytes(out / "recovery.md", markdown.encode())
    return markdown


# -- in a job


def results_of(group: Group, settings: Settings, _: Path) -> Iterator[Row]:
    """The rows of the cases of a group, whose data are simulated once."""
    seed = group.seed
    if seed is None:
        return rows_of(group.cases, lambda: Path(group.source), lambda folder, _: _files(folder))

    def data() -> tuple[Simulated, Config]:
        config = settings.config(group.source, seed)
        return simulate(config), config

    def fit(shared: tuple[Simulated, Config], case: Case) -> Row:
        simulated, config = shared
        return _case(simulated, config.replace({"training.seed": case.training_seed}))

    return rows_of(group.cases, data, fit)


def _case(simulated: Simulated, config: Config) -> Row:
    """One fit, each phase twice: the second time without compilation."""
    seen, _ = simulated.observations.split(*config.training.held_out)
    graph_model, training = config.graph_model, config.training
    phase1, cold1, warm1 = _timed(lambda: fit_reactions(seen, graph_model, training))
    phase2, cold2, warm2 = _timed(lambda: fit_homeostasis(seen, phase1, graph_model, training))
    result = FitResult(simulated.observations, graph_model, training, phase1, phase2)
    times = {"phase1_cold_s": cold1, "phase1_s": warm1, "phase2_cold_s": cold2, "phase2_s": warm2}
    return times | _results(evaluate(result, simulated.truth))


def _results(evaluation: Evaluation) -> Row:
    return {"notes": list(evaluation.notes), "metrics": json.loads(metrics_json(evaluation.metrics))}


def _timed(call: Callable[[], T]) -> tuple[T, float, float]:
    """A result, and the CPU seconds of the first and of the second call."""
    times = []
    for _ in range(2):
        started = time.process_time()
        result = call()
        times.append(time.process_time() - started)
    return result, times[0], times[1]


def _files(folder: Path) -> Row:
    """Fit a data set from its files by the pipeline of `fit`, with a separate training process."""
    table = next(folder / name for name in TIMESERIES if (folder / name).exists())
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "run"
        evaluation = fit_files(folder / NETWORK, table, Config(), out, truth=folder / "truth")
        run = RunFolder.open(out)
        times = {"phase1_cold_s": run.seconds("phase 1"), "phase2_cold_s": run.seconds("phase 2")}
    return times | _results(evaluation)
