"""Benchmark of the strategies of Phase 2 on good and on imperfect checkpoints, with a row for every case."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metabolismgraph.benchmarks.jobs import Benchmark, Watch, all_cases
from metabolismgraph.benchmarks.recovery_report import ratios
from metabolismgraph.benchmarks.results_file import Results, Row
from metabolismgraph.benchmarks.strategy_figure import slope_ratios
from metabolismgraph.benchmarks.strategy_report import StrategyResults, markdown, on_grid, summarise
from metabolismgraph.benchmarks.workers import rows_of
from metabolismgraph.config import Config, Training, load_config
from metabolismgraph.errors import InputError
from metabolismgraph.evaluation.evaluate import homeostasis_metrics, rate_constant_metrics
from metabolismgraph.evaluation.report import metrics_json
from metabolismgraph.explore.engines.base import Engine
from metabolismgraph.figures.style import applied, save
from metabolismgraph.files import alone, write_bytes
from metabolismgraph.ground_truth.imperfect_phase1 import train_imperfect_phase1
from metabolismgraph.ground_truth.simulator import Simulated, simulate
from metabolismgraph.homeostasis.fit import fit_homeostasis
from metabolismgraph.homeostasis.residuals import Phase2Data
from metabolismgraph.homeostasis.strategies import STRATEGIES
from metabolismgraph.homeostasis.strategies import depends_on_time_step as trains_on_windows
from metabolismgraph.reactions.fit import Phase1Result, fit_reactions
from metabolismgraph.runs.checkpoint import is_intact, load_phase1, save_phase1
from metabolismgraph.system.observations import Observations

CLASSICAL = "classical"
CHECKPOINTS: Mapping[str, float | None] = {"projection": None, "imperfect 0.87": 0.87, "imperfect 0.70": 0.70}
MAIN = "oscillatory_rank50"
CONFIGS = (MAIN, "types3")
TIME_STEPS = (4, 16, 32, 64)
COMBINATIONS = (
    "contrastive+warmup",
    "contrastive+warmup+curriculum",
    "contrastive+warmup+separate",
    "residual+contrastive",
    "orthogonalised+contrastive",
    "weak_form+orthogonalised+contrastive",
)
STRATEGY_SETS = (CLASSICAL, *STRATEGIES, *COMBINATIONS)
QUICK_SETS = (CLASSICAL, *STRATEGIES, "residual+contrastive", "orthogonalised+contrastive")
_DPI = 150


class _Varied(NamedTuple):
    """One key of `training`, varied around the grid at the projection checkpoint of the main configuration."""

    key: str
    values: tuple[float | str, ...]
    sets: tuple[str, ...]
    time_steps: tuple[int, ...]


_SWEEPS = (
    _Varied("learning_rate_node_homeostasis", (1e-4, 1e-3, 1e-2, 1e-1), (CLASSICAL,), (16,)),
    _Varied("learning_rate_embedding_homeostasis", (1e-4, 1e-3, 1e-2), (CLASSICAL,), (16,)),
    _Varied("data_augmentation_loop", (2, 10, 50), (CLASSICAL,), (4, 64)),
    _Varied("embedding_start", ("coefficients", "random"), (CLASSICAL, "contrastive", "residual+contrastive"), (16,)),
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the benchmark; it is only continued with the same settings.

    Attributes:
        seeds: simulations per configuration; training has the seed of the simulation.
        strategies: names joined by +, or classical.
        time_steps: homeostasis_time_step, where the objective depends on it.
        sweeps: vary learning rates, length of training and start of the embeddings as well.
        overrides: as for --set; without effect on keys that the benchmark sets.
    """

    configs: tuple[str, ...] = CONFIGS
    seeds: int = 5
    strategies: tuple[str, ...] = STRATEGY_SETS
    time_steps: tuple[int, ...] = TIME_STEPS
    batch_size: int = 8
    data_augmentation_loop: int = 10
    sweeps: bool = True
    overrides: tuple[str, ...] = ()

    def config(self, name: str, seed: int = 0) -> Config:
        """The initial configuration of all cases of a simulation.

        Raises:
            InputError: no such configuration, or an override does not fit.
        """
        return load_config(name, self.overrides).replace(
            {
                "simulation.seed": seed,
                "training.seed": seed,
                "training.batch_size": self.batch_size,
                "training.data_augmentation_loop": self.data_augmentation_loop,
            }
        )

    def header(self) -> Row:
        """The settings for the file of results, with the default values of the sweeps.

        Raises:
            InputError: as `config`, or a set of strategies is not valid.
        """
        for name in self.strategies:
            depends_on_time_step(name)
        for name in self.configs:
            self.config(name)
        training = self.config(self.configs[0]).training
        defaults = {varied.key: getattr(training, varied.key) for varied in _SWEEPS}
        header: Row = json.loads(json.dumps(dataclasses.asdict(self) | {"defaults": defaults}))
        return header


