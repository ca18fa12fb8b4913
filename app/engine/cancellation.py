"""One request's knowledge that nobody waits for its answer any more."""

from __future__ import annotations

import threading
from collections.abc import Callable

from app.errors import ClientDisconnected


class Cancellation:
    """Set by the thread that watches the clients' connections, or by the request's own when
    what is left of its answer is no more wanted.

    The request's own thread asks `check` between steps; whoever waits on its behalf registers
    a callback to be woken. The lock guards both fields, so that a callback registered while
    `cancel` runs is still called.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = False
        self._callback: Callable[[], None] | None = None

    @property
    def cancelled(self) -> bool:
        """Whether the client has left."""
        return self._cancelled

    def cancel(self) -> None:
        """Tell whoever waits."""
        with self._lock:
            self._cancelled = True
            callback = self._callback
        if callback is not None:
            callback()

    def wake(self, callback: Callable[[], None] | None) -> None:
        """Have `callback` called on cancellation, at once if that has been; None: no more."""
        with self._lock:
            self._callback = callback
            cancelled = self._cancelled
        if cancelled and callback is not None:
            callback()

    def check(self) -> None:
        """Raise `ClientDisconnected` when the client has left."""
        if self._cancelled:
            raise ClientDisconnected("The client closed the connection.")
