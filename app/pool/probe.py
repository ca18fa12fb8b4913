"""Ask the balancer and the workers of this machine how they are."""

from __future__ import annotations

import http.client
import json
import ssl

from app.config import Config


def balancer_status(config: Config) -> str:
    """Return the balancer's `/lb-status`; empty: no answer."""
    body = get(config.lb_port, "/lb-status", tls=bool(config.tls_certificate))
    return (body or b"").decode()


def worker_health(config: Config, port: int) -> dict[str, object]:
    """Return a worker's `/health`; empty: no answer."""
    try:
        body = json.loads(get(port, "/health", host=config.worker_address) or b"{}")
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def worker_state(config: Config, port: int) -> str:
    """Return `healthy`, or a worker's state and its reason."""
    answer = worker_health(config, port)
    if answer.get("status") == "healthy":
        return "healthy"
    return f"{answer.get('state', 'starting')}: {answer.get('reason', 'nobody answers yet')}"


def has_gateway(config: Config) -> bool:
    """Return whether the gateway of live transcription answers, if there is to be one."""
    if not config.live_max_sessions:
        return True
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
