"""What every request passes: its id, its key, its line in the log."""

from __future__ import annotations

import contextlib
import hmac
import logging
import re
import time
import uuid
from hashlib import sha256
from pathlib import Path
from typing import Any

import falcon

from app import log
from app.api.events import EventStream
from app.api.spans import Spans
from app.config import Config
from app.errors import Unauthorized

logger = logging.getLogger(__name__)

SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
LEFTOVERS_S = 5.0
READ_BYTES = 64 * 1024
QUIET_PATHS = ("/health", "/metrics")  # asked every second


class RequestId:
    """Gives every request an id, the client's own when it is sane, and every answer the same."""

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        sent = req.get_header("X-Request-ID") or ""
        identifier = sent if SANE_ID.fullmatch(sent) else str(uuid.uuid4())
        log.request_id.set(identifier)
        req.context.spans = Spans()
        resp.set_header("X-Request-ID", identifier)

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: object, succeeded: bool
    ) -> None:
        spans: Spans = req.context.spans
        resp.set_headers(spans.headers())
        method, path, status = req.method, req.path, resp.status_code

        def ended() -> None:
            level = logging.DEBUG if path in QUIET_PATHS else logging.INFO
            fields = {"status": status, **spans.fields()}
            logger.log(level, "%s %s", method, path, extra=log.with_fields(fields))
            log.request_id.set("-")

        if isinstance(resp.stream, EventStream):
            resp.stream.when_closed(ended)
        else:
            ended()


class Leftovers:
    """Reads what is left of a body that was refused before its end.

    A connection that is closed while its client still sends is reset, and the answer is lost on
    the way; the client then sees no reason.
    """

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: object, succeeded: bool
    ) -> None:
        if req.method != "POST" or resp.status_code < 400:
            return
        ends = time.monotonic() + LEFTOVERS_S
        with contextlib.suppress(OSError, EOFError):  # the client has left
            while time.monotonic() < ends and req.stream.read(READ_BYTES):
                pass


class Keys:
    """Asks for a key before any of the body is read.

    Args:
        config: its keys and the file of further ones; neither: every request passes.
    """

    def __init__(self, config: Config) -> None:
        self._asks = config.asks_for_key
        # Hashed to one length, so that comparing tells nothing about a key, not even that.
        self._settings_keys = [digest(key) for key in config.keys]
        self._file = KeyFile(Path(config.api_keys_file)) if config.api_keys_file else None

    def process_resource(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        resource: object,
        params: dict[str, Any],
    ) -> None:
        if not self._asks or not getattr(resource, "needs_key", False):
            return
        sent = digest(sent_key(req))
        keys = self._settings_keys + (self._file.keys() if self._file else [])
        # All of them, so that the time does not tell which one it was.
        if not sum(hmac.compare_digest(sent, key) for key in keys):
            raise Unauthorized("The API key is missing or wrong.")


class KeyFile:
    """Keys that change while the worker runs: one a line, read anew when the file is another.

    Threads may ask at the same time: the pair of stamp and keys is replaced as one.

    Args:
        path: the file; one that cannot be read leaves the keys as they were.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[object, list[bytes]] = (None, [])

    def keys(self) -> list[bytes]:
        """The hashes of the file's keys."""
        stamp, keys = self._read
        try:
            found = self._path.stat()
            now = (found.st_mtime_ns, found.st_size, found.st_ino)
            if now != stamp:
                lines = self._path.read_text().splitlines()
                keys = [digest(line.strip()) for line in lines if line.strip()]
                self._read = (now, keys)
                logger.info("%s read: %d keys", self._path, len(keys))
        except OSError as error:
            if stamp != "unreadable":
                logger.error("API_KEYS_FILE: %s cannot be read (%s)", self._path, error.strerror)
                self._read = ("unreadable", keys)
        return keys


def sent_key(req: falcon.Request) -> str:
    """The key a client sent, as a bearer or in a header of its own; empty: none."""
    scheme, _, key = (req.get_header("Authorization") or "").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip()
    return (req.get_header("X-API-Key") or "").strip()


def digest(key: str) -> bytes:
    """A key's hash."""
    return sha256(key.encode()).digest()
