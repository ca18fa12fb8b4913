"""Where one request's time goes: kept by its thread, shown in its headers, log line and metrics."""

from __future__ import annotations

import time

from app.observability import log, metrics


class Spans:
    """The stages of one request, in seconds, in the order in which they ended."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._seconds: dict[str, float] = {}
        self._subject: dict[str, str | int | float] = {}

    @property
    def total_s(self) -> float:
        """From the request's headers until now."""
        return time.monotonic() - self._began

    def note(self, stage: str, seconds: float) -> None:
        """A stage has ended."""
        self._seconds[stage] = seconds

    def about(self, subject: log.Fields) -> None:
        """What the log line says of the request besides, such as its tier."""
        self._subject |= subject

    def observe(self) -> None:
        """The request succeeded: count its stages and the whole."""
        for stage, seconds in (self._seconds | {"total": self.total_s}).items():
            metrics.STAGE_SECONDS.labels(stage).observe(seconds)

    def headers(self) -> dict[str, str]:
        """What clients and browsers' tools read; milliseconds.

        Source: W3C, Server Timing; and OpenAI's name for the total.
        """
        total_s = self.total_s
        stages = self._seconds | {"total": total_s}
        return {
            "Server-Timing": ", ".join(f"{name};dur={s * 1000:.1f}" for name, s in stages.items()),
            "OpenAI-Processing-Ms": f"{total_s * 1000:.0f}",
        }

    def fields(self) -> log.Fields:
        """For the log line: seconds of audio, milliseconds of stages."""
        stages = {f"{stage}_ms": round(s * 1000) for stage, s in self._seconds.items()}
        return {"elapsed_ms": round(self.total_s * 1000), **self._subject, **stages}
