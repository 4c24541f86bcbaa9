"""Both phases of training in a folder, from observations to checkpoints."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from metabolismgraph.config import Training
from metabolismgraph.errors import InputError
from metabolismgraph.homeostasis.fit import find_orthogonalised, fit_homeostasis
from metabolismgraph.homeostasis.joint import refine
from metabolismgraph.homeostasis.joint_descent import fit_jointly
from metabolismgraph.homeostasis.residuals import Phase2Data, Residuals
from metabolismgraph.homeostasis.strategies import STRATEGIES, check_strategies, custom, names
from metabolismgraph.reactions.fit import fit_reactions
from metabolismgraph.runs.checkpoint import (
    OBSERVATIONS_FILE,
    PHASE1_FILE,
    PHASE2_FILE,
    REFINED_FILE,
    RESIDUALS_FILE,
    is_intact,
    load_observations,
    load_phase1,
    load_phase2,
    load_residuals,
    save_phase1,
    save_phase2,
    save_residuals,
    seconds_taken,
)
from metabolismgraph.runs.training_settings import makes_only_residuals, read_settings
from metabolismgraph.sandbox.protocol import write_event
from metabolismgraph.system.observations import Observations
from metabolismgraph.system.trainable import check_frozen


def train_folder(folder: Path, shared: Path | None = None) -> None:
    """Run the phases without a checkpoint, or only make residuals for several runs (`training_settings.py`).

    Args:
        folder: settings, strategy files and checkpoints of this run, and a copy of residuals that were made for it.
        shared: folder of observations and Phase 1 checkpoint of several runs; None: these are in `folder`.

    Raises:
        InputError: the observations or a checkpoint cannot be used, or a strategy fails.
        FirewallError: an array of Phase 1 changed.
    """
    graph_model, training = read_settings(folder)
    source = shared or folder
    observations, _ = load_observations(source / OBSERVATIONS_FILE).split(*training.held_out)
    own = own_strategies(folder, training)
    first, second, third = source / PHASE1_FILE, folder / PHASE2_FILE, folder / REFINED_FILE
    joint_is_missing = training.trains_jointly and not is_intact(second)
    if shared is None and (joint_is_missing or not is_intact(first)):
        if not own:  # the declarations of a file are known when it has been executed
            check_strategies(training, observations)
        if training.skip_phase1:
            raise InputError("training.skip_phase1 is true, but there is no checkpoint; give one with --checkpoint")
        # A Phase 2 checkpoint of an earlier Phase 1 is invalid.
        second.with_suffix(".json").unlink(missing_ok=True)
        started = time.perf_counter()
        if training.trains_jointly:
            result, homeostasis = fit_jointly(observations, graph_model, training, report)
            save_phase2(second, homeostasis, 0.0)
        else:
            result = fit_reactions(observations, graph_model, training, report)
        save_phase1(first, result, time.perf_counter() - started)
    network = observations.network
    phase1 = load_phase1(first, graph_model, network)
    write_event(sys.stdout, event="finished", stage="phase 1", seconds=seconds_taken(first))
    if not training.homeostasis_training:
        return
    if makes_only_residuals(folder):
        check_strategies(training, observations)
        started = time.perf_counter()
        found = find_orthogonalised(observations, phase1, graph_model, training, report)
        if found is not None:
            save_residuals(folder / RESIDUALS_FILE, found, time.perf_counter() - started)
        return
    # Before untrusted code runs.
    residuals, making = (None, 0.0) if is_intact(second) else _shared_residuals(folder, observations)
    for path in own:
        custom.load(path)
    if not is_intact(second):
        third.with_suffix(".json").unlink(missing_ok=True)
        started = time.perf_counter()
        # Strategy files may change the arrays that they get: compare with a separate copy.
        frozen = load_phase1(first, graph_model, network) if own else phase1
        with custom.as_input_error(own):
            homeostasis = fit_homeostasis(observations, phase1, graph_model, training, report, orthogonalised=residuals)
        check_frozen(frozen, homeostasis.model)
        save_phase2(second, homeostasis, making + time.perf_counter() - started)
    write_event(sys.stdout, event="finished", stage="phase 2", seconds=seconds_taken(second))
    if not training.joint_refinement:
        return
    if not is_intact(third):
        started = time.perf_counter()
        data = Phase2Data(observations, phase1, graph_model, training)
        with custom.as_input_error(own):
            refined = refine(data, load_phase2(second, graph_model, network), report)
        save_phase2(third, refined, time.perf_counter() - started)
    write_event(sys.stdout, event="finished", stage="refine", seconds=seconds_taken(third))


def _shared_residuals(folder: Path, observations: Observations) -> tuple[Residuals | None, float]:
    """The copy of residuals that several runs share, and the time [s] in which they were made.

    Every run counts that time, so that runs with and without shared residuals can be compared. None and zero without a
    copy for these data.
    """
    path = folder / RESIDUALS_FILE
    try:
        return load_residuals(path, observations), seconds_taken(path)
    except InputError:
        return None, 0.0


def own_strategies(folder: Path, training: Training) -> list[Path]:
    """The strategy files of a training folder that its settings name.

    Raises:
        InputError: one has the name of a built-in strategy.
    """
    files = sorted((folder / custom.FOLDER).glob("*.py"))
    shadowing = [path.name for path in files if path.stem in STRATEGIES]
    if shadowing:
        raise InputError(f"{custom.FOLDER}/{shadowing[0]}: the package has a strategy of that name; choose another")
    named = names(training)
    return [path for path in files if path.stem in named]


def report(stage: str, done: float, message: str) -> None:
    """Pass on the progress of training."""
    write_event(sys.stdout, event="progress", stage=stage, done=done, message=message)
