"""Cancel a request when its client closes the connection while it waits or is decoded."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from app.engine.cancellation import Cancellation


class ClientWatch:
    """Watch over the sockets of all requests in progress, on one thread.

    Request threads call `watching`; the watch's own thread sleeps in epoll and cancels a request
    whose peer has shut down its side of the connection. The lock guards the table. An event may
    be older than the request that now has its file descriptor, so the socket is polled again
    under the lock.

    HTTP never requires a client to close its sending side early; proxies that close it (HAProxy's
    `abortonclose`) mean a disconnect too.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: dict[int, Cancellation] = {}
        self._epoll = select.epoll()
        threading.Thread(target=self._watch, name="client-watch", daemon=True).start()

    @contextmanager
    def watching(self, connection: socket.socket | None) -> Iterator[Cancellation]:
        """Yield a cancellation that is set if the client disconnects within the block.

        Args:
            connection: The request's socket; None if the server exposes none.
        """
        cancellation = Cancellation()
        if connection is None:
            yield cancellation
            return
        number = connection.fileno()
        with self._lock:
            self._watched[number] = cancellation
            self._epoll.register(number, select.EPOLLRDHUP | select.EPOLLONESHOT)
        try:
            yield cancellation
        finally:
            with self._lock:
                del self._watched[number]
                self._epoll.unregister(number)

    def _watch(self) -> None:
        while True:
            for number, _ in self._epoll.poll():
                with self._lock:
                    cancellation = self._watched.get(number)
                    if cancellation is not None and has_left(number):
                        cancellation.cancel()


def has_left(number: int) -> bool:
    """Return whether the peer of this socket has shut down its side by now."""
    poll = select.poll()
    poll.register(number, select.POLLRDHUP)
    return bool(poll.poll(0))