def settings_of(*, quick: bool = False, **changes: Any) -> Settings:
    """The settings of the benchmark or of its quick form; None stands for the default.

    The quick form has every single strategy and the combinations of two: under ten minutes on two cores.
    """
    start = Settings()
    if quick:
        start = Settings(seeds=1, strategies=QUICK_SETS, time_steps=(4, 64), data_augmentation_loop=3, sweeps=False)
    return dataclasses.replace(start, **{key: value for key, value in changes.items() if value is not None})


class Case(NamedTuple):
    """One training of Phase 2.

    Attributes:
        T: homeostasis_time_step; None where the objective does not depend on it.
        sweep: key of `training` and its value, if different from the grid.
    """

    config: str
    checkpoint: str
    seed: int
    strategies: str
    T: int | None
    sweep: tuple[str, float | str] | None = None

    def row(self) -> Row:
        """The keys of its line in the results."""
        sweep = None if self.sweep is None else {"key": self.sweep[0], "value": self.sweep[1]}
        return self._asdict() | {"sweep": sweep}


class Group(NamedTuple):
    """Cases that share a simulation and a checkpoint."""

    config: str
    checkpoint: str
    seed: int
    cases: tuple[Case, ...]


def names_of(strategies: str) -> list[str]:
    """The value of training.strategies that a set stands for."""
    return [] if strategies == CLASSICAL else strategies.split("+")


def depends_on_time_step(strategies: str) -> bool:
    """Whether a set trains on rollouts or windows of homeostasis_time_step frames.

    Raises:
        InputError: an unknown strategy, or a combination that is not valid.
    """
    return trains_on_windows(Training(strategies=tuple(names_of(strategies))))


def plan(settings: Settings, seeds: Mapping[str, Sequence[int]]) -> list[Group]:
    """All cases; first those without rollouts, since they are fast, then seed by seed.

    Args:
        seeds: simulation seeds per configuration.
    """
    lengths = {name: settings.time_steps if depends_on_time_step(name) else (None,) for name in settings.strategies}
    places = [
        (config, checkpoint, seeds[config][number])
        for number in range(settings.seeds)
        for config in settings.configs
        if number < len(seeds[config])
        for checkpoint in CHECKPOINTS
    ]
    groups = []
    for rollouts in (False, True):
        for where in places:
            cases = [
                Case(*where, name, length)
                for name, many in lengths.items()
                if (None not in many) == rollouts
                for length in many
            ]
            if rollouts and settings.sweeps and where[:2] == (MAIN, "projection"):
                cases += _swept(settings, where)
            groups.append(Group(*where, tuple(cases)))
    return [group for group in groups if group.cases]


def _swept(settings: Settings, where: tuple[str, str, int]) -> list[Case]:
    """The cases of the sweeps that the grid lacks."""
    training = settings.config(where[0]).training
    return [
        Case(*where, name, length, (varied.key, value))
        for varied in _SWEEPS
        for value in varied.values
        if value != getattr(training, varied.key)
        for name in varied.sets
        if name in settings.strategies
        for length in (varied.time_steps if depends_on_time_step(name) else (None,))
    ]


_BENCHMARK = Benchmark("strategies", StrategyResults, plan, compiled=True)


def run_strategies(
    settings: Settings,
    out: Path,
    workers: int,
    watch: Watch,
    *,
    overwrite: bool = False,
    engine: Engine | None = None,
    keep: Callable[[], None] = lambda: None,
) -> str:
    """Run every case that has no line in `out`/strategies.jsonl yet, write the report, return its Markdown.

    Args:
        workers: number of parallel processes, each with its share of the cores.
        overwrite: replace existing results.
        engine: where the cases run, see `jobs.engine_for`; None: in processes of this computer.
        keep: called once the folder of results is open.

    Raises:
        InputError: the folder holds results of other settings, or the settings are not valid or give no data.
        TrainingFailedError: a simulation process was killed.
    """
    with all_cases(_BENCHMARK, settings, out, workers, watch, engine, overwrite=overwrite, keep=keep) as stored:
        return write_report(stored.results(), out)


