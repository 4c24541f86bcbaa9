"""The folder of compiled programs between commands: in the user's cache, for this kind of machine."""

from __future__ import annotations

import hashlib
import os
import platform
from importlib import metadata
from pathlib import Path

_LEAST_SECONDS = "0.1"  # programs that compile faster are not worth a file
# Commands that compile. Explorations have their own folders, since strategy files may write to them; benchmarks measure
# compilation.
_COMPILING = {"run", "simulate", "fit", "evaluate"}


def keep_compiled_programs(command: str) -> None:
    """Make JAX keep compiled programs in the user's cache folder, unless the user has set another one.

    A second command on a system of the same size then needs no compilation. Set JAX_COMPILATION_CACHE_DIR to
    another folder, or JAX_ENABLE_COMPILATION_CACHE to false, to change that.

    Args:
        command: name of the command, such as `run`.
    """
    if command not in _COMPILING or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = base / "metabolismgraph" / f"jax-{metadata.version('jax')}-{_machine()}"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # the second: there is no home folder
        return  # without a writable folder, every command compiles its programs
    if not os.access(folder, os.W_OK):
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", _LEAST_SECONDS)


def _machine() -> str:
    """Digest of the features of this processor: another machine with the same home folder may lack them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(f"{platform.machine()} {platform.processor()} {features}".encode()).hexdigest()[:12]
