"""The log's form: one line an event, with the worker and the request it belongs to."""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar

request_id: ContextVar[str] = ContextVar("request_id", default="-")


class RequestFilter(logging.Filter):
    """Gives every record the id of the request its thread is working for."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        return True


def configure(worker_id: int, level: str) -> None:
    """Send the log of this process to standard output, where Supervisor collects it."""
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(RequestFilter())
    handler.setFormatter(
        logging.Formatter(
            f"%(asctime)s %(levelname)s worker={worker_id} request=%(request_id)s "
            "%(name)s: %(message)s"
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # The libraries' own running commentary: paths of files, durations of audio.
    for name in ("faster_whisper", "python_multipart", "httpx", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.WARNING)
