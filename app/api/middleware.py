"""What every request passes: its id, its key, its line in the log."""

from __future__ import annotations

import hmac
import logging
import re
import time
import uuid
from hashlib import sha256
from typing import Any

import falcon

from app import log
from app.config import Config
from app.errors import Unauthorized

logger = logging.getLogger(__name__)

SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
QUIET_PATHS = ("/health", "/metrics")  # asked every second


class RequestId:
    """Gives every request an id, the client's own when it is sane, and every answer the same."""

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        sent = req.get_header("X-Request-ID") or ""
        identifier = sent if SANE_ID.fullmatch(sent) else str(uuid.uuid4())
        log.request_id.set(identifier)
        req.context.began = time.monotonic()
        resp.set_header("X-Request-ID", identifier)

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: object, succeeded: bool
    ) -> None:
        elapsed_ms = round((time.monotonic() - req.context.began) * 1000)
        level = logging.DEBUG if req.path in QUIET_PATHS else logging.INFO
        fields: log.Fields = {
            "status": resp.status_code,
            "elapsed_ms": elapsed_ms,
            **getattr(req.context, "spans", {}),
        }
        logger.log(level, "%s %s", req.method, req.path, extra=log.with_fields(fields))
        log.request_id.set("-")


class Keys:
    """Asks for a key before any of the body is read.

    Args:
        config: its keys; none: every request passes.
    """

    def __init__(self, config: Config) -> None:
        # Hashed to one length, so that comparing tells nothing about a key, not even that.
        self._keys = [digest(key) for key in config.keys]

    def process_resource(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        resource: object,
        params: dict[str, Any],
    ) -> None:
        if not self._keys or not getattr(resource, "needs_key", False):
            return
        sent = digest(sent_key(req))
        # All of them, so that the time does not tell which one it was.
        if not sum(hmac.compare_digest(sent, key) for key in self._keys):
            raise Unauthorized("The API key is missing or wrong.")


def sent_key(req: falcon.Request) -> str:
    """The key a client sent, as a bearer or in a header of its own; empty: none."""
    scheme, _, key = (req.get_header("Authorization") or "").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip()
    return (req.get_header("X-API-Key") or "").strip()


def digest(key: str) -> bytes:
    """A key's hash."""
    return sha256(key.encode()).digest()
