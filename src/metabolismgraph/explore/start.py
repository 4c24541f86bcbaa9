"""The start of an exploration: its folder, and the first line of its journal."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from metabolismgraph.config import Config
from metabolismgraph.errors import InputError
from metabolismgraph.explore.events import Opened
from metabolismgraph.explore.folder import ExplorationFolder
from metabolismgraph.homeostasis.strategies import chosen


def prepared(config: Config) -> Config:
    """The initial configuration of an exploration, with the section `exploration` applied to `training`.

    Raises:
        InputError: Phase 2 is switched off, or its strategies make no sense.
    """
    if not config.training.homeostasis_training:
        raise InputError("training.homeostasis_training is false: there is nothing to explore; set it to true")
    chosen(config.training)
    settings = config.exploration
    return config.replace(
        {
            "training.skip_phase1": True,
            "training.n_epochs": settings.n_epochs,
            "training.data_augmentation_loop": settings.data_augmentation_loop,
        }
    )


def check_free(path: Path) -> None:
    """Check that a new exploration may begin in a folder.

    Raises:
        InputError: the folder holds an exploration or other files.
    """
    journal = ExplorationFolder(path).journal
    # A journal without a line is from a crash before the first event.
    if journal.path.exists() and journal.read():
        raise InputError(f"{path}: holds an exploration; continue it with `explore resume`, or choose another --out")
    ours = ("base", "journal.")  # before an exploration starts: its base, and a journal without a line
    if path.exists() and (not path.is_dir() or any(not entry.name.startswith(ours) for entry in path.iterdir())):
        raise InputError(f"{path}: not empty, and holds no exploration; choose another --out")


def opening(config: Config, *, proposer: str, data: str) -> Opened:
    """The first event of an exploration.

    Args:
        config: a result of `prepared`.
        data: description of the origin of the data.
    """
    primary, price = config.exploration.primary, None
    if proposer == "llm":
        from metabolismgraph.explore.proposers.llm import price_per_million  # noqa: PLC0415 (only with its extra)

        price = price_per_million(config.exploration)
    return Opened(
        name=config.dataset or "exploration",
        config=config.model_dump(mode="json"),
        primary=primary,
        oracle=primary == "avg_slope_ratio",
        proposer=proposer,
        version=metadata.version("metabolismgraph"),
        data=data,
        price=price,
    )


def open_exploration(path: Path, config: Config, *, proposer: str, data: str) -> ExplorationFolder:
    """Start an exploration whose base run is finished.

    Args:
        config, proposer, data: as for `opening`.

    Raises:
        InputError: the folder cannot be written.
    """
    folder = ExplorationFolder(path)
    with folder.journal.held():
        folder.journal.append(opening(config, proposer=proposer, data=data))
    return folder
