"""Extend Gunicorn's worker with JSON errors for malformed HTTP, and with time limits."""

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

HEAD_S = 10.0  # for a request's headers, from its first byte
UNREAD_MS = 60_000  # for a client that does not read its answer

STATUS = {
    errors.LimitRequestLine: "414 URI Too Long",
    errors.LimitRequestHeaders: "431 Request Header Fields Too Large",
    errors.ExpectationFailed: "417 Expectation Failed",
}
FAULTS_OF_OURS = (errors.InvalidResponseHeader, errors.InvalidResponseHeaderName)


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """A Gunicorn worker that answers malformed HTTP in JSON, then closes the connection, because
    the start of the next request is unknown.

    The limits bound how long a client can hold a thread that reads headers or writes an answer.
    They are never reached behind the balancer, which sends headers whole and buffers answers.
    """

    def init_process(self) -> None:
        """Initialize after the fork, before the first connection."""
        self._read_deadlines = ReadDeadlines()
        super().init_process()

    def handle(self, conn: Any) -> Any:
        """Read one request and answer it. Runs on the request's thread."""
        conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MS)
        with self._read_deadlines.within(conn.sock, HEAD_S) as conn.reading:
            return super().handle(conn)

    def handle_request(self, req: Any, conn: Any) -> Any:
        """End the headers' deadline and handle the request; the body has its own limits."""
        self._read_deadlines.arrived(conn.reading)
        return super().handle_request(req, conn)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        """Answer an exception of the parser or the application. Runs on the request's thread."""
        if isinstance(exc, errors.ParseException) and not isinstance(exc, FAULTS_OF_OURS):
            # The exception's text quotes the request, which may contain a key.
            self.log.warning("Invalid request from ip=%s: %s", (addr or "?")[0], type(exc).__name__)
            status = STATUS.get(type(exc), "400 Bad Request")
            error: ServiceError = InvalidHttp(NOT_HTTP)
        else:
            self.log.error("Error handling request", exc_info=exc)
            status = "500 Internal Server Error"
            error = EngineFailed("The service failed; this is a bug.")
        body = json.dumps(error.body())
        head = (
            f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        with contextlib.suppress(OSError):  # the client has disconnected
            write_nonblock(client, (head + body).encode())
