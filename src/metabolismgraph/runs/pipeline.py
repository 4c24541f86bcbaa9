"""From a configuration or from files to a finished run folder, stage by stage.

The result of every stage is on disk before the manifest records the stage as finished, so that an interrupted run
continues after its last finished stage. Training runs in a separate process whose folder does not contain the truth.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from metabolismgraph import formats
from metabolismgraph.config import Config, Plotting
from metabolismgraph.errors import (
    FirewallError,
    InputError,
    SimulationDivergedError,
    TrainingFailedError,
    TrainingLostError,
)
from metabolismgraph.evaluation.evaluate import Evaluation, evaluate
from metabolismgraph.evaluation.report import analysis_log, metrics_json
from metabolismgraph.files import lack_of_room, write_bytes
from metabolismgraph.fitting.result import FitResult
from metabolismgraph.formats.published import read_published_data, read_published_model
from metabolismgraph.ground_truth.imperfect_phase1 import train_imperfect_phase1
from metabolismgraph.ground_truth.published import read_published_truth
from metabolismgraph.ground_truth.simulator import simulate
from metabolismgraph.ground_truth.truth import Truth
from metabolismgraph.homeostasis.strategies import chosen
from metabolismgraph.metrics import Value
from metabolismgraph.processes import describe_exit, environment, excerpt, killed_from_outside, last_line
from metabolismgraph.runs.checkpoint import (
    is_intact,
    load_observations,
    load_phase1,
    load_phase2,
    save_observations,
    save_phase1,
    save_phase2,
)
from metabolismgraph.runs.folder import ERRORS, MANIFEST, MOST_SECONDS, RunFolder
from metabolismgraph.runs.published import config_of, results_of
from metabolismgraph.runs.report import write_run_report
from metabolismgraph.runs.train_process import NO_ROOM, UNGUARDED
from metabolismgraph.runs.training_server import start_training
from metabolismgraph.sandbox import landlock
from metabolismgraph.sandbox.audit_hook import attempt_of
from metabolismgraph.sandbox.protocol import read_events
from metabolismgraph.secret_keys import read_key
from metabolismgraph.system.assumed_rate_laws import assume_rate_laws
from metabolismgraph.system.observations import Observations
from metabolismgraph.system.progress import Progress, silent
from metabolismgraph.system.threads import training_threads
from metabolismgraph.system.trainable import check_frozen
from metabolismgraph.text import one_line, printable

_log = logging.getLogger(__name__)
_OBSERVATIONS = "observations"
_CHECKPOINT = "phase1"
_SOURCE = "network_as_given.xml"
_LONGEST_STAGE = 40  # characters


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
        from metabolismgraph.formats.tables import as_written  # noqa: PLC0415 (pandas is slow to import)

        exact = simulate(config, lambda share: progress("simulate", share, ""), secret=key)
        simulated = exact._replace(observations=as_written(exact.observations))
        _write_dataset(folder, simulated.observations)
        simulated.truth.save(folder.data / "truth")
        _hand_over(folder, simulated.observations, start)
        if start is None and config.training.phase1_stop_at_r2 is not None:
            began = time.perf_counter()
            imperfect = train_imperfect_phase1(simulated, config, progress=progress)
            save_phase1(folder.training / _CHECKPOINT, imperfect, time.perf_counter() - began)

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

        _write_dataset(folder, observations)
        write_bytes(folder.data / _SOURCE, read_content(network))
        folder.record(notes=list(observations.notes))
        if labels is not None:
            labels.save(folder.data / "truth")
        _hand_over(folder, observations, start)

    with _made(out, config, source, resume=resume, overwrite=overwrite) as folder:
        return _complete(folder, "read", read, progress)


def convert_data(data: Path, out: Path, *, delta_t: float | None = None, overwrite: bool = False) -> None:
    """Convert a data folder of the published program into the data set folder `out`, with truth/ where it has labels.

    Args:
        data, delta_t: see `read_published_data`.

    Raises:
        InputError: a file is wrong, or `out` cannot be used.
    """
    from metabolismgraph.formats.dataset import new_dataset, write_dataset  # noqa: PLC0415 (libsbml is slow)

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
        _write_dataset(folder, observations)
        if labels is not None:
            labels.save(folder.data / "truth")
        _hand_over(folder, observations, None)
        save_phase1(folder.training / _CHECKPOINT, phase1, 0.0)
        save_phase2(folder.training / "phase2", phase2, 0.0)
        for stage in ("read", "phase 1", "phase 2"):
            folder.finish(stage, 0.0)
        return _judge(folder, config, labels, progress)


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
    return _judge(folder, folder.config.override(overrides), labels, progress)


def run_phase2(
    config: Config,
    base: Path,
    out: Path,
    *,
    strategies: Mapping[str, str] | None = None,
    unsafe_strategies: bool = False,
    cache: Path | None = None,
    truth: bool = True,
    progress: Progress = silent,
) -> Evaluation:
    """Run Phase 2 alone in the folder `out`, with data and Phase 1 of the run `base`; resumable.

    Args:
        strategies: reviewed strategy files that the configuration names: name -> source.
        unsafe_strategies: whether to execute them also where the kernel does not restrict training.
        cache: folder of compiled programs that training may read and write.
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
        _write_settings(folder)
        folder.record(observations=str(given.manifest["observations"]))
        folder.finish("given", 0.0)
    _train(folder, progress, cache, kernel=kernel)
    return _judge(folder, folder.config, _own_truth(folder) if truth else None, progress)


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
        _hand_over(folder, load_observations(given.given / _OBSERVATIONS), None)
        folder.finish("given", 0.0)
    _train(folder, progress)
    return _judge(folder, folder.config, _own_truth(given) if truth else None, progress)


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
        from metabolismgraph.formats.dataset import NETWORK, TIMESERIES  # noqa: PLC0415 (libsbml is slow to import)

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
    inside = checkpoint / "training" / _CHECKPOINT
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
        _train(folder, progress)
    except (FirewallError, TrainingFailedError):
        _report_unfinished(folder)
        raise
    _log.info("%s: evaluation", folder.path)
    return _judge(folder, folder.config, _own_truth(folder), progress)


