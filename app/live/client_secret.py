"""Sign and check client secrets: short-lived tokens with which a browser opens a session.

A client secret holds its session's options, its expiry and the name of the key that asked for it,
signed with the secret that all workers and gateways share (`app/keys/passes.py`). So nobody has to
remember it.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import time
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from app.errors import InvalidRequest

PREFIX = "ek_"
DEFAULT_S, LEAST_S, MOST_S = 600, 10, 7200  # OpenAI's
# A browser sends it in a header; the gateway accepts header lines of 8192 bytes.
MOST_BYTES = 6000
PURPOSE = b"client secret:"


@dataclass(frozen=True, slots=True)
class Grant:
    """What a client secret allows.

    Attributes:
        name: the key's name; None: the service asked for no key.
        expires_at: seconds since 1970, until which a session may begin.
        session: its options, in the current shape.
    """

    name: str | None
    expires_at: int
    session: dict[str, Any]


def sign(secret: bytes, grant: Grant) -> str:
    """Return a grant's client secret.

    Raises:
        InvalidRequest: the session's options are too long.
    """
    text = json.dumps([grant.name, grant.expires_at, grant.session], separators=(",", ":"))
    token = f"{PREFIX}{encoded(text.encode())}.{encoded(mac(secret, text.encode()))}"
    if len(token) > MOST_BYTES:
        raise InvalidRequest(
            "The session's prompt or keywords are too long for a client secret; send them in a "
            "session.update event.",
            param="session",
        )
    return token


def check(secret: bytes, token: str) -> Grant | None:
    """Return a client secret's grant; None: it is invalid or has expired."""
    body, _, signature = token.removeprefix(PREFIX).partition(".")
    try:
        text = decoded(body)
        is_signed = hmac.compare_digest(mac(secret, text), decoded(signature))
    except (ValueError, binascii.Error):
        return None
    if not is_signed:
        return None
    grant = Grant(*json.loads(text))
    return grant if time.time() < grant.expires_at else None


def mac(secret: bytes, text: bytes) -> bytes:
    """Return a text's signature."""
    return hmac.digest(secret, PURPOSE + text, sha256)


def encoded(content: bytes) -> str:
    """Return base64 for URLs, without padding: subprotocols may not contain `=`."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    """Return the content of base64 without padding."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
