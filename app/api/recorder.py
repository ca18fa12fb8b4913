"""Record one request for metrics, timing headers and log: its times, audio, key and outcome."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from app.engine.job import Tier
from app.errors import ClientDisconnected, ServiceError, Unavailable
from app.keys.keyring import Key
from app.observability import log, metrics

logger = logging.getLogger(__name__)

QUIET_PATHS = ("/health", "/metrics")  # requested every second
WORK = ("queue", "decode", "inference")  # stages of the real-time factor
OUTCOMES = ("2xx", "4xx", "5xx", "cancelled")


class Recorder:
    """Record of one request, and the only object that counts and logs it.

    Only the request's thread uses it. `finish` counts each request once, when its response is
    complete: a stream's at its end.

    Attributes:
        key: The request's key; None if none is required.
    """

    def __init__(self, method: str, path: str) -> None:
        self.key: Key | None = None
        self._began = time.monotonic()
        self._method, self._path = method, path
        self._stages: dict[str, float] = {}  # seconds, in the order in which they ended
        self._tier = ""  # empty until the form is valid
        self._audio_s: float | None = None
        self._error: ServiceError | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Record the duration of the block."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._stages[name] = time.monotonic() - began

    def received(self, tier: Tier) -> None:
        """Record that the form has been read and is valid."""
        self._tier = tier.value
        self._stages["receive"] = self._total_s

    def decoded(self, seconds: float) -> None:
        """Record that the upload holds this much audio."""
        self._audio_s = seconds
        metrics.AUDIO_RECEIVED_SECONDS.labels(self._tier).inc(seconds)

    def failed(self, error: ServiceError) -> None:
        """Record the error that the response reports."""
        self._error = error

    def finish(self, status: int) -> None:
        """Count and log the request.

        Args:
            status: The response's status; that of a recorded error takes precedence.
        """
        status = self._error.status if self._error else status
        if self._tier:
            metrics.ANSWERS.labels(str(status), self._tier).inc()
            if self._error:
                self._count_failure()
            else:
                self._count_success()
        if self.key:
            is_cancelled = isinstance(self._error, ClientDisconnected)
            outcome = "cancelled" if is_cancelled else f"{status // 100}xx"
            metrics.KEY_REQUESTS.labels(self.key.name, outcome).inc()
        level = logging.DEBUG if self._path in QUIET_PATHS else logging.INFO
        fields = log.with_fields({"status": status, **self._fields()})
        logger.log(level, "%s %s", self._method, self._path, extra=fields)
        log.request_id.set("-")

    def headers(self) -> dict[str, str]:
        """Return the timing headers for clients and browser tools, in milliseconds.

        Source: W3C, Server Timing; OpenAI's name for the total.
        """
        total_s = self._total_s
        stages = self._stages | {"total": total_s}
        return {
            "Server-Timing": ", ".join(f"{name};dur={s * 1000:.1f}" for name, s in stages.items()),
            "OpenAI-Processing-Ms": f"{total_s * 1000:.0f}",
        }

    @property
    def _total_s(self) -> float:
        """Return the time since the request's headers arrived."""
        return time.monotonic() - self._began

    def _count_success(self) -> None:
        seconds = self._audio_s or 0.0
        metrics.AUDIO_SECONDS.labels(self._tier).inc(seconds)
        if self.key:
            metrics.KEY_AUDIO_SECONDS.labels(self.key.name).inc(seconds)
        if seconds:
            work_s = sum(self._stages[stage] for stage in WORK)
            metrics.REAL_TIME_FACTOR.labels(self._tier).observe(work_s / seconds)
        for stage, stage_s in (self._stages | {"total": self._total_s}).items():
            metrics.STAGE_SECONDS.labels(stage).observe(stage_s)

    def _count_failure(self) -> None:
        if isinstance(self._error, Unavailable):
            metrics.REFUSED.labels(self._error.reason, self._tier).inc()
        if isinstance(self._error, ClientDisconnected):
            metrics.CANCELLED.labels(self._tier).inc()

    def _fields(self) -> log.Fields:
        """Return the log fields: seconds of audio, milliseconds of stages."""
        fields: dict[str, str | int | float] = {"elapsed_ms": round(self._total_s * 1000)}
        if self._tier:
            fields["tier"] = self._tier
        if self._audio_s is not None:
            fields["audio_s"] = round(self._audio_s, 2)
        return fields | {f"{stage}_ms": round(s * 1000) for stage, s in self._stages.items()}


def count_from_zero(keys: tuple[Key, ...]) -> None:
    """Create every key's counters at 0: a rate needs a reading before the first increment."""
    for key in keys:
        metrics.KEY_AUDIO_SECONDS.labels(key.name)
        for outcome in OUTCOMES:
            metrics.KEY_REQUESTS.labels(key.name, outcome)
