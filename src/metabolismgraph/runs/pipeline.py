"""From a configuration or from files to a finished run folder, stage by stage.

The result of every stage is on disk before the manifest records the stage as finished, so that an interrupted run
continues after its last finished stage. Training runs in a separate process whose folder does not contain the truth.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metabolismgraph import formats
from metabolismgraph.config import Config, Plotting
from metabolismgraph.errors import (
    FirewallError,
    InputError,
    SimulationDivergedError,
    TrainingFailedError,
    TrainingLostError,
)
from metabolismgraph.files import write_bytes
from metabolismgraph.formats.dataset import NETWORK, TIMESERIES, new_dataset, write_dataset
from metabolismgraph.formats.published import read_published_data, read_published_model
from metabolismgraph.formats.table_writer import as_written
from metabolismgraph.ground_truth.imperfect_phase1 import train_imperfect_phase1
from metabolismgraph.ground_truth.published import read_published_truth
from metabolismgraph.ground_truth.simulator import simulate
from metabolismgraph.ground_truth.truth import Truth
from metabolismgraph.homeostasis.strategies import chosen
from metabolismgraph.runs.checkpoint import (
    OBSERVATIONS_FILE,
    PHASE1_FILE,
    PHASE2_FILE,
    load_observations,
    load_phase1,
    save_phase1,
    save_phase2,
)
from metabolismgraph.runs.folder import MANIFEST, NETWORK_AS_GIVEN, RunFolder
from metabolismgraph.runs.published import config_of, results_of
from metabolismgraph.runs.report import write_run_report
from metabolismgraph.runs.shared_residuals import residuals_at_hand
from metabolismgraph.runs.training import hand_over, train
from metabolismgraph.runs.training_settings import write_settings
from metabolismgraph.sandbox import landlock
from metabolismgraph.secret_keys import read_key
from metabolismgraph.system.progress import Progress, silent

if TYPE_CHECKING:  # the libraries of evaluation take much memory, and training comes first
    from metabolismgraph.evaluation.evaluate import Evaluation

_log = logging.getLogger(__name__)


def run(
    config: Config,
    out: Path,
    *,
    checkpoint: Path | None = None,
    secret: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Evaluation:
    """Simulate, train, evaluate and draw into the folder `out`.

    Args:
        checkpoint: run folder or phase1 file to start Phase 2 from; Phase 1 is then skipped.
        secret: secret.key of the truth of a system that is to be simulated again, see `simulate`.

    Raises:
        InputError: `out` cannot be used, or the key is damaged.
        SimulationDivergedError: concentrations diverged.
        FirewallError: training tried to reach something outside its folder.
        TrainingFailedError: the training process failed.
    """
    config, start = _checked(config, checkpoint)
    key = read_key(secret) if secret else None
    source = {"command": "run", **_named(start)}

    def make(folder: RunFolder) -> None:
        exact = simulate(config, lambda share: progress("simulate", share, ""), secret=key)
        simulated = exact._replace(observations=as_written(exact.observations))
        write_dataset(folder.data, simulated.observations)
        simulated.truth.save(folder.data / "truth")
        hand_over(folder, simulated.observations, start)
        if start is None and config.training.phase1_stop_at_r2 is not None:
            began = time.perf_counter()
            imperfect = train_imperfect_phase1(simulated, config, progress=progress)
            save_phase1(folder.training / PHASE1_FILE, imperfect, time.perf_counter() - began)

    with _made(out, config, source, resume=resume, overwrite=overwrite) as folder:
        return _complete(folder, "simulate", make, progress)


def fit_files(
    network: Path,
    timeseries: Path | Sequence[Path],
    config: Config,
    out: Path,
    *,
    names: Mapping[str, str] | None = None,
    truth: Path | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Evaluation:
    """Train on measured data, evaluate and draw into the folder `out`.

    Args:
        timeseries: a table, or several of different experiments.
        names: what names in the tables stand for, see `formats.read`.
        checkpoint: run folder or phase1 file to start Phase 2 from; Phase 1 is then skipped.
        truth: folder with the labels of the same system, where they are known; for evaluation only.

    Raises:
        InputError: a file is wrong, the data do not suffice, or `out` cannot be used.
        FirewallError: training tried to reach something outside its folder.
        TrainingFailedError: the training process failed.
    """
    config, start = _checked(config, checkpoint)
    if config.training.phase1_stop_at_r2 is not None:
        raise InputError("training.phase1_stop_at_r2 is for simulated systems, whose truth is known; leave it empty")
    tables = [timeseries] if isinstance(timeseries, Path) else list(timeseries)
    observations = formats.read(network, *tables, names=names)
    labels = Truth.load(truth).aligned(observations.network.species, observations.network.reactions) if truth else None
    source = {"command": "fit"} | {
        name: f"{path.resolve()} sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
        for name, path in [
            ("network", network),
            *((f"timeseries {i}".removesuffix(" 0"), t) for i, t in enumerate(tables)),
        ]
    }
    source |= {"names": ", ".join(f"{name} = {given}" for name, given in names.items())} if names else {}
    source |= _named(start)

    def read(folder: RunFolder) -> None:
        from metabolismgraph.formats.sbml import read_content  # noqa: PLC0415 (libsbml is slow to import)

        write_dataset(folder.data, observations)
        write_bytes(folder.data / NETWORK_AS_GIVEN, read_content(network))
        folder.record(notes=list(observations.notes))
        if labels is not None:
            labels.save(folder.data / "truth")
        hand_over(folder, observations, start)

    with _made(out, config, source, resume=resume, overwrite=overwrite) as folder:
        return _complete(folder, "read", read, progress)


def convert_data(data: Path, out: Path, *, delta_t: float | None = None, overwrite: bool = False) -> None:
    """Convert a data folder of the published program into the data set folder `out`, with truth/ where it has labels.

    Args:
        data, delta_t: see `read_published_data`.

    Raises:
        InputError: a file is wrong, or `out` cannot be used.
    """
    observations = read_published_data(data, delta_t)
    labels = read_published_truth(data, observations.network)
    with new_dataset(out, overwrite=overwrite) as folder:
        write_dataset(folder, observations)
        if labels is not None:
            labels.save(folder / "truth")


def convert_checkpoint(
    data: Path,
    checkpoint: Path,
    config: Config,
    out: Path,
    *,
    delta_t: float | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Evaluation:
    """Convert a checkpoint of the published program and its data into the run folder `out`, and evaluate it.

    Args:
        data: data folder of the published program, on which the checkpoint was trained.
        checkpoint: the file of its model_state_dict.
        config: `graph_model.aggr_type` must be that of the checkpoint; other keys of the model are read from the file.
        delta_t: see `read_published_data`.

    Raises:
        InputError: a file is wrong, the checkpoint does not belong to the data, or `out` cannot be used.
    """
    observations = read_published_data(data, delta_t)
    labels = read_published_truth(data, observations.network)
    model = read_published_model(checkpoint, observations.network, config.graph_model.aggr_type)
    config = config_of(model, config.replace({"dataset": observations.network.id, "description": f"from {checkpoint}"}))
    phase1, phase2 = results_of(model, observations, config)
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    source = {
        "command": "convert",
        "data": str(data.resolve()),
        "checkpoint": f"{checkpoint.resolve()} sha256:{digest}",
    }
    with _made(out, config, source, resume=False, overwrite=overwrite) as folder:
        write_dataset(folder.data, observations)
        if labels is not None:
            labels.save(folder.data / "truth")
        hand_over(folder, observations, None)
        save_phase1(folder.training / PHASE1_FILE, phase1, 0.0)
        save_phase2(folder.training / PHASE2_FILE, phase2, 0.0)
        for stage in ("read", "phase 1", "phase 2"):
            folder.finish(stage, 0.0)
        return _evaluate(folder, config, labels, progress)


def reevaluate(
    path: Path, truth: Path | None = None, overrides: Sequence[str] = (), progress: Progress = silent
) -> Evaluation:
    """Evaluate and draw a finished run again, against its own truth or the one given.

    Args:
        overrides: changes of the run's configuration for this evaluation, such as "plotting.dpi=300".

    Raises:
        InputError: no trained run there, or the truth does not belong to it.
        FirewallError: its training tried to reach something outside its folder.
    """
    folder = RunFolder.open(path)
    labels = Truth.load(truth) if truth else _own_truth(folder)
    return _evaluate(folder, folder.config.override(overrides), labels, progress)


def run_phase2(
    config: Config,
    base: Path,
    out: Path,
    *,
    strategies: Mapping[str, str] | None = None,
    unsafe_strategies: bool = False,
    cache: Path | None = None,
    residuals: Path | None = None,
    truth: bool = True,
    progress: Progress = silent,
) -> Evaluation:
    """Run Phase 2 alone in the folder `out`, with data and Phase 1 of the run `base`; resumable.

    Args:
        strategies: reviewed strategy files that the configuration names: name -> source.
        unsafe_strategies: whether to execute them also where the kernel does not restrict training.
        cache: folder of compiled programs that training may read and write.
        residuals: folder of those that several runs share, see `shared_residuals`.
        truth: whether to compare with the truth of the base, where it has one.

    Raises:
        InputError: `base` has no finished Phase 1, or does not fit the configuration, or `out` cannot be used.
        FirewallError: training tried to reach something outside its folder.
        TrainingFailedError: the training process failed, or strategy files are not executed here.
    """
    kernel = bool(strategies) and not unsafe_strategies
    if kernel and not landlock.available():
        raise TrainingLostError(landlock.MISSING)
    given = RunFolder.open(base)
    if not given.is_finished("phase 1"):
        raise InputError(f"{base}: its Phase 1 is not finished; run it with --resume first")
    source = {"command": "phase 2", "base": str(given.manifest["observations"])}
    folder = RunFolder.resume(out, config.replace({"training.skip_phase1": True}), source, base=base)
    if not folder.is_finished("given"):
        (folder.training / "strategies").mkdir(parents=True, exist_ok=True)
        for name, text in (strategies or {}).items():
            write_bytes(folder.training / "strategies" / f"{name}.py", text.encode())
        write_settings(folder.training, config.graph_model, folder.config.training)
        folder.record(observations=str(given.manifest["observations"]))
        folder.finish("given", 0.0)
    with residuals_at_hand(folder, residuals):
        train(folder, progress, cache, kernel=kernel)
    return _evaluate(folder, folder.config, _own_truth(folder) if truth else None, progress)


def run_on_data(
    config: Config, base: Path, out: Path, *, truth: bool = True, progress: Progress = silent
) -> Evaluation:
    """Run both phases in the folder `out` on the data of the run `base`; resumable.

    Args:
        truth: whether to compare with the truth of the base, where it has one.

    Raises:
        InputError: `base` has no data, or `out` cannot be used.
        FirewallError: training tried to reach something outside its folder.
        TrainingFailedError: the training process failed.
    """
    given = RunFolder.open(base)
    if "observations" not in given.manifest:
        raise InputError(f"{base}: has no data yet; run it with --resume first")
    config, _ = _checked(config, None)
    source = {"command": "both phases", "base": str(given.manifest["observations"])}
    folder = RunFolder.resume(out, config, source)
    if not folder.is_finished("given"):
        hand_over(folder, load_observations(given.given / OBSERVATIONS_FILE), None)
        folder.finish("given", 0.0)
    train(folder, progress)
    return _evaluate(folder, folder.config, _own_truth(given) if truth else None, progress)


def run_like(base: Path, out: Path, changes: Mapping[str, Any]) -> None:
    """Repeat the run `base` in the folder `out` with changes of its configuration, such as another simulation.seed.

    A finished repetition stays as it is, and an interrupted one is continued.

    Raises:
        InputError: `base` started from a checkpoint of its own data, or measured data are to be simulated again.
        SimulationDivergedError, FirewallError, TrainingFailedError: as `run` and `fit_files`.
    """
    given = RunFolder.open(base)
    config = given.config.replace(changes)
    if (out / MANIFEST).exists() and RunFolder.open(out).is_finished("figures"):
        return
    data_change = any(key.startswith("simulation.") for key in changes)
    if data_change and "checkpoint" in given.manifest["source"]:
        raise InputError(f"{base}: its Phase 1 is a checkpoint, which does not belong to data of another seed")
    if given.manifest["source"]["command"] != "fit":
        run(config, out, checkpoint=base if config.training.skip_phase1 else None, resume=True)
    elif data_change:
        raise InputError(f"{base}: its data are measured; replicates cannot vary the data seed")
    else:
        truth = given.data / "truth"
        fit_files(
            given.data / NETWORK,
            given.data / TIMESERIES[0],
            config,
            out,
            truth=truth if truth.exists() else None,
            checkpoint=base if config.training.skip_phase1 else None,
            resume=True,
        )


def _checked(config: Config, checkpoint: Path | None) -> tuple[Config, Path | None]:
    """Check configuration and checkpoint before any work is done; returns both, the checkpoint without its suffix.

    Raises:
        InputError: a colour map or a strategy does not exist, or a checkpoint is missing or damaged.
    """
    if config.plotting.colormap != Plotting().colormap:
        from metabolismgraph.figures import check_colormap  # noqa: PLC0415 (Matplotlib is slow to import)

        check_colormap(config.plotting.colormap)
    chosen(config.training)
    if checkpoint is None:
        if config.training.skip_phase1:
            raise InputError("training.skip_phase1 is true, but there is no checkpoint; give one with --checkpoint")
        return config, None
    inside = checkpoint / "training" / PHASE1_FILE
    start = inside if checkpoint.is_dir() else checkpoint.with_suffix("")
    load_phase1(start, config.graph_model)
    return config.replace({"training.skip_phase1": True}), start


def _named(start: Path | None) -> dict[str, str]:
    """The entry of a manifest for the initial checkpoint of a run."""
    if start is None:
        return {}
    content = start.with_suffix(".safetensors").read_bytes()
    return {"checkpoint": f"{start.resolve()} sha256:{hashlib.sha256(content).hexdigest()}"}


@contextmanager
def _made(out: Path, config: Config, source: dict[str, str], *, resume: bool, overwrite: bool) -> Iterator[RunFolder]:
    """The folder of a run, which is removed again if its data are refused or nothing of it can be continued.

    Raises:
        InputError: the folder cannot be used.
    """
    existed, continued = out.exists(), resume and (out / MANIFEST).exists()
    folder = (
        RunFolder.resume(out, config, source) if resume else RunFolder.create(out, config, source, overwrite=overwrite)
    )
    try:
        yield folder
    except (InputError, SimulationDivergedError, MemoryError, OSError) as error:
        trained = any(folder.is_finished(stage) for stage in ("phase 1", "phase 2"))
        if not continued and (isinstance(error, InputError) or not trained):
            shutil.rmtree(folder.path, ignore_errors=True)
            if existed:
                folder.path.mkdir()
        raise


def _complete(folder: RunFolder, first: str, make_data: Callable[[RunFolder], None], progress: Progress) -> Evaluation:
    if not folder.is_finished(first):
        started = time.perf_counter()
        make_data(folder)
        folder.finish(first, time.perf_counter() - started)
        progress(first, 1.0, "")
    _log.info("%s: training", folder.path)
    _report_unfinished(folder)  # should it be interrupted
    try:
        train(folder, progress)
    except (FirewallError, TrainingFailedError):
        _report_unfinished(folder)
        raise
    _log.info("%s: evaluation", folder.path)
    return _evaluate(folder, folder.config, _own_truth(folder), progress)


def _report_unfinished(folder: RunFolder) -> None:
    """Write the page of a run that has no results; those of an earlier life keep theirs."""
    if folder.leak or not folder.is_finished("evaluate"):
        write_run_report(folder.path)


def _own_truth(folder: RunFolder) -> Truth | None:
    path = folder.data / "truth"
    return Truth.load(path) if path.exists() else None


def _evaluate(folder: RunFolder, config: Config, truth: Truth | None, progress: Progress) -> Evaluation:
    progress("evaluate", 0.0, "")
    from metabolismgraph.runs.results import evaluate_run  # noqa: PLC0415 (pandas and xarray: after training)

    return evaluate_run(folder, config, truth, progress)
