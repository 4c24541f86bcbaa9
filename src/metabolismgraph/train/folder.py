"""Both phases in a folder, from the observations there to the checkpoints there."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from metabolismgraph.checkpoint import (
    is_intact,
    load_observations,
    load_phase1,
    load_phase2,
    save_phase1,
    save_phase2,
    seconds_taken,
)
from metabolismgraph.config import GraphModel, Training
from metabolismgraph.errors import InputError
from metabolismgraph.train.evidence import Setting
from metabolismgraph.train.joint import refine
from metabolismgraph.train.phase1 import fit_reactions
from metabolismgraph.train.phase2 import fit_homeostasis


def train_folder(folder: Path) -> None:
    """Run the phases whose checkpoints are not there yet.

    Raises:
        InputError: the observations cannot be used.
    """
    settings = json.loads((folder / "settings.json").read_text())
    graph_model = GraphModel.model_validate(settings["graph_model"])
    training = Training.model_validate(settings["training"])
    observations, _ = load_observations(folder / "observations").split(training.held_out_fraction)
    first, second, third = folder / "phase1", folder / "phase2", folder / "refined"
    if not is_intact(first):
        if training.skip_phase1:
            raise InputError("training.skip_phase1 is true, but there is no checkpoint; give one with --checkpoint")
        # What was built on a checkpoint that is gone must go with it.
        second.with_suffix(".json").unlink(missing_ok=True)
        started = time.perf_counter()
        result = fit_reactions(observations, graph_model, training, _report)
        save_phase1(first, result, time.perf_counter() - started)
    say(event="finished", stage="phase 1", seconds=seconds_taken(first))
    if not training.homeostasis_training:
        return
    phase1 = load_phase1(first, graph_model)
    if not is_intact(second):
        third.with_suffix(".json").unlink(missing_ok=True)
        started = time.perf_counter()
        homeostasis = fit_homeostasis(observations, phase1, graph_model, training, _report)
        save_phase2(second, homeostasis, time.perf_counter() - started)
    say(event="finished", stage="phase 2", seconds=seconds_taken(second))
    if not training.joint_refinement:
        return
    if not is_intact(third):
        started = time.perf_counter()
        setting = Setting(observations, phase1, graph_model, training)
        refined = refine(setting, load_phase2(second, graph_model), _report)
        save_phase2(third, refined, time.perf_counter() - started)
    say(event="finished", stage="refine", seconds=seconds_taken(third))


def say(**fields: object) -> None:
    """Tell whoever started this process, one JSON object per line."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def _report(stage: str, done: float, message: str) -> None:
    say(event="progress", stage=stage, done=done, message=message)
