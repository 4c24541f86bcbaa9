"""Residuals of the strategy `orthogonalised`, which the runs of an exploration share.

The strategy corrects copies of the reactions of a checkpoint. For a small network this takes longer than the rest of
Phase 2, and it depends on few settings besides the data and the checkpoint. The first run that needs it does it for all
runs. It is not done in their training processes: strategy files that these execute could change what others read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from metabolismgraph.errors import InputError
from metabolismgraph.files import alone, write_bytes
from metabolismgraph.homeostasis.fit import find_orthogonalised
from metabolismgraph.homeostasis.strategies import orthogonalised_in
from metabolismgraph.homeostasis.strategies.orthogonalised import MODEL_SETTINGS, TRAINING_SETTINGS
from metabolismgraph.runs.checkpoint import (
    OBSERVATIONS_FILE,
    PHASE1_FILE,
    PHASE2_FILE,
    RESIDUALS_FILE,
    is_intact,
    load_observations,
    load_phase1,
    save_residuals,
)
from metabolismgraph.runs.folder import RunFolder

_SUFFIXES = (".safetensors", ".json")


@contextmanager
def residuals_at_hand(folder: RunFolder, shared: Path | None) -> Iterator[None]:
    """While Phase 2 is trained, its folder holds a copy of the residuals, if its strategies use them.

    Args:
        folder: of a run that has a base.
        shared: folder of residuals, by what they depend on; None: training computes its own.
    """
    own = folder.training / RESIDUALS_FILE
    if shared is None or is_intact(folder.training / PHASE2_FILE) or (kept := _keep(folder, shared)) is None:
        yield
        return
    for suffix in _SUFFIXES:
        write_bytes(own.with_suffix(suffix), kept.with_suffix(suffix).read_bytes())
    try:
        yield
    finally:
        for suffix in _SUFFIXES:
            own.with_suffix(suffix).unlink(missing_ok=True)


def _keep(folder: RunFolder, shared: Path) -> Path | None:
    """The path, without suffix, of the residuals of a run, computed if no earlier run did; None: it needs none."""
    graph_model, training = folder.config.graph_model, folder.config.training
    try:
        strategy = orthogonalised_in(training)
        if strategy is None:
            return None
        depends_on = {
            "version": metadata.version("metabolismgraph"),
            **{name: _digest(folder.given / name) for name in (OBSERVATIONS_FILE, PHASE1_FILE)},
            "held out": training.held_out,
            "strategy": strategy.model_dump(mode="json"),
            **{name: getattr(graph_model, name) for name in MODEL_SETTINGS},
            **{name: getattr(training, name) for name in TRAINING_SETTINGS},
        }
        kept = shared / hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()
        with alone(kept.with_suffix(".lock")):
            if not is_intact(kept):
                observations, _ = load_observations(folder.given / OBSERVATIONS_FILE).split(*training.held_out)
                phase1 = load_phase1(folder.given / PHASE1_FILE, graph_model, observations.network)
                found = find_orthogonalised(observations, phase1, graph_model, training)
                assert found is not None  # the configuration has the strategy
                save_residuals(kept, found)
    except InputError:
        return None  # training says what is wrong
    return kept


def _digest(path: Path) -> str:
    return hashlib.sha256(path.with_suffix(".safetensors").read_bytes()).hexdigest()
