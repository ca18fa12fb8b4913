"""Create client secrets: short-lived tokens with which a browser opens a live session."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import falcon

from app.api.body import RequestBody
from app.config import Config
from app.errors import InvalidRequest, TooLarge
from app.keys import passes
from app.live.client_secret import DEFAULT_S, LEAST_S, MOST_S, Grant, sign
from app.live.events import new_id
from app.live.options import Options, an_object

MOST_BODY_BYTES = 64 << 10


class ClientSecrets:
    """Resource of `POST /v1/realtime/client_secrets`, and of the earlier
    `POST /v1/realtime/transcription_sessions`.

    Args:
        config: The settings.
        earlier: The answer has the earlier shape.
    """

    needs_key = True

    def __init__(self, config: Config, earlier: bool = False) -> None:
        self._config = config
        self._earlier = earlier

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        body = read_json(req.context.body)
        session = body if self._earlier else body.get("session") or {}
        options = Options().updated(session)
        key = req.context.record.key
        anchor = body.get("client_secret") if self._earlier else body
        expires_at = int(time.time()) + lifetime(an_object(anchor or {}, "client_secret"))
        grant = Grant(key and key.name, expires_at, options.shown())
        value = sign(passes.shared_secret(self._config), grant)
        identity = {"id": new_id("sess"), "object": "realtime.transcription_session"}
        if self._earlier:
            secret = {"value": value, "expires_at": expires_at}
            resp.media = identity | options.shown_earlier() | {"client_secret": secret}
        else:
            session = identity | options.shown() | {"expires_at": expires_at}
            resp.media = {"value": value, "expires_at": expires_at, "session": session}
        resp.cache_control = ["no-store"]


def read_json(body: RequestBody) -> Mapping[str, Any]:
    """Return the JSON object of a body; an empty body counts as an empty object.

    Raises:
        TooLarge: It is longer than any real one.
        InvalidRequest: It is not a JSON object.
    """
    content = b""
    while piece := body.read(MOST_BODY_BYTES):
        content += piece
        if len(content) > MOST_BODY_BYTES:
            raise TooLarge(f"The body is larger than {MOST_BODY_BYTES} bytes.")
    try:
        return an_object(json.loads(content or b"{}"), "body")
    except (ValueError, RecursionError):
        raise InvalidRequest("The body is not valid JSON.") from None


def lifetime(anchor: Mapping[str, Any]) -> int:
    """Return a client secret's lifetime in seconds, from its member `expires_after` or, in the
    earlier shape, `expires_at`."""
    wanted = anchor.get("expires_after") or anchor.get("expires_at") or {}
    seconds = an_object(wanted, "expires_after").get("seconds", DEFAULT_S)
    if not isinstance(seconds, int) or not LEAST_S <= seconds <= MOST_S:
        raise InvalidRequest(
            f"expires_after.seconds must be a whole number from {LEAST_S} to {MOST_S}.",
            param="expires_after.seconds",
        )
    return seconds
