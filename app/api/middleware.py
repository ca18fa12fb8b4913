"""Process every request: its id, body, key and log line."""

from __future__ import annotations

import contextlib
import re
import time
import uuid
from typing import Any

import falcon

from app.api.body import RequestBody
from app.api.event_stream import EventStream
from app.api.read_deadline import ReadDeadlines
from app.api.recorder import Recorder
from app.errors import KEY_IN_URL, WRONG_KEY, KeyInUrl, ServiceError, Unauthorized
from app.keys.keyring import Keyring
from app.keys.sent import KEY_NAMES, sent_key
from app.observability import log

SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
LEFTOVERS_S = 5.0


class RequestContext:
    """Middleware that sets the request id, the client's own if valid, and logs the request."""

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        sent = req.get_header("X-Request-ID") or ""
        identifier = sent if SANE_ID.fullmatch(sent) else str(uuid.uuid4())
        log.request_id.set(identifier)
        req.context.record = Recorder(req.method, req.path)
        resp.set_header("X-Request-ID", identifier)

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: object, succeeded: bool
    ) -> None:
        record: Recorder = req.context.record
        resp.set_headers(record.headers())
        if not isinstance(resp.stream, EventStream):  # which finishes the record at its end
            record.finish(resp.status_code)


class RequestBodyMiddleware:
    """Middleware that provides the request body and reads the rest of a refused one.

    Closing a connection while its client still sends resets it, and the client loses the error
    response.
    """

    def __init__(self) -> None:
        self._slow_clients = ReadDeadlines()

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        connection = req.env.get("gunicorn.socket")
        req.context.body = RequestBody(req.stream, connection, self._slow_clients)

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: object, succeeded: bool
    ) -> None:
        if req.method != "POST" or resp.status_code < 400:
            return
        body: RequestBody = req.context.body
        deadline = time.monotonic() + LEFTOVERS_S
        with contextlib.suppress(ServiceError):  # the client disconnected, or is slow
            while (left_s := deadline - time.monotonic()) > 0 and body.read(seconds=left_s):
                pass


class Keys:
    """Middleware that checks the API key before the body is read.

    Resources with `needs_key = True` require a key, unless no key is configured. The balancer
    enforces the limits of keys.

    Args:
        keyring: The valid keys.
    """

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        # The key is not checked, so the response does not reveal whether it is valid: every proxy
        # on the path has seen it.
        if any(KEY_NAMES.fullmatch(name) for name in req.params):
            raise KeyInUrl(KEY_IN_URL)

    def process_resource(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        resource: object,
        params: dict[str, Any],
    ) -> None:
        if not self._keyring.asks or not getattr(resource, "needs_key", False):
            return
        sent = sent_key(req.get_header("Authorization") or "", req.get_header("X-API-Key") or "")
        key = self._keyring.find(sent)
        if key is None:
            raise Unauthorized(WRONG_KEY)
        req.context.record.key = key
