"""Processes that do not outlive the one that started them."""

from __future__ import annotations

import ctypes

PR_SET_PDEATHSIG = 1  # from <sys/prctl.h>


def die_with_parent(death_signal: int) -> None:
    """Ask the kernel to send this process a signal when its parent ends, however it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal)
