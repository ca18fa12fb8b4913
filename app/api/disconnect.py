"""Sees a client close its connection while its request waits or is being decoded."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from app.engine.cancellation import Cancellation


class ClientWatch:
    """Watches the sockets of all requests in progress from one thread.

    Request threads call `watching`; the watch's own thread sleeps in epoll and cancels the
    request whose peer has shut its side of the connection. The lock guards the table. An event
    may be older than the request that now has its socket's number, so the socket is asked once
    more under the lock.

    HTTP asks nothing that makes a client close its sending side early; proxies that do close it
    (HAProxy's `abortonclose`) mean the same by it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: dict[int, Cancellation] = {}
        self._epoll = select.epoll()
        threading.Thread(target=self._watch, name="client-watch", daemon=True).start()

    @contextmanager
    def watching(self, connection: socket.socket | None) -> Iterator[Cancellation]:
        """A cancellation that follows the connection for the length of the block.

        Args:
            connection: the request's socket; None where the server shows none.
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
    """Whether the peer of this socket has shut its side, as of now."""
    poll = select.poll()
    poll.register(number, select.POLLRDHUP)
    return bool(poll.poll(0))
