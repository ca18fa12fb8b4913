"""Signal that a request's answer is no longer wanted."""

from __future__ import annotations

import threading
from collections.abc import Callable

from app.errors import ClientDisconnected


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

    def check(self) -> None:
        """Raise `ClientDisconnected` if the request is cancelled."""
        if self._cancelled:
            raise ClientDisconnected("The client closed the connection.")
