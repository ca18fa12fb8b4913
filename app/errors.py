"""The error tree: one class for each answer a client can get.

ServiceError
  + InvalidRequest 400      + Unauthorized 401          + NotFound 404       + MethodNotAllowed 405
      + KeyInUrl            + FiguresNotPublic 403          + UnknownModel   + RequestTimeout 408
      + InvalidHttp         + RateLimited 429           + TooLarge 413       + UnsupportedBody 415
  + EngineFailed 500                                        + HeadTooLarge
  + Unavailable 503, always with Retry-After
      + Busy      + Draining      + NotReady      + StorageFull
      + NoDecoder + DeviceFailed  + WorkerTimeout
  + ClientDisconnected              nobody is left to answer; counted, never seen

The balancer's errors are these too: `python -m app.errors` writes their bodies to
deploy/haproxy/errors.lua and deploy/haproxy/errors/, and a test compares the two.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# What both the balancer and the workers say.
NOTHING_HERE = "There is nothing at this path. Transcriptions are at /v1/audio/transcriptions."
WRONG_METHOD = "This method is not allowed here."
WRONG_KEY = "The API key is missing or wrong."
KEY_IN_URL = (
    "A key in the URL is not accepted, since URLs are logged on the way. Send it as "
    "Authorization: Bearer, and replace the one that was sent."
)
NOT_HTTP = "The request is not valid HTTP."
UNHEALTHY = {"status": "unhealthy", "reason": "No worker is ready."}  # the balancer's /health


class ServiceError(Exception):
    """An answer that is not a transcript.

    Args:
        message: one short sentence for a person; clients show its first 300 characters.
        param: the request's field that is wrong, when one is.
    """

    status = 500
    type = "server_error"
    code: str | None = None

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param

    def body(self) -> dict[str, Any]:
        """The OpenAI error object; clients read all four keys."""
        return error_body(self.message, self.type, self.param, self.code)


def error_body(message: str, type: str, param: str | None, code: str | None) -> dict[str, Any]:
    """The OpenAI error object."""
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


class InvalidRequest(ServiceError):
    """The client's mistake: a field, the body's form, or audio that cannot be decoded."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_value"


class KeyInUrl(InvalidRequest):
    """A key where it ends up in histories and in the logs of proxies; it is never looked at."""

    code = "key_in_url"


class InvalidHttp(InvalidRequest):
    """The request is not HTTP; it is answered by the balancer, or by the server of a worker."""

    code = "bad_request"


class RequestTimeout(ServiceError):
    """A body that trickles in: its client would hold a slot for as long as it likes."""

    status = 408
    type = "invalid_request_error"
    code = "request_timeout"


class Unauthorized(ServiceError):
    """No key, or a wrong one, or one that was valid once: there is no telling which."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"


class FiguresNotPublic(ServiceError):
    """A service that asks for a key shows its figures on the stats port alone."""

    status = 403
    type = "invalid_request_error"
    code = "figures_not_public"


class NotFound(ServiceError):
    """An unknown path, or an unknown model where models are strict."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class UnknownModel(NotFound):
    """No such model here.

    Args:
        model: what the client asked for, of any length.
    """

    code = "model_not_found"

    def __init__(self, model: str) -> None:
        super().__init__(f"The model {model[:80]!r} is not served here.", param="model")


class MethodNotAllowed(ServiceError):
    """The path is right and the method is not."""

    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class TooLarge(ServiceError):
    """Over the byte limit or the audio-duration limit."""

    status = 413
    type = "invalid_request_error"
    code = "file_too_large"


class HeadTooLarge(TooLarge):
    """A request's head over the balancer's limits."""

    code = "request_too_large"


class UnsupportedBody(ServiceError):
    """The body is not multipart/form-data."""

    status = 415
    type = "invalid_request_error"
    code = "unsupported_media_type"


