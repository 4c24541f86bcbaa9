"""Training in a process of its own: `python -P -m metabolismgraph.runs.train_process FOLDER [SHARED]`.

The folder holds the observations and settings.json (sections `graph_model` and `training`), strategies
of the run's own (`strategies/NAME.py`), and nothing else that matters: no truth, no simulation, no
seed of one. Checkpoints are written beside them. Observations and the Phase 1 checkpoint are those of
the folder SHARED where one is given, which is only read. The process can reach nothing else but its
libraries (`sandbox/audit_hook.py`). Progress goes to standard output (`sandbox/protocol.py`).
"""

from __future__ import annotations

import sys
from pathlib import Path

from metabolismgraph.sandbox import audit_hook
from metabolismgraph.sandbox.protocol import write_event


def main(folder: Path, shared: Path | None = None) -> int:
    """Exit code: 0, 2 where the input cannot be used, `audit_hook.LEAK` after an attempt to leave the folder."""
    held_by_kernel = audit_hook.seal(folder, shared)
    # Everything heavy is imported inside the sandbox.
    import jax  # noqa: PLC0415

    from metabolismgraph.errors import InputError  # noqa: PLC0415
    from metabolismgraph.runs.train_folder import train_folder  # noqa: PLC0415

    # Libraries read their settings, files among them, when they look for devices: let it be done now.
    jax.devices()
    audit_hook.activate()
    write_event(sys.stdout, event="sealed", kernel=held_by_kernel)
    try:
        train_folder(folder, shared)
    except InputError as error:
        write_event(sys.stdout, event="refused", message=str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:3])))
