"""Define the error tree: one class for each error response.

ServiceError
  + InvalidRequest 400      + Unauthorized 401          + NotFound 404       + MethodNotAllowed 405
      + KeyInUrl                                            + UnknownModel   + RequestTimeout 408
      + InvalidHttp         + RateLimited 429           + TooLarge 413       + UnsupportedBody 415
  + EngineFailed 500                                        + HeadTooLarge
  + Unavailable 503, always with Retry-After
      + Busy      + Draining      + NotReady      + StorageFull
      + NoDecoder + DeviceFailed  + WorkerTimeout
  + ClientDisconnected              no client is left to respond to; only counted

The balancer sends the same errors: `python -m app.errors` writes their bodies to
deploy/haproxy/errors.lua and deploy/haproxy/errors/, and a test compares the two.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Messages that the balancer and the workers share.
NOTHING_HERE = "Unknown path. Send audio to /v1/audio/transcriptions."
WRONG_METHOD = "This method is not allowed here."
WRONG_KEY = "The API key is missing or invalid. Send it as Authorization: Bearer KEY."
KEY_IN_URL = (
    "A key in the URL is not accepted, because proxies log URLs. Send it as Authorization: Bearer "
    "KEY, and replace the key that was sent."
)
NOT_HTTP = "The request is not valid HTTP."
UNHEALTHY = {"status": "unhealthy", "reason": "No worker is ready."}  # the balancer's /health


class ServiceError(Exception):
    """Base class of every error response.

    Args:
        message: One short sentence for a person; clients show its first 300 characters.
        param: The invalid request field, if the error is about one.
    """

    status = 500
    type = "server_error"
    code: str | None = None

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param

    def body(self) -> dict[str, Any]:
        """Return the OpenAI error object; clients read all four keys."""
        return error_body(self.message, self.type, self.param, self.code)


def error_body(message: str, type: str, param: str | None, code: str | None) -> dict[str, Any]:
    """Return the OpenAI error object."""
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


class InvalidRequest(ServiceError):
    """Client error: an invalid field, a malformed body, or audio that cannot be decoded."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_value"


class KeyInUrl(InvalidRequest):
    """API key in the URL, which histories and proxy logs keep; the key is never checked."""

    code = "key_in_url"


class InvalidHttp(InvalidRequest):
    """Request that is not valid HTTP; sent by the balancer or by a worker's server."""

    code = "bad_request"


class RequestTimeout(ServiceError):
    """Body that arrives too slowly; its client would hold a slot indefinitely."""

    status = 408
    type = "invalid_request_error"
    code = "request_timeout"


class Unauthorized(ServiceError):
    """Missing, wrong or revoked key; the response does not reveal which."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"


class NotFound(ServiceError):
    """Unknown path, or unknown model if `STRICT_MODEL` is set."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class UnknownModel(NotFound):
    """Model that is not served here.

    Args:
        model: The requested name, of any length.
    """

    code = "model_not_found"

    def __init__(self, model: str) -> None:
        super().__init__(f"The model {model[:80]!r} is not served here.", param="model")


class MethodNotAllowed(ServiceError):
    """Method that a known path does not allow."""

    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class TooLarge(ServiceError):
    """Upload over the byte limit or the audio-duration limit."""

    status = 413
    type = "invalid_request_error"
    code = "file_too_large"


class HeadTooLarge(TooLarge):
    """Request line and headers over the balancer's limits."""

    code = "request_too_large"


class UnsupportedBody(ServiceError):
    """Body that is not multipart/form-data."""

    status = 415
    type = "invalid_request_error"
    code = "unsupported_media_type"


class RateLimited(ServiceError):
    """Rate limit of a key or an address; send the same request again after `Retry-After`.

    Only the balancer sends it, since it counts over all workers.
    """

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class EngineFailed(ServiceError):
    """Bug in the service; the cause is logged, never sent."""

    code = "internal_error"


BUG = EngineFailed("The service failed; this is a bug.")  # for an unhandled exception


class Unavailable(ServiceError):
    """Temporary failure; send the same request again after `Retry-After`."""

    status = 503
    code = "server_busy"
    # The metrics' label for refusals.
    reason = "busy"


class Busy(Unavailable):
    """No free slot, or no memory left for decoded audio."""


class Draining(Unavailable):
    """Worker that drains before it stops."""

    code = "server_draining"
    reason = "draining"


class NotReady(Unavailable):
    """Model that is still loading, or failed to load."""

    code = "model_not_ready"
    reason = "not_ready"


class StorageFull(Unavailable):
    """Full disk for large uploads."""

    code = "storage_full"
    reason = "no_room"


class NoDecoder(Unavailable):
    """Failure to start a process that decodes uploads."""

    code = "decoder_unavailable"
    reason = "no_decoder"


class DeviceFailed(Unavailable):
    """Failure of the device, not of its input.

    The balancer retries on another worker; if none is left, the client should retry.
    """

    code = "worker_failed"
    reason = "worker_failed"


class WorkerTimeout(Unavailable):
    """Worker that did not respond within the time limit for the longest recording."""

    code = "worker_timeout"
    reason = "worker_timeout"


class ClientDisconnected(ServiceError):
    """Client that closed its connection; its work is dropped. nginx logs it as 499 too."""

    status = 499
    code = "client_closed_request"


# Errors that the balancer sends itself, by their names in deploy/haproxy.cfg. Refusals (429 and
# 503) are counted by these names.
OF_THE_BALANCER: Mapping[str, ServiceError] = {
    "not_found": NotFound(NOTHING_HERE),
    "method_not_allowed": MethodNotAllowed(WRONG_METHOD),
    "key_in_url": KeyInUrl(KEY_IN_URL),
    "invalid_api_key": Unauthorized(WRONG_KEY),
    "file_too_large": TooLarge("The upload is larger than this service accepts.", param="file"),
    "rate_limit": RateLimited(
        "Too many requests in the last minute. Send the request again later."
    ),
    "key_rate": RateLimited(
        "This key has reached its requests per minute. Send the request again later."
    ),
    "key_concurrency": RateLimited(
        "This key has reached its concurrent requests. Send the request again later."
    ),
    "busy": Busy("Too many requests are in progress. Send the request again."),
    "no_worker": NotReady("No worker is ready. Send the request again."),
}

# Errors that HAProxy raises internally: `http-error` in deploy/haproxy.cfg.
BY_STATUS: Mapping[int, ServiceError] = {
    400: InvalidHttp(NOT_HTTP),
    408: RequestTimeout("The request did not arrive in time."),
    413: HeadTooLarge("The request is larger than this service accepts."),
    502: DeviceFailed("A worker failed while it handled this request. Send it again."),
    503: Unavailable("All workers are busy or down. Send the request again."),
    504: WorkerTimeout("The worker did not answer in time. Send the request again."),
}


def balancers_files() -> dict[str, str]:
    """Return the balancer's error files: name under deploy/haproxy/ to content."""
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