def _report_unfinished(folder: RunFolder) -> None:
    """Write the page of a run that has no results; those of an earlier life keep theirs."""
    if folder.leak or not folder.is_finished("evaluate"):
        write_run_report(folder.path)


def _hand_over(folder: RunFolder, observations: Observations, start: Path | None) -> None:
    """Write the input of training: observations, two sections of the configuration, a checkpoint."""
    graph_model, training = folder.config.graph_model, folder.config.training
    if start is not None:
        _check_network(start, observations)
    given = None if start is None else load_phase1(start, graph_model, observations.network).mass_action
    observations = assume_rate_laws(observations, graph_model, training, given)
    folder.training.mkdir(parents=True, exist_ok=True)
    save_observations(folder.training / _OBSERVATIONS, observations)
    folder.record(observations=_observations_digest(folder))
    _write_settings(folder)
    if start is not None:
        for suffix in (".safetensors", ".json"):
            write_bytes((folder.training / _CHECKPOINT).with_suffix(suffix), start.with_suffix(suffix).read_bytes())


def _check_network(start: Path, observations: Observations) -> None:
    """Check that a checkpoint beside its observations, as in a run folder, was made for the network of a run.

    Raises:
        InputError: the reactions differ, although their numbers may be equal.
    """
    beside = start.with_name(_OBSERVATIONS)
    if not beside.with_suffix(".json").exists():
        return
    made_for, given = (
        [(dict(r.substrates), dict(r.net)) for r in network.to_reactions()]
        for network in (load_observations(beside).network, observations.network)
    )
    if made_for != given:
        raise InputError(
            f"{start}.safetensors: made for other reactions than those of the data; fit the data it belongs to, or "
            "give another --checkpoint"
        )


