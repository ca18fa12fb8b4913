"""Format the log: one line per event, with its worker and request.

Lines are JSON objects for machines, or text for a terminal. An event's data (a request's tier,
seconds of audio, stages) is logged as fields. Neither messages nor fields ever contain transcribed
text or a key.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime

request_id: ContextVar[str] = ContextVar("request_id", default="-")

QUERY = re.compile(r"[?#]\S*")
Fields = Mapping[str, str | int | float]


class RequestFilter(logging.Filter):
    """A filter that adds the id of the current thread's request to each record."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        return True


def with_fields(fields: Fields) -> dict[str, Fields]:
    """Return the `extra` argument that adds fields to a record."""
    return {"fields": fields}


def fields_of(record: logging.LogRecord) -> Fields:
    """Return a record's fields."""
    fields: Fields = getattr(record, "fields", {})
    return fields


class RequestsUnquoted(logging.Filter):
    """A filter that removes quoted requests from Gunicorn's messages: a malformed line or header,
    or a URL's query, may contain a key."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if message.startswith("Invalid request from "):
            message = message.partition(": ")[0]
        elif message.startswith("Error handling request "):
            message = QUERY.sub("", message)
        else:
            return True
        record.msg, record.args = message, ()
        return True


class JsonFormatter(logging.Formatter):
    """Formatter to a JSON object: time, level, worker, request, logger, message, fields."""

    def __init__(self, worker_id: int) -> None:
        super().__init__()
        self._worker_id = worker_id

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "worker": self._worker_id,
            "request": getattr(record, "request_id", "-"),
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """Formatter to a line of text that ends with the fields."""

    def __init__(self, worker_id: int) -> None:
        super().__init__(
            f"%(asctime)s %(levelname)s worker={worker_id} request=%(request_id)s "
            "%(name)s: %(message)s"
        )

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        fields = "".join(f" {name}={value}" for name, value in fields_of(record).items())
        return super().formatMessage(record) + fields


def configure(worker_id: int, level: str, form: str) -> None:
    """Send this process's log to standard output, where Supervisor collects it.

    Args:
        form: `json`, `text`, or `auto`: text when standard output is a terminal.
    """
    text = form == "text" or (form == "auto" and sys.stdout.isatty())
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(RequestFilter())
    handler.setFormatter(TextFormatter(worker_id) if text else JsonFormatter(worker_id))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # Gunicorn's messages take the same format; its other handlers record a worker's last error.
    gunicorn = logging.getLogger("gunicorn.error")
    gunicorn.handlers = [
        handler for handler in gunicorn.handlers if not isinstance(handler, logging.StreamHandler)
    ]
    gunicorn.propagate = True
    gunicorn.filters = [RequestsUnquoted()]
    # These libraries log file paths and audio durations at INFO.
    for name in ("faster_whisper", "python_multipart", "httpx", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.WARNING)
