"""What a process asks of the Linux kernel for itself. Numbers: linux/prctl.h."""

from __future__ import annotations

import ctypes
import os
import signal

_PARENT_DEATH_SIGNAL, _NO_NEW_PRIVILEGES, _MAY_TRACE = 1, 38, 0x59616D61


def end_with(parent: int) -> None:
    """Be killed when the parent process ends.

    Args:
        parent: its number; if it has ended already, this process ends here.
    """
    _prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def renounce_privileges() -> None:
    """Programs of this process get no further privileges; without this, a process may not restrict itself."""
    _prctl(_NO_NEW_PRIVILEGES, 1)


def let_read(process: int) -> None:
    """Let another process read the memory of this one, where only parents may (the kernel's Yama)."""
    _prctl(_MAY_TRACE, process)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
