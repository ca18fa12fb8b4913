"""A request's body as its client sends it: whole, or refused; never for as long as it likes."""

from __future__ import annotations

import socket
from typing import Protocol

from app.api.read_deadline import ReadDeadlines
from app.errors import InvalidRequest, RequestTimeout, ServiceError

PIECE_BYTES = 128 * 1024
PIECE_S = 10.0  # for each piece: a slower client gives up its thread and its slot
BROKEN = "The body is broken or incomplete."


class Stream(Protocol):
    """What the server gives to read a body from; it blocks until it has what is asked for."""

    def read(self, size: int, /) -> bytes: ...


class RequestBody:
    """The body of one request, read on its thread.

    Args:
        stream: the server's own.
        connection: the request's socket; None where the server shows none.
        slow_clients: who ends reads that take too long.
    """

    def __init__(
        self, stream: Stream, connection: socket.socket | None, slow_clients: ReadDeadlines
    ) -> None:
        self._stream = stream
        self._connection = connection
        self._slow_clients = slow_clients
        self._failed = False

    def read(self, size: int = PIECE_BYTES, seconds: float = PIECE_S) -> bytes:
        """The next bytes, `size` of them unless the body ends; empty: it has ended.

        Raises:
            RequestTimeout: they did not come in time.
            InvalidRequest: what came is no body: bad chunks, or an end before its time.
        """
        if self._failed:
            raise InvalidRequest(BROKEN)
        try:
            if self._connection is None:
                return self._stream.read(size)
            with self._slow_clients.within(self._connection, seconds) as reading:
                piece = self._stream.read(size)
            if reading.late:
                raise RequestTimeout("The request did not arrive in time.")
            return piece
        except ServiceError:
            self._failed = True
            raise
        except Exception:  # the server's parser has a class for each way to be malformed
            self._failed = True
            if self._connection is not None and reading.late:
                raise RequestTimeout("The request did not arrive in time.") from None
            raise InvalidRequest(BROKEN) from None
