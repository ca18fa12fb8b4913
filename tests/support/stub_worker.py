"""A worker without a model, in this process: it answers when a test says so.

It speaks to the balancer as a worker does (health with its headers, keys and their limits, seconds
of audio), so that what the balancer does by itself is tested in milliseconds. What a worker does is
tested on real ones.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from app.api.worker_stats import HEADER
from app.errors import NOTHING_HERE, NotFound, ServiceError
from tests.support.client import TRANSCRIPTIONS

RUNS = "version=1.10 model=large-v3"
TEXT = "Go forward ten meters."
LIMIT_S = 60  # no test waits longer
WAV_BYTES_PER_S = 32_000


@dataclass
class Reply:
    """What a transcription is answered with.

    Attributes:
        status: of the answer; 0 closes the connection without one.
        headers: beyond those of every answer.
        body: JSON.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=lambda: {"text": TEXT})


@dataclass
class Held:
    """A transcription that is not answered until the test releases it."""

    _arrived: threading.Event = field(default_factory=threading.Event)
    _released: threading.Event = field(default_factory=threading.Event)

    def wait(self) -> None:
        """Called by the test: return once the request is inside the worker."""
        assert self._arrived.wait(LIMIT_S), "no request came"

    def release(self) -> None:
        """Called by the test: let the worker answer."""
        self._released.set()

    def hold(self) -> None:
        """Called by the worker, with a request inside."""
        self._arrived.set()
        assert self._released.wait(LIMIT_S)


class StubWorker:
    """One worker on a port of the loopback address.

    Requests come on threads of the server; a test changes the attributes between them.

    Attributes:
        reply: the answer to transcriptions.
        answer: returns the answer to a transcription's body; without it, `reply`.
        delay_s: how long each transcription takes.
        gate: transcriptions wait while it is not set.
        reason: why the worker is unhealthy; empty: it is healthy.
        heard: each transcription's headers, in small letters, in the order of arrival.
        inside: transcriptions in progress.
        most_inside: the most of them at one time.
    """

    def __init__(self, number: int, port: int) -> None:
        self.number = number
        self.port = port
        self.reply = Reply()
        self.answer: Callable[[bytes], Reply] = lambda body: self.reply
        self.delay_s = 0.0
        self.gate = threading.Event()
        self.gate.set()
        self.reason = ""
        self.heard: list[dict[str, str]] = []
        self.inside = 0
        self.most_inside = 0
        self.audio_s = 0.0
        self._to_hold: list[Held] = []
        self._lock = threading.Lock()

    def hold(self) -> Held:
        """Hold the next transcription that comes."""
        held = Held()
        with self._lock:
            self._to_hold.append(held)
        return held

    @contextlib.contextmanager
    def serving(self) -> Iterator[StubWorker]:
        """Listen until the block ends."""
        self._start()
        try:
            yield self
        finally:
            self._stop()

    def _start(self) -> None:
        handler = type("Handler", (Handler,), {"worker": self})
        self._server = Server(("127.0.0.1", self.port), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def _stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.cut_off()

    @contextlib.contextmanager
    def killed(self) -> Iterator[None]:
        """Be as a process that was killed until the block ends: connections are cut off, new ones
        refused."""
        self._stop()
        try:
            yield
        finally:
            self._start()

    def health(self) -> Reply:
        """The answer to a health check."""
        figures = f"device=cpu calls=1 busy={self.audio_s / 10:.1f} audio={self.audio_s:.1f}"
        headers = {
            "X-Worker": str(self.number),
            HEADER: f"{figures} took={self.audio_s / 5:.1f} {RUNS}",
        }
        if self.reason:
            return Reply(503, headers | {"X-Reason": self.reason}, {"reason": self.reason})
        return Reply(200, headers, {"status": "healthy"})

    def transcribe(self, headers: dict[str, str], body: bytes) -> Reply:
        """The answer to a transcription, once it may be given."""
        with self._lock:
            self.heard.append(headers)
        seconds = max(0, len(body) - body.find(b"RIFF")) / WAV_BYTES_PER_S
        with self._slot() as held:
            if held:
                held.hold()
            assert self.gate.wait(LIMIT_S)
            time.sleep(self.delay_s)
        reply = self.answer(body)
        if reply.status == 200:
            with self._lock:
                self.audio_s += seconds
        return reply

    @contextlib.contextmanager
    def _slot(self) -> Iterator[Held | None]:
        """Count a transcription in, and say whether it is to be held."""
        with self._lock:
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
            held = self._to_hold.pop(0) if self._to_hold else None
        try:
            yield held
        finally:
            with self._lock:
                self.inside -= 1


def refusal(error: ServiceError) -> Reply:
    """As app/main.py answers an error of the service's own."""
    return Reply(error.status, {"X-Error": error.code or error.type}, error.body())


class Server(ThreadingHTTPServer):
    """Whose threads a test does not wait for, and whose connections it can cut off."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._connections: set[socket.socket] = set()

    def cut_off(self) -> None:
        """Close the port and every connection, as the kernel does for a killed process."""
        self.server_close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Called for each new connection."""
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Called when a connection is done."""
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that left is no error here."""


class Handler(BaseHTTPRequestHandler):
    """Reads requests, plain and chunked, and writes what the worker says."""

    worker: StubWorker
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._body()
        self._write(
            self.worker.health() if self.path == "/health" else refusal(NotFound(NOTHING_HERE))
        )

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        body = self._body()
        if self.path != TRANSCRIPTIONS:
            return self._write(refusal(NotFound(NOTHING_HERE)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        return self._write(self.worker.transcribe(headers, body))

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _write(self, reply: Reply) -> None:
        self.close_connection = True
        if reply.status == 0:
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        body = json.dumps(reply.body).encode()
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
