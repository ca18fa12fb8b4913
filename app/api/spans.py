"""Record the time of each stage of a request for its headers, log line and metrics."""

from __future__ import annotations

import time

from app.observability import log, metrics


class Spans:
    """Durations of one request's stages, in the order in which they ended."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._seconds: dict[str, float] = {}
        self._subject: dict[str, str | int | float] = {}

    @property
    def total_s(self) -> float:
        """Return the time since the request's headers arrived."""
        return time.monotonic() - self._began

    def note(self, stage: str, seconds: float) -> None:
        """Record the duration of a finished stage."""
        self._seconds[stage] = seconds

    def about(self, subject: log.Fields) -> None:
        """Add fields to the log line, such as the request's tier."""
        self._subject |= subject

    def observe(self) -> None:
        """Observe the stages and the total of a successful request in the metrics."""
        for stage, seconds in (self._seconds | {"total": self.total_s}).items():
            metrics.STAGE_SECONDS.labels(stage).observe(seconds)

    def headers(self) -> dict[str, str]:
        """Return the timing headers for clients and browser tools, in milliseconds.

        Source: W3C, Server Timing; OpenAI's name for the total.
        """
        total_s = self.total_s
        stages = self._seconds | {"total": total_s}
        return {
            "Server-Timing": ", ".join(f"{name};dur={s * 1000:.1f}" for name, s in stages.items()),
            "OpenAI-Processing-Ms": f"{total_s * 1000:.0f}",
        }

    def fields(self) -> log.Fields:
        """Return the log fields: seconds of audio, milliseconds of stages."""
        stages = {f"{stage}_ms": round(s * 1000) for stage, s in self._seconds.items()}
        return {"elapsed_ms": round(self.total_s * 1000), **self._subject, **stages}
