"""One thread for linear algebra with many small matrices, whose threads would wait for one another longer than work."""

from __future__ import annotations

import contextlib
import os

import threadpoolctl

# A process that is started with this setting has one thread from the beginning.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}


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
    limits: contextlib.AbstractContextManager[object] = threadpoolctl.threadpool_limits(1, user_api="blas")
    return limits
