"""The job of `check.check_cluster`: it writes what it finds on its computer, then waits for the given seconds."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from importlib import metadata
from pathlib import Path

from metabolismgraph.files import write_bytes
from metabolismgraph.processes import cores

OUTCOME = "outcome.json"


def main(folder: Path, seconds: float) -> None:
    """Write the outcome."""
    import jax  # noqa: PLC0415 (what a training needs first)

    found = {
        "computer": platform.node(),
        "python": platform.python_version(),
        "metabolismgraph": metadata.version("metabolismgraph"),
        "devices": ", ".join(sorted({str(device.device_kind) for device in jax.devices()})),
        "cores": len(cores()),
        "threads": os.environ.get("OMP_NUM_THREADS"),
    }
    write_bytes(folder / OUTCOME, json.dumps(found).encode())
    time.sleep(seconds)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
