"""What an answer says to a client that is to come again."""

from __future__ import annotations

import math

import httpx


def retry_after_s(answer: httpx.Response) -> int:
    """Return the seconds that an answer names, alike in the three ways that clients read."""
    seconds = int(answer.headers["retry-after"])
    assert seconds == math.ceil(int(answer.headers["retry-after-ms"]) / 1000)
    assert answer.headers["x-should-retry"] == "true"
    return seconds
