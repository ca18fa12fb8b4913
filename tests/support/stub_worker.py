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
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from app.allowance import AUDIO, COUNTED, MAY
from app.api.middleware import BEARER
from app.errors import NotFound, OverLimit, ServiceError, Unauthorized
from app.figures import HEADER
from app.keys import Key, Keyring
from tests.support.client import TRANSCRIPTIONS

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
        delay_s: how long each transcription takes.
        gate: transcriptions wait while it is not set.
        reason: why the worker is unhealthy; empty: it is healthy.
        heard: each transcription's headers, in small letters, in the order of arrival.
        inside: transcriptions in progress.
        most_inside: the most of them at one time.
    """

    def __init__(self, number: int, port: int, keyring: Keyring, patience_s: int) -> None:
        self.number = number
        self.port = port
        self.reply = Reply()
        self.delay_s = 0.0
        self.gate = threading.Event()
        self.gate.set()
        self.reason = ""
        self.heard: list[dict[str, str]] = []
        self.inside = 0
        self.most_inside = 0
        self.audio_s = 0.0
        self._keyring = keyring
        self._patience_s = patience_s
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
        handler = type("Handler", (Handler,), {"worker": self})
        with Server(("127.0.0.1", self.port), handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.02,))
            thread.start()
            try:
                yield self
            finally:
                for held in self._to_hold:
                    held.release()
                server.shutdown()
                thread.join()

    def health(self) -> Reply:
        """The answer to a health check."""
        figures = f"device=cpu calls=1 busy={self.audio_s / 10:.1f} audio={self.audio_s:.1f}"
        headers = {"X-Worker": str(self.number), HEADER: f"{figures} took={self.audio_s / 5:.1f}"}
        if self.reason:
            return Reply(503, headers | {"X-Reason": self.reason}, {"reason": self.reason})
        return Reply(200, headers, {"status": "healthy"})

    def transcribe(self, headers: dict[str, str], body: bytes) -> Reply:
        """The answer to a transcription, once it may be given."""
        with self._lock:
            self.heard.append(headers)
        seconds = max(0, len(body) - body.find(b"RIFF")) / WAV_BYTES_PER_S
        about: dict[str, str] = {}
        try:
            if self._keyring.asks:
                key = self._key(headers)
                about = {MAY: key.allowance.header(key.name), AUDIO: f"{seconds:.2f}"}
                key.allowance.check(headers.get(COUNTED.lower(), ""), self._patience_s)
            with self._slot() as held:
                if held:
                    held.hold()
                assert self.gate.wait(LIMIT_S)
                time.sleep(self.delay_s)
        except ServiceError as error:
            answer = refusal(error)
            return replace(answer, headers=answer.headers | about)
        if self.reply.status == 200:
            with self._lock:
                self.audio_s += seconds
        return replace(self.reply, headers=self.reply.headers | about)

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

    def _key(self, headers: dict[str, str]) -> Key:
        """As app/api/middleware.py: whose key it is."""
        bearer = BEARER.fullmatch(headers.get("authorization", ""))
        key = self._keyring.find(bearer[1] if bearer else headers.get("x-api-key", ""))
        if key is None:
            raise Unauthorized("The API key is missing or wrong.")
        return key


def refusal(error: ServiceError) -> Reply:
    """As app/main.py answers an error of the service's own."""
    headers = {"X-Error": error.code or error.type}
    if isinstance(error, OverLimit):
        headers |= {"Retry-After": str(error.retry_after_s), "X-Refused": error.reason}
    return Reply(error.status, headers, error.body())


class Server(ThreadingHTTPServer):
    """Whose threads a test does not wait for."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that left is no error here."""


class Handler(BaseHTTPRequestHandler):
    """Reads requests, plain and chunked, and writes what the worker says."""

    worker: StubWorker
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._body()
        self._write(self.worker.health() if self.path == "/health" else refusal(NotFound("-")))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        body = self._body()
        if self.path != TRANSCRIPTIONS:
            return self._write(refusal(NotFound("-")))
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
