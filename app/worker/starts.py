"""Delay the restarts of a worker in a crash loop, and serve the reason on its port meanwhile, where
the balancer checks it.

A file carries the state from one process to the next: the number of starts since the worker was
last ready, and the first error of the process that ended.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from app.api.headers import MOST_LETTERS, header_text
from app.config import Config

FREE_STARTS = 2  # without back-off: one kill or one lack of memory is not a loop
LONGEST_S = 30.0


class Starts:
    """The starts of one worker since it was last ready.

    Args:
        path: the file that stores them. If it cannot be written, each start counts as the first.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def begin(self) -> float:
        """Count a start and return its back-off in seconds, which doubles each time."""
        known = self._read()
        count = int(known.get("starts", 0))
        self._write({"starts": count + 1, "before": known.get("words", "")})
        return 0.0 if count < FREE_STARTS else min(2.0 ** (count - FREE_STARTS), LONGEST_S)

    def ready(self) -> None:
        """Reset the count; the worker is ready."""
        self._path.unlink(missing_ok=True)

    def ended(self, words: str) -> None:
        """Store why a process ended: only its first error, not the errors that follow from it."""
        known = self._read()
        if "words" not in known:
            self._write({**known, "words": words[:MOST_LETTERS]})

    @classmethod
    def of(cls, config: Config) -> Starts:
        """Return the starts of the worker that the settings name."""
        return cls.at(Path(config.run_dir), f"worker_{config.worker_id}")

    @classmethod
    def at(cls, run_dir: Path, program: str) -> Starts:
        """Return the starts of a worker by the name of its Supervisor program.

        A deliberate restart resets them (`ready`): the worker may have been in a crash loop, and
        what follows is another release or a manual retry.
        """
        return cls(run_dir / f"{program}.starts")

    @property
    def reason(self) -> str:
        """Return why the worker waits, for its health check."""
        known = self._read()
        words = known.get("before") or "No error was logged; it may have been OOM-killed."
        count = int(known.get("starts", 1)) - 1
        times = "once" if count == 1 else f"{count} times"
        return f"The worker ended {times} before it was ready. {words}"

    def _read(self) -> dict[str, str | int]:
        try:
            known = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}

    def _write(self, known: dict[str, str | int]) -> None:
        try:
            self._path.write_text(json.dumps(known))
        except OSError:
            logging.getLogger(__name__).warning("%s cannot be written", self._path)


class LastErrorHandler(logging.Handler):
    """A log handler that stores the first error, in case the process ends because of it."""

    def __init__(self, starts: Starts, level: int) -> None:
        super().__init__(level)
        self._starts = starts

    def emit(self, record: logging.LogRecord) -> None:
        words = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            words = f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        self._starts.ended(" ".join(words.split()))


def wait_in_view(seconds: float, address: tuple[str, int], reason: str, worker_id: int) -> None:
    """Wait, and meanwhile answer on the worker's address with 503 and the reason.

    If another process listens on the address, only wait.
    """
    body = json.dumps(
        {"status": "unhealthy", "state": "broken", "worker_id": str(worker_id), "reason": reason}
    ).encode()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Worker", str(worker_id))
            self.send_header("X-Reason", header_text(reason))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    deadline = time.monotonic() + seconds
    try:
        server = HTTPServer(address, Answer)
    except OSError:
        time.sleep(seconds)
        return
    with server:
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        time.sleep(max(0.0, deadline - time.monotonic()))
        server.shutdown()