class RateLimited(ServiceError):
    """One request more than a key, or an address, may send: answered by the balancer alone, which
    counts over all workers. Send the same request again after `Retry-After`."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class EngineFailed(ServiceError):
    """A bug; the cause is logged, never shown."""

    code = "internal_error"


class Unavailable(ServiceError):
    """Not now: send the same request again after `Retry-After`."""

    status = 503
    code = "server_busy"
    # Why it was refused, as the metrics count it.
    reason = "busy"


class Busy(Unavailable):
    """Every slot is taken, or the memory for decoded audio."""


class Draining(Unavailable):
    """This worker is about to stop."""

    code = "server_draining"
    reason = "draining"


class NotReady(Unavailable):
    """The model is not loaded, or could not be."""

    code = "model_not_ready"
    reason = "not_ready"


class StorageFull(Unavailable):
    """The disk for large uploads is full."""

    code = "storage_full"
    reason = "no_room"


class NoDecoder(Unavailable):
    """No process to decode uploads in could be started."""

    code = "decoder_unavailable"
    reason = "no_decoder"


class DeviceFailed(Unavailable):
    """The device failed, not what it was given: the balancer sends the request to another worker,
    and where none is left the client does."""

    code = "worker_failed"
    reason = "worker_failed"


class WorkerTimeout(Unavailable):
    """The worker did not answer within the time of the longest recording."""

    code = "worker_timeout"
    reason = "worker_timeout"


class ClientDisconnected(ServiceError):
    """The client closed its connection; its work is dropped. 499 as web servers log it."""

    status = 499
    code = "client_closed_request"


# What the balancer answers by itself, by the name that deploy/haproxy.cfg has for it. Refusals
# (429 and 503) are counted by these names.
OF_THE_BALANCER: Mapping[str, ServiceError] = {
    "not_found": NotFound(NOTHING_HERE),
    "method_not_allowed": MethodNotAllowed(WRONG_METHOD),
    "key_in_url": KeyInUrl(KEY_IN_URL),
    "figures_not_public": FiguresNotPublic(
        "This service asks for a key, so its figures are on the stats port alone, at the same path."
    ),
    "invalid_api_key": Unauthorized(WRONG_KEY),
    "file_too_large": TooLarge("The upload is larger than this service accepts.", param="file"),
    "rate_limit": RateLimited(
        "Too many requests in the last minute. Send the request again later."
    ),
    "key_rate": RateLimited(
        "This key has sent its requests of this minute. Send the request again later."
    ),
    "key_concurrency": RateLimited(
        "This key has all its requests in progress. Send the request again later."
    ),
    "busy": Busy("Too many requests are on their way. Send the request again."),
    "no_worker": NotReady("No worker is ready. Send the request again."),
}

# Where HAProxy itself gives a request up: `http-error` in deploy/haproxy.cfg.
BY_STATUS: Mapping[int, ServiceError] = {
    400: InvalidHttp(NOT_HTTP),
    408: RequestTimeout("The request did not arrive in time."),
    413: HeadTooLarge("The request is larger than this service accepts."),
    502: DeviceFailed("A worker failed while it handled this request. Send it again."),
    503: Unavailable("All workers are busy or down. Send the request again."),
    504: WorkerTimeout("The worker did not answer in time. Send the request again."),
}


def balancers_files() -> dict[str, str]:
    """The files of the balancer's errors: their names under deploy/haproxy/, and what they hold."""
    lines = [
        "-- Written by `python -m app.errors`: the errors that the balancer answers by itself."
    ]
    lines.append("return {")
    for name, error in OF_THE_BALANCER.items():
        body = json.dumps(error.body())
        lines.append(f"  {name} = {{ status = {error.status}, code = {json.dumps(error.code)},")
        lines.append(f"    body = [[{body}]] }},")
    health = json.dumps(UNHEALTHY)
    lines.append(f"  health = {{ status = 503, code = 'no_worker', body = [[{health}]] }},")
    lines.append("}")
    files = {"errors.lua": "\n".join(lines) + "\n"}
    for status, error in BY_STATUS.items():
        files[f"errors/{status}.json"] = json.dumps(error.body()) + "\n"
    return files


if __name__ == "__main__":
    folder = Path(__file__).resolve().parent.parent / "deploy" / "haproxy"
    (folder / "errors").mkdir(exist_ok=True)
    for name, text in balancers_files().items():
        (folder / name).write_text(text)
