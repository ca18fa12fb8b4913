"""Enforce read deadlines: disconnect clients that trickle data."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Reading:
    """One read with its deadline, and whether it is late."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self.connection = connection
        self.deadline = deadline
        self.late = False


class ReadDeadlines:
    """Watch that ends reads past their deadline, on one thread.

    A read blocks until it has every requested byte, so a client that trickles data would hold its
    thread for days, whatever the socket's timeout. Request threads call `within`; the watch's own
    thread checks every second and shuts down the receiving side of a late connection, which the
    reader sees as the end of the body. The lock guards the table, whose sockets are all open.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readings: set[Reading] = set()
        threading.Thread(target=self._watch, name="slow-clients", daemon=True).start()

    @contextmanager
    def within(self, connection: socket.socket, seconds: float) -> Iterator[Reading]:
        """Enforce a deadline on reads from this connection within the block."""
        reading = Reading(connection, time.monotonic() + seconds)
        with self._changed:
            self._readings.add(reading)
            if len(self._readings) == 1:
                self._changed.notify()
        try:
            yield reading
        finally:
            with self._changed:
                self._readings.discard(reading)

    def arrived(self, reading: Reading) -> None:
        """Lift the deadline: the data has arrived, and the rest of the block is not limited."""
        with self._changed:
            self._readings.discard(reading)

    def _watch(self) -> None:
        with self._changed:
            while True:
                self._changed.wait(self._shut_late_ones())

    def _shut_late_ones(self) -> float | None:
        """Shut down late connections; return the seconds until the next check."""
        now = time.monotonic()
        for reading in self._readings:
            if not reading.late and reading.deadline <= now:
                reading.late = True
                with contextlib.suppress(OSError):  # the client has disconnected
                    reading.connection.shutdown(socket.SHUT_RD)
        # An earlier deadline may be added meanwhile without a notification.
        return 1.0 if self._readings else None
