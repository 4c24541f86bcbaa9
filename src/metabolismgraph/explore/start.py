"""The start of an exploration: its folder, and the first line of its journal."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from metabolismgraph.config import Config
from metabolismgraph.errors import InputError
from metabolismgraph.explore.events import Opened
from metabolismgraph.explore.folder import ExplorationFolder
from metabolismgraph.explore.search_space import DEFAULT, parse_space
from metabolismgraph.homeostasis.strategies import chosen


def prepared(config: Config) -> Config:
    """The initial configuration of an exploration: what its search space fixes, and section `exploration` applied.

    A simulated system is drawn with a secret key, unless the configuration says otherwise: a strategy file that draws
    the systems of some seeds does not find it.

    Raises:
        InputError: the search space cannot be read, a value is out of range, Phase 2 is switched off or its strategies
            make no sense.
    """
    space, _ = parse_space(config.exploration.space)
    space.primary(config.exploration.primary)
    if space.strategies:
        chosen(config.training)
    check_parts(config, config.exploration.replicates)
    if config.simulation.secret is None:
        config = config.replace({"simulation.secret": True})
    return space.prepare(config)


def check_parts(config: Config, replicates: int) -> None:
    """Check that so many replicates differ, where only the held-out part varies.

    Raises:
        InputError: the frames have too few parts.
    """
    # No data are known yet: of few frames `Observations.held_out`, whose parts have whole frames, may make more parts.
    parts = int(1 / config.training.held_out_fraction) if config.training.held_out_fraction else 1
    if config.exploration.replicates_vary == ("held_out",) and replicates > parts:
        raise InputError(
            f"exploration.replicates_vary is [held_out], but {replicates} replicates would share {parts} parts of the "
            "frames; ask for fewer, or add training_seed"
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
    # Before an exploration starts: its base, its explorer as a job, and a journal without a line.
    ours = ("base", "explorer", "journal.")
    if path.exists() and (not path.is_dir() or any(not entry.name.startswith(ours) for entry in path.iterdir())):
        raise InputError(f"{path}: not empty, and holds no exploration; choose another --out")


def opening(config: Config, *, proposer: str, data: str) -> Opened:
    """The first event of an exploration.

    Args:
        config: a result of `prepared`.
        data: description of the origin of the data.
    """
    space, content = parse_space(config.exploration.space)
    primary, price = space.primary(config.exploration.primary), None
    if proposer == "llm":
        from metabolismgraph.explore.proposers.llm import price_per_million  # noqa: PLC0415 (only with its extra)

        price = price_per_million(config.exploration)
    return Opened(
        name=config.dataset or "exploration",
        config=config.model_dump(mode="json"),
        primary=primary,
        oracle=space.uses_truth(primary),
        proposer=proposer,
        version=metadata.version("metabolismgraph"),
        data=data,
        space=None if config.exploration.space == DEFAULT else content,
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
