"""One Gunicorn worker with a real model, without Supervisor or balancer."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from app.config import ROOT
from app.process import children
from tests.support import models
from tests.support.client import TRANSCRIPTIONS, form
from tests.support.environment import bare_environment
from tests.support.http import HTTP
from tests.support.ports import ports
from tests.support.recordings import recording
from tests.support.waiting import until

AUSTEN = recording("austen_0890.wav").path.read_bytes()


class Worker:
    """One Gunicorn worker on a free port, without Supervisor or balancer."""

    def __init__(self, **settings: str) -> None:
        own = ports(1)
        self.url = f"http://127.0.0.1:{own['WORKER_BASE_PORT']}"
        self.port = int(own["WORKER_BASE_PORT"])
        model = {"MODEL_SIZE": str(models.tiny_en()), "MODEL_NAME": "tiny.en", "WORKERS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", "python:app.worker.gunicorn_conf",
             "app.main:get_app()"],
            cwd=ROOT, env=bare_environment() | own | model | settings,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.lines: list[str] = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            self.lines.extend(lines)

    def health(self) -> httpx.Response | None:
        try:
            return HTTP.get(self.url + "/health", timeout=60)
        except httpx.TransportError:
            return None

    def metric(self, name: str) -> float:
        text = HTTP.get(self.url + "/metrics", timeout=60).text
        values = [
            line for line in text.splitlines() if line.startswith((name + " ", name + "{"))
        ]  # fmt: skip
        return sum(float(line.rsplit(" ", 1)[1]) for line in values)

    def process_id(self) -> int:
        """The process that holds the model: Gunicorn's one child."""
        (pid,) = children(self.process.pid)
        return pid

    def post(self, content: bytes = AUSTEN, **fields: str) -> httpx.Response:
        return HTTP.post(
            self.url + TRANSCRIPTIONS,
            data={"model": "whisper-1"} | fields,
            files={"file": ("a.wav", content)},
            timeout=120,
        )

    def send(self, content: bytes, **fields: str) -> socket.socket:
        """Send a whole request and do not wait for its answer."""
        sent = form(content, {"model": "whisper-1"} | fields)
        body = sent.read()
        connection = socket.create_connection(("127.0.0.1", self.port))
        head = (
            f"POST {TRANSCRIPTIONS} HTTP/1.1\r\nHost: worker\r\nContent-Length: {len(body)}\r\n"
            f"Content-Type: {sent.headers['Content-Type']}\r\n\r\n"
        )
        connection.sendall(head.encode() + body)
        return connection


@contextmanager
def worker(ready: bool = True, **settings: str) -> Iterator[Worker]:
    started = Worker(**settings)
    try:
        if ready:
            assert until(lambda: (found := started.health()) and found.status_code == 200)
        yield started
    finally:
        if started.process.poll() is None:
            started.process.kill()
        started.process.wait(30)
        started.reader.join(30)
