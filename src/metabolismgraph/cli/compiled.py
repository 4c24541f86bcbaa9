"""Where compiled programs are kept between commands: a folder of the user's, for this kind of machine."""

from __future__ import annotations

import hashlib
import os
import platform
from importlib import metadata
from pathlib import Path

_LEAST_SECONDS = "0.1"  # programs that compile faster are not worth a file
# Explorations keep stores of their own, since code of strategy files writes to them; benchmarks measure compilation.
_WITHOUT = {"explore", "benchmark"}


def keep_compiled_programs(command: str) -> None:
    """Make JAX keep what it compiles in the user's cache folder, unless the user has decided otherwise.

    A second run of the same size then starts with programs that are compiled already. Set JAX_COMPILATION_CACHE_DIR to
    another folder, or JAX_ENABLE_COMPILATION_CACHE to false, to change that.

    Args:
        command: the first word behind `metabolismgraph`.
    """
    if command in _WITHOUT or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "metabolismgraph" / f"jax-{metadata.version('jax')}-{_machine()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # without a place to write to, everything is compiled again, as without this function
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", _LEAST_SECONDS)


def _machine() -> str:
    """Digest of what this processor can do: on a shared home folder, another may not run its programs."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(f"{platform.machine()} {platform.processor()} {features}".encode()).hexdigest()[:12]
