"""The outcome of a job for the explorer: one file with a checksum in its folder."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from metabolismgraph.explore.engines.base import Cause
from metabolismgraph.files import write_bytes
from metabolismgraph.text import one_line

OUTCOME = "outcome.json"
START = "started.txt"


class Outcome(NamedTuple):
    """The outcome of a job: metrics, or the reason of its failure.

    Attributes:
        cause: of the failure, see `events.Failed`.
    """

    metrics: dict[str, float | int | str | None] | None
    reason: str | None
    seconds: float
    cause: Cause = "idea"


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Write the outcome with its checksum, as a whole or not at all."""
    metrics = outcome.metrics and {name: _plain(value) for name, value in outcome.metrics.items()}
    content = {**outcome._asdict(), "metrics": metrics}
    write_bytes(folder / OUTCOME, json.dumps({**content, "sha256": _digest(content)}, indent=1).encode())


def write_start(folder: Path) -> None:
    """Write the current time: the run of the job begins."""
    write_bytes(folder / START, datetime.now(UTC).isoformat(timespec="milliseconds").encode())


def read_start(folder: Path) -> datetime | None:
    """When the run of a job began; None if it did not."""
    try:
        return datetime.fromisoformat((folder / START).read_text())
    except (OSError, ValueError):
        return None


def read_outcome(folder: Path) -> Outcome | None:
    """Read the outcome of a job; None without one.

    Raises:
        ValueError: the file is damaged; the message has one line.
    """
    try:
        content = json.loads((folder / OUTCOME).read_bytes())
        digest = content.pop("sha256")
        if _digest(content) != digest:
            raise ValueError("checksum")
        return Outcome(**content)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{OUTCOME} is damaged ({one_line(error, 80)})") from None
    except OSError as error:
        raise ValueError(f"{OUTCOME} cannot be read ({error.strerror})") from None


def _digest(content: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
