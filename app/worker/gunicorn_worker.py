"""Gunicorn's worker, with the API's own answers to what is not HTTP, and limits in time."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any

from gunicorn.http import errors
from gunicorn.util import write_nonblock
from gunicorn.workers.gthread import ThreadWorker

from app.api.read_deadline import ReadDeadlines
from app.errors import NOT_HTTP, EngineFailed, InvalidHttp, ServiceError

HEAD_S = 10.0  # for a request's head, from its first byte
UNREAD_MS = 60_000  # a client that reads nothing of its answer

STATUS = {
    errors.LimitRequestLine: "414 URI Too Long",
    errors.LimitRequestHeaders: "431 Request Header Fields Too Large",
    errors.ExpectationFailed: "417 Expectation Failed",
}
FAULTS_OF_OURS = (errors.InvalidResponseHeader, errors.InvalidResponseHeaderName)


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Answers malformed HTTP in JSON, then closes the connection: where the next request on it
    would begin is unknown.

    A thread that reads a head, or writes an answer, is its client's for as long as the limits
    allow. Behind the balancer they are never met: it has heads whole, and answers it buffers.
    """

    def init_process(self) -> None:
        """After the fork, before the first connection."""
        self._slow_clients = ReadDeadlines()
        super().init_process()

    def handle(self, conn: Any) -> Any:
        """On a request's thread: read one request, then answer it."""
        conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MS)
        with self._slow_clients.within(conn.sock, HEAD_S) as conn.reading:
            return super().handle(conn)

    def handle_request(self, req: Any, conn: Any) -> Any:
        """The head is there; the body has limits of its own."""
        self._slow_clients.arrived(conn.reading)
        return super().handle_request(req, conn)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        """Called on the request's thread with what the parser, or the application, raised."""
        if isinstance(exc, errors.ParseException) and not isinstance(exc, FAULTS_OF_OURS):
            # The words of the error quote the request, which may hold a key.
            self.log.warning("Invalid request from ip=%s: %s", (addr or "?")[0], type(exc).__name__)
            status = STATUS.get(type(exc), "400 Bad Request")
            ours: ServiceError = InvalidHttp(NOT_HTTP)
        else:
            self.log.error("Error handling request", exc_info=exc)
            status = "500 Internal Server Error"
            ours = EngineFailed("The service failed; this is a bug.")
        body = json.dumps(ours.body())
        head = (
            f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        with contextlib.suppress(OSError):  # the client has left
            write_nonblock(client, (head + body).encode())
