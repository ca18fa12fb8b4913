"""Clients that send a byte now and then: their connections end, whatever they still say."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Reading:
    """One call to read, and whether it took too long."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self.connection = connection
        self.deadline = deadline
        self.late = False


class ReadDeadlines:
    """Ends reads that take too long, from one thread.

    A read blocks until it has all it was asked for, so a client that sends a byte now and then
    would hold its thread for days, whatever the socket's time-out. Request threads call `within`;
    the watch's own thread sleeps until the earliest deadline and shuts the receiving side of that
    connection, which the reader sees as the end of the body. The lock guards the table: what
    stands in it has an open socket.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readings: set[Reading] = set()
        threading.Thread(target=self._watch, name="slow-clients", daemon=True).start()

    @contextmanager
    def within(self, connection: socket.socket, seconds: float) -> Iterator[Reading]:
        """Bound what is read from this connection within the block."""
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
        """What was waited for is there; the rest of the block may take its time."""
        with self._changed:
            self._readings.discard(reading)

    def _watch(self) -> None:
        with self._changed:
            while True:
                self._changed.wait(self._shut_late_ones())

    def _shut_late_ones(self) -> float | None:
        """Shut those beyond their deadline; returns after how many seconds to look again."""
        now = time.monotonic()
        for reading in self._readings:
            if not reading.late and reading.deadline <= now:
                reading.late = True
                with contextlib.suppress(OSError):  # the client has left
                    reading.connection.shutdown(socket.SHUT_RD)
        # A shorter deadline than those known may come meanwhile, and nobody says so.
        return 1.0 if self._readings else None
