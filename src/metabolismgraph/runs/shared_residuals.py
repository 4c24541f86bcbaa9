"""Residuals of the strategy `orthogonalised`, which the runs of an exploration share.

The strategy corrects copies of the reactions of a checkpoint. For a small network this takes longer than the rest of
Phase 2, and it depends on few settings besides data and checkpoint. The first run that needs such residuals makes them,
in a training process that executes no strategy files: one that does could change what others read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from metabolismgraph.errors import InputError
from metabolismgraph.files import alone, remove_folder, write_bytes
from metabolismgraph.homeostasis.residuals import MODEL_SETTINGS, TRAINING_SETTINGS
from metabolismgraph.homeostasis.strategies import chosen, orthogonalised_in
from metabolismgraph.homeostasis.strategies.orthogonalised import Orthogonalised
from metabolismgraph.processes import killed_from_outside
from metabolismgraph.runs.checkpoint import (
    OBSERVATIONS_FILE,
    PHASE1_FILE,
    PHASE2_FILE,
    RESIDUALS_FILE,
    is_intact,
)
from metabolismgraph.runs.folder import RunFolder
from metabolismgraph.runs.train_process import NO_ROOM, has_strategy_files
from metabolismgraph.runs.training import sealed_training
from metabolismgraph.runs.training_settings import write_settings
from metabolismgraph.sandbox.protocol import read_events

_SUFFIXES = (".safetensors", ".json")  # in the order in which a copy becomes valid
_OF_CHECKPOINT = ("hidden_dim_sub", "n_layers_sub")  # with others, the checkpoint cannot be read
_NOT_MADE = "not_made"  # file in the place of residuals that cannot be made


@contextmanager
def residuals_at_hand(folder: RunFolder, residuals: Path | None) -> Iterator[None]:
    """While Phase 2 is trained, its folder holds a copy of the residuals, if its strategies use them.

    Without a copy, training computes its own: a failure here does not fail the run.

    Args:
        folder: of a run that has a base.
        residuals: folder of those of all runs; None: they are not shared.
    """
    _remove_copy(folder)  # of a run that was killed
    training = folder.config.training
    if residuals is not None and training.homeostasis_training and not is_intact(folder.training / PHASE2_FILE):
        with contextlib.suppress(InputError, OSError):
            if not has_strategy_files(folder.training):
                chosen(training)
            strategy = orthogonalised_in(training)
            if strategy is not None:
                _copy(residuals / _digest(folder, strategy), folder, strategy)
    try:
        yield
    finally:
        _remove_copy(folder)


def _copy(place: Path, folder: RunFolder, strategy: Orthogonalised) -> None:
    """Copy residuals into the folder of a training, made first if no earlier run did.

    Args:
        place: their folder.
    """
    with alone(place.with_suffix(".lock")):
        kept = place / RESIDUALS_FILE
        intact = is_intact(kept)
        if not (intact or (place / _NOT_MADE).exists()):
            _make(place, folder, strategy)
            intact = is_intact(kept)
        if intact:
            for suffix in _SUFFIXES:
                content = kept.with_suffix(suffix).read_bytes()
                write_bytes((folder.training / RESIDUALS_FILE).with_suffix(suffix), content)


def _make(place: Path, folder: RunFolder, strategy: Orthogonalised) -> None:
    """Make residuals in a folder of their own."""
    remove_folder(place)
    place.mkdir(parents=True, exist_ok=True)
    graph_model, training = folder.config.graph_model, folder.config.training
    only = {"strategies": ({"orthogonalised": strategy.model_dump()},), "joint_refinement": False}
    write_settings(place, graph_model, training.model_copy(update=only), only_residuals=True)
    with sealed_training(place, folder.given) as process:
        for _ in read_events(process.stdout):
            pass
        code = process.wait()
    # A lost process, or a full disk, tells nothing about the next attempt.
    if not (code in {0, NO_ROOM} or killed_from_outside(code)):
        write_bytes(place / _NOT_MADE, b"")


def _digest(folder: RunFolder, strategy: Orthogonalised) -> str:
    """Of everything that residuals depend on."""
    graph_model, training = folder.config.graph_model, folder.config.training
    # These files hold the checksums of the arrays beside them.
    files = [(folder.given / name).with_suffix(".json") for name in (OBSERVATIONS_FILE, PHASE1_FILE)]
    depends_on = [
        metadata.version("metabolismgraph"),
        *(hashlib.sha256(path.read_bytes()).hexdigest() for path in files),
        training.held_out,
        strategy.model_dump(mode="json"),
        *(getattr(graph_model, name) for name in (*MODEL_SETTINGS, *_OF_CHECKPOINT)),
        *(getattr(training, name) for name in TRAINING_SETTINGS),
    ]
    return hashlib.sha256(json.dumps(depends_on).encode()).hexdigest()


def _remove_copy(folder: RunFolder) -> None:
    """Remove a copy, an unfinished one too, or whatever a training has put in its place."""
    copy = folder.training / RESIDUALS_FILE
    for path in (*map(copy.with_suffix, _SUFFIXES), *folder.training.glob(f".{copy.name}.*.part")):
        with contextlib.suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                remove_folder(path)
            else:
                path.unlink(missing_ok=True)
