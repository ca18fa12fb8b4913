"""What an answer says to a client that is to come again."""

from __future__ import annotations

import httpx


def retry_after_s(answer: httpx.Response) -> int:
    """Return the seconds that an answer names, alike in the three ways that clients read."""
    seconds = int(answer.headers["retry-after"])
    assert answer.headers["retry-after-ms"] == str(seconds * 1000)
    assert answer.headers["x-should-retry"] == "true"
    return seconds