def _write_dataset(folder: RunFolder, observations: Observations) -> None:
    from metabolismgraph.formats.dataset import write_dataset  # noqa: PLC0415 (libsbml is slow to import)

    write_dataset(folder.data, observations)


def _write_settings(folder: RunFolder) -> None:
    settings = folder.config.model_dump(mode="json", include={"graph_model", "training"})
    write_bytes(folder.training / "settings.json", json.dumps(settings, indent=1).encode())


def _observations_digest(folder: RunFolder) -> str:
    content = (folder.given / _OBSERVATIONS).with_suffix(".safetensors").read_bytes()
    return hashlib.sha256(content).hexdigest()


def _train(folder: RunFolder, progress: Progress, cache: Path | None = None, *, kernel: bool = False) -> None:
    """Train in a process of its own.

    Args:
        kernel: whether to train only where the kernel restricts the process.
    """
    settings = folder.config.training
    phases = {} if folder.base else {"phase 1": _CHECKPOINT}
    if settings.homeostasis_training:
        phases |= {"phase 2": "phase2"} | ({"refine": "refined"} if settings.joint_refinement else {})
    if all(folder.is_finished(stage) and is_intact(folder.training / name) for stage, name in phases.items()):
        return
    errors = folder.training / ERRORS
    with excerpt(errors) as stderr:
        threads = training_threads(load_observations(folder.given / _OBSERVATIONS).network.n_species)
        env = environment(**threads, **({"JAX_COMPILATION_CACHE_DIR": str(cache)} if cache else {}))
        shared = folder.given if folder.base else None
        with start_training(folder.training, shared, kernel=kernel, env=env, stderr=stderr) as training:
            refused, leak = _follow(read_events(training.stdout), folder, phases, progress)
            code = training.wait()
    if attempt := leak or attempt_of(code):
        folder.mark_leak(attempt)
        raise FirewallError(folder.leak)
    if refused is not None:
        raise InputError(refused)
    if kernel and code == UNGUARDED:
        raise TrainingLostError(landlock.MISSING)
    if code:
        # Text of the process is not a reason: it may have been written by the code of a strategy.
        lost = killed_from_outside(code) or code == NO_ROOM or lack_of_room(folder.training)
        raise (TrainingLostError if lost else TrainingFailedError)(
            f"training {describe_exit(code)} ({last_line(errors) or 'no message'}); see {errors}, "
            "then continue with --resume"
        )


def _follow(
    events: Iterable[dict[str, Any]], folder: RunFolder, phases: Mapping[str, str], progress: Progress
) -> tuple[str | None, str | None]:
    """Pass on the reports of the training process.

    Its code is not trusted: an event of another form is ignored, and so is the end of a stage that is not the next one
    of this training, or has left no checkpoint.

    Args:
        phases: stages of the training in their order, with the names of their checkpoints.

    Returns:
        Why it refuses the data, and what it tried to reach; None where it did not.
    """
    refused = leak = None
    pending = list(phases)
    sealed = False
    for event in events:
        match event:
            # Only the first one: it is written before untrusted code runs.
            case {"event": "sealed", "kernel": bool(kernel), "calls": bool(calls)} if not sealed:
                guards = {"audit hook": True, "kernel": kernel, "system calls": calls}
                folder.record(sandbox=[name for name, there in guards.items() if there])
                sealed = True
            case {"event": "progress", "stage": str(stage), "done": float() | int() as done, "message": str(message)}:
                if 0 <= done <= 1:
                    progress(one_line(printable(stage), _LONGEST_STAGE), float(done), one_line(printable(message)))
            case {"event": "finished", "stage": str(stage), "seconds": float() | int() as seconds}:
                fits = pending[:1] == [stage] and 0 <= seconds <= MOST_SECONDS
                if fits and is_intact(folder.training / phases[stage]):
                    pending.pop(0)
                    folder.finish(stage, float(seconds))
            case {"event": "refused", "message": str(message)}:
                refused = one_line(printable(message))
            case {"event": "leak", "tried": str(tried), "on": str(on)}:
                leak = one_line(printable(f"{tried} {on}"))
    return refused, leak


