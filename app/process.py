"""Ask the kernel and the C library about a process: signals, children, core dumps, freed memory."""

from __future__ import annotations

import ctypes
import resource
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4  # from <sys/prctl.h>


def die_with_parent(death_signal: int) -> None:
    """Have the kernel signal this process when its parent exits for any reason."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal)


def children(pid: int) -> list[int]:
    """Return the pids of a process's children; none if it has ended."""
    try:
        words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [int(word) for word in words]


def leave_no_core() -> None:
    """Disable core dumps of this process and its children: they would contain speech."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def close_memory() -> None:
    """Protect this process's memory from its user's other processes and from dump collectors.

    A kernel that pipes core dumps to a program starts it regardless of the core size limit.
    """
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0)


def give_back_memory() -> None:
    """Return freed memory to the system; otherwise glibc keeps it, an arena for each thread.

    Takes a few milliseconds. C libraries other than glibc have no such call and need none.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
