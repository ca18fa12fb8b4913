"""What a process asks of its kernel and its C library."""

from __future__ import annotations

import ctypes

PR_SET_PDEATHSIG = 1  # from <sys/prctl.h>


def die_with_parent(death_signal: int) -> None:
    """Ask the kernel to send this process a signal when its parent ends, however it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal)


def give_back_memory() -> None:
    """Return freed memory to the system, which glibc keeps otherwise, a share for each thread.

    Costs some milliseconds. Other C libraries than glibc have no such call and need none.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
