"""What every request passes: its id, its key, its line in the log."""

from __future__ import annotations

import contextlib
import logging
import re
import time
import uuid
from typing import Any

import falcon

from app.api.body import RequestBody
from app.api.event_stream import EventStream
from app.api.key_usage import KeyUsage
from app.api.read_deadline import ReadDeadlines
from app.api.spans import Spans
from app.errors import KEY_IN_URL, WRONG_KEY, KeyInUrl, ServiceError, Unauthorized
from app.keys.keyring import Keyring
from app.observability import log

logger = logging.getLogger(__name__)

SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
LEFTOVERS_S = 5.0
BEARER = re.compile(r"bearer +([^ ].*)", re.IGNORECASE | re.DOTALL)
# Names under which clients put a key into a URL.
KEY_NAMES = re.compile(
    r"(x[-_]?)?((api|access|auth|secret|bearer|client)[-_]?)?(key|token|secret)|authorization|bearer",
    re.IGNORECASE,
)
QUIET_PATHS = ("/health", "/metrics")  # asked every second


class RequestContext:
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
        method, path = req.method, req.path

        def ended() -> None:
            level = logging.DEBUG if path in QUIET_PATHS else logging.INFO
            fields = {"status": final_status(resp), **spans.fields()}
            logger.log(level, "%s %s", method, path, extra=log.with_fields(fields))
            log.request_id.set("-")

        if isinstance(resp.stream, EventStream):
            resp.stream.when_closed(ended)
        else:
            ended()


class RequestBodyMiddleware:
    """Gives every request its body, and reads what is left of one that was refused before its end.

    A connection that is closed while its client still sends is reset, and the answer is lost on
    the way; the client then sees no reason.
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
        ends = time.monotonic() + LEFTOVERS_S
        with contextlib.suppress(ServiceError):  # it has left, or is slow
            while (left_s := ends - time.monotonic()) > 0 and body.read(seconds=left_s):
                pass


class Keys:
    """Asks for a key before any of the body is read.

    A resource that needs one says so with `needs_key = True`; where no key is configured all of
    them are for everyone. Limits of keys are enforced by the balancer.

    Args:
        keyring: the keys that are valid.
    """

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        req.context.caller = KeyUsage()
        # Not looked at, so that the answer says nothing of it: wrong or right, it is known to
        # every proxy on the way.
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
        key = self._keyring.find(sent_key(req))
        if key is None:
            raise Unauthorized(WRONG_KEY)
        req.context.caller = KeyUsage(key)

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: object, succeeded: bool
    ) -> None:
        caller: KeyUsage = req.context.caller
        if isinstance(resp.stream, EventStream):
            resp.stream.when_closed(lambda: caller.answered(final_status(resp)))
        else:
            caller.answered(resp.status_code)


def final_status(resp: falcon.Response) -> int:
    """How the answer ended: a stream may fail after its first event, when its head says 200."""
    return resp.stream.status if isinstance(resp.stream, EventStream) else resp.status_code


def sent_key(req: falcon.Request) -> str:
    """The key a client sent, as a bearer or in a header of its own; empty: none.

    deploy/haproxy.cfg reads them by the same rule, or a key would be valid for one of the two.
    """
    if bearer := BEARER.fullmatch(req.get_header("Authorization") or ""):
        return bearer[1]
    return req.get_header("X-API-Key") or ""
