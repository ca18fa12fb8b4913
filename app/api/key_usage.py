"""Count requests and audio in the metrics of each key."""

from __future__ import annotations

from app.keys.keyring import Key
from app.observability import metrics

CLASSES = ("2xx", "4xx", "5xx")


class KeyUsage:
    """Usage of one request's key; only the request's thread calls it.

    Args:
        key: The request's key; None if none is required.
    """

    def __init__(self, key: Key | None = None) -> None:
        self._key = key

    def transcribed(self, seconds: float) -> None:
        """Count transcribed audio of this length."""
        if self._key:
            metrics.KEY_AUDIO_SECONDS.labels(self._key.name).inc(seconds)

    def answered(self, status: int) -> None:
        """Count the response by the class of its status."""
        if self._key:
            metrics.KEY_REQUESTS.labels(self._key.name, f"{status // 100}xx").inc()


def count_from_zero(keys: tuple[Key, ...]) -> None:
    """Create every key's counters at 0: a rate needs a reading before the first increment."""
    for key in keys:
        metrics.KEY_AUDIO_SECONDS.labels(key.name)
        for status in CLASSES:
            metrics.KEY_REQUESTS.labels(key.name, status)
