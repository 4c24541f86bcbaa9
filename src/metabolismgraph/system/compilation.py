"""Where JAX keeps compiled programs."""

from __future__ import annotations

import os
from typing import Any, cast

import jax


def read_cache_settings() -> None:
    """Read from the environment again what JAX has read when it was imported: the folder, and what is worth keeping."""
    update = cast("Any", jax.config.update)
    update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR"))
    if seconds := os.environ.get("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        update("jax_persistent_cache_min_compile_time_secs", float(seconds))
