"""One thread for linear algebra with many small matrices, whose threads would wait for one another longer than work."""

from __future__ import annotations

from contextlib import AbstractContextManager

import numpy as np
import scipy.linalg  # noqa: F401 (it loads a library)
import threadpoolctl

# The libraries of NumPy and SciPy, which the imports above load. They are looked up now, since a sealed process cannot.
_CONTROLLER = threadpoolctl.ThreadpoolController()


def single_thread() -> AbstractContextManager[object]:
    """A context in which NumPy and SciPy use one thread.

    Example:
        >>> with single_thread():
        ...     float(np.linalg.det(np.eye(3)))
        1.0
    """
    limited: AbstractContextManager[object] = _CONTROLLER.limit(limits=1, user_api="blas")
    return limited
