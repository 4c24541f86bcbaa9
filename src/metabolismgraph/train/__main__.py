"""Training in a process of its own: `python -P -m metabolismgraph.train FOLDER`.

The folder holds the observations and settings.json (sections `graph_model` and `training`) and
nothing else that matters: no truth, no simulation, no seed of one. Checkpoints are written beside
them. The process can reach nothing outside it but its libraries (`guard.py`). Progress goes to
standard output, one JSON object per line.
"""

from __future__ import annotations

import sys
from pathlib import Path

from metabolismgraph.train import guard


def main(folder: Path) -> int:
    """Exit code: 0, 2 where the observations cannot be used, `guard.LEAK` after an attempt to leave the folder."""
    held_by_kernel = guard.seal(folder)
    # Everything heavy is imported behind the walls.
    import jax  # noqa: PLC0415

    from metabolismgraph.errors import InputError  # noqa: PLC0415
    from metabolismgraph.train.folder import say, train_folder  # noqa: PLC0415

    # Libraries read their settings, files among them, when they look for devices: let it be done now.
    jax.devices()
    guard.close()
    say(event="sealed", kernel=held_by_kernel)
    try:
        train_folder(folder)
    except InputError as error:
        say(event="refused", message=str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
