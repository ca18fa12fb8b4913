"""What a process asks of its kernel and its C library."""

from __future__ import annotations

import ctypes
import resource

PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4  # from <sys/prctl.h>


def die_with_parent(death_signal: int) -> None:
    """Ask the kernel to send this process a signal when its parent ends, however it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal)


def leave_no_core() -> None:
    """Have no core dump written of this process and of those it starts: it would hold what people
    said."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def close_memory() -> None:
    """Keep this process's memory from other processes of its user, and from programs that collect
    core dumps, which a kernel that pipes dumps to them starts whatever the limit is."""
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0)


def give_back_memory() -> None:
    """Return freed memory to the system, which glibc keeps otherwise, a share for each thread.

    Costs some milliseconds. Other C libraries than glibc have no such call and need none.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
