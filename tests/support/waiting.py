"""Wait for what nothing announces."""

from __future__ import annotations

import time
from collections.abc import Callable

POLL_S = 0.05
LIMIT_S = 120.0  # generous: a wait that succeeds ends at once, however busy the machine is


def until(condition: Callable[[], object], limit_s: float = LIMIT_S) -> bool:
    """Poll a condition until it is true; return whether it became true within the limit."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(POLL_S)
    return bool(condition())
