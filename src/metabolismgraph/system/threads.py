"""One thread for calculations with many small matrices, whose threads would wait for one another longer than work."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import threadpoolctl

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

# A process that is started with this setting has one thread from the beginning.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
_SMALL = 128  # species, up to which a second thread of JAX costs half as much CPU time again and saves little


def single_thread() -> contextlib.AbstractContextManager[object]:
    """A context in which NumPy and SciPy use one thread.

    Example:
        >>> import numpy as np
        >>> with single_thread():
        ...     float(np.linalg.det(np.eye(3)))
        1.0
    """
    # A sealed process must not look up its libraries; it is started with one thread.
    if ONE_THREAD.items() <= os.environ.items():
        return contextlib.nullcontext()
    import scipy.linalg  # noqa: F401, PLC0415 - has a library of its own, which would not be limited if loaded later

    limits: contextlib.AbstractContextManager[object] = threadpoolctl.threadpool_limits(1, user_api="blas")
    return limits


def training_threads(n_species: int) -> dict[str, str]:
    """Variables of the environment of a training, which set its threads; the user's own NPROC stands.

    Example:
        >>> training_threads(10_000)
        {'OPENBLAS_NUM_THREADS': '1'}
    """
    small = n_species <= _SMALL and "NPROC" not in os.environ
    return ONE_THREAD | ({"NPROC": "1"} if small else {})


def in_single_thread(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """A function whose linear algebra uses one thread. On a busy machine, several take a multiple of the time."""

    @functools.wraps(function)
    def limited(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        with single_thread():
            return function(*args, **kwargs)

    return limited
