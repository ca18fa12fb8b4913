"""Find the key that a client sent: the rules of workers and gateways.

deploy/haproxy.cfg must follow the same rules, or the balancer would accept other keys.
"""

from __future__ import annotations

import re

BEARER = re.compile(r"bearer +([^ ].*)", re.IGNORECASE | re.DOTALL)
# Query parameter names that clients use for a key.
KEY_NAMES = re.compile(
    r"(x[-_]?)?((api|access|auth|secret|bearer|client)[-_]?)?(key|token|secret)|authorization|bearer",
    re.IGNORECASE,
)


def sent_key(authorization: str, x_api_key: str) -> str:
    """Return the key sent as a bearer token or in `X-API-Key`; empty if there is none.

    Args:
        authorization: value of the header `Authorization`; empty: there is none.
        x_api_key: value of the header `X-API-Key`.
    """
    if bearer := BEARER.fullmatch(authorization):
        return bearer[1]
    return x_api_key