def write_report(results: Results, out: Path) -> str:
    """Write strategies.json, strategies.md and a figure per configuration; return the Markdown."""
    report = summarise(results)
    text = markdown(report)
    write_bytes(out / "strategies.json", (json.dumps(report, indent=1) + "\n").encode())
    write_bytes(out / "strategies.md", text.encode())
    for number, config in enumerate(results.header["configs"]):
        cases = [c for c in on_grid(results.cases) if c["config"] == config]
        name = f"strategies_{Path(config).stem}.png" if number else "strategies.png"
        with applied():
            save(slope_ratios(config, cases, results.header["strategies"]), out / name, _DPI)
    return text


# -- in a worker


def results_of(group: Group, settings: Settings, out: Path) -> Iterator[Row]:
    """The rows of the cases of a group; its checkpoint is kept in the folder of results."""
    folder = out / "checkpoints"
    return rows_of(group.cases, lambda: _Checkpoint.of(group, settings, folder), _Checkpoint.measure)


@dataclasses.dataclass(frozen=True)
class _Checkpoint:
    """A simulation and a checkpoint for the strategies.

    Attributes:
        seen: the frames that are not held out.
        known: recorded properties of the checkpoint.
    """

    config: Config
    simulated: Simulated
    seen: Observations
    phase1: Phase1Result
    known: Row

    @classmethod
    def of(cls, group: Group, settings: Settings, folder: Path) -> _Checkpoint:
        config = settings.config(group.config, group.seed)
        simulated = simulate(config)
        network = simulated.observations.network
        simulated = simulated._replace(truth=simulated.truth.aligned(network.species, network.reactions))
        seen, _ = simulated.observations.split(*config.training.held_out)
        phase1 = _checkpoint(group, config, simulated, seen, folder)
        agreement = rate_constant_metrics(
            phase1.log_k, np.log10(simulated.truth.k), phase1.identifiability.identifiable
        )
        residuals = Phase2Data(seen, phase1, config.graph_model, config.training).checkpoint_residuals()
        known = {
            "checkpoint_R2_identifiable": json.loads(metrics_json(agreement))["rate_constants_R2_identifiable"],
            "checkpoint_residual_rms": residuals.unit,
        }
        return cls(config, simulated, seen, phase1, known)

    def measure(self, case: Case) -> Row:
        changes: dict[str, object] = {
            "training.strategies": names_of(case.strategies),
            "training.homeostasis_time_step": case.T or 1,
        }
        if case.sweep is not None:
            changes[f"training.{case.sweep[0]}"] = case.sweep[1]
        training = self.config.replace(changes).training
        started = time.perf_counter()
        phase2 = fit_homeostasis(self.seen, self.phase1, self.config.graph_model, training)
        seconds = time.perf_counter() - started
        metrics, _ = homeostasis_metrics(self.simulated.observations, phase2, training, self.simulated.truth)
        clean = json.loads(metrics_json(metrics))
        kept = ("avg_slope_ratio", "classification", "embedding_cluster_acc", "embedding_silhouette")
        found: Row = {
            "slope_ratio": _finite(ratios(clean, "slope")),
            "offset_ratio": _finite(ratios(clean, "offset")),
            **{key: clean[key] for key in (*kept, "embedding_n_clusters", "phase2_loss")},
            "phase2_loss_unit": phase2.loss_unit,
            "node_magnitude": clean["phase2_node_magnitude"],
            "seconds": seconds,
            # Full-batch plans end with a polish, whose iterations are among the losses.
            "gradient_steps": training.phase2_steps if case.T is None else len(phase2.losses),
        }
        return found | self.known


def _finite(values: Sequence[float]) -> list[float | None]:
    return [value if np.isfinite(value) else None for value in values]


def _checkpoint(group: Group, config: Config, simulated: Simulated, seen: Observations, folder: Path) -> Phase1Result:
    """The checkpoint of a group: from `folder` if it is intact there, otherwise made and saved."""
    kind = group.checkpoint.replace(" ", "").replace(".", "")
    path = folder / f"{Path(group.config).stem}_{kind}_{group.seed}"
    with alone(path.with_name(f"{path.name}.lock")):  # two groups may share it
        if is_intact(path):
            return load_phase1(path, config.graph_model)
        started = time.perf_counter()
        wanted = CHECKPOINTS[group.checkpoint]
        if wanted is None:
            phase1 = fit_reactions(seen, config.graph_model, config.training)
        else:
            phase1 = train_imperfect_phase1(simulated, config, wanted)
        save_phase1(path, phase1, time.perf_counter() - started)
        return phase1


def check_sets(names: Sequence[str]) -> tuple[str, ...]:
    """Check sets of strategies of the command line.

    Raises:
        InputError: an unknown strategy, a combination that is not valid, or a repeated set.
    """
    for name in names:
        depends_on_time_step(name)
        if names.count(name) > 1:
            raise InputError(f"--strategies: {name} is named twice; keep one")
    return tuple(names)
