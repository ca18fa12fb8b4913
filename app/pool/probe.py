"""Ask the balancer and the workers of this machine how they are."""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass

from app.config import Config


@dataclass(frozen=True)
class Health:
    """What a worker says of itself on `/health`.

    Attributes:
        state: `healthy`, or why it takes no requests, such as `loading` or `broken`; `starting`:
            no answer.
        reason: the same as a sentence; empty when it is healthy.
    """

    state: str
    reason: str = ""


def balancer_status(config: Config) -> str:
    """Return the balancer's `/lb-status`; empty: no answer."""
    body = get(config.lb_port, "/lb-status", tls=bool(config.tls_certificate))
    return (body or b"").decode()


def worker_health(config: Config, port: int) -> Health:
    """Return the health of the worker on this port."""
    try:
        body = json.loads(get(port, "/health", host=config.worker_address) or b"")
        state = "healthy" if body["status"] == "healthy" else str(body["state"])
        return Health(state, str(body.get("reason", "")))
    except (ValueError, LookupError, TypeError, AttributeError):  # another program's answer
        return Health("starting", f"No worker answers on port {port} yet.")


def has_gateway(config: Config) -> bool:
    """Return whether the gateway of live transcription answers."""
    return bool(get(config.live_port, "/health", host=config.worker_address))


def get(port: int, path: str, tls: bool = False, host: str = "127.0.0.1") -> bytes | None:
    """Return the response body at a path of a local port; None: no answer."""
    connection = http.client.HTTPConnection(host, port, timeout=2)
    if tls:  # unverified: the certificate is for other names than 127.0.0.1
        unchecked = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection(host, port, timeout=2, context=unchecked)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
