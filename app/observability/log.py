"""The log's form: one line an event, with the worker and the request it belongs to.

Lines are JSON objects for machines, or text for a person at a terminal. What an event has beside
its sentence (a request's tier, seconds of audio, stages) is given as fields; neither ever holds
what was said or a key.
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
    """Gives every record the id of the request its thread is working for."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        return True


def with_fields(fields: Fields) -> dict[str, Fields]:
    """The `extra` argument that gives a record its fields."""
    return {"fields": fields}


def fields_of(record: logging.LogRecord) -> Fields:
    """What a record has beside its sentence."""
    fields: Fields = getattr(record, "fields", {})
    return fields


class RequestsUnquoted(logging.Filter):
    """Takes out of Gunicorn's words what they quote of a request: a malformed line or header may
    hold a key, and so may a URL's query."""

    def filter(self, record: logging.LogRecord) -> bool:
        said = record.getMessage()
        if said.startswith("Invalid request from "):
            said = said.partition(": ")[0]
        elif said.startswith("Error handling request "):
            said = QUERY.sub("", said)
        else:
            return True
        record.msg, record.args = said, ()
        return True


class JsonFormatter(logging.Formatter):
    """A record as one JSON object: time, level, worker, request, logger, message, its fields."""

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
    """A record as a line for a person, its fields at the end."""

    def __init__(self, worker_id: int) -> None:
        super().__init__(
            f"%(asctime)s %(levelname)s worker={worker_id} request=%(request_id)s "
            "%(name)s: %(message)s"
        )

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        fields = "".join(f" {name}={value}" for name, value in fields_of(record).items())
        return super().formatMessage(record) + fields


def configure(worker_id: int, level: str, form: str) -> None:
    """Send the log of this process to standard output, where Supervisor collects it.

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
    # Gunicorn's own words take the same form; its other handlers remember a worker's last words.
    gunicorn = logging.getLogger("gunicorn.error")
    gunicorn.handlers = [
        one for one in gunicorn.handlers if not isinstance(one, logging.StreamHandler)
    ]
    gunicorn.propagate = True
    gunicorn.filters = [RequestsUnquoted()]
    # The libraries' own running commentary: paths of files, durations of audio.
    for name in ("faster_whisper", "python_multipart", "httpx", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.WARNING)
