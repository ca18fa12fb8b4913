"""A server whose answers are known beforehand, for tests of the load tests' arithmetic.

It counts what it does itself and tells it as HAProxy does, on the same port.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
WAV_BYTES_PER_S = 32_000


@dataclass
class Known:
    """What the server does, and what it has seen.

    Args:
        answer_s: how long a transcript takes.
        slots: more requests at once are refused.
        refuse: the first so many requests are refused.
        lie: requests that its counters have too many.
    """

    answer_s: float = 0.05
    slots: int = 100
    refuse: int = 0
    lie: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    prompts: list[str] = field(default_factory=list)
    audio_s: list[float] = field(default_factory=list)
    arrived_s: list[float] = field(default_factory=list)
    url: str = ""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    @property
    def requests(self) -> int:
        return sum(self.statuses.values())

    @contextmanager
    def serving(self) -> Iterator[Known]:
        """Answer on a free port until the block ends."""

        class Handler(BaseHTTPRequestHandler):
            known = self

            def log_message(self, *arguments: object) -> None:
                pass

            def do_GET(self) -> None:
                text = self.known.metrics() if self.path == "/metrics" else ""
                self.answer(200, text)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, text = self.known.transcribe(body)
                self.answer(status, text)

            def answer(self, status: int, text: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text.encode())))
                if status == 503:
                    self.send_header("Retry-After", "1")
                self.end_headers()
                self.wfile.write(text.encode())

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            self.url = f"http://127.0.0.1:{server.server_address[1]}"
            thread = threading.Thread(target=server.serve_forever, args=(0.05,))
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()

    def transcribe(self, body: bytes) -> tuple[int, str]:
        """A word for each second of audio, the same ones every time."""
        with self._lock:
            self.arrived_s.append(time.monotonic())
            refused = len(self.arrived_s) <= self.refuse or self._inside >= self.slots
            self.statuses[503 if refused else 200] += 1
            self._inside += not refused
        if refused:
            return 503, json.dumps({"error": {"code": "server_busy"}})
        time.sleep(self.answer_s)
        seconds = round((len(body) - body.index(b"RIFF")) / WAV_BYTES_PER_S, 1)
        with self._lock:
            self._inside -= 1
            self.audio_s.append(seconds)
            if b'name="prompt"' in body:
                told = body.split(b'name="prompt"\r\n\r\n', 1)[1]
                self.prompts.append(told.split(b"\r\n", 1)[0].decode())
        words = [
            {"word": WORDS[n % len(WORDS)], "start": float(n), "end": n + 0.9}
            for n in range(int(seconds))
        ]
        return 200, json.dumps({"text": "…", "language": "en", "words": words, "segments": []})

    def metrics(self) -> str:
        """Its counts, in the form of HAProxy's exporter."""
        ok, refused = self.statuses[200], self.statuses[503]
        return (
            f'haproxy_frontend_http_requests_total{{proxy="api"}} {ok + refused + self.lie}\n'
            f'haproxy_frontend_http_responses_total{{proxy="api",code="2xx"}} {ok}\n'
            f'haproxy_frontend_http_responses_total{{proxy="api",code="5xx"}} {refused}\n'
        )
