"""Signal that a request's answer is no longer wanted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from app.errors import ClientDisconnected

LOOK_EVERY_S = 0.2  # how often a request that waits on a condition looks for its cancellation


class Cancellation:
    """Cancellation flag of one request, with a callback for a thread that waits.

    Set by the thread that watches client connections, or by the request's own thread when it
    needs no more of the answer. The request's thread calls `check` between steps and registers a
    callback while it waits. The lock guards both fields, so that a callback registered while
    `cancel` runs is still called.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = False
        self._callback: Callable[[], None] | None = None

    @property
    def cancelled(self) -> bool:
        """Return whether the request is cancelled."""
        return self._cancelled

    def cancel(self) -> None:
        """Cancel the request and call the callback."""
        with self._lock:
            self._cancelled = True
            callback = self._callback
        if callback is not None:
            callback()

    def wake(self, callback: Callable[[], None] | None) -> None:
        """Call `callback` on cancellation, or now if already cancelled; None removes it."""
        with self._lock:
            self._callback = callback
            cancelled = self._cancelled
        if cancelled and callback is not None:
            callback()

    def wait_for(
        self, condition: threading.Condition, predicate: Callable[[], bool], limit_s: float
    ) -> bool:
        """Wait on a condition, whose lock the caller holds, and return whether it came true.

        Raises:
            ClientDisconnected: the request was cancelled during the wait.
        """
        deadline = time.monotonic() + limit_s
        while not condition.wait_for(predicate, min(LOOK_EVERY_S, deadline - time.monotonic())):
            self.check()
            if time.monotonic() >= deadline:
                return False
        return True

    def check(self) -> None:
        """Raise `ClientDisconnected` if the request is cancelled."""
        if self._cancelled:
            raise ClientDisconnected("The client closed the connection.")
