"""Who sent a request: whose key it was, and what the metrics count for it."""

from __future__ import annotations

from app.keys.keyring import Key
from app.observability import metrics

CLASSES = ("2xx", "4xx", "5xx")


class KeyUsage:
    """The sender of one request; it belongs to the request's thread.

    Args:
        key: whose it is; None where no key is asked for.
    """

    def __init__(self, key: Key | None = None) -> None:
        self._key = key

    def transcribed(self, seconds: float) -> None:
        """Audio of this length became a text."""
        if self._key:
            metrics.KEY_AUDIO_SECONDS.labels(self._key.name).inc(seconds)

    def answered(self, status: int) -> None:
        """The request got its answer."""
        if self._key:
            metrics.KEY_REQUESTS.labels(self._key.name, f"{status // 100}xx").inc()


def count_from_zero(keys: tuple[Key, ...]) -> None:
    """Have a counter for each key before it first counts: rates compare two readings."""
    for key in keys:
        metrics.KEY_AUDIO_SECONDS.labels(key.name)
        for status in CLASSES:
            metrics.KEY_REQUESTS.labels(key.name, status)
