"""Who sent a request: whose key it was, what was transcribed for it, and what the metrics count."""

from __future__ import annotations

from app import metrics
from app.allowance import AUDIO, MAY
from app.keys import Key

CLASSES = ("2xx", "4xx", "5xx")


class Caller:
    """The sender of one request; it belongs to the request's thread.

    Args:
        key: whose it is; None where no key is asked for.
        counted: the request came through a balancer that counts what keys do.
    """

    def __init__(self, key: Key | None = None, counted: bool = False) -> None:
        self._key = key
        self._counted = counted
        self._audio_s = 0.0

    def sent(self, seconds: float) -> None:
        """The request's audio has this length; the balancer learns it with the answer's head,
        which in a stream is before the transcript's end."""
        self._audio_s = seconds

    def transcribed(self, seconds: float) -> None:
        """Audio of this length became a text."""
        if self._key:
            metrics.KEY_AUDIO_SECONDS.labels(self._key.name).inc(seconds)

    def answered(self, status: int) -> None:
        """The request got its answer."""
        if self._key:
            metrics.KEY_REQUESTS.labels(self._key.name, f"{status // 100}xx").inc()

    def headers(self, status: int) -> dict[str, str]:
        """What the balancer is told of a key that it counts; it passes none of it on."""
        if not self._key or not self._counted:
            return {}
        audio_s = self._audio_s if status == 200 else 0.0
        return {MAY: self._key.allowance.header(self._key.name), AUDIO: f"{audio_s:.2f}"}


def count_from_zero(keys: tuple[Key, ...]) -> None:
    """Have a counter for each key before it first counts: rates compare two readings."""
    for key in keys:
        metrics.KEY_AUDIO_SECONDS.labels(key.name)
        for status in CLASSES:
            metrics.KEY_REQUESTS.labels(key.name, status)
