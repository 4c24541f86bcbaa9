"""settings.json in the folder of a training: what it is told of the configuration, and what it makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from metabolismgraph.config import GraphModel, Training
from metabolismgraph.errors import InputError
from metabolismgraph.files import write_bytes
from metabolismgraph.runs.checkpoint import RESIDUALS_FILE

_FILE, _MAKES = "settings.json", "makes"


def write_settings(folder: Path, graph_model: GraphModel, training: Training, *, only_residuals: bool = False) -> None:
    """Write the two sections of the configuration that training reads.

    Args:
        only_residuals: whether the training makes residuals for other runs, instead of Phase 2.
    """
    content: dict[str, Any] = {"graph_model": graph_model, "training": training}
    content = {name: section.model_dump(mode="json") for name, section in content.items()}
    if only_residuals:
        content[_MAKES] = RESIDUALS_FILE
    write_bytes(folder / _FILE, json.dumps(content, indent=1).encode())


def read_settings(folder: Path) -> tuple[GraphModel, Training]:
    """Read the two sections of the configuration.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        content = _read(folder)
        return GraphModel.model_validate(content["graph_model"]), Training.model_validate(content["training"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{folder / _FILE}: missing or damaged; start the run again with --overwrite") from None


def makes_only_residuals(folder: Path) -> bool:
    """Whether the training of this folder only makes residuals for other runs."""
    return bool(_read(folder).get(_MAKES) == RESIDUALS_FILE)


def _read(folder: Path) -> Any:
    return json.loads((folder / _FILE).read_bytes())
