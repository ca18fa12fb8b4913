"""The error tree: one class for each answer a client can get.

ServiceError
  + InvalidRequest 400      + Unauthorized 401        + NotFound 404       + MethodNotAllowed 405
      + KeyInUrl            + Forbidden 403               + UnknownModel   + TooSlow 408
  + TooLarge 413            + UnsupportedBody 415     + OverLimit 429      + EngineFailed 500
  + Unavailable 503, always with Retry-After
      + Busy      + DeadlinePassed      + Draining      + NotReady      + NoRoom
      + NoDecoder + DeviceFailed
  + ClientGone              nobody is left to answer; counted, never seen
"""

from __future__ import annotations

from typing import Any


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


class TooSlow(ServiceError):
    """A body that trickles in: its client would hold a slot for as long as it likes."""

    status = 408
    type = "invalid_request_error"
    code = "request_timeout"


class Unauthorized(ServiceError):
    """No key, or a wrong one, or one that was valid once: there is no telling which."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"


class Forbidden(ServiceError):
    """A valid key that may not do this.

    Args:
        scope: what it lacks.
    """

    status = 403
    type = "invalid_request_error"
    code = "missing_scope"

    def __init__(self, scope: str) -> None:
        super().__init__(f"This key lacks the scope {scope!r}, which is needed here.")


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


class UnsupportedBody(ServiceError):
    """The body is not multipart/form-data."""

    status = 415
    type = "invalid_request_error"
    code = "unsupported_media_type"


class OverLimit(ServiceError):
    """One more than a key may: send the same request again after `Retry-After`.

    Args:
        reason: which limit, as the balancer counts it.
        retry_after_s: when there is room again.
    """

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"

    def __init__(self, message: str, reason: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_s = retry_after_s


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
    """Every slot is taken and the waiting room is full or not wanted."""


class DeadlinePassed(Unavailable):
    """The request waited for a slot as long as is useful."""

    reason = "deadline"


class Draining(Unavailable):
    """This worker is about to stop."""

    code = "server_draining"
    reason = "draining"


class NotReady(Unavailable):
    """The model is not loaded, or could not be."""

    code = "model_not_ready"
    reason = "not_ready"


class NoRoom(Unavailable):
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


class ClientGone(ServiceError):
    """The client closed its connection; its work is dropped. 499 as web servers log it."""

    status = 499
    code = "client_closed_request"
