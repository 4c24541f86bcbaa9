"""Training in a separate process: `python -P -m metabolismgraph.runs.train_process FOLDER [SHARED] [--kernel]`.

With the option --kernel it does not train where the kernel does not restrict it.

The folder holds the observations, settings.json (sections `graph_model` and `training`) and strategy files
(`strategies/NAME.py`), and may hold residuals (`shared_residuals.py`). It holds neither truth nor simulation nor its
seed. Checkpoints are written to it. If a folder SHARED is given, observations and the Phase 1 checkpoint are read from
there, and nothing is written to it. The process has no access to other files but its libraries
(`sandbox/audit_hook.py`). Progress goes to standard output (`sandbox/protocol.py`).
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

from metabolismgraph.garbage import collect_seldom, skip_last_collection
from metabolismgraph.sandbox import audit_hook
from metabolismgraph.sandbox.protocol import write_event

_KERNEL = "--kernel"
UNGUARDED, NO_ROOM = os.EX_UNAVAILABLE, os.EX_IOERR
_LARGEST_FILE = 1 << 32  # bytes; what training writes is read into memory by others


def command(folder: Path, shared: Path | None = None, *, kernel: bool = False) -> list[str]:
    """Program and arguments of a training, see `main`."""
    # -P: a file of the user must not replace a module of the same name.
    places = [str(place) for place in (folder, shared) if place is not None]
    return [sys.executable, "-P", "-m", "metabolismgraph.runs.train_process", *places, *([_KERNEL] if kernel else [])]


def has_strategy_files(folder: Path) -> bool:
    """Whether a training in this folder executes strategy files."""
    return any((folder / "strategies").glob("*.py"))


def main(folder: Path, shared: Path | None = None, *, kernel: bool = False) -> int:
    """Train; returns the exit code.

    Args:
        kernel: whether to train only where the kernel restricts this process.

    Returns:
        0; 2 where the input cannot be used; `audit_hook.LEAK` after an attempt to leave the folder; `UNGUARDED` where
        the kernel is required and does not restrict this process; `NO_ROOM` if the disk is full.
    """
    collect_seldom()
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    if most == resource.RLIM_INFINITY or most > _LARGEST_FILE:
        resource.setrlimit(resource.RLIMIT_FSIZE, (_LARGEST_FILE, _LARGEST_FILE))
    # Libraries may open files that nobody has listed; without strategy files, what the kernel refuses is not reported.
    held_by_kernel = audit_hook.seal(folder, shared, watched=has_strategy_files(folder))
    # Everything heavy is imported inside the sandbox.
    import jax  # noqa: PLC0415

    from metabolismgraph.errors import InputError  # noqa: PLC0415
    from metabolismgraph.files import is_fault_of_disk  # noqa: PLC0415
    from metabolismgraph.runs.train_folder import train_folder  # noqa: PLC0415

    # Libraries read settings, from files too, when they look for devices: before the sandbox is active.
    jax.devices()
    # For a GPU, XLA may start compilers.
    calls_filtered = audit_hook.activate(programs=jax.default_backend() != "cpu")
    write_event(sys.stdout, event="sealed", kernel=held_by_kernel, calls=calls_filtered)
    if kernel and not held_by_kernel:
        return UNGUARDED
    try:
        train_folder(folder, shared)
    except InputError as error:
        write_event(sys.stdout, event="refused", message=str(error))
        return 2
    except OSError as error:
        if not is_fault_of_disk(error):
            raise
        sys.stderr.write(f"{error.strerror}\n")
        return NO_ROOM
    skip_last_collection()
    return 0


if __name__ == "__main__":
    places = [Path(argument) for argument in sys.argv[1:] if argument != _KERNEL]
    sys.exit(main(*places, kernel=_KERNEL in sys.argv))
