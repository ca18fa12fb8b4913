"""Read a request body within a deadline for each piece; refuse slow or broken bodies."""

from __future__ import annotations

import socket
from typing import Protocol

from app.api.read_deadline import ReadDeadlines
from app.errors import InvalidRequest, RequestTimeout, ServiceError

PIECE_BYTES = 128 * 1024
PIECE_S = 10.0  # for each piece; a slower client loses its thread and its slot
BROKEN = "The body is broken or incomplete."


class Stream(Protocol):
    """Body stream of the WSGI server; `read` blocks until it has `size` bytes."""

    def read(self, size: int, /) -> bytes: ...


class RequestBody:
    """Body of one request, read on the request's thread.

    Args:
        stream: The server's stream.
        connection: The request's socket; None if the server exposes none.
        slow_clients: The watch that ends reads past their deadline.
    """

    def __init__(
        self, stream: Stream, connection: socket.socket | None, slow_clients: ReadDeadlines
    ) -> None:
        self._stream = stream
        self._connection = connection
        self._slow_clients = slow_clients
        self._failed = False

    def read(self, size: int = PIECE_BYTES, seconds: float = PIECE_S) -> bytes:
        """Return the next `size` bytes; fewer at the end of the body, empty after it.

        Raises:
            RequestTimeout: The bytes did not arrive in time.
            InvalidRequest: The body has malformed chunks or ends early.
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
        except Exception:  # the server's parser raises many classes for malformed bodies
            self._failed = True
            if self._connection is not None and reading.late:
                raise RequestTimeout("The request did not arrive in time.") from None
            raise InvalidRequest(BROKEN) from None
