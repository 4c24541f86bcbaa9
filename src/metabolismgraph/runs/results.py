"""Results of a trained run: evaluation, tables, figures and page."""

from __future__ import annotations

import dataclasses
import io
import time

from metabolismgraph.config import Config
from metabolismgraph.errors import FirewallError
from metabolismgraph.evaluation.evaluate import Evaluation, evaluate
from metabolismgraph.evaluation.report import analysis_log, metrics_json
from metabolismgraph.files import write_bytes
from metabolismgraph.fitting.result import FitResult
from metabolismgraph.ground_truth.truth import Truth
from metabolismgraph.metrics import Value
from metabolismgraph.runs.checkpoint import (
    OBSERVATIONS_FILE,
    PHASE1_FILE,
    PHASE2_FILE,
    REFINED_FILE,
    load_observations,
    load_phase1,
    load_phase2,
)
from metabolismgraph.runs.folder import NETWORK_AS_GIVEN, RunFolder
from metabolismgraph.runs.report import write_run_report
from metabolismgraph.runs.training import observations_digest
from metabolismgraph.system.progress import Progress
from metabolismgraph.system.trainable import check_frozen


def load_result(folder: RunFolder, config: Config) -> FitResult:
    """Load the results of a run's training, for evaluation under a configuration.

    Raises:
        InputError: it is missing or damaged, or does not fit the configuration.
        FirewallError: training changed the observations or frozen arrays.
    """
    observations = load_observations(folder.given / OBSERVATIONS_FILE)
    if observations_digest(folder) != folder.manifest.get("observations"):
        raise FirewallError(
            f"{folder.given / OBSERVATIONS_FILE}.safetensors: not the observations that training was given; "
            "start again with --overwrite"
        )
    graph_model, network = config.graph_model, observations.network
    phase1 = load_phase1(folder.given / PHASE1_FILE, graph_model, network)
    phase2 = refined = None
    if config.training.homeostasis_training:
        phase2 = load_phase2(folder.training / PHASE2_FILE, graph_model, network)
        # Training makes this check as well, but is not trusted.
        check_frozen(phase1, phase2.model)
        if config.training.joint_refinement:
            refined = load_phase2(folder.training / REFINED_FILE, graph_model, network)
    return FitResult(observations, graph_model, config.training, phase1, phase2, refined)


def evaluate_run(folder: RunFolder, config: Config, truth: Truth | None, progress: Progress) -> Evaluation:
    """Evaluate a trained run, and write metrics, tables, figures and page.

    Args:
        config: of the evaluation; that of the run, possibly with changes.
        truth: to compare with; None: unknown.

    Raises:
        InputError, FirewallError: as `load_result`.
    """
    started = time.perf_counter()
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

    given = folder.path / "data" / NETWORK_AS_GIVEN  # missing for a simulated network, and where a base has it
    source = given.read_bytes() if given.exists() else None
    notes = (*evaluation.notes, *write_answer(result, evaluation, folder.path, source))
    metrics["notes"] = list(notes)
    write_bytes(folder.path / "metrics.json", metrics_json(metrics).encode())
    write_bytes(folder.path / "analysis.log", analysis_log(metrics).encode())
    folder.finish("evaluate", time.perf_counter() - started)
    progress("evaluate", 1.0, "")
    started = time.perf_counter()
    from metabolismgraph.figures import draw_all  # noqa: PLC0415 (after the metrics are written)

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
