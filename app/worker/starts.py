"""How a worker's starts went: one that ends again and again before it is ready is slowed down,
and says why on its own port, where the balancer looks.

The file is the memory from one process to the next: a line for each start since the worker was
last ready, and the last words of whoever ended.
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

FREE_STARTS = 2  # without waiting: once killed, or once short of memory, is no loop
LONGEST_S = 30.0


class Starts:
    """The starts of one worker since it was last ready.

    Args:
        path: the file that remembers them. One that cannot be written remembers nothing: the
            worker then starts as if for the first time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def begin(self) -> float:
        """Count a start; returns the seconds to wait before it, twice as many each time."""
        known = self._read()
        count = int(known.get("starts", 0))
        self._write({"starts": count + 1, "before": known.get("words", "")})
        return 0.0 if count < FREE_STARTS else min(2.0 ** (count - FREE_STARTS), LONGEST_S)

    def ready(self) -> None:
        """The worker could transcribe: what was before counts no more."""
        self._path.unlink(missing_ok=True)

    def ended(self, words: str) -> None:
        """Remember why a process ended: the first trouble it had, not what follows from it."""
        known = self._read()
        if "words" not in known:
            self._write({**known, "words": words[:MOST_LETTERS]})

    @classmethod
    def of(cls, config: Config) -> Starts:
        """Those of the worker the settings name."""
        return cls.at(Path(config.run_dir), f"worker_{config.worker_id}")

    @classmethod
    def at(cls, run_dir: Path, program: str) -> Starts:
        """Those of a program of Supervisor's, which is a worker.

        Whoever restarts it on purpose lets it forget them (`ready`): it may have been in a crash
        loop, and what follows is another release, or another try of a person's.
        """
        return cls(run_dir / f"{program}.starts")

    @property
    def reason(self) -> str:
        """One sentence for whoever looks at a worker that waits."""
        known = self._read()
        words = known.get("before") or "It said nothing; it may have been killed for its memory."
        count = int(known.get("starts", 1)) - 1
        return f"The worker ended {count} times before it was ready. {words}"

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
    """Keeps the first trouble that is logged, in case the process ends of it."""

    def __init__(self, starts: Starts, level: int) -> None:
        super().__init__(level)
        self._starts = starts

    def emit(self, record: logging.LogRecord) -> None:
        words = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            words = f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        self._starts.ended(" ".join(words.split()))


def wait_in_view(seconds: float, address: tuple[str, int], reason: str, worker_id: int) -> None:
    """Wait, and meanwhile answer on a worker's address that it is not there and why.

    An address that somebody else has is left alone; the wait is the same.
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

    ends = time.monotonic() + seconds
    try:
        server = HTTPServer(address, Answer)
    except OSError:
        time.sleep(seconds)
        return
    with server:
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        time.sleep(max(0.0, ends - time.monotonic()))
        server.shutdown()
