"""One HTTP request of a user, timed: a connection of its own, no retries anybody hides.

Written on http.client, which gevent makes cooperative inside locust. HTTP libraries may send a
request again when a kept connection was closed; then the balancer's count and ours would differ.
"""

from __future__ import annotations

import http.client
import json
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.measure.load.journal import Call

TRANSCRIPTIONS = "/v1/audio/transcriptions"
BOUNDARY = "load-test-3fb1c2"


@dataclass(frozen=True)
class Answer:
    """What came back, beside the line of the journal."""

    call: Call
    retry_after_s: float = 0.0
    body: dict[str, Any] = field(default_factory=dict)


def form(audio: bytes, fields: list[tuple[str, str]]) -> bytes:
    """The multipart body with these fields and the file last."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields
    ]
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="window.wav"\r\n'
        "Content-Type: audio/wav\r\n\r\n"
    )
    return "".join([*parts, head]).encode() + audio + f"\r\n--{BOUNDARY}--\r\n".encode()


def send(
    url: str,
    body: bytes,
    *,
    user: str,
    audio_s: float,
    patience_s: float,
    headers: dict[str, str] | None = None,
    attempt: int = 1,
) -> Answer:
    """Send one form and wait for its answer, as long as the client's patience lasts.

    Args:
        url: the service.
        audio_s: how much audio is in the body, for the journal.
        patience_s: of the whole request.
    """
    began = time.monotonic()
    address = urlsplit(url)
    connection = connect(address.scheme, address.hostname or "", address.port, patience_s)
    sent = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "Connection": "close"}
    status, content, note, retry_after, left = 0, b"", "", "", False
    try:
        # Refused before all of it was sent: the answer may be there.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request("POST", TRANSCRIPTIONS, body, sent | (headers or {}))
        if connection.sock is not None:
            connection.sock.settimeout(max(0.001, patience_s - (time.monotonic() - began)))
        response = connection.getresponse()
        content = response.read()
        status, retry_after = response.status, response.headers.get("Retry-After") or ""
    except TimeoutError:
        left, note = True, "patience"
    except (OSError, http.client.HTTPException) as error:
        note = type(error).__name__
    finally:
        connection.close()
    elapsed = time.monotonic() - began
    told = parsed(content)
    if status == 200 and not left and not told:
        note = "no JSON"
    error = told.get("error")
    if isinstance(error, dict):
        note = note or str(error.get("code"))
    call = Call(user, began, elapsed, status, audio_s, left, attempt, note)
    return Answer(call, float(retry_after) if retry_after.isdigit() else 0.0, told)


def connect(
    scheme: str, host: str, port: int | None, timeout_s: float
) -> http.client.HTTPConnection:
    """A connection that is not open yet."""
    if scheme == "https":
        return http.client.HTTPSConnection(host, port, timeout=timeout_s)
    return http.client.HTTPConnection(host, port, timeout=timeout_s)


def parsed(content: bytes) -> dict[str, Any]:
    """An answer's JSON object; empty where it is none."""
    try:
        told = json.loads(content)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