def _own_truth(folder: RunFolder) -> Truth | None:
    path = folder.data / "truth"
    return Truth.load(path) if path.exists() else None


def load_result(folder: RunFolder, config: Config) -> FitResult:
    """Load the results of a run's training, for evaluation under a configuration.

    Raises:
        InputError: it is missing or damaged, or does not fit the configuration.
        FirewallError: training changed the observations or frozen arrays.
    """
    observations = load_observations(folder.given / _OBSERVATIONS)
    if _observations_digest(folder) != folder.manifest.get("observations"):
        raise FirewallError(
            f"{folder.given / _OBSERVATIONS}.safetensors: not the observations that training was given; "
            "start again with --overwrite"
        )
    graph_model, network = config.graph_model, observations.network
    phase1 = load_phase1(folder.given / _CHECKPOINT, graph_model, network)
    phase2 = refined = None
    if config.training.homeostasis_training:
        phase2 = load_phase2(folder.training / "phase2", graph_model, network)
        # Training makes this check as well, but is not trusted.
        check_frozen(phase1, phase2.model)
        if config.training.joint_refinement:
            refined = load_phase2(folder.training / "refined", graph_model, network)
    return FitResult(observations, graph_model, config.training, phase1, phase2, refined)


def _judge(folder: RunFolder, config: Config, truth: Truth | None, progress: Progress) -> Evaluation:
    started = time.perf_counter()
    progress("evaluate", 0.0, "")
    result = load_result(folder, config)
    evaluation = evaluate(result, truth)
    started_later = folder.base is not None or config.training.skip_phase1
    own = ("phase 2", "refine") if started_later else ("phase 1", "phase 2", "refine")
    minutes = sum(folder.seconds(stage) for stage in own) / 60
    first = {name: evaluation.metrics[name] for name in ("trustworthy", "why_not")}
    metrics: dict[str, Value] = {**first, "training_time_min": minutes, **evaluation.metrics}
    if folder.base is None:
        # Into memory first: the library of this format does not survive a full disk.
        content = io.BytesIO()
        evaluation.data.to_netcdf(content, engine="h5netcdf")
        write_bytes(folder.path / "evaluation.nc", content.getvalue())
    from metabolismgraph.runs.answer_files import write_answer  # noqa: PLC0415 (libsbml is slow to import)

    given = folder.path / "data" / _SOURCE  # missing for a simulated network, and where a base has it
    source = given.read_bytes() if given.exists() else None
    notes = (*evaluation.notes, *write_answer(result, evaluation, folder.path, source))
    metrics["notes"] = list(notes)
    write_bytes(folder.path / "metrics.json", metrics_json(metrics).encode())
    write_bytes(folder.path / "analysis.log", analysis_log(metrics).encode())
    folder.finish("evaluate", time.perf_counter() - started)
    progress("evaluate", 1.0, "")
    started = time.perf_counter()
    from metabolismgraph.figures import draw_all  # noqa: PLC0415

    # Runs that share the data of a base leave out figures that are the same for all of them.
    below = "" if folder.base is None else "tmp_training"
    draw_all(
        evaluation.data,
        metrics,
        folder.path,
        config.plotting,
        below=below,
        snapshots=evaluation.snapshots,
        progress=progress,
    )
    folder.finish("figures", time.perf_counter() - started)
    progress("figures", 1.0, "")
    if folder.base is None:
        write_run_report(folder.path, evaluation.data)
    return dataclasses.replace(evaluation, metrics=metrics, notes=notes)
